"""Loads plug-ins: Python files outside the package that add data sets, arms and measures to a sweep.

A plug-in calls `mvae.data.add(Source(...))` or `mvae.models.add(Arm(...))` (docs/extend/). The driver runs the files
given by --plugins before anything else. The driver sends the files' content with each job, and trial processes on any
machine run that content. So plug-in files need not exist on those machines. But a plug-in can import only installed
packages, not other files next to the plug-in.

The functions of a plug-in are wrapped. So an error in a plug-in becomes one line with file and line number. And an arm
can read only those fields of a trial that are listed in the arm's `reads`, because only these fields are in the key.
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
from mvae.measure import OWN
from mvae.models import ARMS
from mvae.models.arm import Arm, check_arm
from mvae.refusal import Refusal
from mvae.trial import Trial

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Plugin:
    """A plug-in file, as a value that can be pickled and sent to other machines."""

    path: Path
    """Absolute path on the driver's machine."""
    content: bytes

    @property
    def digest(self) -> str:
        """Hex sha256 of the content. Results store this digest to record which version of the file produced them."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def module(self) -> str:
        return f"mvae_plugin_{self.digest[:16]}"


@dataclass(frozen=True)
class _Added:
    plugin: Plugin
    datasets: frozenset[str]
    arms: frozenset[str]
    measures: frozenset[tuple[str, int]]


_ADDED: dict[str, _Added] = {}
"""The plug-ins loaded in this process, by digest, in loading order."""


def read(paths: Iterable[Path]) -> tuple[Plugin, ...]:
    """Reads plug-in files without running them.

    Raises:
        Refusal: a file cannot be read.
    """
    found = []
    for path in paths:
        try:
            found.append(Plugin(path.absolute(), path.read_bytes()))
        except OSError as error:
            raise Refusal(f"{path}: {error.strerror}; give paths of Python files") from None
    return tuple(found)


def load(plugins: Iterable[Plugin]) -> None:
    """Runs the plug-ins that this process has not run yet. A plug-in that fails adds nothing.

    Raises:
        Refusal: a plug-in raised an exception or added an invalid data set or arm; the message names file and line.
    """
    for plugin in plugins:
        if plugin.digest not in _ADDED:
            _ADDED[plugin.digest] = _run(plugin)


def loaded() -> tuple[Plugin, ...]:
    """Returns the plug-ins loaded in this process."""
    return tuple(added.plugin for added in _ADDED.values())


def modules() -> list[ModuleType]:
    """Returns the modules of the plug-ins loaded in this process."""
    return [sys.modules[plugin.module] for plugin in loaded()]


def forget() -> None:
    """Removes all plug-ins, with the data sets and arms that they added, from this process. For tests."""
    for added in _ADDED.values():
        _remove(added)
    _ADDED.clear()


def made_by(trial: Trial) -> dict[str, str]:
    """Returns the file name and digest of each plug-in that added the trial's data set or arm."""
    return {
        added.plugin.path.name: added.plugin.digest
        for added in _ADDED.values()
        if trial.dataset in added.datasets or trial.model in added.arms
    }


