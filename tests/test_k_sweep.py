"""Figure 6's pipeline: which trials it makes, what it refuses, what its report holds, and what a kill changes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mvae.data import fingerprint
from mvae.measure import likelihood
from mvae.trial import Trial
from pipelines.k_sweep import Options, sweep
from sweeps.cli.options import parse, read
from sweeps.main import BAD_INPUT, COMPLETE, main
from sweeps.planning.plan import Cell
from sweeps.store.results import Result
from sweeps.store.store import Store
from tests.sweeping import ROOT, mlflow_differs, place, run_until
from tests.test_arms_killed import assert_as_computed_alone, jobs
from tests.tiny_mnist import write_tiny

QUANTITIES = ("log joint", "var joint", "var marginal", "var conditional", "ESS joint")


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


def test_the_paper_is_k_from_0_to_50_with_free_and_fixed_noise_and_three_seeds(
    made: Callable[..., tuple[Cell, ...]],
) -> None:
    grid = made("--preset", "paper")
    variants = [f"MVAE19 {noise} noise" for noise in ("free", "fixed")]
    assert list(dict.fromkeys(cell.row for cell in grid)) == [f"{one} {of}" for of in QUANTITIES for one in variants]
    trials = {cell.trial.key("data"): cell.trial for cell in grid}
    assert {(t.k, t.fixed_noise, t.seed) for t in trials.values()} == {
        (k, fixed, seed) for k in (0, 1, 2, 4, 8, 16, 32, 50) for fixed in (False, True) for seed in (0, 1, 2)
    }
    assert len(trials) == 8 * 2 * 3
    assert {(t.epochs, t.dataset, t.keep_probability, t.train_examples) for t in trials.values()} == {
        (100, "mnist19", 1.0, None)
    }
    assert {cell.measure for cell in grid} == {likelihood(1000)}
    assert all(cell.column == f"k={cell.trial.k}" for cell in grid)


def test_columns_rise_and_k_1_with_free_noise_is_the_plain_mvae19s_trial(
    made: Callable[..., tuple[Cell, ...]],
) -> None:
    grid = made("--ks", "8,0-2", "--epochs", "3")
    assert list(dict.fromkeys(cell.column for cell in grid)) == ["k=0", "k=1", "k=2", "k=8"]
    plain = Trial.create(dataset="mnist19", model="mvae", epochs=3).key("data")
    those = {cell.trial.key("data") for cell in grid if cell.trial.k == 1 and not cell.trial.fixed_noise}
    assert those == {plain}


def test_fewer_training_examples_are_another_trial_and_the_caption_says_so(
    tiny_root: Path, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("--storage", str(storage), "--data-root", str(tiny_root), "--ks", "0", "--train-examples", "40")
    (few,) = {cell.trial.key("d") for cell in sweep(read(Options, (*argv, "--noise", "free"))).cells}
    (every,) = {cell.trial.key("d") for cell in sweep(read(Options, (*argv[:-2], "--noise", "free"))).cells}
    assert few != every
    run([*argv, "--report"])
    assert "epochs 1; training examples 40; image network mlp" in " ".join(capsys.readouterr().out.split())


BAD = [
    ("--ks -1", "--ks -1: -1 is no whole number; write whole numbers and ranges, as 0-2 or 0,3,5-7"),
    ("--ks 1.5", "--ks 1.5: 1.5 is no whole number"),
    ("--ks 1001", "--ks 1001: input should be less than or equal to 1000"),
    ("--ks 0-99999999", "the range 0-99999999 holds more than 10,000 whole numbers"),
    ("--ks 1 --dataset digits", "k = 1 needs at least 3 modalities to choose subsets from: digits has 2, so k = 0"),
    ("--noise loud", "--noise loud: input should be 'free' or 'fixed'"),
    ("--arms vae", "arm vae samples no subsets of modalities: choose among mvae, mvae_q"),
    ("--arms nn", "arm nn has no likelihood: choose among vae, jmvae, mvae, mvae_q, cvae"),
    ("--dataset foo", "there is no data set 'foo'"),
    ("--train-examples 51", "51 training examples are more than the 50 of mnist19"),
]


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize(("typed", "said"), BAD, ids=[typed for typed, _ in BAD])
def test_bad_input_is_one_line_and_nothing_is_written(
    tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: str, said: str
) -> None:
    assert run(["--storage", str(tmp_path / "new"), "--data-root", str(tiny_root), *typed.split()]) == BAD_INPUT
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert not (tmp_path / "new").exists()


def test_two_modalities_have_a_sweep_of_k_0_alone() -> None:
    cells = sweep(read(Options, ("--dataset", "digits", "--ks", "0"))).cells
    assert {(cell.variant, cell.trial.k) for cell in cells} == {("MVAE free noise", 0), ("MVAE fixed noise", 0)}


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize("noises", [("free", "fixed"), ("free",)])
def test_the_report_has_the_figure_and_the_variance_at_k_0_against_k_1(
    tiny_root: Path, storage: Path, capsys: pytest.CaptureFixture[str], noises: tuple[str, ...]
) -> None:
    argv = ("--storage", str(storage), "--data-root", str(tiny_root), "--ks", "0-2", "--seeds", "0-1")
    options = read(Options, (*argv, "--noise", ",".join(noises), "--report"))
    store, whole = Store.open(storage, "main", create=True), sweep(options)
    for trial in dict.fromkeys(cell.trial for cell in whole.cells):
        metrics = {cell.metric: 12.0 / (1 + trial.k) + trial.seed for cell in whole.cells if cell.trial == trial}
        key = trial.key(fingerprint("mnist19", tiny_root))
        store.results.write(Result(key, likelihood(20).token, trial.model_dump(), metrics, {}, []))
    assert main(lambda: sweep(options), options) == COMPLETE
    printed = capsys.readouterr().out
    for noise in noises:
        assert f"MVAE19 {noise} noise: variance of the joint log weights 12.500 at k=0, 6.500 at k=1" in printed
    folder = store.reports / "k_sweep-mnist19-s20"
    assert (folder / "figure-6.png").read_bytes().startswith(b"\x89PNG")
    assert "variance of the joint log weights" in (folder / "table.md").read_text(encoding="utf-8")
    assert not (folder / "details.md").exists()


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_sweep_that_was_cut_off_ends_with_the_numbers_of_undisturbed_trials_and_mlflow_has_the_figure(
    tmp_path: Path,
) -> None:
    asked = ("--ks", "0,3", "--epochs", "10", "--samples", "3", "--latents", "4", "--train-examples", "30")
    with place(begun=True) as here:
        root = here.root / "raw"
        write_tiny(root)
        pipeline = str(ROOT / "pipelines" / "k_sweep.py")
        typed = [sys.executable, pipeline, *here.command()[2:], "--data-root", str(root), *asked]
        whole = sweep(read(Options, (*asked, "--data-root", str(root))))
        begun = jobs(here, list(whole.cells), root)[0]
        run_until(begun, 3)
        again = here.launch([*typed, "--resume"]).ended()
        assert again.code == 0, again
        assert {run.info.run_name for run in here.children()} == {
            f"MVAE19 {noise} noise k={k} seed 0" for noise in ("free", "fixed") for k in (0, 3)
        }
        attempts = here.results()[begun.key].provenance["attempts"]
        assert [attempt["from_epoch"] for attempt in attempts] == [0, 3]
        assert_as_computed_alone(here, list(whole.cells), root, tmp_path)
        assert mlflow_differs(here) == []
        logged = {path.name for path in (here.storage / "mlartifacts").glob("*/artifacts/report/*")}
        assert logged >= {"figure-6.png", "table.md", "table.csv"}
        assert {path.name for path in (here.store.reports / whole.name).iterdir()} == logged
