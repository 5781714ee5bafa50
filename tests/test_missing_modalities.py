"""The pipeline of Figure 5: its trials and its report."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from mvae.data import fingerprint
from mvae.data.mnist.mnist19 import ATTRIBUTES
from mvae.measure import ATTRIBUTE_ACCURACY, likelihood
from mvae.trial import Trial
from pipelines.missing_modalities import KEEP_PROBABILITIES, Options, sweep
from sweeps.cli.options import read
from sweeps.main import COMPLETE, INCOMPLETE, main
from sweeps.planning.plan import Cell
from sweeps.store.results import Result
from sweeps.store.store import Store

ROWS = (
    *("accuracy", "balanced accuracy", "majority rate", "likeliest accuracy", "likeliest balanced accuracy"),
    *("log p(x1)", "log p(x1|others)"),
)
METRICS = (
    *("attribute_accuracy", "attribute_balanced_accuracy", "attribute_majority"),
    *("attribute_accuracy_likeliest", "attribute_balanced_accuracy_likeliest", "log_marginal", "log_conditional"),
)


@pytest.fixture
def made(tiny_root: Path) -> Callable[..., tuple[Cell, ...]]:
    """Cells for some options, on the tiny files."""
    return lambda *argv: sweep(read(Options, (*argv, "--data-root", str(tiny_root)))).cells


def keys(cells: tuple[Cell, ...]) -> set[str]:
    return {cell.trial.key("data") for cell in cells}


def test_the_demo_has_one_trial_per_keep_probability_for_any_shown_metric(
    made: Callable[..., tuple[Cell, ...]],
) -> None:
    grid = made()
    assert len(keys(grid)) == 3
    assert list(dict.fromkeys(cell.row for cell in grid)) == [f"MVAE19 {label}" for label in ROWS]
    assert list(dict.fromkeys(cell.quantity for cell in grid)) == [f"test/{name}" for name in METRICS]
    assert {cell.column for cell in grid} == {0.01, 0.1, 1.0}
    assert {cell.measure for cell in grid} == {ATTRIBUTE_ACCURACY, likelihood(20)}
    assert {(cell.trial.dataset, cell.trial.k, cell.trial.pairing) for cell in grid} == {("mnist19", 1, "proportional")}
    assert all(cell.trial.keep_probability == cell.column for cell in grid)


def test_the_paper_preset_has_nine_log_spaced_points_and_three_seeds(
    made: Callable[..., tuple[Cell, ...]],
) -> None:
    grid = made("--preset", "paper", "--keep-probabilities", "0.1,1")
    assert (KEEP_PROBABILITIES[0], KEEP_PROBABILITIES[-1], len(KEEP_PROBABILITIES)) == (0.001, 1.0, 9)
    assert all(1.9 < larger / smaller < 3.5 for smaller, larger in pairwise(KEEP_PROBABILITIES))
    assert {cell.trial.seed for cell in grid} == {0, 1, 2}
    assert {cell.trial.epochs for cell in grid} == {100}
    assert likelihood(1000) in {cell.measure for cell in grid}


def test_with_everything_kept_the_trial_is_the_plain_mvae19s(made: Callable[..., tuple[Cell, ...]]) -> None:
    (key,) = keys(made("--keep-probabilities", "1"))
    assert key == Trial.create(dataset="mnist19", model="mvae", epochs=5).key("data")


def test_more_points_seeds_or_arms_do_not_change_the_keys_of_the_smaller_grid(
    made: Callable[..., tuple[Cell, ...]],
) -> None:
    small = keys(made("--keep-probabilities", "0.1,1"))
    assert small < keys(made("--keep-probabilities", "0.1,0.5,1"))
    assert small < keys(made("--keep-probabilities", "0.1,1", "--seeds", "0-1"))
    assert small < keys(made("--keep-probabilities", "0.1,1", "--arms", "mvae_q,mvae"))


def value(cell: Cell) -> float:
    """A made-up number that grows with the keep probability."""
    return cell.trial.keep_probability / 4 + 0.5 + cell.trial.seed / 100


@pytest.fixture
def report(
    tiny_root: Path, storage: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, dict[str, bytes]]]:
    """Writes made-up results of some keep probabilities, then reports; returns exit code, output and files."""

    def made(done: tuple[float, ...], *argv: str) -> tuple[int, str, dict[str, bytes]]:
        asked = ("--storage", str(storage), "--data-root", str(tiny_root), "--seeds", "0-1", *argv)
        options = read(Options, (*asked, "--report"))
        store, whole = Store.open(storage, "main", create=True), sweep(options)
        mark = fingerprint("mnist19", tiny_root)
        results: dict[tuple[str, str], tuple[Trial, dict[str, float]]] = {}
        for cell in (*whole.cells, *whole.details):
            if cell.column in done:
                place = (cell.trial.key(mark), cell.measure.token)
                results.setdefault(place, (cell.trial, {}))[1][cell.metric] = value(cell)
        for (key, measure), (trial, metrics) in results.items():
            store.results.write(Result(key, measure, trial.model_dump(), metrics, {}, []))
        code = main(lambda: sweep(options), options)
        folder = store.reports / whole.name
        return code, capsys.readouterr().out, {path.name: path.read_bytes() for path in folder.iterdir()}

    return made


@pytest.mark.usefixtures("no_cluster")
def test_the_report_judges_the_papers_claim_and_has_the_figure_and_every_attribute(
    report: Callable[..., tuple[int, str, dict[str, bytes]]],
) -> None:
    code, printed, files = report((0.01, 0.1, 1.0))
    said = (
        "MVAE19: balanced accuracy is 0.530 at keep_probability = 0.1 and 0.755 at keep_probability = 1: ratio 70.2%"
        " (guessing gives 0.5)."
    )
    assert code == COMPLETE
    assert said in printed and said in files["table.md"].decode()
    assert "keep_probability" in printed and "no published table" not in printed
    assert "k 1; attribute weight 1; samples 20" in " ".join(printed.split())
    assert files["figure-5.png"].startswith(b"\x89PNG") and files["attributes.png"].startswith(b"\x89PNG")
    assert "quantities.png" not in files
    lines = list(csv.DictReader(files["details.csv"].decode().splitlines()))
    assert len(lines) == 18 * 3 * 3
    (one,) = (line for line in lines if line["row"] == "MVAE19 has_hole balanced accuracy" and line["column"] == "0.1")
    assert (float(one["mean"]), one["n"], one["metric"]) == (0.53, "2", "test/attribute_balanced_accuracy/has_hole")
    assert all(f"MVAE19 {name} accuracy" in files["details.md"].decode() for name in ATTRIBUTES)


@pytest.mark.usefixtures("no_cluster")
def test_a_report_without_one_of_the_two_points_omits_the_claim_but_is_drawn(
    report: Callable[..., tuple[int, str, dict[str, bytes]]],
) -> None:
    code, printed, files = report((0.1,))
    assert code == INCOMPLETE
    assert "balanced accuracy is" not in printed
    assert files["figure-5.png"].startswith(b"\x89PNG") and files["attributes.png"].startswith(b"\x89PNG")


@pytest.mark.usefixtures("no_cluster")
def test_two_arms_are_compared_quantity_by_quantity(
    report: Callable[..., tuple[int, str, dict[str, bytes]]],
) -> None:
    _, printed, files = report((0.01, 0.1, 1.0), "--arms", "mvae,mvae_q")
    text = files["table.md"].decode()
    contrasts = [line.split("**")[1].replace("\\", "") for line in text.splitlines() if line.startswith("| **MVAE-Q")]
    assert [f"MVAE-Q19 {label} - MVAE19 {label}" for label in ROWS] == contrasts[-len(ROWS) :]
    assert "difference from its first row, seed by seed" in " ".join(printed.split())
