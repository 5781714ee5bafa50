"""Statistics of a table: verdicts on cells, differences between arms, and the order of the arms.

All functions are pure functions of numbers. Importing scipy takes a second, so only functions that need scipy import
it.

    s      standard deviation of one run, pooled over neighbouring columns of a row; at least the binomial value
    nu     degrees of freedom of s
    n      number of seeds in the cell
    h      t(.975, nu) * s * sqrt(1 + 1/n): half-width of the interval that contains another run with probability .95
    d      our mean minus the published value
    delta  largest difference that counts as agreement, set in the table's definition
"""

import math
import statistics
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sweeps.table.remembered import remembered

CONFIDENCE = 0.95
"""Coverage probability of intervals; 1 - CONFIDENCE is the rate of errors by chance."""

FEWEST_SEEDS = 3
"""Minimum number of seeds for a verdict on a cell or on a difference between arms."""

PERMUTATION_SEEDS = 6
"""Minimum number of seeds for a permutation test. With fewer seeds, the smallest possible p exceeds 1 - CONFIDENCE."""

BOOTSTRAP_SEEDS = 10
"""Minimum number of seeds for a bootstrap interval."""

RESAMPLES = 9999
"""Number of resamples for bootstrap intervals, and for permutation tests with more than RESAMPLES permutations."""

MAGNITUDES = (10, 30, 100, 300, 1000)
"""Numbers of seeds that `seeds_to_resolve` may return."""

POWER_Z = 0.84
"""A difference is found with 80 % probability if it exceeds the interval's half-width by POWER_Z standard errors."""

SLACK = 1e-9
"""Tolerance for floating-point rounding errors in comparisons."""


class Verdict(StrEnum):
    """Result of comparing a cell with the published value."""

    REPRODUCED = "reproduced"
    """|d| <= h <= delta, under the published protocol."""
    AGREES = "agrees"
    """|d| <= h <= delta, under a different protocol."""
    UNRESOLVED = "unresolved"
    """|d| <= h, but h > delta: the seeds vary too much to decide."""
    SLIGHTLY_ABOVE = "slightly above"
    """d > h, and d <= delta."""
    SLIGHTLY_BELOW = "slightly below"
    """-d > h, and -d <= delta."""
    ABOVE = "above"
    """d > h, and d > delta."""
    BELOW = "below"
    """-d > h, and -d > delta."""
    FEW_SEEDS = "too few seeds"
    """Complete, but with fewer than 3 seeds: no verdict."""
    INCOMPLETE = "incomplete"
    """At least one seed has no result."""
    UNPUBLISHED = "-"
    """Complete, but without a published value."""
    UNDER_TRAINED = "under-trained"
    """Complete, but the model is not trained well enough to be compared with anything."""

    @property
    def judged(self) -> bool:
        """Whether the cell was compared with the published value."""
        return self not in (
            Verdict.FEW_SEEDS,
            Verdict.INCOMPLETE,
            Verdict.UNPUBLISHED,
            Verdict.UNDER_TRAINED,
        )


class Ordering(StrEnum):
    """Whether two arms are in the published order."""

    IN_ORDER = "in order"
    REVERSED = "reversed"
    UNRESOLVED = "unresolved"
    """The interval of our difference includes 0."""


@dataclass(frozen=True)
class Pooled:
    """A standard deviation pooled over several columns."""

    spread: float
    freedom: int
    """Degrees of freedom, at least 1."""


def pooled_spread(samples: Iterable[tuple[Sequence[float], Hashable]]) -> Pooled | None:
    """Pools the standard deviation of one run over several columns, each with a different mean.

    Args:
        samples: for each column, the values over seeds, and an identifier of the measured models. Columns with the same
            identifier vary together, for example read-outs of one VAE at several fractions, so their degrees of freedom
            count only once.
    Returns:
        The pooled spread of the columns that have at least two values, all finite; None without such a column.
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
    """Returns the standard deviation of an accuracy measured on the given number of test examples."""
    share = min(max(share, 0.0), 1.0)
    return math.sqrt(share * (1 - share) / examples)


def half_width(spread: float, freedom: int, n: int) -> float:
    """Returns h: with probability .95, another run differs from the mean of `n` runs by at most h."""
    return student(freedom) * spread * math.sqrt(1 + 1 / n)


def judge(difference: float, half_width: float, tolerance: float, *, as_published: bool) -> Verdict:
    """Returns the verdict on a cell with enough seeds.

    Args:
        difference: d, our mean minus the published value.
        half_width: h, half the width of the interval that contains another run with probability .95.
        tolerance: delta, the largest difference that counts as agreement.
        as_published: whether our protocol equals the published protocol.
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
    """Returns the number of verdicts "above" or "below" to expect by chance among the judged cells."""
    return (1 - CONFIDENCE) * judged


