"""Messages about a cluster that cannot do what is wanted of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvae.refusal import Refusal
from sweeps.engine import Capacity, Demand, attach
from tests.test_engine import LOCAL


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
