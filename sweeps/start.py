"""Entry point of every pipeline. Parses the options before most imports, so that `--help` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from sweeps.cli.options import Chosen, parse
from sweeps.cli.programs import INTERRUPTED
from sweeps.cli.words import error

if TYPE_CHECKING:
    from sweeps.sweep import Sweep


def start(options: type[Chosen], sweep: Callable[[Chosen], Sweep]) -> NoReturn:
    """Parses the command line, runs the pipeline, and exits the process with its exit code.

    Args:
        options: the pipeline's class of options.
        sweep: builds the sweep from the parsed options; may raise Refusal for a user's mistake.
    """
    try:
        chosen = parse(options)
        from sweeps.main import main

        code = main(lambda: sweep(chosen), chosen)
    except KeyboardInterrupt:
        error("interrupted; nothing was started")
        code = INTERRUPTED
    sys.exit(code)
