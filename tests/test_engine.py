"""The engine's own rules: devices a trial gets, how many run at once, what is left of the environment afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray import cloudpickle
from ray.exceptions import RayActorError

from sweeps import engine
from sweeps.engine import Capacity, Listener, cluster, gpus_a_trial, run_jobs, trials_at_once
from sweeps.scratch import OWNER, PREFIX, temporary
from sweeps.storage import Store
from sweeps.worker import Job, Word
from tests.sweeping import ROOT, digits_job


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


@dataclass
class TuneTrial:
    """What Tune keeps of a trial that it lost, in files as Tune writes them."""

    folder: Path

    @property
    def error_file(self) -> str:
        return str(self.folder / "error.txt")

    @property
    def pickled_error_file(self) -> str:
        return str(self.folder / "error.pkl")

    def lost(self, error: Exception, pickled: bool) -> TuneTrial:
        with Path(self.error_file).open("a") as file:
            file.write(f"Failure # 1 (occurred at 2026-01-01_00-00-00)\n{error}\n")
        if pickled:
            Path(self.pickled_error_file).write_bytes(cloudpickle.dumps(error))  # type: ignore[no-untyped-call]
        return self


def test_only_a_death_is_called_one_and_of_anything_else_tunes_own_words_are_told(tmp_path: Path) -> None:
    trial = TuneTrial(tmp_path)
    assert engine._happened_to(trial) == "Tune reports an error without a word"
    assert engine._happened_to(trial.lost(RayActorError(), pickled=True)) == "its process died"
    task = "Traceback (most recent call last):\n  File x, line 1\nValueError: cannot unpickle the jobs"
    assert engine._happened_to(trial.lost(RuntimeError(task), pickled=True)) == (
        "Tune reports ValueError: cannot unpickle the jobs"
    )
    trial.lost(RayActorError(), pickled=True)
    assert engine._happened_to(trial.lost(RuntimeError("no node fits"), pickled=False)) == "Tune reports no node fits"


class Unreadable(Job):
    """A job that cannot be unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return exec, ("raise ValueError('these bytes are no job')",)


@pytest.mark.slow
def test_a_private_cluster_runs_jobs_says_failures_and_leaves_nothing_behind(
    storage: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MOST_PROCESS_DEATHS", 1)
    ours = [*engine._SILENCE, "RAY_AUTH_MODE"]
    before = {name: os.environ.get(name) for name in ours}
    store = Store.open(storage, "main", create=True)
    good, bad = digits_job(store, cache, seed=0), digits_job(store, cache, seed=1)
    bad = Job(**{**bad.__dict__, "key": "0" * 16})
    started: list[str] = []
    again: list[str] = []
    lost: list[Word] = []
    said: dict[str, list[Word]] = {good.key: [], bad.key: []}
    with cluster() as capacity:
        assert capacity.cpus >= 1
        run_jobs(
            [good, bad],
            Listener(started.append, lambda key, word: said[key].append(word), lambda key, why: again.append(why)),
            max_concurrent=1,
        )
        assert again == []
        run_jobs(
            [Unreadable(**good.__dict__)],
            Listener(lambda key: None, lambda key, word: lost.append(word), lambda key, why: again.append(why)),
            max_concurrent=1,
        )
    assert started == [good.key, bad.key]
    assert again == ["Tune reports ValueError: these bytes are no job"]
    assert lost[-1].failed == f"{again[0]}, the last of 2 times"
    assert "Traceback" in lost[-1].details
    assert said[good.key][-1].done
    assert "another key" in said[bad.key][-1].failed
    assert store.results.keys() == [good.key]
    assert {name: os.environ.get(name) for name in ours} == before
    owners = [path.read_text() for path in temporary().glob(f"{PREFIX}*/{OWNER}")]
    assert not any(f'"pid": {os.getpid()},' in owner for owner in owners)


COLLECTS_WHILE_RAY_SHUTS_DOWN = """
import gc, threading, time
from sweeps.engine import cluster

def collect():
    while global_worker.connected:
        time.sleep(0.0002)
    while not ended.is_set():
        gc.collect()

ended = threading.Event()
with cluster():
    import ray
    from ray._private.worker import global_worker

    gc.disable()
    for number in range(2000):
        cycle = [ray.put(number)]
        cycle.append(cycle)
    another = threading.Thread(target=collect)
    another.start()
ended.set()
another.join()
print("alive")
"""


@pytest.mark.slow
def test_a_thread_that_collects_garbage_while_ray_shuts_down_does_not_end_the_driver() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECTS_WHILE_RAY_SHUTS_DOWN], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
