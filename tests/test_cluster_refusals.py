"""Clusters that cannot run a sweep are refused, and trials whose workers fail repeatedly are stopped early."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import pytest
from ray.train import ControllerError, WorkerGroupError

from mvae.refusal import Refusal
from sweeps.engine import Capacity, Demand, attach
from sweeps.engine import train as together
from sweeps.store.store import Store
from sweeps.trials.messages import Job, Message
from tests.sweeping import digits_job, run_until
from tests.test_engine import LOCAL


class Silent:
    """A queue of workers that never report."""

    def get(self, timeout: float) -> bytes:
        from ray.util.queue import Empty

        raise Empty


@dataclass
class Loses:
    """Replaces Ray's queue, machines and jobs: each Train job ends with the next loss in the list."""

    losses: Iterator[Exception | None]
    machine: Callable[[int], int] = lambda _: 0
    """Maps the number of lost jobs to the machine that exists at that time."""
    made: int = 0

    def attempt(self, *_: object) -> Exception | None:
        self.made += 1
        return next(self.losses)

    def run(self, job: Job, most_losses: int) -> list[Message]:
        heard = list[Message]()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(together, "_queue_here", Silent)
            patched.setattr(together, "_attempt", self.attempt)
            patched.setattr(together, "alive", lambda: [{"NodeID": str(self.machine(self.made))}])
            together.run_together(job, Demand(2), heard.append, most_losses)
        return heard


WORKERS = WorkerGroupError("connection refused", {})
TRAIN = ControllerError(RuntimeError("no coordinator"))


@pytest.mark.parametrize(
    ("boots", "saved", "attempts"),
    [(False, False, 4), (True, False, 11), (False, True, 11)],
    ids=["broken", "lost", "saved"],
)
def test_workers_that_never_start_although_all_machines_stay_fail_the_trial_early(
    storage: Path, cache: Path, boots: bool, saved: bool, attempts: int
) -> None:
    job = digits_job(Store.open(storage, "main", create=True), cache)
    if saved:
        run_until(job, 1)
    ray = Loses(repeat(WORKERS), lambda made: made * boots)
    *again, last = ray.run(job, 10)
    assert ray.made == attempts
    assert [(word.epoch, word.again) for word in again] == [(int(saved), "workers were lost (connection refused)")] * (
        attempts - 1
    )
    assert last.failed.startswith(f"workers were lost {attempts} times in a row: connection refused")


def test_a_trial_fails_early_if_ray_train_fails_repeatedly(storage: Path, cache: Path) -> None:
    job = digits_job(Store.open(storage, "main", create=True), cache)
    *_, last = Loses(repeat(TRAIN)).run(job, 10)
    assert last.failed == "workers were lost 4 times in a row: no coordinator"


def test_every_saved_epoch_resets_the_count_of_ray_train_failures(storage: Path, cache: Path) -> None:
    job = digits_job(Store.open(storage, "main", create=True), cache, epochs=9)

    def losses() -> Iterator[Exception | None]:
        for epoch in range(1, 7):
            run_until(job, epoch)
            yield TRAIN
        yield None

    heard = Loses(losses()).run(job, 3)
    assert [word.epoch for word in heard if word.again] == [1, 2, 3, 4, 5, 6]
    assert not [word.failed for word in heard if word.failed]


def test_lost_machines_do_not_count_as_ray_train_failures(storage: Path, cache: Path) -> None:
    job = digits_job(Store.open(storage, "main", create=True), cache)
    ends = [WORKERS, WORKERS, WORKERS, TRAIN, WORKERS, TRAIN, None]
    heard = Loses(iter(ends), lambda made: made).run(job, 10)
    assert len(heard) == 6 and not [word.failed for word in heard if word.failed]


def test_a_different_ray_or_python_and_a_missing_token_are_reported_clearly() -> None:
    mismatch = "Version mismatch: The cluster was started with: Ray: 2.60.0 Python: 3.11.7 This process: 3.12.1"
    assert attach._why_unreachable(mismatch).startswith(
        "this machine runs another Ray or Python version than the cluster. Install"
    )
    assert "~/.ray/auth_token" in attach._why_unreachable(
        "Unauthenticated: InvalidAuthToken: Authentication token is missing"
    )
    assert "cannot connect to a Ray cluster there (timed out)" in attach._why_unreachable("timed out")


def test_a_cluster_whose_workers_never_join_is_refused_with_the_missing_workers_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cluster.yaml").write_text(LOCAL, encoding="utf-8")
    monkeypatch.setattr(attach, "BOOTSTRAP", tmp_path / "cluster.yaml")
    monkeypatch.setattr(attach, "_addresses", lambda: ["10.0.0.1"])
    monkeypatch.setattr(attach, "current_capacity", lambda: Capacity(0, 0, final=False))
    with pytest.raises(Refusal) as refusal:
        attach._check_after(15, Demand(), "auto")
    line = str(refusal.value)
    assert line.startswith(
        "the cluster has 1 machine with 0 CPUs and 0 GPUs after 15 minutes of waiting (--wait-for-nodes)"
    )
    assert "2 of 2 workers have not joined" in line and "another Ray or Python" in line and "\n" not in line
