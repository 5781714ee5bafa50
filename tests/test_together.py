"""Trials of several workers through the engine, with Ray Train inside Tune: killed trials resume to equal bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mvae.data import fingerprint
from mvae.trial import Trial
from sweeps.engine import Listener, alike, cluster, run_jobs
from sweeps.planning.demand import demand
from sweeps.store.store import Store
from sweeps.trials.messages import Job, Message
from tests.processes import LOOPBACK, Process, command_line, kill, listening
from tests.sweeping import Place, digits_job, mlflow_differs, place

pytestmark = pytest.mark.slow

SWEEP = (
    "--arms",
    "logreg,mvae",
    "--targets",
    "own",
    "--fractions",
    "0.2",
    "--seeds",
    "0",
    "--epochs",
    "30",
    "--workers-per-trial",
    "2",
)
"""One trial that is fitted in one process, and one trial of two workers."""


@pytest.fixture(scope="module")
def listeners() -> Iterator[tuple[Place, list[str]]]:
    """The undisturbed sweep, and the addresses on which its two workers listened while they trained."""
    with place(begun=True) as made:
        driver = made.start(*SWEEP)
        driver.until(lambda: made.epochs().get(mvae_key(), 0) >= 1, "the first epoch is saved")
        addresses = listening(train_workers(driver.tree()))
        ended = driver.ended()
        assert ended.code == 0, ended
        yield made, addresses


@pytest.fixture(scope="module")
def unbroken(listeners: tuple[Place, list[str]]) -> Place:
    """The undisturbed sweep."""
    return listeners[0]


def mvae_key() -> str:
    """Key of the trial of two workers."""
    trial = Trial.create(dataset="digits", model="mvae", paired_fraction=0.2, epochs=30, workers=2)
    return trial.key(fingerprint("digits"))


def train_workers(processes: list[Process]) -> list[Process]:
    """Processes of a driver's tree in which Ray Train trains."""
    return [process for process in processes if command_line(process).startswith("ray::RayTrainWorker")]


def test_a_trial_of_two_workers_has_one_result_and_one_run_and_both_name_two_workers(unbroken: Place) -> None:
    results = unbroken.results()
    assert set(results) > {mvae_key()} and len(results) == 2
    assert {key: result.provenance["workers"] for key, result in results.items()} == {
        key: 2 if key == mvae_key() else 1 for key in results
    }
    assert [one["workers"] for one in results[mvae_key()].provenance["attempts"]] == [2]
    assert mlflow_differs(unbroken) == []
    (run,) = [run for run in unbroken.children() if run.data.tags["mvae.key"] == mvae_key()]
    assert run.data.tags["mvae.workers"] == "2" and run.data.tags["mvae.elastic"] == "false"


def test_workers_of_a_trial_listen_on_127_0_0_1_only(listeners: tuple[Place, list[str]]) -> None:
    _, addresses = listeners
    assert len(addresses) == 4, "each worker listens for Ray and for gloo, and for nothing else"
    assert set(addresses) <= LOOPBACK


def test_a_killed_worker_or_driver_costs_epochs_but_changes_no_bit(unbroken: Place) -> None:
    with place(begun=True) as here:
        first = here.start(*SWEEP)
        first.until(lambda: here.epochs().get(mvae_key(), 0) >= 5, "five epochs are saved")
        workers = train_workers(first.tree())
        assert len(workers) == 2
        kill(workers[1])
        first.until(lambda: "workers were lost" in first._said()[0], "the loss is reported")
        saved = here.epochs()[mvae_key()]
        first.until(lambda: here.epochs()[mvae_key()] > saved, "the trial has resumed")
        first.kill()
        ended = here.run(*SWEEP)
        assert ended.code == 0, ended
        assert "1 done, 1 half done" in ended.out
        assert here.numbers() == unbroken.numbers()
        attempts = here.results()[mvae_key()].provenance["attempts"]
        assert len(attempts) == 3 and attempts[1]["from_epoch"] >= 5 and attempts[2]["from_epoch"] > saved
        assert mlflow_differs(here) == []


def test_an_error_in_a_trial_of_two_workers_ends_it_at_once_and_is_reported_once(storage: Path, cache: Path) -> None:
    store = Store.open(storage, "main", create=True)
    good = digits_job(store, cache, workers=2)
    bad = Job(**{**good.__dict__, "key": "0" * 16})
    said: list[Message] = []
    with cluster() as capacity:
        (group,) = alike([bad])
        assert group == (demand(2, None, "auto", capacity), [bad])
        listener = Listener(lambda _: None, lambda _, word: said.append(word))
        run_jobs([bad], listener, max_concurrent=1)
    assert [word.failed for word in said] == [said[0].failed]
    assert "computes another key for this trial than the driver" in said[0].failed
    assert "Traceback" in said[0].details
