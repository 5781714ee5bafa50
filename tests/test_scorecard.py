"""The scorecard: each published number counts once, and only long enough runs fill a cell."""

from __future__ import annotations

import os
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from docs.report.findings import judged
from docs.report.numbers import Committed
from docs.report.scorecard import ABSENT, ITEMS, Item, agreement, compared, figures, hours
from docs.report.sources import Sources, Value
from docs.report.tables import published
from pipelines import weak_supervision
from sweeps.cli.options import read
from sweeps.store.results import Result
from sweeps.table.entries import Contrast
from sweeps.table.published import TABLES, Table
from sweeps.table.published_likelihoods import PUBLISHED, PUBLISHED_QUANTITIES
from tests import test_networks
from tests.command_checks import REPOSITORY
from tests.typed_commands import run

TABLE_4 = next(item for item in ITEMS if item.name == "Table 4")
BASE = "--dataset fashion_mnist --preset paper --image-network mlp --fractions 0.01"


@pytest.fixture(scope="module")
def values() -> dict[str, Value]:
    return figures(Sources())


def results(arguments: str, value: float = 0.8, about: Mapping[str, str] = MappingProxyType({})) -> list[Result]:
    """A result for each cell of a weak_supervision.py command."""
    return [
        Result(
            f"{arguments} {cell.trial.seed}",
            cell.measure.token,
            cell.trial.model_dump(),
            {cell.metric: value},
            {**about},
            [],
        )
        for cell in weak_supervision.cells(read(weak_supervision.Options, arguments.split()))
    ]


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Contrast:
    """The difference of two rows, seed by seed."""
    return Contrast("ours", "theirs", "", tuple(zip(ours, theirs, strict=True)))


def with_table() -> list[tuple[Item, Table]]:
    """Items that print numbers, each with its table."""
    found = ((item, published(item.pipeline, item.dataset)) for item in ITEMS)
    return [(item, table) for item, table in found if table is not None]


def test_every_number_of_the_published_tables_is_counted_once_and_there_are_138() -> None:
    counts = Counter((table.dataset, arm, column) for item, table in with_table() for arm, column in item.published)
    labels = [quantity.label for quantity in PUBLISHED_QUANTITIES]
    known = {
        (dataset, arm, label): value
        for dataset, arms in PUBLISHED.items()
        for arm, published in arms.items()
        for label, value in zip(labels, published, strict=True)
    } | {
        (table.dataset, arm, column): value
        for table in TABLES
        for arm, published in table.rows.items()
        for column, value in zip(table.columns, published, strict=True)
    }
    assert counts == Counter(known.keys())
    assert {
        (table.dataset, *place): value for item, table in with_table() for place, value in item.published.items()
    } == known
    assert len(known) == 138
    assert all(f", {table.protocol['epochs']} epochs," in item.paper for item, table in with_table())


def test_the_counts_of_run_missing_and_impossible_cells_add_up(values: dict[str, Value]) -> None:
    parts = [int(values[f"scorecard.{name}"]) for name in ("filled", "no_data", "not_run")]
    assert sum(parts) == int(values["scorecard.published"]) == 138
    assert f"| All |  | {parts[0]} of 138 | {parts[1]} no data, {parts[2]} not run |" in str(values["scorecard.short"])


@pytest.mark.parametrize(("epochs", "filled"), [(2, 0), (10, 0), (19, 0), (20, 1), (100, 1)])
def test_a_run_of_fewer_than_20_epochs_fills_no_cell(epochs: int, filled: int) -> None:
    arguments = f"{BASE} --arms nn --seeds 0 --epochs {epochs}"
    line = compared(replace(TABLE_4, runs=(arguments,)), Committed(results(arguments)))
    assert len(line.cells) == filled
    assert line.without_ours == 54 - filled


def test_an_arm_without_epochs_fills_a_cell() -> None:
    arguments = f"{BASE} --arms logreg --seeds 0"
    line = compared(replace(TABLE_4, runs=(arguments,)), Committed(results(arguments)))
    assert list(line.cells) == [("logreg", 0.01)]


def test_two_variants_of_a_published_row_count_once_and_the_papers_own_comes_first() -> None:
    runs = {targets: f"{BASE} --arms mvae --targets {targets} --seeds 0 --epochs 20" for targets in ("own", "all")}
    item = replace(TABLE_4, runs=tuple(runs.values()))
    found = {targets: results(runs[targets], value) for targets, value in (("own", 0.5), ("all", 0.9))}
    both = compared(item, Committed([*found["own"], *found["all"]]))
    assert (len(both.cells), len(both.filled)) == (1, 2)
    assert both.cells["mvae", 0.01].entry.mean == 0.5
    assert compared(item, Committed(found["all"])).cells["mvae", 0.01].entry.mean == 0.9


