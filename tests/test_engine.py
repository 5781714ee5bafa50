"""The engine's own rules: devices a trial gets, how many run at once, what is left of the environment afterwards."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sweeps import engine
from sweeps.engine import Capacity, Listener, cluster, gpus_a_trial, run_jobs, trials_at_once
from sweeps.storage import Store
from sweeps.worker import Job, Word
from tests.sweeping import digits_job


def test_auto_takes_a_share_of_a_gpu_where_there_is_one_and_none_elsewhere() -> None:
    assert gpus_a_trial("auto", Capacity(8, 2), 0.25) == 0.25
    assert gpus_a_trial("auto", Capacity(8, 0), 0.25) == 0.0


def test_more_gpus_than_there_are_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^--gpus-per-trial 2: there is 1 GPU here; ask for at most 1, or auto$"):
        gpus_a_trial(2.0, Capacity(8, 1), 0.25)
    with pytest.raises(ValueError, match="there is no GPU here"):
        gpus_a_trial(1.0, Capacity(8, 0), 0.25)


@pytest.mark.parametrize(
    ("capacity", "gpus", "most", "expected"),
    [
        (Capacity(2, 0), 0.0, None, 2),
        (Capacity(2, 0), 0.0, 1, 1),
        (Capacity(2, 0), 0.0, 5, 2),
        (Capacity(16, 1), 0.25, None, 4),
        (Capacity(2, 1), 0.25, None, 2),
        (Capacity(16, 4), 1.0, 3, 3),
        (Capacity(0.5, 0), 0.0, None, 1),
    ],
)
def test_as_many_trials_run_at_once_as_fit_and_always_one(
    capacity: Capacity, gpus: float, most: int | None, expected: int
) -> None:
    assert trials_at_once(capacity, gpus, most) == expected


def test_only_folders_of_dead_drivers_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_short_temporary", lambda: str(tmp_path))
    child = subprocess.Popen(["true"])
    child.wait()
    dead, alive = tmp_path / f"{engine.TEMPORARY}{child.pid}-x", tmp_path / f"{engine.TEMPORARY}{os.getpid()}-x"
    for folder in (dead, alive):
        folder.mkdir()
    engine._remove_folders_of_the_dead()
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.slow
def test_a_private_cluster_runs_jobs_says_failures_and_leaves_nothing_behind(storage: Path, cache: Path) -> None:
    ours = [*engine._SILENCE, "RAY_AUTH_MODE"]
    before = {name: os.environ.get(name) for name in ours}
    store = Store.open(storage, "main", create=True)
    good, bad = digits_job(store, cache, seed=0), digits_job(store, cache, seed=1)
    bad = Job(**{**bad.__dict__, "key": "0" * 16})
    started: list[str] = []
    died: list[str] = []
    said: dict[str, list[Word]] = {good.key: [], bad.key: []}
    with cluster() as capacity:
        assert capacity.cpus >= 1
        run_jobs(
            [good, bad],
            Listener(started.append, lambda key, word: said[key].append(word), died.append),
            max_concurrent=1,
        )
    assert started == [good.key, bad.key]
    assert died == []
    assert said[good.key][-1].done
    assert "another key" in said[bad.key][-1].failed
    assert store.results.keys() == [good.key]
    assert {name: os.environ.get(name) for name in ours} == before
    assert not list(Path(engine._short_temporary() or "").glob(f"{engine.TEMPORARY}{os.getpid()}-*"))
