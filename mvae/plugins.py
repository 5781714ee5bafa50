"""Plug-ins: Python files outside the package that add data sets and arms to it, in every process of a sweep.

A file calls `mvae.data.add(Source(...))` or `mvae.models.add(Arm(...))` (docs/extend/). The driver reads the files that
--plugins names and runs them before it looks at anything else. Trial processes, on whatever machine, are sent their
content with the job and run that, so a file need not lie where they are; it stands alone, which means that it imports
what is installed and no file beside it.

What comes from outside is watched: an error in it becomes one line that names file and line, and an arm sees the fields
of a trial that it says it reads, and no others, since those alone are in the key.
"""

import hashlib
import linecache
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from mvae.data import DATASETS, Source
from mvae.models import ARMS
from mvae.models.arm import Arm, check_arm
from mvae.refusal import Refusal
from mvae.trial import Trial

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Plugin:
    """One file; a plain value, so that it can be sent anywhere."""

    path: Path
    """Absolute, on the driver's machine."""
    content: bytes

    @property
    def digest(self) -> str:
        """Hex sha256 of its content: it says in results by which state of the file they were made."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def module(self) -> str:
        return f"mvae_plugin_{self.digest[:16]}"


@dataclass(frozen=True)
class _Added:
    plugin: Plugin
    datasets: frozenset[str]
    arms: frozenset[str]


_ADDED: dict[str, _Added] = {}
"""By digest, in the order in which they were loaded: the plug-ins of this process."""


def read(paths: Iterable[Path]) -> tuple[Plugin, ...]:
    """The files as they are now.

    Raises:
        Refusal: one line: a file cannot be read.
    """
    found = []
    for path in paths:
        try:
            found.append(Plugin(path.absolute(), path.read_bytes()))
        except OSError as error:
            raise Refusal(f"{path}: {error.strerror}; write paths of Python files") from None
    return tuple(found)


def load(plugins: Iterable[Plugin]) -> None:
    """Runs the plug-ins that this process has not run yet; one that fails leaves nothing behind.

    Raises:
        Refusal: one line that names file and line: what was raised in it, or what it adds cannot be taken.
    """
    for plugin in plugins:
        if plugin.digest not in _ADDED:
            _ADDED[plugin.digest] = _run(plugin)


def loaded() -> tuple[Plugin, ...]:
    """The plug-ins of this process."""
    return tuple(added.plugin for added in _ADDED.values())


def modules() -> list[ModuleType]:
    """Their modules."""
    return [sys.modules[plugin.module] for plugin in loaded()]


def forget() -> None:
    """Takes back what plug-ins have added to this process: for one that stands for several, as a test's does."""
    for added in _ADDED.values():
        _take_back(added)
    _ADDED.clear()


def made_by(trial: Trial) -> dict[str, str]:
    """File name to digest of the plug-ins that a trial's data set and arm come from; none where they are our own."""
    return {
        added.plugin.path.name: added.plugin.digest
        for added in _ADDED.values()
        if trial.dataset in added.datasets or trial.model in added.arms
    }


def _run(plugin: Plugin) -> _Added:
    datasets, arms = set(DATASETS), set(ARMS)
    module = ModuleType(plugin.module)
    module.__file__ = str(plugin.path)
    sys.modules[plugin.module] = module  # dataclasses look their module up
    lines = plugin.content.decode(errors="replace").splitlines(keepends=True)
    linecache.cache[str(plugin.path)] = (len(plugin.content), None, lines, str(plugin.path))  # for tracebacks
    try:
        exec(compile(plugin.content, str(plugin.path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        added = _Added(plugin, frozenset(DATASETS.keys() - datasets), frozenset(ARMS.keys() - arms))
        if not (added.datasets or added.arms):
            raise Refusal("it adds no data set and no arm: call mvae.data.add(Source(...)) or mvae.models.add(...)")
        for token in added.arms:
            check_arm(ARMS[token])
    except BaseException as error:
        _take_back(_Added(plugin, frozenset(DATASETS.keys() - datasets), frozenset(ARMS.keys() - arms)))
        if isinstance(error, Exception | SystemExit):
            raise _in_words(error, plugin) from None
        raise
    for name in added.datasets:
        DATASETS[name] = _watched_source(DATASETS[name], plugin)
    for token in added.arms:
        ARMS[token] = _watched_arm(ARMS[token])
    return added


def _take_back(added: _Added) -> None:
    for name in added.datasets:
        del DATASETS[name]
    for token in added.arms:
        del ARMS[token]
    del sys.modules[added.plugin.module]


def _in_words(error: BaseException, plugin: Plugin) -> Refusal:
    """What was raised in a plug-in, as one line: path/to/file.py, line 7: NameError: name 'x' is not defined."""
    if isinstance(error, SyntaxError) and error.filename == str(plugin.path):
        line, said = error.lineno, f"{type(error).__name__}: {error.msg}"
    else:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(plugin.path)]
        line = own[-1].lineno if own else None
        said = " ".join(str(error).split())
        if isinstance(error, SystemExit):
            said = "it ends the process: a plug-in adds data sets and arms, a pipeline of one's own is run by itself"
        elif not isinstance(error, Refusal):
            said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return Refusal(f"{plugin.path}{f', line {line}' if line else ''}: {said}")


def _watched_source(found: Source, plugin: Plugin) -> Source:
    """The same data set, whose functions raise Refusal, one line, whatever is wrong in them."""

    def watched(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
        @wraps(function)
        def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Answer:
            try:
                return function(*arguments, **named)
            except Refusal:
                raise
            except Exception as error:
                raise _in_words(error, plugin) from error

        return call

    def digest(root: Path) -> str:
        given = watched(found.digest)(root)
        if not isinstance(given, str):
            raise Refusal(f"data set {found.name}: digest gives a text (hexdigest), not {type(given).__name__}")
        return given

    return replace(
        found,
        check=watched(found.check),
        digest=digest,
        examples=watched(found.examples),
        convert=watched(found.convert),
        prepare=found.prepare and watched(found.prepare),
        download=found.download and watched(found.download),
        remembered_digest=found.remembered_digest and watched(found.remembered_digest),
        former_digest=found.former_digest and watched(found.former_digest),
        facts=found.facts and watched(found.facts),
        code=plugin.digest,
    )


class _Narrowed:
    """A trial that shows the fields which its arm says it reads, and no others."""

    def __init__(self, trial: Trial, chosen: Arm) -> None:
        self._trial, self._arm = trial, chosen

    def __getattr__(self, name: str) -> Any:
        if name in Trial.model_fields and name not in self._arm.reads:
            raise AttributeError(
                f"arm {self._arm.token} looks at trial.{name}, which is not among its reads: add it there, since trials"
                " that differ in what an arm does not read share one key"
            )
        return getattr(self._trial, name)


def _watched_arm(chosen: Arm) -> Arm:
    """The same arm, whose functions see of a trial what the arm reads."""

    def narrowed(function: Callable[..., Answer], place: int) -> Callable[..., Answer]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Answer:
            seen = [*arguments]
            seen[place] = _Narrowed(seen[place], chosen)
            return function(*seen, **named)

        return call

    return replace(
        chosen,
        build=narrowed(chosen.build, 0),
        learner=chosen.learner and narrowed(chosen.learner, 1),
        fit=chosen.fit and narrowed(chosen.fit, 1),
        watch=chosen.watch and narrowed(chosen.watch, 1),
    )
