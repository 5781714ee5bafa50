"""The other arms and measures under interruption: a sweep with a killed driver, and single interrupted trials.

Expected results are computed here in one uninterrupted process, and compared bit for bit.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mvae.measure import likelihood
from sweeps.trials.run import run
from tests.pipelines_run import assert_as_computed_alone, command, jobs, sweep
from tests.sweeping import Ended, Place, mlflow_differs, place, run_until
from tests.tiny_mnist import write_tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

DIGITS = ("--dataset", "digits", "--seeds", "0", "--epochs", "12")
TEXTS = ("--dataset", "multi_mnist", "--seeds", "0", "--epochs", "8", "--data-root", "raw", "--latents", "8")

SWEEP = (*DIGITS, "--arms", "rbm,vae,jmvae,mvae_q", "--targets", "own", "--fractions", "0.05")
"""A complete sweep, whose driver is killed."""

JOBS = {
    "likelihoods": ("likelihoods", (*DIGITS, "--arms", "jmvae,mvae_q,vae,cvae", "--targets", "own", "--samples", "20")),
    "texts": ("weak_supervision", (*TEXTS, "--arms", "nn,jmvae,mvae", "--targets", "own", "--fractions", "1")),
    "likelihoods of texts": (
        "likelihoods",
        (*TEXTS, "--arms", "jmvae,mvae,vae,cvae", "--targets", "own", "--samples", "3"),
    ),
}
"""Single trials, each of which is interrupted."""


def test_a_killed_sweep_ends_with_the_numbers_of_undisturbed_trials(tmp_path: Path) -> None:
    with place(begun=True) as here:
        typed = command(here, "weak_supervision", SWEEP)
        driver = here.launch(typed)
        driver.until(lambda: sum(here.epochs().values()) >= 5, "it had trained for some epochs")
        driver.kill()
        again = here.launch(typed).ended()
        assert_as_computed_alone(here, sweep("weak_supervision", *SWEEP).cells, None, tmp_path)
        assert_in_mlflow(here, again)


def assert_in_mlflow(here: Place, ended: Ended) -> None:
    """Asserts that MLflow has the numbers and models of all trials after a successful command."""
    assert ended.code == 0, ended
    assert "left out" not in ended.out
    assert mlflow_differs(here) == []
    assert all("mvae.logged_model" in run.data.tags for run in here.children())


def with_root(arguments: tuple[str, ...], root: Path | None) -> tuple[str, ...]:
    return (*arguments, "--data-root", str(root)) if root else arguments


@pytest.mark.parametrize("what", JOBS)
def test_interrupted_trials_end_with_the_numbers_of_undisturbed_ones(what: str, tmp_path: Path) -> None:
    pipeline, arguments = JOBS[what]
    with place(begun=True) as here:
        root = here.root / "raw" if "--data-root" in arguments else None
        if root:
            write_tiny(root)
        asked = sweep(pipeline, *with_root(arguments, root)).cells
        for job in jobs(here, asked, root):
            run_until(job, 5)
            run(job, lambda _: None)
        assert_as_computed_alone(here, asked, root, tmp_path)
        for result in here.store.results:
            assert [attempt["from_epoch"] for attempt in result.provenance["attempts"]] == [0, 5]
        assert_in_mlflow(here, here.launch(command(here, pipeline, arguments)).ended())


def test_more_samples_make_another_measure_without_new_training(tmp_path: Path) -> None:
    with place(begun=True) as here:
        arguments = (*DIGITS, "--arms", "mvae,vae", "--targets", "own", "--epochs", "3")
        for job in jobs(here, sweep("likelihoods", *arguments, "--samples", "10").cells, None):
            run(job, lambda _: None)
        before = here.files()
        ended = here.launch(command(here, "likelihoods", (*arguments, "--samples", "30"))).ended()
        assert ended.code == 0 and "2 half done" in ended.out
        after = here.files()
        assert len(before) == 2 and len(after) == 4 and before.items() <= after.items()
        for result in here.store.results:
            assert [attempt["from_epoch"] for attempt in result.provenance["attempts"]] in ([0], [0, 3])
        asked = sweep("likelihoods", *arguments, "--samples", "30").cells
        assert {cell.measure for cell in asked} == {likelihood(30)}
        assert_as_computed_alone(here, asked, None, tmp_path)
