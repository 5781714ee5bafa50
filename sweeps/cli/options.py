"""The options that every pipeline has, and the parser of a pipeline's command line.

A pipeline adds its own options in a subclass. `--help` shows the docstrings of the file, the class and the fields
(help.py):

    class Options(CommonOptions):
        '''Weak supervision'''

        fractions: Fractions | None = None
        '''Fractions of the training pairs to keep (default: the preset's).'''

    options = parse(Options)

- Every value is one word without spaces, because `ray submit` passes arguments unquoted.
- If an option is repeated, the last value counts.
- MVAE_STORAGE, MVAE_DATA and MLFLOW_TRACKING_URI replace options that are not given. No other environment variable is
  read.
- This module imports neither torch, Ray nor MLflow, so that help and refusals are fast.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    CliApp,
    CliSettingsSource,
    SettingsError,
)

from mvae.home import ensure_home
from mvae.refusal import Refusal, first_mistake
from sweeps.cli import help as pages
from sweeps.cli.tracking_uri import default_uri, without_credentials
from sweeps.cli.trial_options import TrialOptions
from sweeps.cli.values import (
    Count,
    Files,
    Folder,
    Gpus,
    Names,
    NotNegative,
    Positive,
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
"""Values of `Trial.targets`; the table has one row per value."""


def _default_data_root(chosen: dict[str, Any]) -> Path | None:
    if not (chosen.get("plan") or chosen.get("report")):
        return None  # missing files are downloaded into the default folder
    from mvae.data import default_data_root

    return default_data_root()


class CommonOptions(TrialOptions):
    """The options that every pipeline has."""

    dataset: Token = "digits"
    """Data set: {names} (default: digits, built in)."""
    arms: Names | None = None
    """Models to compare: {names} (default: the preset's)."""
    seeds: Seeds | None = None
    """Random seeds, the same for all arms (default: the preset's)."""
    epochs: Count | None = None
    """Passes over the training set in each trial (default: the preset's)."""
    preset: Literal["demo", "paper"] = "demo"
    """demo takes minutes; paper is the set-up of the supplement."""

    plan: bool = False
    """Print which cells are done, and the cost of the other cells. Trains and downloads nothing.

    Data sets that convert in seconds are converted into the cache, so that a few steps of each kind of trial can be
    timed."""
    price_per_hour: NotNegative | None = None
    """Price per hour of a machine like this one, in any currency; --plan then prints the price of the missing cells."""
    report: bool = False
    """Print and write the table from existing results. Trains and downloads nothing."""
    resume: bool = False
    """Fail unless the storage has a result or a checkpoint of the table's cells."""
    fresh: bool = False
    """Fail if the storage has an experiment with this --name."""

    plugins: Files = ()
    """Python files that add your own data sets and arms (docs/extend/).

    The files are also sent to the trial processes."""

    test_curve: bool = False
    """Record test accuracy after every epoch.

    The curve is a diagnostic: no table uses it. Only trials that this command trains get a curve."""

    name: Token = "main"
    """Name of the experiment. Sweeps with the same name share trials."""
    storage: Storage = Field(default_factory=lambda: Path(os.environ.get("MVAE_STORAGE") or "runs"))
    """Folder or URI (s3://, gs://) of results and checkpoints (default: $MVAE_STORAGE, else ./runs).

    MLflow's database is in this folder unless --tracking-uri names another one."""
    data_root: Folder | None = Field(default_factory=_default_data_root)
    """Raw data in torchvision's layout; may be read-only (default: $MVAE_DATA, else ~/.cache/mvae)."""
    cache: Folder | None = None
    """Folder of the converted data (default: ~/.cache/mvae)."""
    tracking_uri: Uri = Field(
        default_factory=lambda chosen: os.environ.get("MLFLOW_TRACKING_URI") or default_uri(chosen["storage"])
    )
    """MLflow server or database (default: $MLFLOW_TRACKING_URI, else a database in the storage)."""

    max_hours: Positive | None = None
    """Hours after which this command saves the running trials, prints what is left, and stops with exit code 3.

    The same command resumes. The hours count from the start of each command."""
    max_concurrent: Count | None = None
    """Largest number of trials that run at the same time (default: as many as fit)."""
    workers_per_trial: Count | None = None
    """Number of processes that share each training step of a trial, on as many machines as needed (default: 1)."""
    sync_batchnorm: bool = False
    """Compute the statistics of batch normalisation over the rows of all workers of a trial."""
    gpus_per_trial: Gpus = "auto"
    """GPUs per trial, for all its workers together: a whole number, a fraction of one GPU, or auto."""
    wait_for_nodes: Annotated[NotNegative, Written("MINUTES")] = 15.0
    """Minutes to wait for the machines of a cluster."""
    checkpoint_every: Annotated[NotNegative, Written("SECONDS")] = 60.0
    """Seconds of training between checkpoints. A checkpoint is only written at the end of an epoch."""

    def trial_fields(self) -> dict[str, Any]:
        """Like `TrialOptions.trial_fields`, plus the number of workers if `--workers-per-trial` is given."""
        workers = {} if self.workers_per_trial is None else {"workers": self.workers_per_trial}
        return {**super().trial_fields(), **workers}

    def asked(self) -> str:
        """Returns the part of a report folder's name that lists the given options: demo-arms-nn_mvae-seeds-0-2."""
        typed = [name for name in type(self).model_fields if name in self.model_fields_set - NOT_OF_THE_TABLE]
        return "-".join([self.preset, *(f"{name}-{in_a_name(getattr(self, name))}" for name in typed)])

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        for one, other, why in (
            ("resume", "fresh", "one needs existing results, the other a new name"),
            ("plan", "report", "each only prints something"),
            ("fresh", "report", "a new name has nothing to report"),
            ("annealing_epochs", "annealing_share", "both set how long beta rises"),
        ):
            if all(getattr(self, name) is not type(self).model_fields[name].default for name in (one, other)):
                options = f"--{one} and --{other}".replace("_", "-")
                raise Refusal(f"{options} exclude each other ({why}): give only one of them")
        if self.price_per_hour is not None and not self.plan:
            raise Refusal("--price-per-hour has an effect only with --plan: add --plan, or leave --price-per-hour out")
        return self


NOT_OF_THE_TABLE = frozenset(
    {"dataset", "preset", "plan", "price_per_hour", "report", "resume", "fresh", "plugins", "test_curve"}
    | {"name", "storage", "data_root", "cache", "tracking_uri", "max_concurrent", "gpus_per_trial", "wait_for_nodes"}
    | {"checkpoint_every", "max_hours"}
)
"""Options that a report folder's name leaves out, because they change no cell, or are already in the name."""


def parse(options: type[Chosen], argv: Sequence[str] | None = None) -> Chosen:
    """Parses the command line. On a mistake, prints one line to stderr and exits with code 2.

    Args:
        options: the pipeline's class. `--help` starts with the docstring of the class's module.
        argv: arguments without the program's name. If None, this process's arguments.
    """
    try:
        return read(options, sys.argv[1:] if argv is None else argv)
    except Refusal as refusal:
        error(str(refusal))
        sys.exit(2)


def read(options: type[Chosen], argv: Sequence[str]) -> Chosen:
    """Parses the command line, and loads the data sets and arms of the given plug-ins.

    Raises:
        Refusal: a mistake of the user. The message is one line. It names the option, or the plug-in's file and line.
    """
    check_names(argv)
    ensure_home()
    parser = pages.Parser(options, full=pages.FULL in argv)
    source: CliSettingsSource[Any] = CliSettingsSource(
        options,
        root_parser=parser,
        add_argument_method=pages.Parser.add_field,
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


def _one_line(refusal: ValidationError) -> str:
    first = first_mistake(refusal)
    message = str(first["msg"]).removeprefix("Value error, ")
    if not first["loc"]:
        return message
    flag = f"--{first['loc'][0]}".replace("_", "-")
    return f"{flag} {without_credentials(str(first['input']))}: {message[:1].lower()}{message[1:]}"
