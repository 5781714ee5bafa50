"""Reports whose columns are different quantities: one measure fills several columns, and each has its own tolerance."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from mvae.measure import Measure
from mvae.trial import Trial
from pipelines import likelihoods
from sweeps.cli.options import read
from sweeps.planning.plan import Cell, Plan, plan
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.table.arrow_tables import entry_table
from sweeps.table.comparison import Report, Verdict
from sweeps.table.files import markdown, show, tabulate
from sweeps.table.plot import picture, saved
from sweeps.table.published_likelihoods import PUBLISHED_QUANTITIES, likelihood_table
from sweeps.table.rounding import shown_value
from sweeps.table.terminal import show_plan
from tests.reports import printed

LIKELIHOOD = Measure("likelihood", 1, "test/log_marginal")
JOINT, VARIANCE = PUBLISHED_QUANTITIES[1], PUBLISHED_QUANTITIES[4]


def made(
    tmp_path: Path,
    values: dict[str, tuple[float, float]],
    dataset: str = "binary_mnist",
    spread: tuple[float, ...] = (0,),
) -> Report:
    """A report of two quantities for arms nn and mvae (any two would do), with one result per key.

    Args:
        spread: for each seed, the relative change of the values.
    """
    table = likelihood_table(dataset)
    fields = {} if table is None else {name: table.protocol[name] for name in ("epochs", "image_network", "latents")}
    cells = [
        Cell(
            row=arm,
            column=quantity.label,
            trial=Trial.create(dataset=dataset, model=arm, seed=seed, **fields),
            measure=LIKELIHOOD,
            published=table.published(arm, quantity.label) if table else None,
            arm=arm,
            quantity=quantity.metric,
        )
        for arm in values
        for quantity in (JOINT, VARIANCE)
        for seed in range(len(spread))
    ]
    store = Store.open(tmp_path, "main", create=True)
    planned = plan(cells, store, "f")
    for key, trial in planned.trials.items():
        joint, variance = (value * (1 + spread[trial.trial.seed]) for value in values[trial.trial.model])
        metrics = {JOINT.metric: joint, VARIANCE.metric: variance}
        store.results.write(Result(key, LIKELIHOOD.token, trial.trial.model_dump(), metrics, {}, []))
    return tabulate(planned, store.results, table=table, axis="quantity")


def test_one_result_fills_all_its_columns(tmp_path: Path) -> None:
    report = made(tmp_path, {"mvae": (-86.0, 22.0), "nn": (-90.0, 30.0)})
    assert len({run.key for run in report.runs}) == 2 and report.complete
    assert report.entries["mvae", JOINT.label].mean == -86.0
    assert report.entries["mvae", VARIANCE.label].mean == 22.0
    assert report.entries["nn", VARIANCE.label].metric == VARIANCE.metric


NARROW, BROAD = (-0.0004, 0.0, 0.0004), (-0.01, 0.0, 0.01)
"""Relative change for each seed. h is 4.303 * sqrt(4/3) = 4.97 standard deviations: 0.2 % and 5 % of the values."""


@pytest.mark.parametrize(
    ("joint", "variance", "spread", "verdicts"),
    [
        (-86.278, 21.917, NARROW, (Verdict.REPRODUCED, Verdict.REPRODUCED)),
        (-86.278, 21.917, BROAD, (Verdict.UNRESOLVED, Verdict.REPRODUCED)),
        (-86.278 * 1.0049, 21.917 * 1.099, NARROW, (Verdict.SLIGHTLY_BELOW, Verdict.SLIGHTLY_ABOVE)),
        (-80.0, 15.0, NARROW, (Verdict.ABOVE, Verdict.BELOW)),
        (-95.0, 40.0, BROAD, (Verdict.BELOW, Verdict.ABOVE)),
        (-86.278, 21.917, (0.0,), (Verdict.FEW_SEEDS, Verdict.FEW_SEEDS)),
        (-86.278, 21.0, (0.0, 0.0, 0.0), (Verdict.REPRODUCED, Verdict.SLIGHTLY_BELOW)),
    ],
)
def test_each_quantity_is_judged_by_its_own_spread_relative_to_the_published_value(
    tmp_path: Path, joint: float, variance: float, spread: tuple[float, ...], verdicts: tuple[Verdict, Verdict]
) -> None:
    report = made(tmp_path, {"mvae": (joint, variance)}, spread=spread)
    found = report.entries["mvae", JOINT.label], report.entries["mvae", VARIANCE.label]
    assert tuple(entry.verdict for entry in found) == verdicts
    assert [entry.run_spread for entry in found] == pytest.approx([entry.spread for entry in found]) or len(spread) < 2


def test_every_report_format_names_each_quantity_and_no_common_metric(tmp_path: Path) -> None:
    report = made(tmp_path, {"mvae": (-86.0, 22.0), "nn": (-90.0, 30.0)}, spread=NARROW)
    text = io.StringIO()
    show(report, Console(file=text, width=120))
    lines = entry_table(report).to_pylist()
    assert [line["metric"] for line in lines] == [JOINT.metric, VARIANCE.metric] * 2
    for form in (text.getvalue(), markdown(report)):
        assert "joint" in form and "-86.278" in form and "0.5% or 10%" in form and "test/" not in form
    shown = Image.open(io.BytesIO(saved(lambda: picture(report), "png")))
    assert shown.width > shown.height, "the two panels must be side by side"


def test_a_data_set_absent_from_the_paper_is_reported_without_verdicts(tmp_path: Path) -> None:
    report = made(tmp_path, {"mvae": (-20.0, 3.0)}, dataset="digits")
    assert {entry.verdict for entry in report.entries.values()} == {Verdict.UNPUBLISHED}
    assert "no published table" in report.title


def many(tmp_path: Path, seeds: int = 1) -> tuple[Report, Plan]:
    """The demo of Tables 1 and 2 with made-up values: seventeen quantities, seven rows."""
    cells = tuple(likelihoods.cells(read(likelihoods.Options, ["--seeds", f"0-{seeds - 1}"])))
    store = Store.open(tmp_path, "main", create=True)
    planned = plan(cells, store, "f")
    for key, one in planned.trials.items():
        own = [cell.metric for cell in cells if cell.trial == one.trial]
        metrics = {metric: -20.0 - number + 0.1 * one.trial.seed for number, metric in enumerate(own)}
        store.results.write(Result(key, one.measures[0].token, one.trial.model_dump(), metrics, {}, []))
    return tabulate(planned, store.results, axis="quantity in nats"), planned


@pytest.mark.parametrize(("seeds", "most"), [(1, 65), (3, 110)])
def test_a_table_too_wide_for_the_terminal_has_one_line_per_quantity(tmp_path: Path, seeds: int, most: int) -> None:
    report, _ = many(tmp_path, seeds)
    text = printed(report, width=80, terminal=True)
    lines = text.splitlines()
    assert len(report.columns) == 17 and len(report.rows) == 7
    assert len(lines) <= most and max(map(len, lines)) <= 80
    for entry in report.in_order():
        assert shown_value(entry.mean, entry.spread) in text
    head = next(line for line in lines if "JMVAE" in line)
    assert head.split()[-7:] == ["JMVAE", "(own)", "(all)", "(own)", "(all)", "VAE", "CVAE"]
    assert sum(line.strip().startswith("log p(x1|x2)") for line in lines) == 4, (
        "one line for each of two estimates, and for their differences"
    )
    assert next(line for line in lines if line.strip().startswith("seeds")).split()[1:] == [f"{seeds}/{seeds}"] * 7


def test_a_table_of_quantities_that_fits_keeps_its_columns(tmp_path: Path) -> None:
    report = made(tmp_path, {"mvae": (-86.0, 22.0), "nn": (-90.0, 30.0)}, spread=NARROW)
    head = next(line for line in printed(report, width=120, terminal=True).splitlines() if "q(z|x1,x2)" in line)
    assert head.count("q(z|x1,x2)") == 2


def test_a_transposed_table_shows_published_values_and_verdicts(tmp_path: Path) -> None:
    report = made(tmp_path, {"mvae": (-86.278, 21.917), "nn": (-90.0, 30.0)}, spread=NARROW)
    text = printed(report, width=45, terminal=True)
    lines = [line.split() for line in text.splitlines()]
    assert ["paper", "-86.278"] in lines and ["verdict", "✓"] in lines
    assert max(map(len, text.splitlines())) <= 45


def test_a_plan_shows_all_quantities_of_one_measure_in_one_column(tmp_path: Path) -> None:
    _, planned = many(tmp_path, seeds=2)
    file = io.StringIO()
    show_plan(planned, Console(file=file, width=80, force_terminal=True, color_system=None))
    shown = file.getvalue()
    assert "all 17" in shown and "q(z|x1" not in shown
    assert shown.count("○○") == 7


def test_a_bar_in_a_quantitys_name_does_not_break_the_markdown_report(tmp_path: Path) -> None:
    report, _ = many(tmp_path)
    tables = [block for block in markdown(report).split("\n\n") if block.startswith("|")]
    assert len(tables) == 3, "one table each of values, differences and runs"
    for block in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    every = tables[-1].splitlines()[2:]
    assert len(every) == len(report.runs)
    for line, run in zip(every, report.runs, strict=True):
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        assert (cells[0], cells[1], cells[3], cells[5]) == (run.row, run.column, shown_value(run.value), f"`{run.key}`")
