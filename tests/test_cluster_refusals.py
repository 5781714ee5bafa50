"""What is said of a cluster that cannot do what is wanted of it, and when a trial of several workers is given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvae.refusal import Refusal
from sweeps.engine import Capacity, Demand, attach
from sweeps.engine import train as together
from sweeps.store.store import Store
from sweeps.trials.run import Message
from tests.sweeping import digits_job, run_until
from tests.test_engine import LOCAL


class Silent:
    """The queue of workers that never say anything."""

    def get(self, timeout: float) -> bytes:
        from ray.util.queue import Empty

        raise Empty


@pytest.mark.parametrize(
    ("boots", "saved", "attempts"),
    [(False, False, 4), (True, False, 11), (False, True, 11)],
    ids=["broken", "lost", "saved"],
)
def test_workers_that_never_begin_while_all_machines_stay_are_given_up_early(
    storage: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, boots: bool, saved: bool, attempts: int
) -> None:
    """Only Ray is replaced: its queue, its list of machines, and a Train job that loses its workers."""
    from ray.train import WorkerGroupError

    job = digits_job(Store.open(storage, "main", create=True), cache)
    if saved:
        run_until(job, 1)
    heard, made = list[Message](), list[WorkerGroupError]()

    def lose_workers(*_: object) -> WorkerGroupError:
        made.append(WorkerGroupError("connection refused", {}))
        return made[-1]

    monkeypatch.setattr(together, "_queue_here", Silent)
    monkeypatch.setattr(together, "_attempt", lose_workers)
    monkeypatch.setattr(together, "alive", lambda: [{"NodeID": str(len(made) if boots else 0)}])
    together.run_together(job, Demand(2), heard.append, 10)
    *again, last = heard
    assert len(made) == attempts
    assert [(word.epoch, word.again) for word in again] == [(int(saved), "workers were lost (connection refused)")] * (
        attempts - 1
    )
    assert last.failed.startswith(f"workers were lost {attempts} times in a row: connection refused")


def test_another_ray_or_python_than_the_clusters_and_a_missing_token_are_said_in_plain_words() -> None:
    mismatch = "Version mismatch: The cluster was started with: Ray: 2.60.0 Python: 3.11.7 This process: 3.12.1"
    assert attach._unusable(mismatch).startswith("this machine runs another Ray or Python than the cluster: install")
    assert "~/.ray/auth_token" in attach._unusable("Unauthenticated: InvalidAuthToken: Authentication token is missing")
    assert "no Ray cluster can be used there" in attach._unusable("timed out")


def test_a_cluster_whose_workers_never_join_is_refused_with_those_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cluster.yaml").write_text(LOCAL, encoding="utf-8")
    monkeypatch.setattr(attach, "BOOTSTRAP", tmp_path / "cluster.yaml")
    monkeypatch.setattr(attach, "_alive", lambda: ["10.0.0.1"])
    monkeypatch.setattr(attach, "there", lambda: Capacity(0, 0, final=False))
    with pytest.raises(Refusal) as refusal:
        attach._check_after(15, Demand(), "auto")
    line = str(refusal.value)
    assert line.startswith("1 machine with 0 CPUs and 0 GPUs after 15 minutes of waiting (--wait-for-nodes)")
    assert "2 of 2 workers have not joined" in line and "another Ray or Python" in line and "\n" not in line
