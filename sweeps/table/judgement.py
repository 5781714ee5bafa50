"""Statistics of a table: how far one more run may be from ours, and what follows for a cell, two arms, and their order.

Pure functions of numbers: nothing is read, written or printed here. scipy is imported where it is used, because
importing it takes a second.

    s      standard deviation of one run, pooled over the columns of one range of a row, never below the binomial floor
    nu     degrees of freedom of s
    n      seeds of the cell
    h      t(.975, nu) * s * sqrt(1 + 1/n): half-width of the interval that holds one more run with probability .95
    d      our mean minus the published value
    delta  largest difference that the table's definition calls agreement
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

CONFIDENCE = 0.95
"""Probability that an interval covers what it is about; the rest is the rate of errors by chance."""

FEWEST_SEEDS = 3
"""Seeds below which a cell, or a difference between arms, shows its numbers and no verdict."""

PERMUTATION_SEEDS = 6
"""Seeds from which differences get a permutation test: with fewer, its smallest p is above 1 - CONFIDENCE."""

BOOTSTRAP_SEEDS = 10
"""Seeds from which differences get a bootstrap interval."""

RESAMPLES = 9999
"""Resamples of a bootstrap interval; also of a permutation test that has more than these signs to go through."""

MAGNITUDES = (10, 30, 100, 300, 1000)
"""Numbers of seeds that `seeds_to_resolve` answers with."""

POWER_Z = 0.84
"""Standard errors beyond the interval's half-width at which a difference is found with a probability of 80 %."""

SLACK = 1e-9
"""Differences by this little are rounding errors of the arithmetic."""


class Verdict(StrEnum):
    """How a cell compares with the published value."""

    REPRODUCED = "reproduced"
    """Agrees, by the published protocol."""
    AGREES = "agrees"
    """|d| <= h <= delta, by another protocol than the published one."""
    UNRESOLVED = "unresolved"
    """|d| <= h, but h > delta: the seeds vary too much to tell."""
    SLIGHTLY_ABOVE = "slightly above"
    """d > h, and d <= delta."""
    SLIGHTLY_BELOW = "slightly below"
    """-d > h, and -d <= delta."""
    ABOVE = "above"
    """d > h, and d > delta."""
    BELOW = "below"
    """-d > h, and -d > delta."""
    FEW_SEEDS = "too few seeds"
    """Complete, with fewer than 3 seeds: no verdict."""
    INCOMPLETE = "incomplete"
    """A seed that was asked for has no result."""
    UNPUBLISHED = "-"
    """Complete, with no published value."""

    @property
    def judged(self) -> bool:
        """Whether the cell was compared with the published value."""
        return self not in (Verdict.FEW_SEEDS, Verdict.INCOMPLETE, Verdict.UNPUBLISHED)


class Ordering(StrEnum):
    """Whether two arms are in the published order."""

    IN_ORDER = "in order"
    REVERSED = "reversed"
    UNRESOLVED = "unresolved"
    """The interval of our difference includes 0."""


@dataclass(frozen=True)
class Pooled:
    """A standard deviation taken over several columns."""

    spread: float
    freedom: int
    """Degrees of freedom, at least 1."""


def pooled_spread(samples: Iterable[tuple[Sequence[float], Hashable]]) -> Pooled | None:
    """Standard deviation of one run, from several columns with means of their own.

    Args:
        samples: the values of each column over seeds, and a mark of the models that they were measured on. Columns
            with equal marks vary together (a read-out of one VAE at several fractions), so their degrees of freedom
            count once.
    Returns:
        None if no column has two finite values.
    """
    squares, terms = 0.0, 0
    freedom: dict[Hashable, int] = {}
    for values, models in samples:
        if len(values) < 2 or not all(map(math.isfinite, values)):
            continue
        squares += statistics.variance(values) * (len(values) - 1)
        terms += len(values) - 1
        freedom[models] = max(freedom.get(models, 0), len(values) - 1)
    return Pooled(math.sqrt(squares / terms), sum(freedom.values())) if terms else None


def binomial_spread(share: float, examples: int) -> float:
    """Standard deviation of an accuracy that is measured on this many test examples."""
    share = min(max(share, 0.0), 1.0)
    return math.sqrt(share * (1 - share) / examples)


def half_width(spread: float, freedom: int, n: int) -> float:
    """h: one more run falls within our mean of n runs plus or minus h with probability .95."""
    return student(freedom) * spread * math.sqrt(1 + 1 / n)


