"""The command line: what every pipeline lets its user choose, as one typed value.

A pipeline adds its own axis in a subclass and parses it. The line under a field is its `--help`; the class's docstring
names the group, the pipeline file's heads it all:

    class Options(CommonOptions):
        '''Weak supervision'''

        fractions: Fractions | None = None
        '''Shares of the training pairs that stay together (default: the preset's).'''

    options = parse(Options)

A value is one token, because `ray submit` passes arguments unquoted; the last of a repeated option wins. MVAE_STORAGE
and MLFLOW_TRACKING_URI stand in for options that are not given, and so does MVAE_DATA, which the data sets read; no
other environment variable is looked at. Neither torch, ray nor mlflow is imported here: help and refusals come at once.
"""

from __future__ import annotations

import difflib
import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar, get_args, get_origin

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    CliApp,
    CliSettingsSource,
    SettingsError,
)

from mvae.home import ensure_home
from mvae.refusal import Refusal, first_mistake
from sweeps.cli.tracking_uri import default_uri, without_credentials
from sweeps.cli.trial_options import TrialOptions
from sweeps.cli.values import (
    Count,
    Files,
    Folder,
    Gpus,
    Names,
    NotNegative,
    Seeds,
    Storage,
    Token,
    Uri,
    Written,
    check_names,
    in_a_name,
    names,
)
from sweeps.cli.words import error

Chosen = TypeVar("Chosen", bound="CommonOptions")

TargetSets = Annotated[tuple[Literal["own", "all"], ...], BeforeValidator(names), Written("own,all")]
"""`Trial.targets`; a pipeline shows each as a row."""


def _default_storage() -> Any:
    return os.environ.get("MVAE_STORAGE") or "runs"


def _default_data_root(chosen: dict[str, Any]) -> Path | None:
    """None, which a download fills; where nothing is to be started, the folder that None stands for."""
    if not (chosen.get("plan") or chosen.get("report")):
        return None
    from mvae.data import default_data_root

    return default_data_root()


class CommonOptions(TrialOptions):
    """Every pipeline"""

    dataset: Token = "digits"
    """Data set; digits is embedded and needs no download."""
    arms: Names | None = None
    """Models to compare (default: the preset's)."""
    seeds: Seeds | None = None
    """Seeds to run; all arms share them (default: the preset's)."""
    epochs: Count | None = None
    """Passes over the training set in each trial (default: the preset's)."""
    preset: Literal["demo", "paper"] = "demo"
    """demo takes minutes; paper is what the supplement ran."""

    plan: bool = False
    """Print the cells, which of them are done and what the rest will cost; start and download nothing."""
    price_per_hour: NotNegative | None = None
    """What a machine like this one costs an hour, in any currency; --plan then says what the rest will cost."""
    report: bool = False
    """Print and write the table from the results that are there; start and download nothing."""
    resume: bool = False
    """Insist that this name already exists in the storage."""
    fresh: bool = False
    """Insist that this name does not exist yet."""

    plugins: Files = ()
    """Python files of your own that add data sets and arms (docs/extend/); trial processes get them sent."""

    test_curve: bool = False
    """Record test accuracy after every epoch of the trials that train now: a diagnostic, never a table's value."""

    name: Token = "main"
    """Name of the experiment; sweeps of one name share their trials."""
    storage: Storage = Field(default_factory=_default_storage)
    """Folder or s3://, gs:// URI of results, checkpoints, MLflow's database (default: $MVAE_STORAGE, else ./runs)."""
    data_root: Folder | None = Field(default_factory=_default_data_root)
    """Raw data in torchvision's layout; may be read-only (default: $MVAE_DATA, else ~/.cache/mvae)."""
    cache: Folder | None = None
    """Where converted data is kept (default: ~/.cache/mvae)."""
    tracking_uri: Uri = Field(
        default_factory=lambda chosen: os.environ.get("MLFLOW_TRACKING_URI") or default_uri(chosen["storage"])
    )
    """MLflow server or database (default: $MLFLOW_TRACKING_URI, else a database in the storage)."""

    max_concurrent: Count | None = None
    """Trials that run at the same time (default: as many as fit)."""
    workers_per_trial: Count | None = None
    """Processes that share each training step of a trial, on as many machines as it takes (default: 1)."""
    sync_batchnorm: bool = False
    """Let the workers of a trial share the statistics of batch normalisation, where its networks have any."""
    gpus_per_trial: Gpus = "auto"
    """GPUs of a trial, of all its workers together: a whole number, a share of one, or auto."""
    wait_for_nodes: NotNegative = 15.0
    """Minutes for which the machines of a cluster are waited for."""
    checkpoint_every: NotNegative = 60.0
    """Seconds of training after which the end of an epoch is kept as a checkpoint."""

    def trial_fields(self) -> dict[str, Any]:
        """As of every trial; with the workers of a trial, if they are asked for."""
        workers = {} if self.workers_per_trial is None else {"workers": self.workers_per_trial}
        return {**super().trial_fields(), **workers}

    def asked(self) -> str:
        """What tells this command's table from others, as part of a folder's name: demo-arms-nn_mvae-seeds-0-2."""
        typed = [name for name in type(self).model_fields if name in self.model_fields_set - NOT_OF_THE_TABLE]
        return "-".join([self.preset, *(f"{name}-{in_a_name(getattr(self, name))}" for name in typed)])

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        for one, other, why in (
            ("resume", "fresh", "one insists that the name exists, the other that it does not"),
            ("plan", "report", "each prints something and starts nothing"),
            ("fresh", "report", "a name that does not exist yet has nothing to report"),
        ):
            if getattr(self, one) and getattr(self, other):
                raise Refusal(f"--{one} and --{other} exclude each other: {why}; give one of them")
        if self.price_per_hour is not None and not self.plan:
            raise Refusal("--price-per-hour says what a plan costs: give --plan too, or leave it out")
        return self