@dataclass(frozen=True)
class Paired:
    """Results of paired tests: p values and intervals of the mean difference between two arms."""

    interval: tuple[float, float]
    """Student's 95 % confidence interval; its width is 0 if all differences are equal."""
    p: float | None
    """Two-sided p of Student's t test; None if all differences are equal."""
    permutation_p: float | None = None
    """Two-sided p of the permutation test; None with fewer than 6 seeds."""
    bootstrap: tuple[float, float] | None = None
    """95 % bootstrap interval (BCa); None with fewer than 10 seeds."""

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes 0."""
        low, high = self.interval
        return low > SLACK or high < -SLACK

    @property
    def ordering(self) -> Ordering:
        """Whether our arms are in the published order, if the first arm has the higher published value."""
        if not self.resolved:
            return Ordering.UNRESOLVED
        return Ordering.IN_ORDER if self.interval[0] > 0 else Ordering.REVERSED


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired | None:
    """Compares two arms over the seeds for which both have results.

    Args:
        ours, theirs: values of both arms, in the same order of seeds.
    Returns:
        The tests; None with fewer than 3 seeds, or if any difference is not finite.
    """
    assert len(ours) == len(theirs)
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    if len(differences) < FEWEST_SEEDS or not all(map(math.isfinite, differences)):
        return None
    mean = statistics.fmean(differences)
    if max(abs(difference - mean) for difference in differences) <= SLACK * max(1.0, abs(mean)):
        return Paired((mean, mean), None)
    interval, p, permutation_p, bootstrap = _paired_tests(tuple(map(float, ours)), tuple(map(float, theirs)))
    return Paired(tuple(interval), p, permutation_p, bootstrap and tuple(bootstrap))


@remembered
def _paired_tests(ours: tuple[float, ...], theirs: tuple[float, ...]) -> Any:
    """Returns the values of the fields of `Paired`. Intervals are lists, because JSON has no tuples."""
    import numpy as np
    from scipy import stats

    differences = [one - other for one, other in zip(ours, theirs, strict=True)]

    test = stats.ttest_rel(ours, theirs)
    low, high = test.confidence_interval(CONFIDENCE)
    permutation_p, bootstrap = None, None
    sample = (np.array(differences),)
    if len(differences) >= PERMUTATION_SEEDS:
        permutation = stats.permutation_test(
            sample, np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        )
        permutation_p = float(permutation.pvalue)
    if len(differences) >= BOOTSTRAP_SEEDS:
        found = stats.bootstrap(
            sample, np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, rng=np.random.default_rng(0)
        ).confidence_interval
        bootstrap = [float(found.low), float(found.high)]
    return [float(low), float(high)], float(test.pvalue), permutation_p, bootstrap


def seeds_to_resolve(mean: float, spread: float, n: int) -> int | None:
    """Estimates the number of seeds needed to show, with 80 % probability, that a difference is not 0.

    Args:
        mean: mean of the differences over seeds.
        spread: standard deviation of the differences.
        n: number of seeds so far.
    Returns:
        The smallest number in `MAGNITUDES` that exceeds `n` and is enough; None if 1000 seeds are not enough.
    """
    for seeds in MAGNITUDES:
        if seeds > n and abs(mean) >= (student(seeds - 1) + POWER_Z) * spread / math.sqrt(seeds):
            return seeds
    return None


def gap_is_clear(gap: float, spread: float, other_spread: float) -> bool:
    """Returns whether two published values differ by more than 2 sqrt(2) s, which is more than chance explains.

    Args:
        gap: one published value minus the other.
        spread, other_spread: standard deviation of one run of each arm; s is their root mean square.
    """
    return abs(gap) > 2 * math.hypot(spread, other_spread)


def tau_b(published: Sequence[float], ours: Sequence[float]) -> float | None:
    """Returns Kendall's tau-b between two lists; None for fewer than 3 arms, or if a list has only equal values."""
    if len(published) < 3:
        return None
    tau = _kendall(tuple(map(float, published)), tuple(map(float, ours)))
    return tau if math.isfinite(tau) else None


@remembered
def _kendall(published: tuple[float, ...], ours: tuple[float, ...]) -> float:
    from scipy import stats

    return float(stats.kendalltau(published, ours).statistic)


@remembered
def student(freedom: int) -> float:
    """Returns the quantile of Student's t distribution for a two-sided 95 % interval."""
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
