"""Where every pipeline starts. `--help` and refusals of options come before the rest of the suite is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from sweeps.cli.options import Chosen, parse
from sweeps.cli.words import error

if TYPE_CHECKING:
    from sweeps.sweep import Sweep


def start(options: type[Chosen], sweep: Callable[[Chosen], Sweep]) -> NoReturn:
    """Runs a pipeline as its command line says, and ends the process with the exit code.

    Args:
        options: the pipeline's options.
        sweep: makes the cells of given options; a Refusal in it is a user's mistake.
    """
    try:
        chosen = parse(options)
        from sweeps.main import main

        code = main(lambda: sweep(chosen), chosen)
    except KeyboardInterrupt:
        error("interrupted; nothing was started")
        code = 130
    sys.exit(code)
