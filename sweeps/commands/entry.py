"""Entry point of the command `mvae`. Imports only the typed subcommand, so that help pages appear at once."""

import importlib
import sys
from collections.abc import Sequence

from mvae.home import ensure_home
from mvae.refusal import Refusal
from mvae.storage.files import remedy
from sweeps.cli.output import outliving_readers
from sweeps.cli.programs import BAD_INPUT, COMPLETE, INCOMPLETE, INTERRUPTED
from sweeps.cli.words import error

COMMANDS = {
    "run": ("PIPELINE [options]", "Run a pipeline, as python pipelines/PIPELINE.py does"),
    "prepare": ("DATASET", "Download a data set and convert it"),
    "ls": ("", "List the sweeps of a storage with their dates, finished cells, files and bytes"),
    "rm": ("SWEEP", "Delete the trials that only this sweep uses, with their MLflow runs"),
    "verify": ("N", "Run N finished trials again here, and compare the numbers"),
}
"""Maps each subcommand to its arguments in the usage line and its one-line help."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns its exit code.

    Args:
        words: the words after `mvae`. If None, this process's arguments.
    """
    typed = list(sys.argv[1:] if words is None else words)
    try:
        ensure_home()
        if not typed or typed[0] in ("-h", "--help", "help"):
            with outliving_readers(""):
                print(short_help())
            return COMPLETE
        command, *rest = typed
        if command not in COMMANDS:
            raise Refusal(f"unknown command {command}: choose one of {', '.join(COMMANDS)}")
        chosen = importlib.import_module(f"sweeps.commands.{command}").main
        if command == "run":  # the pipeline guards its own output
            return int(chosen(rest))
        with outliving_readers(""):
            return int(chosen(rest))
    except Refusal as refusal:
        error(str(refusal))
        return BAD_INPUT
    except OSError as failure:
        error(f"stopped by a system error: {failure}{remedy(failure)}")
        return INCOMPLETE
    except KeyboardInterrupt:
        error("interrupted")
        return INTERRUPTED


def short_help() -> str:
    """Returns the page that `mvae` prints without arguments."""
    lines = [f"  mvae {f'{name} {takes}'.strip():<24} {about}" for name, (takes, about) in COMMANDS.items()]
    return "\n".join(["usage: mvae COMMAND [options]", "", *lines, "", "mvae COMMAND --help explains a command."])
