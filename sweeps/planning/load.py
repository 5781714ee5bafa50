"""Measures how much processor time a new process gets on this machine while other programs run.

A busy process waits for a processor only if all processors are busy. Linux counts this waiting time in
/proc/self/schedstat. If the process did not wait, /proc/stat shows how many processors the other programs keep busy.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from mvae.limits import cores, processors

ENOUGH = 0.5
"""Seconds of processor time after which the waiting time of a process measures the load well enough."""

FULL = 1.1
"""Ratio of a busy process's elapsed time to its processor time. From this ratio on, all processors count as busy."""

LESS, MORE = 0.7, 1.4
"""Factors on the number of other processes, for the low and high end of an estimate, because the load may change."""

LEAST, MOST = 0.3, 3.0
"""Smallest and largest possible factors, used if the load has changed much in the last 15 minutes."""


@dataclass(frozen=True)
class Load:
    """How much other programs compete for the processors of this machine."""

    others: float
    """Number of other busy processes. Two processes that are each busy half of the time count as one."""
    processors: int
    changes: tuple[float, float] = (LESS, MORE)
    """Factors on `others`, for the low and the high end of an estimate."""

    def slowdown(self, processes: float, more: float = 1.0) -> float:
        """Returns by what factor this load slows our busy processes: elapsed time over processor time, at least 1.

        Args:
            processes: number of our processes that run at the same time.
            more: factor on the number of other processes.
        """
        return max(1.0, (more * self.others + processes) / self.processors)


def changes(averages: Sequence[float]) -> tuple[float, float]:
    """Returns the factors by which the load may change, based on its changes in the last 15 minutes.

    Args:
        averages: load averages of the machine over 1, 5 and 15 minutes.
    """
    now = max(averages[0], 0.1)
    least, most = min(averages) / now, max(averages) / now
    return max(LEAST, min(LESS, least)), min(MOST, max(MORE, most))


IDLE = Load(0.0, 1_000_000)
"""No load: every process has a processor to itself."""


class Reading(NamedTuple):
    """Seconds that this process `ran` and `waited`, and that all processors together were `busy`, at the time `at`."""

    at: float
    ran: float
    waited: float
    busy: float


def load_between(first: Reading, last: Reading, allowed: int, processors: int) -> Load:
    """Returns the machine's load between two readings. The process that took them must have been busy in between.

    Args:
        allowed: number of processors that this process may use.
        processors: number of processors of the machine.
    """
    ran, elapsed = last.ran - first.ran, last.at - first.at
    if ran <= 0 or elapsed <= 0:
        return Load(0.0, allowed)
    ratio = 1 + (last.waited - first.waited) / ran
    if ratio >= FULL:
        return Load(ratio * allowed - 1, allowed)
    others = (last.busy - first.busy - ran) / elapsed
    return Load(min(max(0.0, others), processors - 1), processors)


class LoadWatch:
    """Measures the load from its creation to the call of `load`."""

    def __init__(self) -> None:
        self._first = reading()

    def load(self, read: Callable[[], Reading] | None = None) -> Load:
        """Returns the load. If this process has hardly run, first keeps the process busy for up to 2 s."""
        read = read or reading
        deadline = time.monotonic() + 4 * ENOUGH
        while (last := read()).ran - self._first.ran < ENOUGH and time.monotonic() < deadline:
            sum(range(100_000))
        found = load_between(self._first, last, cores(), processors())
        return replace(found, changes=changes(os.getloadavg()))


def reading() -> Reading:
    """Reads the kernel's counters. If the kernel has none, returns zeros for `waited` and `busy`."""
    now = time.perf_counter()
    try:
        ran, waited, _ = Path("/proc/self/schedstat").read_text(encoding="ascii").split()
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        user, nice, system, _idle, _io, irq, soft, steal = map(int, words)
        busy = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
        return Reading(now, int(ran) / 1e9, int(waited) / 1e9, busy)
    except (OSError, ValueError):
        return Reading(now, time.process_time(), 0.0, 0.0)
