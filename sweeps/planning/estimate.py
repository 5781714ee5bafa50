"""Estimates the time of the trials that are still to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweeps.cli.time_left import makespan
from sweeps.cli.words import counted, duration

Shape = tuple[int, int | None]
"""Number of processes of a trial, and the minimum number if the trial is elastic."""


@dataclass(frozen=True)
class Estimate:
    """The estimated time of the trials to run."""

    shapes: Mapping[Shape, tuple[float, ...]]
    """Seconds of each trial whose time is known, by the trial's shape."""
    unknown: int
    """Number of trials whose time is unknown, because no similar trial has finished and no trial was probed."""
    bases: tuple[str, ...]
    """Sources of the times, one line per kind of trial."""

    @property
    def seconds(self) -> float:
        """Sum over the trials whose time is known."""
        return sum(map(sum, self.shapes.values()))

    @property
    def known(self) -> int:
        return sum(map(len, self.shapes.values()))

    def times(self, trials: int) -> Estimate:
        """Returns the estimate for `trials` trials, given that this is the estimate for one trial."""
        return Estimate(
            {shape: seconds * trials for shape, seconds in self.shapes.items()}, trials * self.unknown, self.bases
        )

    def lasting(self, at_once: int) -> float:
        """Returns the seconds until the last trial with a known time ends, if `at_once` trials run at the same time."""
        return makespan((seconds for of_shape in self.shapes.values() for seconds in of_shape), at_once)

    def lines(self, at_once: int | None = None) -> list[str]:
        """Returns the estimate as lines of text.

        Args:
            at_once: how many trials run at a time; None if unknown.
        """
        lines = []
        if self.known:
            line = f"about {duration(self.seconds)} of trial time for {counted(self.known, 'trial')}"
            if at_once is not None and min(at_once, self.known) > 1:
                line += f", {duration(self.lasting(at_once))} with {min(at_once, self.known)} at once"
            lines += [line, *(f"  {basis}" for basis in self.bases)]
        if self.unknown:
            lines.append(
                f"time unknown for {counted(self.unknown, 'trial')}: no similar trial has finished here yet,"
                " and no trial can be probed before a run has converted the data"
            )
        return lines
