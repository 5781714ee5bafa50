"""Defines a table's cells with their seeds, the difference between two cells, and the order of the arms.

The statistical formulas are in sweeps/table/judgement.py.
"""

import statistics
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TypeVar

from sweeps.planning.state import TrialState
from sweeps.table.judgement import (
    FEWEST_SEEDS,
    Ordering,
    Paired,
    Pooled,
    Verdict,
    binomial_spread,
    gap_is_clear,
    half_width,
    judge,
    paired,
    pooled_spread,
    seeds_to_resolve,
    tau_b,
)
from sweeps.table.published import column_label

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Groups items by key. Keys are in order of first appearance."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


@dataclass(frozen=True)
class Run:
    """One cell's result for one seed."""

    row: str
    column: float | str
    seed: int
    key: str
    measure: str
    """The measure's token."""
    value: float | None
    """The metric; None without a result."""
    epochs: int | None
    """Epochs trained; None for an arm without epochs."""
    link: str | None
    """ID or URL of the key's MLflow run."""
    error: str | None
    """Why the trial failed; None if the trial did not fail."""
    mixed: bool
    """Whether attempts of the trial ran on different device types, torch versions or versions of a plug-in."""

    @property
    def state(self) -> TrialState:
        if self.value is not None:
            return TrialState.DONE
        return TrialState.PENDING if self.error is None else TrialState.FAILED

    @property
    def where(self) -> str:
        return f"{self.row} {column_label(self.column)} seed {self.seed} (key {self.key})"


class OverSeeds:
    """Base class of results that have one number per seed, with their mean and spread."""

    @property
    @abstractmethod
    def values(self) -> Sequence[float]:
        """The numbers, one for each seed with a result."""

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds (n - 1 in the denominator); None for fewer than two seeds."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def n(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Entry(OverSeeds):
    """One cell of the table with all its seeds."""

    row: str
    column: float | str
    arm: str
    published: float | None
    tolerance: float
    """Largest difference from the published value that counts as agreement."""
    runs: tuple[Run, ...]
    """One run per seed, including seeds without a result."""
    metric: str = ""
    quantity: str = ""
    """The metric without its parameters. Only cells with the same quantity are compared."""
    pooled: Pooled | None = None
    """Spread pooled over the row's columns in this cell's range. None: use the spread of this cell only."""
    test_examples: int | None = None
    """Size of the test split of an accuracy; None for other metrics."""
    departures: tuple[str, ...] = ()
    """Differences between our protocol and the published one: "epochs 10 (paper 100)"."""
    compared: bool = True
    """Whether the models are trained well enough to be compared with the paper and with other rows."""

    @property
    def values(self) -> list[float]:
        return [run.value for run in self.runs if run.value is not None]

    @property
    def of(self) -> int:
        """Number of seeds that the user asked for."""
        return len(self.runs)

    @property
    def failed(self) -> int:
        return sum(run.state is TrialState.FAILED for run in self.runs)

    @property
    def difference(self) -> float | None:
        """Our mean minus the published value; None if a value is missing or the cell is excluded from comparison."""
        if self.mean is None or self.published is None or not self.compared:
            return None
        return self.mean - self.published

    @cached_property
    def run_spread(self) -> float | None:
        """Standard deviation s of one run, at least the binomial value; None if too few seeds have results."""
        pooled = self._pooled
        if pooled is None or self.mean is None:
            return None
        floor = binomial_spread(self.mean, self.test_examples) if self.test_examples else 0.0
        return max(pooled.spread, floor)

    @cached_property
    def half_width(self) -> float | None:
        """Half-width h of the interval that contains another run with probability .95; None with fewer than 3 seeds."""
        if self._pooled is None or self.run_spread is None or self.n < FEWEST_SEEDS:
            return None
        return half_width(self.run_spread, self._pooled.freedom, self.n)

    @property
    def verdict(self) -> Verdict:
        """Verdict on the cell: how our mean compares with the published value (see docs/glossary.md)."""
        if self.n < self.of:
            return Verdict.INCOMPLETE
        if not self.compared:
            return Verdict.UNDER_TRAINED
        if self.difference is None:
            return Verdict.UNPUBLISHED
        if self.half_width is None:
            return Verdict.FEW_SEEDS
        return judge(self.difference, self.half_width, self.tolerance, as_published=not self.departures)

    @property
    def _pooled(self) -> Pooled | None:
        return self.pooled or pooled_spread([(self.values, self.row)])


