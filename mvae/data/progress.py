"""Shows the progress of a download or of a long pass over many files: a bar on a terminal, log lines elsewhere."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

LOG_EVERY_S = 10.0
"""Seconds between log lines."""


@contextlib.contextmanager
def progress(what: str, count: int | None, done: int, *, in_bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on stderr if stderr is a terminal, else writes a log line every ten seconds.

    Args:
        what: description of the work.
        count: total number of files or bytes; None if it is not known.
        done: number of files or bytes already finished.
        in_bytes: whether the numbers count bytes, not files.
    Yields:
        A function to call with the number of files or bytes finished since the last call.
    """
    if sys.stderr.isatty():
        with contextlib.suppress(ImportError):  # rich may be missing on machines that only train
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            numbers = DownloadColumn() if in_bytes else MofNCompleteColumn()
            columns = TextColumn("{task.description}"), BarColumn(), numbers, TimeRemainingColumn()
            with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task(what, total=count, completed=done)
                yield lambda more: bar.advance(task, more)
            return
    before, began = done, time.monotonic()
    logged = began

    def advance(more: int) -> None:
        nonlocal done, logged
        done += more
        if (now := time.monotonic()) - logged >= LOG_EVERY_S:
            logged = now
            log.info("%s: %s%s", what, _counted(done, count, in_bytes), _left(done - before, now - began, done, count))

    yield advance


def _counted(done: int, count: int | None, in_bytes: bool) -> str:
    numbers = [done] if count is None else [done, count]
    shown = " of ".join(f"{number / 1e6:.1f}" if in_bytes else f"{number:,}" for number in numbers)
    return shown + " MB" * in_bytes


def _left(gained: int, seconds: float, done: int, count: int | None) -> str:
    if count is None or done == count or gained <= 0:
        return ""
    return f", {(count - done) * seconds / gained:,.0f} s left"
