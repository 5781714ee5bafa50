"""The statistics of a table, compared with scipy and with hand-computed values."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from sweeps.table.judgement import (
    Ordering,
    Paired,
    Pooled,
    Verdict,
    binomial_spread,
    by_chance,
    gap_is_clear,
    half_width,
    judge,
    paired,
    pooled_spread,
    seeds_to_resolve,
    tau_b,
)


def test_a_spread_is_pooled_over_columns_by_their_degrees_of_freedom() -> None:
    # Sums of squares 2 and 0.5 with 2 and 1 degrees of freedom: sqrt(2.5 / 3).
    pooled = pooled_spread([([1.0, 2.0, 3.0], "a"), ([7.0, 8.0], "b"), ([5.0], "c"), ([], "d")])
    assert pooled is not None and pooled.freedom == 3
    assert pooled.spread == pytest.approx(math.sqrt(2.5 / 3))


def test_columns_measured_on_the_same_models_count_their_degrees_of_freedom_once() -> None:
    values = [1.0, 2.0, 3.0]
    assert pooled_spread([(values, "vae"), (values, "vae")]) == Pooled(1.0, 2)
    assert pooled_spread([(values, "nn at 1%"), (values, "nn at 2%")]) == Pooled(1.0, 4)


def test_without_two_values_in_any_column_there_is_no_spread() -> None:
    assert pooled_spread([([0.5], "a"), ([], "b")]) is None
    assert pooled_spread([([0.5, math.nan, 0.6], "a")]) is None


def test_equal_seeds_have_zero_spread_and_all_their_degrees_of_freedom() -> None:
    assert pooled_spread([([0.8] * 5, "a"), ([0.9] * 5, "b")]) == Pooled(0.0, 8)


def test_the_binomial_spread_is_the_standard_deviation_of_a_share_of_test_examples() -> None:
    assert binomial_spread(0.8412, 10_000) == pytest.approx(stats.binom(10_000, 0.8412).std() / 10_000)
    assert binomial_spread(1.0, 10_000) == binomial_spread(1.0 + 1e-12, 10_000) == 0.0


def test_the_half_width_is_students_prediction_interval_for_one_more_run() -> None:
    # t(.975, 4) = 2.7764 from a printed table.
    assert half_width(0.01, 4, 3) == pytest.approx(2.7764 * 0.01 * math.sqrt(4 / 3), rel=1e-4)
    assert half_width(0.01, 4, 3) == pytest.approx(stats.t.interval(0.95, 4, scale=0.01 * math.sqrt(4 / 3))[1])
    assert half_width(0.0, 4, 3) == 0.0


def test_one_more_run_falls_within_the_interval_in_95_of_100_cases() -> None:
    stream, columns, seeds, tries = np.random.default_rng(0), 4, 3, 800
    runs = stream.normal(0.0, 0.01, (tries, columns, seeds + 1)) + np.linspace(0.6, 0.9, columns)[:, None]
    covered = 0
    for of_try in runs.tolist():
        pooled = pooled_spread((values[:seeds], column) for column, values in enumerate(of_try))
        assert pooled is not None
        h = half_width(pooled.spread, pooled.freedom, seeds)
        covered += sum(abs(values[seeds] - statistics.fmean(values[:seeds])) <= h for values in of_try)
    share = covered / (tries * columns)
    assert abs(share - 0.95) < 0.02, "off by more than four standard errors; columns of a try share their spread"


@pytest.mark.parametrize(
    ("difference", "h", "verdict"),
    [
        (0.01, 0.02, Verdict.REPRODUCED),
        (-0.03, 0.03, Verdict.REPRODUCED),
        (0.0, 0.0, Verdict.REPRODUCED),
        (0.01, 0.031, Verdict.UNRESOLVED),
        (0.5, 0.6, Verdict.UNRESOLVED),
        (0.02, 0.01, Verdict.SLIGHTLY_ABOVE),
        (-0.02, 0.01, Verdict.SLIGHTLY_BELOW),
        (0.03, 0.0, Verdict.SLIGHTLY_ABOVE),
        (0.04, 0.02, Verdict.ABOVE),
        (-0.04, 0.035, Verdict.BELOW),
        (math.nan, 0.01, Verdict.UNRESOLVED),
        (0.01, math.nan, Verdict.UNRESOLVED),
        (-math.inf, 0.01, Verdict.UNRESOLVED),
    ],
)
def test_a_cell_is_judged_by_difference_half_width_and_tolerance(difference: float, h: float, verdict: Verdict) -> None:
    assert judge(difference, h, 0.03, as_published=True) is verdict
    other = Verdict.AGREES if verdict is Verdict.REPRODUCED else verdict
    assert judge(difference, h, 0.03, as_published=False) is other


def test_about_five_of_a_hundred_judged_cells_are_off_by_chance() -> None:
    assert by_chance(54) == pytest.approx(2.7)


OURS = [0.81, 0.83, 0.80, 0.84, 0.82, 0.83, 0.85, 0.81, 0.84, 0.83]
THEIRS = [0.80, 0.81, 0.80, 0.82, 0.81, 0.83, 0.82, 0.80, 0.81, 0.82]


def test_paired_seeds_give_students_interval_and_p() -> None:
    found = paired(OURS[:4], THEIRS[:4])
    assert found is not None
    test = stats.ttest_rel(OURS[:4], THEIRS[:4])
    assert found.p == pytest.approx(test.pvalue)
    assert found.interval == pytest.approx(tuple(test.confidence_interval(0.95)))
    # Differences .01 .02 0 .02: mean .0125, deviation sqrt(.000275 / 3) = .009574; t(.975, 3) = 3.1824.
    assert found.interval == pytest.approx((0.0125 - 0.015235, 0.0125 + 0.015235), abs=1e-5)
    assert not found.resolved
    assert (found.permutation_p, found.bootstrap) == (None, None)


def test_from_six_seeds_on_the_permutation_test_enumerates_all_signs() -> None:
    assert getattr(paired(OURS[:5], THEIRS[:5]), "permutation_p", 0) is None
    found = paired(OURS[:6], THEIRS[:6])
    differences = np.subtract(OURS[:6], THEIRS[:6])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1)
    means = differences @ signs
    above = np.mean(means >= differences.sum() - 1e-12)
    assert found is not None and found.permutation_p == pytest.approx(2 * above)


def test_from_ten_seeds_on_the_bootstrap_interval_is_scipys_and_deterministic() -> None:
    assert getattr(paired(OURS[:9], THEIRS[:9]), "bootstrap", 0) is None
    first, second = paired(OURS, THEIRS), paired(OURS, THEIRS)
    assert first is not None and first.bootstrap is not None and first == second
    expected = stats.bootstrap((np.subtract(OURS, THEIRS),), np.mean, rng=np.random.default_rng(5))
    assert first.bootstrap == pytest.approx(tuple(expected.confidence_interval), abs=2e-3)
    assert first.resolved


@pytest.mark.filterwarnings("error")
def test_equal_differences_give_a_zero_width_interval_and_no_p() -> None:
    apart = paired([0.8, 0.9, 0.7], [0.7, 0.8, 0.6])
    assert apart is not None and apart.interval == pytest.approx((0.1, 0.1))
    assert apart.p is None and apart.resolved
    same = paired([0.8, 0.9, 0.7], [0.8, 0.9, 0.7])
    assert same == Paired((0.0, 0.0), None) and not same.resolved


def test_two_seeds_or_a_non_finite_value_give_no_test() -> None:
    assert paired([0.8, 0.9], [0.7, 0.8]) is None
    assert paired([], []) is None
    assert paired([0.8, 0.9, math.nan], [0.7, 0.8, 0.6]) is None


def test_the_recommended_number_of_seeds_finds_a_difference_in_four_of_five_tries() -> None:
    seeds = seeds_to_resolve(0.008, 0.01, 3)
    assert seeds == 30
    draws = np.random.default_rng(0).normal(0.008, 0.01, (500, 30))
    assert np.mean(stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05) > 0.8
    fewer = np.random.default_rng(0).normal(0.008, 0.01, (500, 10))
    assert np.mean(stats.ttest_1samp(fewer, 0.0, axis=1).pvalue < 0.05) < 0.8


def test_a_number_of_seeds_that_was_too_small_is_never_recommended() -> None:
    assert seeds_to_resolve(0.1, 0.01, 3) == 10
    assert seeds_to_resolve(0.1, 0.01, 10) == 30
    assert seeds_to_resolve(0.0001, 0.01, 3) is None
    assert seeds_to_resolve(0.0, 0.01, 3) is None
    assert seeds_to_resolve(math.nan, 0.01, 3) is None


def test_a_published_gap_is_clear_above_two_root_two_spreads() -> None:
    assert gap_is_clear(0.0283, 0.01, 0.01)
    assert not gap_is_clear(-0.0282, 0.01, 0.01)
    assert gap_is_clear(-0.0201, 0.01, 0.0)
    assert not gap_is_clear(0.0, 0.0, 0.0)


def test_two_arms_are_in_order_reversed_or_unresolved() -> None:
    assert Paired((0.01, 0.03), 0.01).ordering is Ordering.IN_ORDER
    assert Paired((-0.03, -0.01), 0.01).ordering is Ordering.REVERSED
    assert Paired((-0.01, 0.05), 0.2).ordering is Ordering.UNRESOLVED
    assert Paired((0.0, 0.0), None).ordering is Ordering.UNRESOLVED


def test_tau_b_equals_scipys_and_counts_ties() -> None:
    published, ours = [0.9, 0.8, 0.8, 0.5], [0.7, 0.75, 0.6, 0.5]
    # 5 pairs without a tie: 4 in order, 1 reversed; tau-b = 3 / sqrt(5 * 6).
    assert tau_b(published, ours) == pytest.approx(3 / math.sqrt(30))
    assert tau_b([0.9, 0.8], [0.7, 0.6]) is None, "two arms have no order to describe"


@pytest.mark.filterwarnings("error")
def test_an_order_of_equal_values_has_no_tau() -> None:
    assert tau_b([0.8, 0.8, 0.8], [0.7, 0.6, 0.5]) is None
