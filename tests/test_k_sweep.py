"""The pipeline of Figure 6: its trials and its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mvae.data import fingerprint
from mvae.measure import likelihood
from mvae.trial import Trial
from pipelines.k_sweep import Options, sweep
from sweeps.cli.options import read
from sweeps.main import COMPLETE, main
from sweeps.planning.plan import Cell
from sweeps.store.results import Result
from sweeps.store.store import Store
from tests.pipelines_run import run

QUANTITIES = ("log joint", "var joint", "var marginal", "var conditional", "ESS joint")


@pytest.fixture
def made(tiny_root: Path) -> Callable[..., tuple[Cell, ...]]:
    """Cells for some options, on the tiny files."""
    return lambda *argv: sweep(read(Options, (*argv, "--data-root", str(tiny_root)))).cells


def test_the_paper_preset_has_k_from_0_to_50_free_and_fixed_noise_and_three_seeds(
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


def test_columns_ascend_and_k_1_with_free_noise_is_the_plain_mvae19_trial(
    made: Callable[..., tuple[Cell, ...]],
) -> None:
    grid = made("--ks", "8,0-2", "--epochs", "3")
    assert list(dict.fromkeys(cell.column for cell in grid)) == ["k=0", "k=1", "k=2", "k=8"]
    plain = Trial.create(dataset="mnist19", model="mvae", epochs=3).key("data")
    those = {cell.trial.key("data") for cell in grid if cell.trial.k == 1 and not cell.trial.fixed_noise}
    assert those == {plain}


def test_fewer_training_examples_make_another_trial_and_the_caption_says_so(
    tiny_root: Path, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("--storage", str(storage), "--data-root", str(tiny_root), "--ks", "0", "--train-examples", "40")
    (few,) = {cell.trial.key("d") for cell in sweep(read(Options, (*argv, "--noise", "free"))).cells}
    (every,) = {cell.trial.key("d") for cell in sweep(read(Options, (*argv[:-2], "--noise", "free"))).cells}
    assert few != every
    Store.open(storage, "main", create=True)
    run("k_sweep", *argv, "--report")
    assert "epochs 1; training examples 40; image network mlp" in " ".join(capsys.readouterr().out.split())


def test_two_modalities_allow_only_k_0() -> None:
    cells = sweep(read(Options, ("--dataset", "digits", "--ks", "0"))).cells
    assert {(cell.variant, cell.trial.k) for cell in cells} == {("MVAE free noise", 0), ("MVAE fixed noise", 0)}


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize("noises", [("free", "fixed"), ("free",)])
def test_the_report_has_the_figure_and_compares_the_variance_at_k_0_and_k_1(
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
    assert "variance of the joint log weights" in (folder / "table.md").read_bytes().decode()
    assert not (folder / "details.md").exists()
