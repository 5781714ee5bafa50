"""The console: one header, one live progress line with the time left, one line a finished trial, then the table.

On a terminal the progress line is redrawn in place, below the lines that stay. Anywhere else (a file, a pipe, a CI log)
there are plain lines only, with a word on the progress at most once a minute. Lines may come from any thread.

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
"""Least time between two words on the progress where nothing can be redrawn."""

PATIENCE = 2.0
"""Seconds of work without output after which a terminal says what is going on."""

NARROWEST_BAR, WIDEST_BAR = 10, 24
"""Columns of the progress bar: it yields to the words beside it."""


class Console:
    """Everything that a pipeline says on stdout."""

    def __init__(self, file: TextIO | None = None, live: bool | None = None) -> None:
        """
        Args:
            file: where the lines go; None is stdout.
            live: whether a line can be redrawn in place; None finds out.
        """
        stream = sys.stdout if file is None else file
        print_every_character(stream)
        self.live = stream.isatty() and os.environ.get("TERM") != "dumb" if live is None else live
        width = None if self.live else 160  # for tables, where there is no terminal to ask
        self.rich = Rich(file=file, force_terminal=self.live, width=width, highlight=False, markup=False, emoji=False)
        self._progress: Progress | None = None

    def header(self, line: str) -> None:
        self.rich.print(line, soft_wrap=True, style="bold")

    def say(self, line: str) -> None:
        """A line that stays, above the progress line; printed as it is, never wrapped."""
        self.rich.print(line, soft_wrap=True)

    def progress(
        self,
        work: Mapping[str, float],
        before: Mapping[str, float] | None = None,
        kinds: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Progress:
        """The progress of a sweep's trials, to be used as a context.

        Args:
            work: what each trial that runs takes, by key, in any one unit (expected seconds, or epochs).
            before: share of a trial, 0 to 1, that an earlier run has done already.
            kinds: which trials take equally long a unit of work, by key; None where all do.
            clock: seconds that only rise.
        """
        self._progress = Progress(self, Work(work, before or {}, kinds), clock)
        return self._progress

    def stopping(self, by: str) -> None:
        """Acknowledges a signal, of the name `by`: ends the progress line, whose countdown has no meaning any more."""
        self.stop_progress()
        self.say(f"Stopping after {by}: ending what runs can take half a minute")

    def stop_progress(self) -> None:
        """Ends the progress line before its context does."""
        if self._progress:
            self._progress.stop_redrawing()

    @contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """Shows a progress line on a terminal once the block has taken PATIENCE seconds; removes it afterwards."""
        began = time.monotonic()

        def line() -> RenderableType:
            seconds = time.monotonic() - began
            return Text(f"{doing}: {duration(seconds)} so far") if seconds >= PATIENCE else Group()

        with self.redrawn(line) if self.live else nullcontext():
            yield

    def redrawn(self, line: Callable[[], RenderableType]) -> Live:
        """A line redrawn four times a second while its context lasts, gone afterwards."""
        return Live(get_renderable=line, console=self.rich, transient=True, refresh_per_second=4)


class Progress:
    """The progress line, and one line that stays for every trial that ends. Made by `Console.progress`."""

    def __init__(self, console: Console, work: Work, clock: Callable[[], float]) -> None:
        self._console = console
        self._work = work
        self._clock = clock
        self._made = self._moved = self._spoken = clock()
        self._left: float | None = None
        self._running: dict[str, str] = {}
        self._ended: set[str] = set()
        self._begun = False
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
        """Removes the progress line from the terminal for good."""
        if self._redrawn:
            self._redrawn.stop()

    def expect(self, seconds: float | None) -> None:
        """What the whole is expected to take from now on; shown until there is a speed to go by."""
        with self._lock:
            self._left, self._moved = seconds, self._clock()
        if self._redrawn:
            self._redrawn.refresh()

    def named(self, placeholder: str, key: str) -> None:
        """A trial that was counted before anybody knew it gets its key."""
        with self._lock:
            self._work.name(placeholder, key)

    def started(self, key: str, label: str) -> None:
        """A trial begins or goes on; `label` tells it from the others in few words."""
        with self._lock:
            self._running[key] = label
            self._begun = True
            self._work.begun(key, self._clock())

    def relabelled(self, key: str, label: str) -> None:
        """A trial is called otherwise on the progress line, to say what it is doing."""
        with self._lock:
            self._running[key] = label

    def epoch(self, key: str, epoch: int, epochs: int) -> None:
        with self._lock:
            self._work.reached(key, epoch / epochs, self._clock())
            self._measure()
            speaks = not self._console.live and self._clock() - self._spoken >= QUIET_SECONDS
            line = self._line()
        if speaks:
            self._say(line)

    def finished(self, key: str, label: str, said: str) -> None:
        """A trial has its result; `said` ends its line, as `accuracy 0.7834  12 s`."""
        with self._lock:
            self._work.reached(key, 1.0, self._clock())
            self._work.ended(key)
        self._end(key, label, said)

    def stopped(self, key: str, label: str, said: str) -> None:
        """Nothing more is to be done for a trial that has not come to its end; `said` ends its line."""
        with self._lock:
            self._work.drop(key)
        self._end(key, label, said)

    def failed(self, key: str, label: str, why: str) -> None:
        self.stopped(key, label, f"failed: {why}")

    def _say(self, line: str) -> None:
        # Never under our own lock: the thread that redraws holds rich's lock while it waits for ours in _line.
        self._spoken = self._clock()
        self._console.say(line)

    def _end(self, key: str, label: str, said: str) -> None:
        with self._lock:
            self._running.pop(key, None)
            self._ended.add(key)
            self._measure()
            count = str(len(self._work.work))
            line = f"[{len(self._ended):>{len(count)}}/{count}] {label}  {said}"
        self._say(line)

    def _measure(self) -> None:
        self._moved = self._clock()
        left = self._work.seconds_left()
        self._left = self._left if left is None else left

    def _line(self, room: int | None = None) -> str:
        """How far the sweep is.

        Args:
            room: columns that the line may take; trials that do not fit are counted. None: as many as it needs.
        """
        with self._lock:
            now = self._clock()
            parts = [f"{self._work.fraction:4.0%}", f"{len(self._ended)}/{len(self._work.work)} trials"]
            if self._left is not None:
                parts.append(f"{duration(max(0.0, self._left - (now - self._moved)))} left")
            elif self._begun:
                parts.append("time left not known yet")
            if not self._begun:
                parts.append(f"starting, {duration(now - self._made)} so far")
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
    """The head, then as many names as there is room for, and the number of the others."""
    for shown in range(len(names), 0, -1):
        more = f" and {len(names) - shown} more" if shown < len(names) else ""
        line = f"{head}  {', '.join(names[:shown])}{more}"
        if room is None or len(line) <= room:
            return line
    return f"{head}  {len(names)} running" if names else head
