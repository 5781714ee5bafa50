"""Figure 5's pipeline: which trials it makes, what it refuses, what its report holds, and what a kill changes."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from mvae.data import fingerprint
from mvae.data.mnist.mnist19 import ATTRIBUTES
from mvae.measure import ATTRIBUTE_ACCURACY, likelihood
from mvae.trial import Trial
from pipelines.missing_modalities import KEEP_PROBABILITIES, Options, sweep
from sweeps.cli.options import parse, read
from sweeps.main import BAD_INPUT, COMPLETE, INCOMPLETE, main
from sweeps.planning.plan import Cell
from sweeps.store.results import Result
from sweeps.store.store import Store
from tests.sweeping import ROOT, mlflow_differs, place, run_until
from tests.test_arms_killed import assert_as_computed_alone, jobs
from tests.tiny_mnist import write_tiny

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
    """The table's cells for some options, on the tiny files."""
    return lambda *argv: sweep(read(Options, (*argv, "--data-root", str(tiny_root)))).cells


def run(argv: Sequence[str]) -> int:
    """The command in this process; returns its exit code."""
    try:
        options = parse(Options, argv)
    except SystemExit as end:
        return int(end.code or 0)
    return main(lambda: sweep(options), options)


def keys(cells: tuple[Cell, ...]) -> set[str]:
    return {cell.trial.key("data") for cell in cells}


def test_the_demo_is_one_trial_a_keep_probability_whatever_is_shown_of_it(
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


def test_the_paper_is_nine_points_about_evenly_spaced_in_logarithms_with_three_seeds(
    made: Callable[..., tuple[Cell, ...]],
) -> None:
    grid = made("--preset", "paper", "--keep-probabilities", "0.1,1")
    assert (KEEP_PROBABILITIES[0], KEEP_PROBABILITIES[-1], len(KEEP_PROBABILITIES)) == (0.001, 1.0, 9)
    assert all(1.9 < larger / smaller < 3.5 for smaller, larger in pairwise(KEEP_PROBABILITIES))
    assert {cell.trial.seed for cell in grid} == {0, 1, 2}
    assert {cell.trial.epochs for cell in grid} == {100}
    assert likelihood(1000) in {cell.measure for cell in grid}


def test_with_everything_kept_it_is_the_plain_mvae19s_trial(made: Callable[..., tuple[Cell, ...]]) -> None:
    (key,) = keys(made("--keep-probabilities", "1"))
    assert key == Trial.create(dataset="mnist19", model="mvae", epochs=5).key("data")


def test_more_points_seeds_or_arms_leave_the_keys_of_the_smaller_grid_as_they_are(
    made: Callable[..., tuple[Cell, ...]],
) -> None:
    small = keys(made("--keep-probabilities", "0.1,1"))
    assert small < keys(made("--keep-probabilities", "0.1,0.5,1"))
    assert small < keys(made("--keep-probabilities", "0.1,1", "--seeds", "0-1"))
    assert small < keys(made("--keep-probabilities", "0.1,1", "--arms", "mvae_q,mvae"))


BAD = [
    ("--keep-probabilities 0", "--keep-probabilities 0: 0 is no probability to keep a value; write numbers above 0"),
    ("--keep-probabilities 0.1,1.5", "1.5 is no probability to keep a value; write numbers above 0 and up to 1"),
    ("--keep-probabilities 0.00001", "keep probability 0.00001 leaves fewer than 2 of 50 training examples a value"),
    ("--dataset digits", "digits has no attributes to predict: choose among mnist19"),
    ("--dataset foo", "there is no data set 'foo'"),
    ("--arms vae", "arm vae has no attributes: choose among jmvae, mvae, mvae_q"),
    ("--arms jmvae", "arm jmvae is not trained with values missing: choose among mvae, mvae_q"),
    ("--samples 1", "--samples 1: input should be greater than or equal to 2"),
    ("--train-examples 51", "51 training examples are more than the 50 of mnist19"),
    ("--train-examples 1", "--train-examples 1: input should be greater than or equal to 2"),
]


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize(("typed", "said"), BAD, ids=[typed for typed, _ in BAD])
def test_bad_input_is_one_line_and_nothing_is_written(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: str, said: str
) -> None:
    argv = ("--storage", str(tmp_path / "new"), "--data-root", str(tiny_root), *typed.split())
    assert run(argv) == BAD_INPUT
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert not (tmp_path / "new").exists()


def value(cell: Cell) -> float:
    """A made-up number, larger where more is kept."""
    return cell.trial.keep_probability / 4 + 0.5 + cell.trial.seed / 100


@pytest.fixture
def report(
    tiny_root: Path, storage: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, dict[str, bytes]]]:
    """Writes made-up results of some of the keep probabilities, and reports: exit code, output, files."""

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
def test_the_report_says_what_the_paper_claims_as_measured_and_has_the_figure_and_every_attribute(
    report: Callable[..., tuple[int, str, dict[str, bytes]]],
) -> None:
    code, printed, files = report((0.01, 0.1, 1.0))
    said = "MVAE19: balanced accuracy at keep_probability 0.1 is 0.530, 70.2% of the 0.755 at 1 (a coin has 0.5)."
    assert code == COMPLETE
    assert said in printed and said in files["table.md"].decode()
    assert "keep_probability" in printed and "no table is published" not in printed
    assert "k 1; attribute weight 1; samples 20" in " ".join(printed.split())
    assert files["figure-5.png"].startswith(b"\x89PNG") and files["attributes.png"].startswith(b"\x89PNG")
    assert "quantities.png" not in files
    lines = list(csv.DictReader(files["details.csv"].decode().splitlines()))
    assert len(lines) == 18 * 3 * 3
    (one,) = (line for line in lines if line["row"] == "MVAE19 has_hole balanced accuracy" and line["column"] == "0.1")
    assert (float(one["mean"]), one["n"], one["metric"]) == (0.53, "2", "test/attribute_balanced_accuracy/has_hole")
    assert all(f"MVAE19 {name} accuracy" in files["details.md"].decode() for name in ATTRIBUTES)


