"""Messages about a cluster that cannot do what is wanted of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvae.refusal import Refusal
from sweeps.engine import Capacity, Demand, attach
<<<<<<< HEAD
from sweeps.engine import train as together
from sweeps.trials.run import Message
from tests.test_engine import LOCAL


@pytest.mark.parametrize(
    ("lost_machine", "saved", "attempts"),
    [(False, 0, 4), (True, 0, 11), (False, 2, 11)],
    ids=["broken", "lost", "saved"],
)
def test_workers_that_never_begin_while_all_machines_stay_are_given_up_early(
    monkeypatch: pytest.MonkeyPatch, lost_machine: bool, saved: int, attempts: int
) -> None:
    from ray.train import WorkerGroupError

    heard, made = list[Message](), list[int]()

    def attempt(*_: object) -> Exception:
        made.append(1)
        return WorkerGroupError("connection refused", {})

    class Kept:
        def latest(self, digests: bool) -> Any:
            return SimpleNamespace(epoch=saved) if saved else None

    job: Any = SimpleNamespace(
        key="k", store=SimpleNamespace(checkpoints=lambda _: Kept()), trial=SimpleNamespace(epochs=5)
    )
    monkeypatch.setattr(together, "_queue_here", lambda: None)
    monkeypatch.setattr(together, "_attempt", attempt)
    monkeypatch.setattr(together, "_pass_on", lambda *_: None)
    monkeypatch.setattr(together, "_machines", lambda: {str(len(made))} if lost_machine else {"a", "b"})
    together.run_together(job, Demand(2), heard.append, 10)
    assert len(made) == attempts
    assert (heard[-1].failed or "").startswith(f"workers were lost {attempts} times in a row")


=======
from tests.test_engine import LOCAL


>>>>>>> c
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
