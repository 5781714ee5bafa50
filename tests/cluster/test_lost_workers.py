"""Trials of several workers on several machines: one Ray Train job inside each trial, and one elastic trial."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import (
    Cluster,
    alone,
    asked_for,
    assert_as_alone,
    assert_two_at_once_as_alone,
    cluster,
    complete,
    needs_lab,
    table_of,
    tell,
    wait,
)
from tests.sweeping import Place, mlflow_differs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400), needs_lab, asked_for]

SWEEP = (
    *("--arms", "nn,mvae", "--targets", "own", "--fractions", "1", "--seeds", "0-1", "--epochs", "100"),
    *("--workers-per-trial", "2", "--checkpoint-every", "0"),
)
"""Four trials of two processes each. The cluster runs two trials at a time, this box runs one."""

TRAINS = "^ray::.*TrainWorker|^ray::RayTrainWorker"
"""Names that Ray gives to the processes of a Train job."""


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[Place]:
    with alone(*SWEEP) as ended:
        yield ended()


@pytest.fixture
def made() -> Iterator[Cluster]:
    with cluster() as one:
        yield one


def test_trials_of_two_workers_give_the_same_numbers_after_a_power_cut(made: Cluster, undisturbed: Place) -> None:
    here, submitted = made.place("main"), made.submit(*SWEEP)
    wait(lambda: len(here.files()) >= 2, "two trials are finished", command=submitted)
    wait(lambda: len(here.epochs()) == 4, "the others have saved an epoch", command=submitted)
    done, reached = here.files(), here.epochs()
    made.lab.workers[1].cut_power()
    said = complete(submitted)
    assert table_of(said.out) == table_of(undisturbed.drivers[0].log.read_text(encoding="utf-8"))
    assert_as_alone(here, undisturbed)
    assert {name: here.files()[name] for name in done} == done
    resumed_at = here.resumed_at()
    assert resumed_at and all(epoch >= reached[key] for key, epoch in resumed_at.items()), (reached, resumed_at)


def test_two_sweeps_of_trials_of_two_workers_share_a_cluster(made: Cluster, undisturbed: Place) -> None:
    assert_two_at_once_as_alone(made, SWEEP, undisturbed)


def test_an_elastic_run_continues_with_the_remaining_workers_and_grows_back(made: Cluster) -> None:
    run = (
        "--arms",
        "mvae",
        "--workers",
        "1-4",
        "--batch-size",
        "48",
        "--epochs",
        "400",
        "--checkpoint-every",
        "1",
        "--name",
        "elastic",
    )
    here, submitted = made.place("elastic"), made.submit(*run, pipeline="pipelines/train.py")

    def attempt() -> tuple[int, int]:
        """Epochs covered by the newest checkpoint, and the number of workers that made it."""
        keys = [folder.name for folder in (here.storage / "elastic" / "checkpoints").glob("*")]
        newest = here.store.checkpoints(keys[0]).latest(digests=False) if keys else None
        return (newest.epoch, newest.provenance["attempts"][-1]["workers"]) if newest else (0, 0)

    wait(lambda: attempt()[1] == 4, "four workers train", command=submitted, every=0.5)
    began, reached = time.monotonic(), attempt()[0]
    victim = next(worker for worker in made.lab.workers if worker.processes(TRAINS))
    victim.cut_power()
    wait(lambda: attempt()[1] == 2, "two workers train", command=submitted, every=0.5)
    tell("after the power cut two workers trained", time.monotonic() - began)
    began, alone_at = time.monotonic(), attempt()[0]
    assert alone_at > reached
    victim.boot()
    wait(lambda: attempt()[1] == 4, "four workers train again", command=submitted, every=0.5)
    tell("after the boot four workers trained", time.monotonic() - began)
    said = complete(submitted, within=1800)
    (result,) = here.results().values()
    counts = [made["workers"] for made in result.provenance["attempts"]]
    assert counts[0] == 4 and 2 in counts and counts[-1] == 4, counts
    assert [record["epoch"] for record in result.history] == list(range(1, 401))
    assert mlflow_differs(here) == []
    (child,) = here.children()
    assert "test/accuracy" in child.data.metrics
    assert child.data.tags["mvae.elastic"] == "true", child.data.tags
    assert "elastic" in said.out
