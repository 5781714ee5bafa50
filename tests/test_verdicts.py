"""Verdicts, intervals and the order of arms in complete reports: made-up tables with known spread."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from scipy import stats

from mvae.measure import ACCURACY
from mvae.trial import Trial
from sweeps.planning.plan import Cell
from sweeps.table.comparison import Verdict
from sweeps.table.files import markdown
from sweeps.table.findings import contrast_lines, findings
from tests.reports import Build, around, entry, grid, printed, report_of


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Makes a report of made-up results."""
    return partial(report_of, tmp_path)


# Three seeds with a standard deviation of 0.005 and 2 degrees of freedom: h = 4.303 * 0.005 * sqrt(4/3) = 0.0248.
NARROW = [0.795, 0.80, 0.805]
# Standard deviation 0.01: h = 0.0497, more than the tolerance.
BROAD = [0.79, 0.80, 0.81]


@pytest.mark.parametrize(
    ("values", "published", "verdict"),
    [
        (NARROW, 0.80, Verdict.REPRODUCED),
        (NARROW, 0.8248, Verdict.REPRODUCED),
        (NARROW, 0.8249, Verdict.SLIGHTLY_BELOW),
        (NARROW, 0.7751, Verdict.SLIGHTLY_ABOVE),
        (NARROW, 0.83, Verdict.SLIGHTLY_BELOW),
        (NARROW, 0.8301, Verdict.BELOW),
        (NARROW, 0.7699, Verdict.ABOVE),
        (BROAD, 0.80, Verdict.UNRESOLVED),
        (BROAD, 0.8496, Verdict.UNRESOLVED),
        (BROAD, 0.8498, Verdict.BELOW),
        ([0.80], 0.80, Verdict.FEW_SEEDS),
        ([0.80, 0.80], 0.80, Verdict.FEW_SEEDS),
        ([0.80, None], 0.80, Verdict.INCOMPLETE),
        ([*NARROW, None], 0.80, Verdict.INCOMPLETE),
        ([None, None], None, Verdict.INCOMPLETE),
        (NARROW, None, Verdict.UNPUBLISHED),
    ],
)
def test_a_verdict_depends_on_seeds_interval_and_tolerance(
    values: list[float | None], published: float | None, verdict: Verdict
) -> None:
    assert entry(values, published).verdict is verdict


def test_agreement_under_another_protocol_is_not_called_reproduced() -> None:
    cell = replace(entry(NARROW, 0.80), departures=("epochs 10 (paper 100)",))
    assert cell.verdict is Verdict.AGREES
    assert replace(cell, published=0.83).verdict is Verdict.SLIGHTLY_BELOW


def test_a_short_run_of_one_seed_is_no_reproduction(build: Build) -> None:
    report = build(grid(("nn",), (0.01,), seeds=1, epochs=2), lambda cell: cell.published)
    cell = report.entries["nn", 0.01]
    assert cell.difference == 0 and cell.verdict is Verdict.FEW_SEEDS and report.judged == []
    for text in (printed(report), markdown(report)):
        assert "reproduced" not in text and "agree" not in text.replace("counts as agreement", "")
        assert "Cells with fewer than 3 seeds get no verdict." in text


def test_three_seeds_under_another_protocol_agree_and_the_protocol_is_named(build: Build) -> None:
    report = build(grid(("nn",), (0.01, 0.1), epochs=2), around(0.002))
    assert {entry.verdict for entry in report.in_order()} == {Verdict.AGREES}
    said = (
        "Agrees under a different protocol: nn in all columns: epochs 2 (paper 100); image network mlp (paper dcgan)."
    )
    assert said in findings(report)
    assert "3/3 agrees |" in markdown(report)


def test_three_agreeing_seeds_under_the_published_protocol_are_reproduced(build: Build) -> None:
    cells = grid(("nn", "mvae"), (0.01, 0.1), epochs=100)
    fields = {"image_network": "dcgan", "annealing_epochs": 200}
    published = [replace(cell, trial=cell.trial.with_(**fields)) for cell in cells]
    report = build(published, around(0.002))
    assert {entry.verdict for entry in report.in_order()} == {Verdict.REPRODUCED}
    fewer = [replace(cell, trial=cell.trial.with_(train_examples=1000)) for cell in published]
    report = build(fewer, around(0.002))
    assert {entry.departures for entry in report.in_order()} == {("training examples 1000 (paper all)",)}


def test_the_spread_is_pooled_only_over_the_columns_of_a_range(build: Build) -> None:
    spreads = {0.001: 0.03, 0.005: 0.04, 0.01: 0.006, 1.0: 0.008}
    report = build(grid(("nn",), tuple(spreads)), lambda cell: around(spreads[cell.trial.paired_fraction])(cell))
    few, many = (0.03**2 + 0.04**2) / 2, (0.006**2 + 0.008**2) / 2
    for column in spreads:
        s = math.sqrt(few if column < 0.01 else many)
        h = stats.t.ppf(0.975, 4) * s * math.sqrt(4 / 3)
        assert report.entries["nn", column].half_width == pytest.approx(h)
    assert "s pooled over 0.1% to 0.5% and 1% to 100%" in "\n".join(findings(report))


def test_read_outs_of_the_same_models_at_every_fraction_count_their_degrees_of_freedom_once(build: Build) -> None:
    trials = [Trial.create(dataset="fashion_mnist", model="nn", seed=seed) for seed in range(3)]
    cells = [Cell("nn", column, trial, ACCURACY, 0.8, "nn") for column in (0.01, 0.1) for trial in trials]
    report = build(cells, lambda cell: 0.8 + 0.01 * cell.trial.seed)
    assert report.entries["nn", 0.1].half_width == pytest.approx(stats.t.ppf(0.975, 2) * 0.01 * math.sqrt(4 / 3))


