"""The parser of `mvae`'s subcommands, and the options that several of them share.

Values have the same types as in the pipelines (sweeps/cli/values.py). The module imports neither torch, Ray nor MLflow.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mvae.refusal import Refusal
from mvae.storage.objects import place
from sweeps.cli.tracking_uri import default_uri, tracking_uri, without_credentials
from sweeps.cli.values import check_names, files, folder, storage, token, unknown_option
from sweeps.store.store import Store


class Parser(argparse.ArgumentParser):
    """Parses the options of one subcommand. Raises Refusal for every mistake.

    Args:
        command: name of the subcommand.
        positional: name of the argument in the usage line, or "" if the subcommand has no argument.
        about: description of the subcommand at the top of the help page.
    """

    def __init__(self, command: str, positional: str, about: str) -> None:
        super().__init__(
            prog=f"mvae {command}",
            usage=" ".join(filter(None, ["%(prog)s", positional, "[options]"])),
            description=about,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=120),
            allow_abbrev=False,
            add_help=False,
        )
        self.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)

    def where(self, *, default_name: str | None = "main") -> None:
        """Adds --storage and --name."""
        self.add_argument(
            "--storage",
            metavar="DIR|URI",
            type=read_as(storage),
            help="Folder or URI (s3://, gs://) of results and checkpoints (default: $MVAE_STORAGE, else ./runs).",
        )
        shown = "all names" if default_name is None else default_name
        self.add_argument(
            "--name",
            metavar="NAME",
            type=read_as(token),
            default=default_name,
            help=f"Name of the experiment (default: {shown}).",
        )

    def data(self) -> None:
        """Adds --data-root, --cache and --plugins."""
        self.add_argument(
            "--data-root",
            metavar="DIR",
            type=read_as(folder),
            help="Raw data in torchvision's layout; may be read-only (default: $MVAE_DATA, else ~/.cache/mvae).",
        )
        self.cache()
        self.add_argument(
            "--plugins",
            metavar="FILE,...",
            type=read_as(files),
            default=(),
            help="Python files that add your own data sets and arms (docs/extend/).",
        )

    def cache(self) -> None:
        self.add_argument(
            "--cache",
            metavar="DIR",
            type=read_as(folder),
            help="Folder of the converted data (default: ~/.cache/mvae).",
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        check_names(args or ())
        parsed, unknown = self.parse_known_args(args, namespace)
        if not unknown:
            return parsed
        if not unknown[0].startswith("-"):
            raise Refusal(f"unexpected argument {unknown[0]}: {self.prog} --help lists all arguments")
        raise unknown_option(self, unknown[0], f"{self.prog} --help lists all options")

    def error(self, message: str) -> NoReturn:
        needed = message.removeprefix("the following arguments are required: ")
        if needed != message:
            raise Refusal(f"{needed} is missing: {self.prog} --help lists all arguments")
        raise Refusal(message.removeprefix("argument ").replace(": ", " ", 1))


def read_as(kind: Callable[[Any], Any]) -> Callable[[str], Any]:
    """Returns an argparse type that reads a value in the same way as a pipeline's option."""

    def value(text: str) -> Any:
        try:
            return kind(text)
        except Refusal as refusal:
            raise argparse.ArgumentTypeError(f"{without_credentials(text)}: {refusal}") from None

    return value


def whole(least: int) -> Callable[[str], int]:
    """Returns an argparse type that accepts whole numbers from `least` on."""

    def value(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: write a whole number of at least {least}")
        return int(text)

    return value


def root_of(chosen: argparse.Namespace) -> Any:
    """Returns the root of the storage: the value of --storage, else $MVAE_STORAGE, else ./runs.

    Raises:
        Refusal: the storage does not exist.
    """
    found = place(chosen.storage if chosen.storage is not None else os.environ.get("MVAE_STORAGE") or "runs")
    if not found.is_remote and not found.exists():
        raise Refusal(f"--storage {found} does not exist: give the folder or URI of a storage")
    return found


def existing_store(chosen: argparse.Namespace) -> Store:
    """Returns the store that --storage and --name select.

    Raises:
        Refusal: the store does not exist.
    """
    root = root_of(chosen)
    store = Store.open(root, chosen.name, create=False)
    if not store.folder.is_dir():
        raise Refusal(f"--name {chosen.name} does not exist in {root}: `mvae ls` lists the names of a storage")
    return store


def mlflow_of(chosen: argparse.Namespace, store: Store) -> str:
    """Returns MLflow's tracking URI: --tracking-uri, else $MLFLOW_TRACKING_URI, else the default of the storage.

    Raises:
        Refusal: MLflow does not support the URI.
    """
    given = chosen.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(store.root)
    return tracking_uri(given, "--tracking-uri" if chosen.tracking_uri else "$MLFLOW_TRACKING_URI")


def load_plugins(paths: Sequence[Path]) -> None:
    """Loads the files after --plugins, so that their data sets, arms and measures are known.

    Raises:
        Refusal: a file is not a plug-in.
    """
    if paths:
        from mvae import plugins

        plugins.load(plugins.read(paths))
