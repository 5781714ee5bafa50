"""What trials will cost: seconds of one of a kind, and of all that are still to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweeps.cli.time_left import makespan
from sweeps.cli.words import counted, duration

Shape = tuple[int, int | None]
"""Processes that a trial runs in, and the fewest of an elastic one."""


@dataclass(frozen=True)
class Estimate:
    """What the trials to run will cost, one after the other."""

    shapes: Mapping[Shape, tuple[float, ...]]
    """Seconds of every trial whose cost is known, by the processes that it runs in."""
    unknown: int
    """Trials of whose kind nothing has finished yet and nothing was probed."""
    bases: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Seconds of the trials whose cost is known."""
        return sum(map(sum, self.shapes.values()))

    @property
    def known(self) -> int:
        return sum(map(len, self.shapes.values()))

    def times(self, trials: int) -> Estimate:
        """The estimate of this many trials like the one that this is of."""
        shapes = {shape: seconds * trials for shape, seconds in self.shapes.items()}
        return Estimate(shapes, trials * self.unknown, self.bases)

    def lasting(self, at_once: int) -> float:
        """Seconds until the last of the known trials ends, if this many run at a time."""
        return makespan((seconds for of_shape in self.shapes.values() for seconds in of_shape), at_once)

    def lines(self, at_once: int | None = None) -> list[str]:
        """The estimate in words.

        Args:
            at_once: how many trials run at a time, where that is known.
        """
        lines = []
        if self.known:
            line = f"about {duration(self.seconds)} of trial time for {counted(self.known, 'trial')}"
            if at_once is not None and min(at_once, self.known) > 1:
                line += f", {duration(self.lasting(at_once))} with {min(at_once, self.known)} at once"
            lines += [line, *(f"  {basis}" for basis in self.bases)]
        if self.unknown:
            lines.append(
                f"time unknown for {counted(self.unknown, 'trial')}: no trial of that kind has finished here yet,"
                " and none can be tried out before a run has converted the data"
            )
        return lines