def test_an_arm_with_equal_seeds_is_judged_by_the_binomial_floor(build: Build) -> None:
    columns = (0.01, 0.1, 1.0)
    offsets = {0.01: 0.005, 0.1: 0.015, 1.0: -0.04}
    cells = grid(("logreg",), columns, seeds=5)
    report = build(cells, lambda cell: (cell.published or 0) + offsets[cell.trial.paired_fraction])
    for column in columns:
        cell = report.entries["logreg", column]
        assert cell.spread == 0 and cell.mean is not None
        floor = math.sqrt(cell.mean * (1 - cell.mean) / 10_000)
        assert cell.half_width == pytest.approx(stats.t.ppf(0.975, 12) * floor * math.sqrt(6 / 5))
    verdicts = [report.entries["logreg", column].verdict for column in columns]
    assert verdicts == [Verdict.REPRODUCED, Verdict.SLIGHTLY_ABOVE, Verdict.BELOW]


def test_a_missing_seed_leaves_only_its_own_cell_without_a_verdict(build: Build) -> None:
    cells = grid(("nn",), (0.01, 0.1), seeds=4)
    report = build(cells, lambda cell: None if (cell.column, cell.trial.seed) == (0.1, 3) else 0.8)
    assert report.entries["nn", 0.1].verdict is Verdict.INCOMPLETE
    assert report.judged == [report.entries["nn", 0.01]]


def test_the_report_counts_verdicts_and_those_expected_by_chance(build: Build) -> None:
    offsets = {"nn": 0.0, "logreg": 0.02, "mvae": -0.2}
    report = build(grid(tuple(offsets), (0.01, 0.1)), lambda cell: around(0.002)(cell) + offsets[cell.arm])
    lines = findings(report)
    said = "2 agree under a different protocol, 2 above by less than 0.03, 2 below"
    assert f"Verdicts on 6 cells with at least 3 seeds: {said}." in lines
    assert "Expected by chance: 0.3 of 6 cells (5 %) above or below the paper." in lines
    text = printed(report)
    assert all(sign in text for sign in ("≈ 3/3", "△ 3/3", "▼ 3/3", "▼ below"))


def test_the_order_of_the_arms_is_judged_if_the_paper_resolves_it(build: Build) -> None:
    """At 1 % the paper has MVAE 0.8619, NN 0.7944, RBM 0.7690, LOGREG 0.7627; s is 0.005, so 0.0141 is a clear gap."""
    ours = {"nn": 0.80, "logreg": 0.78, "rbm": 0.70, "mvae": 0.79}
    wobble = {"nn": (0, 5, -5), "logreg": (0, 5, -5), "rbm": (0, -5, 5), "mvae": (5, -5, 0)}
    cells = grid(tuple(ours), (0.01,))
    report = build(cells, lambda cell: ours[cell.arm] + 0.001 * wobble[cell.arm][cell.trial.seed])
    order = report.order
    found = {(pair.row, pair.baseline): str(pair.test and pair.test.ordering) for pair in order.pairs}
    assert found == {
        ("nn", "logreg"): "in order",  # always 0.02 apart
        ("nn", "rbm"): "in order",
        ("mvae", "nn"): "unresolved",  # differences -0.005, -0.02, -0.005
        ("mvae", "logreg"): "unresolved",
        ("mvae", "rbm"): "in order",
    }
    assert order.close == 1, "LOGREG and RBM are 0.0063 apart in the paper"
    # 4 of the 6 pairs are in the published order: NN and MVAE, and LOGREG and RBM, are not.
    assert dict(order.tau) == pytest.approx({0.01: (4 - 2) / 6})


def test_arms_in_the_opposite_order_are_named(build: Build) -> None:
    ours = {"nn": 0.80, "logreg": 0.78, "mvae": 0.50}
    report = build(grid(tuple(ours), (0.01, 0.1)), lambda cell: ours[cell.arm] + 0.001 * cell.trial.seed)
    lines = "\n".join(findings(report))
    assert "Order of the arms: 2 in order, 4 reversed, 0 unresolved, of 6 pairs with a clear published gap" in lines
    assert "Reversed: mvae is below nn in all columns; mvae is below logreg in all columns." in lines
    assert (
        "Kendall's tau-b between our order and the paper's (descriptive, not a test): -0.33 at 1%, -0.33 at 10%."
        in lines
    )


def test_differences_between_arms_show_interval_and_p_from_three_seeds_on(build: Build) -> None:
    cells = grid(("nn", "mvae"), (0.1,), seeds=10)
    wobble = (3, -1, 4, 1, -2, 6, 2, 5, 5, 3)
    for seeds, labels in (
        (2, {"mean", "spread", "seeds"}),
        (3, {"mean", "spread", "95%", "p", "seeds", "needed"}),
        (6, {"mean", "spread", "95%", "p", "p perm.", "seeds", "needed"}),
        (10, {"mean", "spread", "95%", "p", "p perm.", "boot from", "boot to", "seeds"}),
    ):
        few = [cell for cell in cells if cell.trial.seed < seeds]
        report = build(few, lambda cell: 0.8 + (0.01 * wobble[cell.trial.seed] if cell.arm == "mvae" else 0))
        assert {label for label, _ in contrast_lines(report.contrasts.values())} == labels
    (contrast,) = report.contrasts.values()
    test = stats.ttest_rel([0.8 + 0.01 * one for one in wobble], [0.8] * 10)
    assert contrast.test is not None and contrast.test.p == pytest.approx(test.pvalue)
    assert contrast.interval == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert f"| {contrast.mean:+.3f} |" in markdown(report) and f"{test.pvalue:.2g}" in printed(report)
