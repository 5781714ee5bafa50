"""A simulated world: hosts, processes, threads and one virtual clock. Real code runs in it, one thread at a time.

Each simulated thread is a greenlet. A thread gives up control whenever it waits or uses storage or MLflow, so a process
can be killed or stopped between any two requests. Nothing depends on real time or on the order of a set, so a schedule
replays exactly.

`tests/histories/threads.py` replaces the module `threading`.
"""

from __future__ import annotations

import errno
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

from mvae.storage.clock import Clock

START = 1.7e9
"""Unix time at which each world begins."""

LATENCY = 0.02
"""Seconds that a request to storage or MLflow takes, unless the process is slow."""


class Killed(BaseException):
    """Ends a thread of a killed process. The dead process changes nothing while the exception passes."""


class Stuck(Exception):
    """The simulated time is over, but a thread still waits."""


@dataclass(eq=False)
class Process:
    """A process of the operating system on one host."""

    name: str
    host: str
    pid: int
    latency: float = LATENCY
    dead: bool = False
    stopped: bool = False
    """Whether no thread runs (SIGSTOP, or a machine that sleeps)."""
    cut: bool = False
    """Whether requests to storage get no answer."""
    cut_from_mlflow: bool = False
    awake_since: float = START
    """Time since which the process runs, reaches storage, and is not slow."""
    fuse: tuple[int, Callable[[], None]] | None = None
    """Number of further requests, and what happens to the process at the next request."""
    refusals: list[str] = field(default_factory=list)
    """Faults that the next changes of storage meet: see `tests/histories/storage.py`."""
    threads: list[Green] = field(default_factory=list)
    parked: list[Green] = field(default_factory=list)
    at_death: list[Callable[[], None]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def about_to_die(self) -> bool:
        """Whether the process is killed at its next request."""
        return self.fuse is not None and self.fuse[0] == 0 and self.fuse[1].__name__ == "kill"

    @property
    def well(self) -> bool:
        return not (self.dead or self.stopped or self.cut)


class Green:
    """One simulated thread."""

    def __init__(self, process: Process, target: Callable[[], object], name: str) -> None:
        self.process, self.target, self.name = process, target, name
        self.token = 0
        self.ended = False
        self.on_end: list[Callable[[], None]] = []
        self.greenlet: Any = None


class World(Clock):
    """All processes and the clock. `run` lets time pass; everything else happens inside of it."""

    def __init__(self, chance: int) -> None:
        self.now = START
        self.chance = chance
        self.processes: list[Process] = []
        self.crashes: list[BaseException] = []
        self.watchers: list[Callable[[], None]] = []
        """Called after every request."""
        self._heap: list[tuple[float, int, Any, int]] = []
        self._sequence = 0
        self._ids = 0
        self._hub = getcurrent()
        self._current: Green | None = None

    # ---- the clock of the product

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: Any, seconds: float) -> bool:
        return bool(event.wait(seconds))

    # ---- chance

    def draw(self) -> float:
        """Returns a number from 0 to 1 that depends only on the world's seed and on the draws before."""
        self.chance = (self.chance * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.chance >> 33) / 2**31

    def new_id(self) -> int:
        self._ids += 1
        return self._ids

    # ---- processes

    @property
    def process(self) -> Process:
        """The process whose thread is running."""
        assert self._current is not None, "no simulated thread is running"
        return self._current.process

    @property
    def inside(self) -> bool:
        return self._current is not None

    def start(self, name: str, host: str, target: Callable[[], object]) -> Process:
        made = Process(name, host, 1000 + len(self.processes), awake_since=self.now)
        self.processes.append(made)
        self.spawn(made, target, "main")
        return made

    def spawn(self, process: Process, target: Callable[[], object], name: str) -> Green:
        thread = Green(process, target, name)
        process.threads.append(thread)
        self._wake(thread, self.now)
        return thread

    def kill(self, process: Process) -> None:
        """Ends a process at once (SIGKILL, or loss of its machine)."""
        if process.dead:
            return
        process.dead = True
        for thread in process.threads:
            if thread is not self._current and not thread.ended:
                self._wake(thread, self.now)
        for thread in process.parked:
            self._wake(thread, self.now)
        process.parked.clear()
        for callback in process.at_death:
            callback()
        if self._current is not None and self._current.process is process:
            raise Killed

    def stop(self, process: Process) -> None:
        process.stopped = True

    def resume(self, process: Process) -> None:
        """Undoes `stop` and `cut`."""
        process.stopped = process.cut = process.cut_from_mlflow = False
        process.awake_since = self.now
        parked, process.parked = process.parked, []
        for thread in parked:
            self._wake(thread, self.now)

    # ---- called by simulated threads

    def sleep(self, seconds: float) -> None:
        """Waits in the current thread."""
        thread = self._running()
        self._wake(thread, self.now + seconds)
        self._switch(thread)

    def block(self, waiting: list[Green], seconds: float | None) -> None:
        """Waits until another thread wakes the threads in the list, or until the time has passed."""
        thread = self._running()
        thread.token += 1
        waiting.append(thread)
        if seconds is not None:
            self._push(self.now + seconds, thread)
        self._switch(thread)
        if thread in waiting:
            waiting.remove(thread)

    def wake_all(self, waiting: list[Green]) -> None:
        for thread in waiting:
            self._wake(thread, self.now)
        waiting.clear()

    def alive(self) -> Process:
        """Returns the running process. Raises `Killed` if the process is dead."""
        return self._running().process

    def request(self, patience: float | None = None, *, mlflow: bool = False) -> None:
        """Waits as long as a request takes. The process may die, stop or be cut off before the request has an effect.

        Args:
            patience: seconds after which a request of a process that is cut off fails; None waits.
        Raises:
            TimeoutError: the process is cut off.
        """
        thread = self._running()
        process = thread.process
        if process.fuse is not None:
            left, action = process.fuse
            process.fuse = (left - 1, action) if left else None
            if not left:
                action()
        self.sleep(process.latency * (0.5 + self.draw()))
        end = None if patience is None else self.now + patience
        while process.cut and (not mlflow or process.cut_from_mlflow):
            if end is not None and self.now >= end:
                raise TimeoutError(errno.ETIMEDOUT, "Connection timed out", process.name)
            thread.token += 1
            process.parked.append(thread)
            if end is not None:
                self._push(end, thread)
            self._switch(thread)
            if thread in process.parked:
                process.parked.remove(thread)

    # ---- called by a schedule

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Calls a function later."""
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + max(0.0, seconds), self._sequence, action, -1))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Lets time pass. Returns whether `until` became true.

        Raises:
            BaseException: a process ended with an error that the product does not handle, or a watcher raised one.
        """
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            if until is not None and until():
                return True
            when, _, what, token = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            if token < 0:
                what()
            elif token == what.token and not what.ended:
                self._resume_thread(what)
            if self.crashes:
                raise self.crashes[0]
        self.now = max(self.now, end)
        return until is not None and until()

    def close(self) -> None:
        """Ends all threads, so that no greenlet outlives the world."""
        for process in self.processes:
            process.dead = True
            for thread in process.threads:
                if thread.greenlet is not None and not thread.ended:
                    self._current = thread
                    thread.greenlet.throw(Killed)
        self._current = None

    # ---- inside

    def _running(self) -> Green:
        assert self._current is not None, "no simulated thread is running"
        if self._current.process.dead:
            raise Killed
        return self._current

    def _push(self, when: float, thread: Green) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, thread, thread.token))

    def _wake(self, thread: Green, when: float) -> None:
        thread.token += 1
        self._push(when, thread)

    def _switch(self, thread: Green) -> None:
        self._hub.switch()
        if thread.process.dead:
            raise Killed

    def _resume_thread(self, thread: Green) -> None:
        process = thread.process
        if process.stopped and not process.dead:
            process.parked.append(thread)
            return
        if thread.greenlet is None:
            if process.dead:
                thread.ended = True
                return
            thread.greenlet = greenlet(lambda: self._body(thread), parent=self._hub)
        self._current = thread
        try:
            thread.greenlet.switch()
        finally:
            self._current = None
        for watcher in self.watchers:
            watcher()

    def _body(self, thread: Green) -> None:
        try:
            thread.target()
        except Killed:
            pass
        except BaseException as error:
            self.crashes.append(error)
        thread.ended = True
        for callback in thread.on_end:
            callback()