def _run(plugin: Plugin) -> _Added:
    datasets, arms, measures = set(DATASETS), set(ARMS), set(OWN)

    def added_so_far() -> _Added:
        new = (frozenset(DATASETS.keys() - datasets), frozenset(ARMS.keys() - arms), frozenset(OWN.keys() - measures))
        return _Added(plugin, *new)

    module = ModuleType(plugin.module)
    module.__file__ = str(plugin.path)
    sys.modules[plugin.module] = module  # dataclasses look up their module here
    lines = plugin.content.decode(errors="replace").splitlines(keepends=True)
    linecache.cache[str(plugin.path)] = (len(plugin.content), None, lines, str(plugin.path))  # for tracebacks
    try:
        exec(compile(plugin.content, str(plugin.path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        added = added_so_far()
        if not (added.datasets or added.arms or added.measures):
            raise Refusal(
                "adds no data set, arm or measure: call mvae.data.add(Source(...)), mvae.models.add(Arm(...))"
                " or mvae.measure.add(...)"
            )
        for token in added.arms:
            check_arm(ARMS[token])
    except BaseException as error:
        _remove(added_so_far())
        if isinstance(error, Exception | SystemExit):
            raise _refusal(error, plugin) from None
        raise
    for name in added.datasets:
        DATASETS[name] = _wrapped_source(DATASETS[name], plugin)
    for token in added.arms:
        ARMS[token] = _wrapped_arm(ARMS[token])
    for name, version in added.measures:
        own = OWN[name, version]
        OWN[name, version] = replace(own, compute=_one_line_errors(own.compute, plugin))
    return added


def _remove(added: _Added) -> None:
    for name in added.datasets:
        del DATASETS[name]
    for token in added.arms:
        del ARMS[token]
    for measure in added.measures:
        del OWN[measure]
    del sys.modules[added.plugin.module]


def _refusal(error: BaseException, plugin: Plugin) -> Refusal:
    """Converts a plug-in's error to a one-line Refusal: path/to/file.py, line 7: NameError: name 'x' is not defined."""
    if isinstance(error, SyntaxError) and error.filename == str(plugin.path):
        line, message = error.lineno, f"{type(error).__name__}: {error.msg}"
    else:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(plugin.path)]
        line = own[-1].lineno if own else None
        message = " ".join(str(error).split())
        if isinstance(error, SystemExit):
            message = "exits the process: only add data sets and arms in a plug-in, and run your own pipeline directly"
        elif not isinstance(error, Refusal):
            message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return Refusal(f"{plugin.path}{f', line {line}' if line else ''}: {message}")


def _one_line_errors(function: Callable[Arguments, Answer], plugin: Plugin) -> Callable[Arguments, Answer]:
    """Wraps a function: every error becomes a one-line Refusal that names the plug-in's file and line."""

    @wraps(function)
    def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Answer:
        try:
            return function(*arguments, **named)
        except Refusal:
            raise
        except Exception as error:
            raise _refusal(error, plugin) from error

    return call


def _wrapped_source(source: Source, plugin: Plugin) -> Source:
    """Wraps the functions of a data set: every error becomes a one-line Refusal."""

    def wrapped(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
        return _one_line_errors(function, plugin)

    def digest(root: Path) -> str:
        value = wrapped(source.digest)(root)
        if not isinstance(value, str):
            raise Refusal(
                f"data set {source.name}: digest returned {type(value).__name__}: return a str, for example hexdigest()"
            )
        return value

    return replace(
        source,
        check=wrapped(source.check),
        digest=digest,
        examples=wrapped(source.examples),
        convert=wrapped(source.convert),
        prepare=source.prepare and wrapped(source.prepare),
        download=source.download and wrapped(source.download),
        remembered_digest=source.remembered_digest and wrapped(source.remembered_digest),
        former_digest=source.former_digest and wrapped(source.former_digest),
        facts=source.facts and wrapped(source.facts),
        code=plugin.digest,
    )


class _RestrictedTrial:
    """Wraps a trial, so that an arm can read only the fields listed in the arm's `reads`."""

    def __init__(self, trial: Trial, arm: Arm) -> None:
        self._trial, self._arm = trial, arm

    def __getattr__(self, name: str) -> Any:
        if name in Trial.model_fields and name not in self._arm.reads:
            raise AttributeError(
                f"arm {self._arm.token} reads trial.{name}, which is not in its `reads`: add it there, because trials"
                " that differ only in a field outside `reads` share one key"
            )
        return getattr(self._trial, name)


def _wrapped_arm(arm: Arm) -> Arm:
    """Wraps the functions of an arm, so that they can read only the trial fields listed in the arm's `reads`."""

    def restricted(function: Callable[..., Answer], position: int) -> Callable[..., Answer]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Answer:
            changed = [*arguments]
            changed[position] = _RestrictedTrial(changed[position], arm)
            return function(*changed, **named)

        return call

    return replace(
        arm,
        build=restricted(arm.build, 0),
        learner=arm.learner and restricted(arm.learner, 1),
        fit=arm.fit and restricted(arm.fit, 1),
        watch=arm.watch and restricted(arm.watch, 1),
        optimiser=arm.optimiser and restricted(arm.optimiser, 1),
        schedule=arm.schedule and restricted(arm.schedule, 2),
    )