def test_a_cell_uses_the_run_nearest_to_the_paper_unless_only_another_has_three_seeds() -> None:
    near, far = (f"{BASE} --arms nn --seeds {seeds} --epochs {epochs}" for seeds, epochs in (("0", 100), ("0-2", 20)))
    two = f"{BASE} --arms nn --seeds 0,1 --epochs 20"
    item = replace(TABLE_4, runs=(near, far))
    place = ("nn", 0.01)
    assert compared(item, Committed([*results(near, 0.9), *results(two, 0.7)])).cells[place].entry.mean == 0.9
    assert compared(item, Committed([*results(near, 0.9), *results(far, 0.7)])).cells[place].entry.n == 3


def test_verdicts_are_counted_by_name() -> None:
    arguments = f"{BASE} --arms nn --seeds 0-2 --epochs 20"
    line = compared(replace(TABLE_4, runs=(arguments,)), Committed(results(arguments, 0.7944)))
    (one,) = line.cells.values()
    assert agreement(line, Sources()) == f"1 {one.entry.verdict}"


def test_an_item_without_a_committed_number_counts_nothing_and_says_so() -> None:
    line = compared(TABLE_4, Committed())
    assert (line.cells, line.without_ours, line.item.no_data) == ({}, 54, "")
    assert agreement(line, Sources()) == "not run"


def test_the_scorecard_distinguishes_no_data_from_not_run() -> None:
    without = [item for item in ITEMS if item.no_data]
    assert {item.name.partition(", ")[2] for item in without} == {"CelebA", "MVAE19"}
    for item in without:
        line = compared(item, Committed())
        assert line.without_ours == len(item.published)
        assert agreement(line, Sources()).startswith("no data: ")


def test_every_item_is_on_the_page_and_absent_ones_are_named(values: dict[str, Value]) -> None:
    names = [line.split(" | ")[0].removeprefix("| ") for line in str(values["scorecard.table"]).splitlines()[2:]]
    assert names == [*(item.name for item in ITEMS), *ABSENT]
    assert set(ABSENT) == {"Section 7", "Figure 3", "Table 3"}
    short = str(values["scorecard.short"])
    assert "| Section 7, Figure 3 and Table 3 | absent from the supplement's text |" in short
    assert all(short.count(f"| {item.line} |") == 1 for item in ITEMS)


def test_the_items_are_exactly_the_captions_of_the_supplement() -> None:
    paper = os.environ.get("MVAE_PAPER")
    if not paper:
        pytest.skip("MVAE_PAPER does not name the supplement's text")
    text = Path(paper).read_text(encoding="utf-8")
    captions = set(re.findall(r"^((?:Table|Figure) \d+): ", text, re.MULTILINE))
    assert {item.name.partition(",")[0] for item in ITEMS} == captions
    assert captions.isdisjoint(ABSENT)
    sections = [int(number) for number in re.findall(r"^(\d+) [A-Z]", text, re.MULTILINE)]
    assert 7 not in sections and {6, 8} <= set(sections)


def test_the_tests_named_for_the_architectures_exist() -> None:
    held = {item.name: item.test for item in ITEMS if item.test}
    assert list(held) == ["Figure 1", "Figure 2", "Figure 4"]
    for name in held.values():
        assert callable(getattr(test_networks, name))
        assert "golden_number" in name, "the command selects the tests by this word"


@pytest.mark.parametrize("command", sorted({item.command for item in ITEMS}))
def test_every_command_of_an_item_runs_as_far_as_it_can_be_tried(
    command: str, tmp_path: Path, no_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    run(command, tmp_path)


def test_every_command_of_a_committed_number_runs_as_far_as_it_can_be_tried(
    values: dict[str, Value], tmp_path: Path, no_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("MVAE_DATA", str(tmp_path / "none"))
    commands = str(values["scorecard.commands"]).splitlines()[1:-1]
    assert commands
    for command in commands:
        run(command, tmp_path)


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        ((1.0, 1.1, 0.9), "seen"),
        ((-1.0, -1.1, -0.9), "not seen"),
        ((0.0, 1.1, -0.9), "not resolved"),
        ((1.0, 1.0), "no verdict (2 seeds)"),
        ((1.0,), "no verdict (1 seed)"),
    ],
)
def test_a_claim_is_judged_by_the_interval_over_seeds(ours: tuple[float, ...], words: str) -> None:
    assert judged(difference(ours, [0.0] * len(ours))) == words


@pytest.mark.parametrize("shift", [0.5, 0.9, 1.1, 2.0])
def test_the_interval_of_a_claim_is_students_t_interval(shift: float) -> None:
    ours, theirs = [shift + one for one in (2.5, 3.0, 1.4, 7.1)], [3.0, 3.0, 1.0, 7.0]
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    low = statistics.fmean(differences) - 3.182446 * statistics.stdev(differences) / 2
    assert judged(difference(ours, theirs), low - 0.01) == "seen"
    assert judged(difference(ours, theirs), low + 0.01) == "not resolved"


def test_hours_count_each_trial_and_each_measure_once_per_device() -> None:
    about = {"training_seconds": "3600", "measured_in_seconds": "1800", "device": "cpu"}
    (one,) = results(f"{BASE} --arms nn --seeds 0 --epochs 20", about=about)
    measured = replace(one, measure="else-v1")
    gpu = replace(one, key="another", provenance={**about, "device": "cuda"})
    assert hours([one, measured, gpu]) == (2.0, 1.5)
