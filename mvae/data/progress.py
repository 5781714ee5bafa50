"""Progress of a long first pass over many files: a bar on a terminal, lines in the log elsewhere."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

LOG_EVERY_S = 10.0
"""Seconds between two lines in the log."""


@contextlib.contextmanager
def progress(what: str, count: int, done: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr if that is a terminal, else a line in the log every ten seconds.

    Args:
        what: name of the work.
        count: files in all.
        done: files that are done already.
    Yields:
        A function to call with the number of files that have been done since.
    """
    if sys.stderr.isatty():
        with contextlib.suppress(ImportError):  # machines that only train may be without rich
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task(what, total=count, completed=done)
                yield lambda more: bar.advance(task, more)
            return
    said = time.monotonic()

    def advance(more: int) -> None:
        nonlocal done, said
        done += more
        if time.monotonic() - said >= LOG_EVERY_S:
            said = time.monotonic()
            log.info("%s: %s of %s", what, f"{done:,}", f"{count:,}")

    yield advance