NOT_OF_THE_TABLE = frozenset(
    {"dataset", "preset", "plan", "price_per_hour", "report", "resume", "fresh", "plugins", "test_curve"}
    | {"name", "storage", "data_root", "cache", "tracking_uri", "max_concurrent", "gpus_per_trial", "wait_for_nodes"}
    | {"checkpoint_every"}
)
"""Options that change no cell of a table, or that stand in its folder's name without them."""


def parse(options: type[Chosen], argv: Sequence[str] | None = None) -> Chosen:
    """The command line as a typed value; ends the process with code 2 and one line on stderr where it is wrong.

    Args:
        options: the pipeline's class; the docstring of the module that it stands in becomes the head of `--help`.
        argv: the arguments without the program's name; None takes the process's own.
    """
    try:
        return read(options, sys.argv[1:] if argv is None else argv)
    except Refusal as refusal:
        error(str(refusal))
        sys.exit(2)


def read(options: type[Chosen], argv: Sequence[str]) -> Chosen:
    """As `parse`, without an end of the process.

    Plug-ins that are asked for are run here, so that whoever has options has all data sets and arms that they name.

    Raises:
        Refusal: one line that names the option, or the plug-in and its line, and says what would be right.
    """
    check_names(argv)
    ensure_home()
    parser = _Parser(options)
    source: CliSettingsSource[Any] = CliSettingsSource(
        options,
        root_parser=parser,
        add_argument_method=_Parser.add_field,
        cli_implicit_flags="toggle",
        cli_kebab_case=True,
        cli_avoid_json=True,
    )
    try:
        chosen = CliApp.run(options, cli_args=parser.parse_args(list(argv)), cli_settings_source=source)
    except ValidationError as refusal:
        raise Refusal(_one_line(refusal)) from None
    except SettingsError as refusal:
        raise Refusal(str(refusal)) from None
    if chosen.plugins:
        from mvae import plugins

        plugins.load(plugins.read(chosen.plugins))
    return chosen


class _Parser(ArgumentParser):
    """Presentation: groups by the class that declares a field, one meta-variable a type, errors as Refusal."""

    def __init__(self, options: type[TrialOptions]) -> None:
        self.options = options
        super().__init__(
            usage="%(prog)s [options]",
            prog=sys.argv[0],
            description=cleandoc(sys.modules[options.__module__].__doc__ or ""),
            formatter_class=lambda prog: RawDescriptionHelpFormatter(prog, max_help_position=32, width=120),
            allow_abbrev=False,
        )
        declaring = [one for one in options.__mro__ if issubclass(one, TrialOptions)]
        self.groups = {one: self.add_argument_group(cleandoc(one.__doc__ or one.__name__)) for one in declaring}

    def add_field(self, *flags: str, **kwargs: Any) -> None:
        """One option, as pydantic-settings describes it, with our own ways of showing and repeating it."""
        field = self.options.model_fields[kwargs["dest"]]
        help_text = (field.description or "").replace("\n", " ")
        if not isinstance(field.default, bool):
            kwargs["metavar"] = _metavar(field)
            kwargs["action"] = "store"
            silent = field.is_required() or field.default_factory is not None or field.default in (None, ())
            if not silent and "(default:" not in help_text:
                help_text = f"{help_text.rstrip('.')} (default: {_shown(field.default)})."
        kwargs["help"] = help_text.replace("%", "%%")
        declaring = next(one for one in reversed(self.groups) if kwargs["dest"] in one.model_fields)
        self.groups[declaring].add_argument(*flags, **kwargs)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse's own; an unknown option gets the nearest known one beside it."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._about_unknown(unknown[0]))
        return parsed

    def error(self, message: str) -> NoReturn:
        """Raises Refusal, where argparse prints the usage and exits."""
        raise Refusal(message.removeprefix("argument "))

    def _about_unknown(self, argument: str) -> str:
        if not argument.startswith("-"):
            return f"{argument} belongs to no option; write lists without spaces, as a,b,c (--help shows all options)"
        flag = argument.partition("=")[0]
        near = difflib.get_close_matches(flag, self._option_string_actions, n=1)
        hint = f"do you mean {near[0]}?" if near else "--help shows all options"
        return f"{flag} is no option of this pipeline; {hint}"


def _metavar(field: FieldInfo) -> str:
    of_parts = (mark for part in get_args(field.annotation) for mark in getattr(part, "__metadata__", ()))
    for mark in (*field.metadata, *of_parts):
        if isinstance(mark, Written):
            return mark
    choices = _choices(field.annotation)
    assert choices, f"no way of writing is known for a field of type {field.annotation}"
    return "|".join(choices)


def _choices(annotation: Any) -> list[str]:
    """The words of a Literal, which may be optional."""
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return [str(part) for part in parts]
    return [word for part in parts for word in _choices(part)]


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(map(_shown, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _one_line(refusal: ValidationError) -> str:
    first = first_mistake(refusal)
    said = str(first["msg"]).removeprefix("Value error, ")
    if not first["loc"]:
        return said
    flag = f"--{first['loc'][0]}".replace("_", "-")
    return f"{flag} {without_credentials(str(first['input']))}: {said[:1].lower()}{said[1:]}"
