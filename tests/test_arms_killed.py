"""Every further arm and measure through the engine: its driver is killed, and the same command ends as if alone.

What a trial should have given is computed here, in one process and in one go, and compared bit for bit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mvae.checkpoint import Checkpoints
from mvae.data import load
from mvae.evaluation.measures import compute
from mvae.training import best_epoch, train
from mvae.trial import likelihood
from pipelines import likelihoods, weak_supervision
from sweeps.options import read
from sweeps.plan import Cell
from tests.sweeping import ROOT, Place, mlflow_differs, place
from tests.tiny_mnist import write_tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

DIGITS = ("--dataset", "digits", "--seeds", "0", "--epochs", "12")
TEXTS = ("--dataset", "multi_mnist", "--seeds", "0", "--epochs", "8", "--data-root", "raw", "--latents", "8")

SWEEPS = {
    "RBM, VAE and JMVAE": ("weak_supervision", (*DIGITS, "--arms", "rbm,vae,jmvae", "--fractions", "0.05,1")),
    "likelihoods": ("likelihoods", (*DIGITS, "--arms", "jmvae,mvae_q,vae,cvae", "--samples", "20")),
    "texts": ("weak_supervision", (*TEXTS, "--arms", "nn,jmvae,mvae", "--fractions", "1")),
    "likelihoods of texts": ("likelihoods", (*TEXTS, "--arms", "jmvae,mvae,vae,cvae", "--samples", "3")),
}


def cells(pipeline: str, arguments: tuple[str, ...]) -> list[Cell]:
    """The cells that the command asks for."""
    if pipeline == "likelihoods":
        return list(likelihoods.cells(read(likelihoods.Options, arguments)))
    return list(weak_supervision.cells(read(weak_supervision.Options, arguments)))


def command(here: Place, pipeline: str, arguments: tuple[str, ...]) -> list[str]:
    """What is typed."""
    return [sys.executable, str(ROOT / "pipelines" / f"{pipeline}.py"), *here.command()[2:], *arguments]


def assert_as_computed_alone(here: Place, asked: list[Cell], root: Path | None, tmp_path: Path) -> None:
    """Every result is what one process gives that is never disturbed."""
    data = load(asked[0].trial.dataset, root, here.cache)
    by_key: dict[str, list[Cell]] = {}
    for cell in asked:
        by_key.setdefault(cell.trial.key(data.fingerprint), []).append(cell)
    for key, those in by_key.items():
        trained = train(those[0].trial, data, Checkpoints(tmp_path / key, "alone"))
        for measure in dict.fromkeys(cell.measure for cell in those):
            result = here.store.results.read(key, measure.token)
            assert result is not None, (those[0].row, measure.token)
            expected = compute(measure, trained.model, those[0].trial, data)
            assert result.metrics == {**expected, **best_epoch(trained.history)}, (those[0].row, measure.token)
            assert [record["metrics"] for record in result.history] == [r["metrics"] for r in trained.history]


@pytest.mark.parametrize("what", SWEEPS)
def test_a_killed_sweep_ends_with_the_numbers_of_undisturbed_trials(what: str, tmp_path: Path) -> None:
    pipeline, arguments = SWEEPS[what]
    with place(begun=True) as here:
        root = here.root / "raw" if "--data-root" in arguments else None
        if root:
            write_tiny(root)
        typed = command(here, pipeline, arguments)
        driver = here.launch(typed)
        driver.until(lambda: sum(here.epochs().values()) >= 5, "it had trained for some epochs")
        driver.kill()
        again = here.launch(typed).ended()
        assert again.code == 0, again
        asked = cells(pipeline, (*arguments, *(("--data-root", str(root)) if root else ())))
        assert_as_computed_alone(here, asked, root, tmp_path)
        assert mlflow_differs(here) == []
        assert "left out" not in again.out
        assert all("mvae.logged_model" in run.data.tags for run in here.children())


def test_more_samples_are_another_measure_of_the_trained_trials(tmp_path: Path) -> None:
    with place(begun=True) as here:
        arguments = (*DIGITS, "--arms", "mvae,vae", "--epochs", "3")
        assert here.launch(command(here, "likelihoods", (*arguments, "--samples", "10"))).ended().code == 0
        before = here.files()
        ended = here.launch(command(here, "likelihoods", (*arguments, "--samples", "30"))).ended()
        assert ended.code == 0 and "2 half done" in ended.out
        after = here.files()
        assert len(before) == 2 and len(after) == 4 and before.items() <= after.items()
        for result in here.store.results:
            assert [attempt["from_epoch"] for attempt in result.provenance["attempts"]] in ([0], [0, 3])
        asked = cells("likelihoods", (*arguments, "--samples", "30"))
        assert {cell.measure for cell in asked} == {likelihood(30)}
        assert_as_computed_alone(here, asked, None, tmp_path)