def judge(difference: float, half_width: float, tolerance: float, *, as_published: bool) -> Verdict:
    """The verdict of a cell that has enough seeds.

    Args:
        difference: d.
        half_width: h.
        tolerance: delta.
        as_published: whether our protocol is the published one.
    """
    distance = abs(difference)
    if not (math.isfinite(distance) and math.isfinite(half_width)):
        return Verdict.UNRESOLVED
    if distance > half_width + SLACK:
        if distance <= tolerance + SLACK:
            return Verdict.SLIGHTLY_ABOVE if difference > 0 else Verdict.SLIGHTLY_BELOW
        return Verdict.ABOVE if difference > 0 else Verdict.BELOW
    if half_width > tolerance + SLACK:
        return Verdict.UNRESOLVED
    return Verdict.REPRODUCED if as_published else Verdict.AGREES


def by_chance(judged: int) -> float:
    """Number of judged cells that are expected above or below although nothing differs."""
    return (1 - CONFIDENCE) * judged


@dataclass(frozen=True)
class Paired:
    """Paired test of the mean difference of two arms."""

    interval: tuple[float, float]
    """Student's 95 % interval; without width if all differences are equal."""
    p: float | None
    """Student's p, two-sided; None if all differences are equal."""
    permutation_p: float | None = None
    """p of the permutation test, two-sided; None with fewer than 6 seeds."""
    bootstrap: tuple[float, float] | None = None
    """Bootstrap 95 % interval (BCa); None with fewer than 10 seeds."""

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes 0."""
        low, high = self.interval
        return low > SLACK or high < -SLACK

    @property
    def ordering(self) -> Ordering:
        """How our order compares with the published order, if the first arm has the higher published value."""
        if not self.resolved:
            return Ordering.UNRESOLVED
        return Ordering.IN_ORDER if self.interval[0] > 0 else Ordering.REVERSED


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired | None:
    """Compares two arms over the seeds that both have, given in the same order.

    Returns:
        None with fewer than 3 seeds, or with a value that is not finite.
    """
    assert len(ours) == len(theirs)
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    if len(differences) < FEWEST_SEEDS or not all(map(math.isfinite, differences)):
        return None
    mean = statistics.fmean(differences)
    if max(abs(difference - mean) for difference in differences) <= SLACK * max(1.0, abs(mean)):
        return Paired((mean, mean), None)

    import numpy as np
    from scipy import stats

    test = stats.ttest_rel(ours, theirs)
    low, high = test.confidence_interval(CONFIDENCE)
    permutation_p, bootstrap = None, None
    sample = (np.array(differences),)
    if len(differences) >= PERMUTATION_SEEDS:
        signs = stats.permutation_test(
            sample, np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        )
        permutation_p = float(signs.pvalue)
    if len(differences) >= BOOTSTRAP_SEEDS:
        found = stats.bootstrap(
            sample, np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, rng=np.random.default_rng(0)
        ).confidence_interval
        bootstrap = (float(found.low), float(found.high))
    return Paired((float(low), float(high)), float(test.pvalue), permutation_p, bootstrap)


def seeds_to_resolve(mean: float, spread: float, n: int) -> int | None:
    """Order of magnitude of the seeds with which a difference this large would be found in four of five tries.

    Args:
        mean: of the differences, seed by seed.
        spread: their standard deviation.
        n: seeds that did not suffice.
    Returns:
        One of 10, 30, 100, 300 and 1000, above n; None if even 1000 would not do.
    """
    for seeds in MAGNITUDES:
        if seeds > n and abs(mean) >= (student(seeds - 1) + POWER_Z) * spread / math.sqrt(seeds):
            return seeds
    return None


def gap_is_clear(gap: float, spread: float, other_spread: float) -> bool:
    """Whether two published values are further apart than chance explains: by more than 2 sqrt(2) s.

    Args:
        gap: one published value minus the other.
        spread, other_spread: s of both arms; if they differ, s is their root mean square.
    """
    return abs(gap) > 2 * math.hypot(spread, other_spread)


def tau_b(published: Sequence[float], ours: Sequence[float]) -> float | None:
    """Kendall's tau-b of two orders; None for fewer than 3 arms, or if all values on one side are equal."""
    if len(published) < 3:
        return None
    from scipy import stats

    tau = float(stats.kendalltau(published, ours).statistic)
    return tau if math.isfinite(tau) else None


@lru_cache
def student(freedom: int) -> float:
    """Quantile of Student's t that an interval of 95 % reaches to on both sides."""
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
