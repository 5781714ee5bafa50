"""Runs a program and records the CPU time of all its processes, read from /proc.

CPU time is unknown on systems without /proc.
"""

from __future__ import annotations

import bisect
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SAMPLE_EVERY = 0.1
"""Seconds between samples of the CPU time of the program's processes."""


@dataclass(frozen=True)
class Command:
    """One run of a program. All times are Unix times in seconds."""

    began: float
    ended: float
    cpu: Sequence[tuple[float, float]]
    """Pairs of a time and the CPU seconds that all processes have used until then; empty without /proc."""
    output: str

    def cpu_until(self, when: float) -> float | None:
        """Returns the CPU seconds of all processes until `when`, interpolated between two samples; None if unknown."""
        if not self.cpu:
            return None
        after = bisect.bisect_left(self.cpu, (when, 0.0))
        if not 0 < after < len(self.cpu):
            return self.cpu[-1 if after else 0][1]
        (left, before), (right, then) = self.cpu[after - 1 : after + 1]
        return before + (then - before) * (when - left) / (right - left)

    def cpu_between(self, start: float, end: float) -> float | None:
        """Returns the CPU seconds of all processes between two times; None if unknown."""
        first, last = self.cpu_until(start), self.cpu_until(end)
        return None if first is None or last is None else last - first


def run(words: Sequence[str]) -> Command:
    """Runs a program and waits until it ends.

    Raises:
        RuntimeError: the program's exit code is not 0.
    """
    began = time.time()
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with _watched(running.pid) as samples:
        output, _ = running.communicate()
    if running.returncode != 0:
        raise RuntimeError(f"{words[:2]} ended with code {running.returncode}: {output.decode()[-2000:]}")
    return Command(began, time.time(), samples, output.decode())


@contextmanager
def _watched(pid: int) -> Iterator[list[tuple[float, float]]]:
    """Yields a list of pairs (time, CPU seconds), to which a thread adds a pair every SAMPLE_EVERY seconds.

    CPU seconds are summed over the process and its descendants, including descendants that have ended.
    """
    samples = [(time.time(), 0.0)] if Path("/proc/self/stat").exists() else []
    used: dict[tuple[int, int], float] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_EVERY):
            used.update(_cpu_of_tree(pid))
            samples.append((time.time(), sum(used.values())))

    watcher = threading.Thread(target=watch, daemon=True)
    if samples:
        watcher.start()
    try:
        yield samples
    finally:
        over.set()
        if watcher.is_alive():
            watcher.join()


def _cpu_of_tree(root: int) -> dict[tuple[int, int], float]:
    """Returns the CPU seconds of a process and of each descendant, by process id and start time."""
    found: dict[int, tuple[int, int, float]] = {}
    ticks = os.sysconf("SC_CLK_TCK")
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:
                continue
            found[int(folder.name)] = (int(fields[1]), int(fields[19]), (int(fields[11]) + int(fields[12])) / ticks)
    wanted, before = {root}, 0
    while len(wanted) != before:
        before = len(wanted)
        wanted |= {pid for pid, (parent, _, _) in found.items() if parent in wanted}
    return {(pid, found[pid][1]): found[pid][2] for pid in wanted if pid in found}