@dataclass(frozen=True)
class Contrast(OverSeeds):
    """Difference between a row and its baseline in one column, for each seed with a result in both rows."""

    row: str
    baseline: str
    column: float | str
    pairs: tuple[tuple[float, float], ...]
    """(value of the row, value of the baseline) by seed."""

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(ours - theirs for ours, theirs in self.pairs)

    @cached_property
    def test(self) -> Paired | None:
        """Paired test over the seeds; None with fewer than 3 seeds."""
        return paired([ours for ours, _ in self.pairs], [theirs for _, theirs in self.pairs])

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's 95 % confidence interval of the mean difference; None with fewer than 3 seeds."""
        return None if self.test is None else self.test.interval

    @property
    def seeds_needed(self) -> int | None:
        """Number of seeds that would resolve the difference, as an order of magnitude.

        None if the difference is already resolved, if there are fewer than 3 seeds, or if 1000 seeds are not enough.
        """
        if self.test is None or self.test.resolved or self.mean is None or self.spread is None:
            return None
        return seeds_to_resolve(self.mean, self.spread, self.n)


def contrast(entry: Entry, baseline: Entry) -> Contrast:
    """Returns the difference between two cells of the same column, for each seed with a result in both cells."""
    theirs = {run.seed: run.value for run in baseline.runs if run.value is not None}
    pairs = tuple((run.value, theirs[run.seed]) for run in entry.runs if run.value is not None and run.seed in theirs)
    return Contrast(entry.row, baseline.row, entry.column, pairs)


@dataclass(frozen=True)
class Order:
    """Comparison of the order of our arms with the published order."""

    pairs: tuple[Contrast, ...]
    """Differences of the judged pairs, column by column. The arm with the higher published value comes first in each
    difference."""
    close: int
    """Number of pairs that are not judged because their published values are too close."""
    tau: tuple[tuple[float | str, float], ...]
    """Kendall's tau-b between the published values and ours, per column. Tau describes the order and tests nothing."""

    def of(self, ordering: Ordering) -> list[Contrast]:
        return [pair for pair in self.pairs if pair.test is not None and pair.test.ordering is ordering]


def order_of(entries: Sequence[Entry]) -> Order:
    """Checks for each column whether our arms are in the published order. Only cells with a verdict are used.

    A pair of arms is judged only if their published values differ by more than 2 sqrt(2) s, where s is the standard
    deviation of one run. Otherwise the paper itself does not resolve their order.

    Args:
        entries: all entries, in the table's order.
    """
    columns = grouped((entry for entry in entries if entry.verdict.judged), lambda entry: entry.column)
    judged, close, tau = [], 0, []
    for column, of_column in columns.items():
        for one, other in combinations(of_column, 2):
            if one.arm == other.arm or one.quantity != other.quantity:
                continue
            gap = (one.published or 0.0) - (other.published or 0.0)
            if not gap_is_clear(gap, one.run_spread or 0.0, other.run_spread or 0.0):
                close += 1
                continue
            difference = contrast(one, other) if gap > 0 else contrast(other, one)
            if difference.test is not None:
                judged.append(difference)
        published = [entry.published for entry in of_column if entry.published is not None]
        ours = [entry.mean for entry in of_column if entry.published is not None and entry.mean is not None]
        if (column_tau := tau_b(published, ours)) is not None:
            tau.append((column, column_tau))
    return Order(tuple(judged), close, tuple(tau))
