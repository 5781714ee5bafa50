"""Estimates how long a command takes: start-up, the trials that are still to run, and the load of the machine.

A trial is never split. If all trials run at the same time, the command takes as long as its longest trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweeps.cli.time_left import makespan
from sweeps.cli.words import counted
from sweeps.planning.load import Load

Shape = tuple[int, int | None]
"""Number of processes of a trial, and the minimum number if the trial is elastic."""

MEASURED, PROBED, ELSEWHERE = (0.85, 1.2), (0.8, 1.4), (0.7, 1.5)
"""Low and high end of a trial's time, as factors on the estimate.

The estimate comes from finished trials (MEASURED), from a probe (PROBED), or from times that were measured under an
unknown load (ELSEWHERE).
"""

START = (7.0, 14.0)
"""Seconds on an idle machine from the command to the first training step: Ray's start, and a trial process's imports.

Measured on two cores that also ran other work: 9 to 18 s, of which 9 to 12 s were CPU time
(benchmarks/results/orchestration-cpu.json).
"""

END = (2.0, 7.0)
"""Seconds on an idle machine from the end of the last trial to the end of the command: MLflow, table, end of Ray.

The benchmark of `START` measured 11 to 19 s, because MLflow still had to receive 162 trials. `EACH` covers this work.
"""

BUSY_AT_START = 2.0
"""Number of processors that are busy while a command starts or ends."""

PROCESS = 3.0
"""Processor seconds that each additional trial process needs to import torch and Ray."""

EACH = 0.3
"""Processor seconds per trial for checkpoint, result, pictures and messages (`a_trial_cpu` in `START`'s benchmark)."""


@dataclass(frozen=True)
class TrialTime:
    """Estimated remaining time of one trial."""

    seconds: float
    ends: tuple[float, float] = MEASURED
    """Low and high end of the time, as factors on `seconds`."""
    of_processor: bool = True
    """Whether `seconds` is processor time, which is multiplied by the slowdown under load. If not, `seconds` is elapsed
    time: on a GPU, or if no processor time was recorded."""

    def end(self, high: bool, slowdown: float) -> float:
        """Returns the low or high end of the time in seconds, including the engine's own work for the trial."""
        factor = slowdown if self.of_processor else 1.0
        return self.seconds * self.ends[high] * factor + EACH * slowdown


@dataclass(frozen=True)
class Estimate:
    """The estimated time of the trials to run."""

    shapes: Mapping[Shape, tuple[TrialTime, ...]]
    """Times of the trials whose time is known, by shape."""
    unknown: int
    """Number of trials whose time is unknown, because no similar trial has finished and no trial was probed."""
    bases: tuple[str, ...]
    """Sources of the times, one line per kind of trial."""
    unconverted: tuple[str, ...] = ()
    """Unconverted data sets of the trials whose time is unknown."""

    @property
    def seconds(self) -> float:
        """Sum of the seconds of all trials whose time is known, without load and start-up."""
        return sum(time.seconds for times in self.shapes.values() for time in times)

    @property
    def known(self) -> int:
        return sum(map(len, self.shapes.values()))

    def times(self, trials: int) -> Estimate:
        """Returns the estimate for several equal trials, if this is the estimate for one trial."""
        shapes = {shape: times * trials for shape, times in self.shapes.items()}
        return Estimate(shapes, trials * self.unknown, self.bases, self.unconverted)

    def lasting(self, at_once: int) -> float:
        """Returns the seconds until the last trial with a known time ends, if `at_once` trials run at the same time.

        Load and start-up are left out.
        """
        return makespan((time.seconds for times in self.shapes.values() for time in times), at_once)

    def ends(self, slots: Mapping[Shape, int], load: Load) -> tuple[float, float]:
        """Returns the shortest and the longest expected time of the whole command, in seconds.

        Args:
            slots: number of trials of each shape that run at the same time on this machine.
            load: other work on the machine.
        """
        low, high = (self._end(slots, load, high) for high in (False, True))
        return low, high

    def _end(self, slots: Mapping[Shape, int], load: Load, high: bool) -> float:
        more = load.changes[high]
        total = (START[high] + END[high]) * load.slowdown(BUSY_AT_START, more)
        for number, (shape, times) in enumerate(self.shapes.items()):
            at_once = min(slots[shape], len(times))
            slowdown = load.slowdown(at_once * shape[0], more)
            total += makespan([time.end(high, slowdown) for time in times], at_once)
            if number:  # each shape has processes of its own
                total += PROCESS * slowdown
        return total

    def unknown_lines(self, prepare: str = "mvae prepare {}") -> list[str]:
        """Returns lines about the trials whose time is unknown.

        Args:
            prepare: command that converts a data set; the data set's name replaces {}.
        """
        if not self.unknown:
            return []
        line = f"time unknown for {counted(self.unknown, 'trial')}: no similar trial has finished here yet"
        ways = "; ".join(f"to prepare {name}: {prepare.format(name)}" for name in self.unconverted)
        names = ", ".join(self.unconverted)
        verb = "are" if len(self.unconverted) > 1 else "is"
        return [line + f", and {names} {verb} not converted; {ways}" * bool(names)]
