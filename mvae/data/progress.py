"""Shows the progress of a long pass over many files: a bar on a terminal, log lines elsewhere."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

LOG_EVERY_S = 10.0
"""Seconds between log lines."""


@contextlib.contextmanager
def progress(what: str, count: int, done: int) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on stderr if it is a terminal, else writes a log line every ten seconds.

    Args:
        what: description of the work.
        count: total number of files.
        done: number of files already finished.
    Yields:
        A function to call with the number of files finished since the last call.
    """
    if sys.stderr.isatty():
        with contextlib.suppress(ImportError):  # rich may be missing on machines that only train
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task(what, total=count, completed=done)
                yield lambda more: bar.advance(task, more)
            return
    logged = time.monotonic()

    def advance(more: int) -> None:
        nonlocal done, logged
        done += more
        if time.monotonic() - logged >= LOG_EVERY_S:
            logged = time.monotonic()
            log.info("%s: %s of %s", what, f"{done:,}", f"{count:,}")

    yield advance
