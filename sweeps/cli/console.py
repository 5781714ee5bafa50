"""Console output: a header, a live progress line with the time left, one line per finished trial, then the table.

On a terminal the progress line is redrawn in place, below the permanent lines. Other outputs (files, pipes, CI logs)
get plain lines only, and the progress at most once a minute. Lines may be printed from any thread.

    console = Console()
    console.header("Table 4 on digits: 24 trials, 6 of them done")
    with console.progress(work={key: epochs}, before={key: 0.5}) as progress:
        progress.started(key, "mvae 1 % seed 0")
        progress.epoch(key, 7, 10)
        progress.finished(key, "mvae 1 % seed 0", "accuracy 0.7834  12 s")
    console.rich.print(table)
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console as Rich
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.cli.output import print_every_character
from sweeps.cli.time_left import Work
from sweeps.cli.words import duration

QUIET_SECONDS = 60.0
"""Seconds between progress lines if the output is not a terminal."""

PATIENCE = 2.0
"""Seconds without output before `Console.busy` shows what is running."""

NARROWEST_BAR, WIDEST_BAR = 10, 24
"""Minimum and maximum width of the progress bar in columns. The text next to the bar has priority."""


class Console:
    """Everything that a pipeline prints to stdout."""

    def __init__(self, file: TextIO | None = None, live: bool | None = None) -> None:
        """
        Args:
            file: output stream. If None, stdout.
            live: whether lines can be redrawn in place. If None, only on a terminal.
        """
        stream = sys.stdout if file is None else file
        print_every_character(stream)
        self.live = stream.isatty() and os.environ.get("TERM") != "dumb" if live is None else live
        width = None if self.live else 160  # for tables; other streams have no width
        self.rich = Rich(file=file, force_terminal=self.live, width=width, highlight=False, markup=False, emoji=False)
        self._progress: Progress | None = None

    def header(self, line: str) -> None:
        self.rich.print(line, soft_wrap=True, style="bold")

    def say(self, line: str) -> None:
        """Prints a permanent line, not wrapped, above the progress line."""
        self.rich.print(line, soft_wrap=True)

    def progress(
        self,
        work: Mapping[str, float],
        before: Mapping[str, float] | None = None,
        kinds: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Progress:
        """Returns the progress line of a sweep, which is a context manager.

        Args:
            work: amount of work of each trial, by key. All trials have the same unit (expected seconds, or epochs).
            before: fraction of each trial's work, 0 to 1, that an earlier run has done, by key.
            kinds: kind of each trial, by key. Trials of one kind take equally long per unit. If None, all trials are
                of one kind.
            clock: monotonic clock in seconds.
        """
        self._progress = Progress(self, Work(work, before or {}, kinds), clock)
        return self._progress

    def stopping(self, by: str) -> None:
        """Ends the progress line and prints the name of the signal or option that stops the sweep."""
        self.stop_progress()
        self.say(f"Stopping after {by}; ending the running trials can take half a minute")

    def stop_progress(self) -> None:
        if self._progress:
            self._progress.stop_redrawing()

    @contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """On a terminal, shows a line with the elapsed time once the `with` block has run for PATIENCE seconds."""
        began = time.monotonic()

        def line() -> RenderableType:
            seconds = time.monotonic() - began
            return Text(f"{doing}: {duration(seconds)} so far") if seconds >= PATIENCE else Group()

        with self.redrawn(line) if self.live else nullcontext():
            yield

    def redrawn(self, line: Callable[[], RenderableType]) -> Live:
        """Returns a context manager that redraws a line four times per second and removes it at the end."""
        return Live(get_renderable=line, console=self.rich, transient=True, refresh_per_second=4)


class Progress:
    """The progress line, and a permanent line per ended trial. Created by `Console.progress`."""

    def __init__(self, console: Console, work: Work, clock: Callable[[], float]) -> None:
        self._console = console
        self._work = work
        self._clock = clock
        self._created = self._estimated_at = self._printed = clock()
        self._left: float | None = None
        self._running: dict[str, str] = {}
        self._ended: set[str] = set()
        self._any_started = False
        self._lock = threading.RLock()
        self._redrawn = console.redrawn(self._bar) if console.live else None

    def __enter__(self) -> Self:
        if self._redrawn:
            self._redrawn.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop_redrawing()

    def stop_redrawing(self) -> None:
        if self._redrawn:
            self._redrawn.stop()

    def expect(self, seconds: float | None) -> None:
        """Sets the estimated seconds until the sweep ends. The estimate is shown until this run's speed is known."""
        with self._lock:
            self._left, self._estimated_at = seconds, self._clock()
        if self._redrawn:
            self._redrawn.refresh()

    def named(self, placeholder: str, key: str) -> None:
        """Replaces the placeholder of a planned trial by the trial's key."""
        with self._lock:
            self._work.name(placeholder, key)

    def started(self, key: str, label: str) -> None:
        """Shows that a trial starts or resumes. `label` is the trial's short name on the progress line."""
        with self._lock:
            self._running[key] = label
            self._any_started = True
            self._work.begun(key, self._clock())

    def relabelled(self, key: str, label: str) -> None:
        with self._lock:
            self._running[key] = label

    def epoch(self, key: str, epoch: int, epochs: int) -> None:
        with self._lock:
            self._work.reached(key, epoch / epochs, self._clock())
            self._estimate()
            due = not self._console.live and self._clock() - self._printed >= QUIET_SECONDS
            line = self._line()
        if due:
            self._print(line)

    def finished(self, key: str, label: str, result: str) -> None:
        """Prints the line of a trial that is done. The line ends with the result: "accuracy 0.7834  12 s"."""
        with self._lock:
            self._work.reached(key, 1.0, self._clock())
            self._work.ended(key)
        self._end(key, label, result)

    def stopped(self, key: str, label: str, why: str) -> None:
        """Prints the line of a trial that ends without a result. The line ends with `why`."""
        with self._lock:
            self._work.drop(key)
        self._end(key, label, why)

    def _print(self, line: str) -> None:
        # Do not hold self._lock here: the redrawing thread holds rich's lock while it waits for self._lock in _line.
        self._printed = self._clock()
        self._console.say(line)

    def _end(self, key: str, label: str, outcome: str) -> None:
        with self._lock:
            self._running.pop(key, None)
            self._ended.add(key)
            self._estimate()
            count = str(len(self._work.work))
            line = f"[{len(self._ended):>{len(count)}}/{count}] {label}  {outcome}"
        self._print(line)

    def _estimate(self) -> None:
        self._estimated_at = self._clock()
        left = self._work.seconds_left()
        self._left = self._left if left is None else left

    def _line(self, room: int | None = None) -> str:
        """Returns the progress line. Names of trials that do not fit into `room` columns are replaced by a count."""
        with self._lock:
            now = self._clock()
            parts = [f"{self._work.fraction:4.0%}", f"{len(self._ended)}/{len(self._work.work)} trials"]
            if self._left is not None:
                parts.append(f"{duration(max(0.0, self._left - (now - self._estimated_at)))} left")
            elif self._any_started:
                parts.append("time left unknown")
            if not self._any_started:
                parts.append(f"starting, {duration(now - self._created)} so far")
            names = list(self._running.values())
        return _with_names("  ".join(parts), names, room)

    def _bar(self) -> RenderableType:
        width = self._console.rich.width - 1
        line = self._line(width - NARROWEST_BAR)
        bar = min(WIDEST_BAR, width - len(line))
        if bar < NARROWEST_BAR:
            return Text(line, no_wrap=True, overflow="ellipsis")
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(width=bar)
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        grid.add_row(ProgressBar(total=1.0, completed=self._work.fraction, complete_style="cyan"), Text(line))
        return grid


def _with_names(head: str, names: Sequence[str], room: int | None) -> str:
    for shown in range(len(names), 0, -1):
        more = f" and {len(names) - shown} more" if shown < len(names) else ""
        line = f"{head}  {', '.join(names[:shown])}{more}"
        if room is None or len(line) <= room:
            return line
    return f"{head}  {len(names)} running" if names else head