@pytest.mark.usefixtures("no_cluster")
def test_a_report_without_one_of_the_two_says_nothing_of_the_claim_and_is_drawn_all_the_same(
    report: Callable[..., tuple[int, str, dict[str, bytes]]],
) -> None:
    code, printed, files = report((0.1,))
    assert code == INCOMPLETE
    assert "balanced accuracy at keep_probability" not in printed
    assert files["figure-5.png"].startswith(b"\x89PNG") and files["attributes.png"].startswith(b"\x89PNG")


@pytest.mark.usefixtures("no_cluster")
def test_two_arms_are_compared_quantity_by_quantity(
    report: Callable[..., tuple[int, str, dict[str, bytes]]],
) -> None:
    _, printed, files = report((0.01, 0.1, 1.0), "--arms", "mvae,mvae_q")
    text = files["table.md"].decode()
    contrasts = [line.split("**")[1].replace("\\", "") for line in text.splitlines() if line.startswith("| **MVAE-Q")]
    assert [f"MVAE-Q19 {label} - MVAE19 {label}" for label in ROWS] == contrasts[-len(ROWS) :]
    assert "minus that of its first row, seed by seed" in " ".join(printed.split())


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_sweep_that_was_cut_off_ends_with_the_numbers_of_undisturbed_trials_and_mlflow_has_the_figure(
    tmp_path: Path,
) -> None:
    asked = ("--keep-probabilities", "0.2,1", "--epochs", "10", "--samples", "3", "--latents", "4")
    with place(begun=True) as here:
        root = here.root / "raw"
        write_tiny(root)
        pipeline = str(ROOT / "pipelines" / "missing_modalities.py")
        typed = [sys.executable, pipeline, *here.command()[2:], "--data-root", str(root), *asked]
        whole = sweep(read(Options, (*asked, "--data-root", str(root))))
        begun = jobs(here, list(whole.cells), root)[0]
        run_until(begun, 3)
        again = here.launch([*typed, "--resume"]).ended()
        assert again.code == 0, again
        assert {run.info.run_name for run in here.children()} == {"MVAE19 20% seed 0", "MVAE19 100% seed 0"}
        attempts = here.results()[begun.key].provenance["attempts"]
        assert [attempt["from_epoch"] for attempt in attempts] == [0, 3]
        assert_as_computed_alone(here, list(whole.cells), root, tmp_path)
        assert mlflow_differs(here) == []
        logged = {path.name for path in (here.storage / "mlartifacts").glob("*/artifacts/report/*")}
        assert logged >= {"figure-5.png", "attributes.png", "details.csv", "details.md", "table.md"}
        assert {path.name for path in (here.store.reports / whole.name).iterdir()} == logged
