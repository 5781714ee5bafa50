"""The engine's rules: GPUs of a trial, number of concurrent trials, and a restored environment."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import cloudpickle
from ray.exceptions import RayActorError

from mvae.refusal import Refusal
from sweeps.engine import (
    Capacity,
    Demand,
    Listener,
    attach,
    cluster,
    idle_agent,
    quiet,
    run_jobs,
    start_worker,
    trials_at_once,
)
from sweeps.engine import train as together
from sweeps.engine import tune as trials
from sweeps.planning.demand import Gpus, check_fits, demand
from sweeps.store.scratch import OWNER, PREFIX, temporary
from sweeps.store.store import Store
from sweeps.trials.messages import Job, Message
from tests.processes import command_line, descendants
from tests.sweeping import ROOT, digits_job


def test_auto_takes_a_share_of_a_gpu_or_one_per_worker_or_none_without_gpus() -> None:
    assert demand(1, None, "auto", Capacity(8, 2)) == Demand(1, 0.25)
    assert demand(2, None, "auto", Capacity(8, 2)) == Demand(2, 1.0)
    assert demand(2, None, "auto", Capacity(8, 0)) == Demand(2, 0.0)


def test_requested_gpus_are_divided_among_the_workers() -> None:
    assert demand(1, None, 0.5, Capacity(8, 2)).gpus == 0.5
    assert demand(4, 2, 2.0, Capacity(8, 2)) == Demand(4, 0.5, fewest=2)


@pytest.mark.parametrize(
    ("workers", "fewest", "gpus", "line"),
    [
        (1, None, 2.0, "--gpus-per-trial 2: there is 1 GPU here; ask for at most 1, or auto"),
        (9, None, "auto", "9 workers per trial: there are only 8 CPUs here; ask for at most 8"),
        (
            2,
            None,
            "auto",
            "2 workers per trial with 1 GPU each: there is 1 GPU here; ask for at most 1 worker, or a"
            " smaller --gpus-per-trial",
        ),
        (
            2,
            None,
            1.0,
            "--gpus-per-trial 1: several workers cannot share a GPU, so each takes whole GPUs; ask for 2, 0 or auto",
        ),
        (2, None, 2.0, "--gpus-per-trial 2: there is 1 GPU here; ask for at most 1, or auto"),
        (2, 1, 2.0, ""),
        (9, 1, "auto", ""),
        (1, None, "auto", ""),
    ],
)
def test_resources_that_a_cluster_can_never_have_are_refused_in_one_line(
    workers: int, fewest: int | None, gpus: Gpus, line: str
) -> None:
    there = Capacity(8, 1)
    needs = demand(workers, fewest, gpus, there)
    if not line:
        check_fits(needs, gpus, there, "here")
        return
    with pytest.raises(Refusal, match=f"^{re.escape(line)}$"):
        check_fits(needs, gpus, there, "here")


def test_a_gpu_is_refused_on_machines_without_one() -> None:
    with pytest.raises(Refusal, match=r"^--gpus-per-trial 1: there is no GPU here; write 0 or auto$"):
        check_fits(Demand(1, 1.0), 1.0, Capacity(8, 0), "here")


@pytest.mark.parametrize(
    ("capacity", "needs", "most", "expected"),
    [
        (Capacity(2, 0), Demand(), None, 2),
        (Capacity(2, 0), Demand(), 1, 1),
        (Capacity(2, 0), Demand(), 5, 2),
        (Capacity(16, 1), Demand(1, 0.25), None, 4),
        (Capacity(2, 1), Demand(1, 0.25), None, 2),
        (Capacity(16, 4), Demand(1, 1.0), 3, 3),
        (Capacity(0.5, 0), Demand(), None, 1),
        (Capacity(9, 0), Demand(2), None, 4),
        (Capacity(16, 4), Demand(2, 1.0), None, 2),
        (Capacity(8, 0), Demand(8, fewest=2), None, 4),
        (Capacity(2, 0), Demand(4), None, 1),
        (Capacity(2, 0, final=False), Demand(), None, 10),
        (Capacity(2, 0, final=False), Demand(), 3, 3),
    ],
)
def test_as_many_trials_as_fit_run_at_once_and_always_one(
    capacity: Capacity, needs: Demand, most: int | None, expected: int
) -> None:
    assert trials_at_once(capacity, needs, most) == expected


def test_a_cluster_that_may_grow_is_asked_for_all_waiting_trials() -> None:
    grows = Capacity(4, 1, final=False)
    assert trials_at_once(grows, Demand(1, 0.25), None, jobs=300) == 300
    assert trials_at_once(grows, Demand(2), None, jobs=300) == 3, (
        "each trial of several workers has a process on the head"
    )
    assert trials_at_once(grows, Demand(2), 20, jobs=300) == 20, "unless the user sets the number"
    assert trials_at_once(Capacity(4, 1), Demand(1, 0.25), None, jobs=300) == 4


def test_the_heads_memory_limits_concurrent_trials_of_several_workers() -> None:
    head = Capacity(64, 0, together=3.4)
    assert trials_at_once(head, Demand(2), None) == 3
    assert trials_at_once(head, Demand(1), None) == 64, "trials of one worker have no process there"
    assert trials_at_once(replace(head, together=0.2), Demand(2), None) == 1


CONFIGURATION = """
max_workers: 3
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}}
  worker: {max_workers: 3, resources: %s}
"""


@pytest.mark.parametrize(
    ("machines", "resources", "expected"),
    [
        (1, "{CPU: 8, GPU: 1}", Capacity(24, 3)),
        (2, "{}", Capacity(8, 1, final=False)),
        (4, "{}", Capacity(8, 1)),
    ],
    ids=["as configured", "not known before all machines are there", "all machines are there"],
)
def test_a_cluster_can_grow_only_to_the_limits_of_its_configuration(
    tmp_path: Path, machines: int, resources: str, expected: Capacity
) -> None:
    (tmp_path / "cluster.yaml").write_text(CONFIGURATION % resources, encoding="utf-8")
    assert attach.largest_capacity(Capacity(8, 1, final=False), machines, tmp_path / "cluster.yaml") == expected


LOCAL = """
head_node_type: head
provider: {type: local, worker_ips: [10.0.0.2, 10.0.0.3]}
available_node_types: {head: {min_workers: 0}, worker: {min_workers: 2}}
"""


@pytest.mark.parametrize(
    ("text", "alive", "line"),
    [
        (
            LOCAL,
            ["10.0.0.1", "10.0.0.2"],
            "1 of 2 workers has not joined (10.0.0.3). The sweep uses a worker as soon as it joins.",
        ),
        (LOCAL, ["10.0.0.1"], "2 of 2 workers have not joined (10.0.0.2, 10.0.0.3). The sweep uses"),
        (LOCAL, ["10.0.0.1", "10.0.0.2", "10.0.0.3"], ""),
        (
            LOCAL.replace("worker_ips: [10.0.0.2, 10.0.0.3]", "a: 1"),
            ["10.0.0.1"],
            "2 of 2 workers have not joined. The",
        ),
        (CONFIGURATION % "{}", ["10.0.0.1"], ""),
        ("", ["10.0.0.1"], ""),
    ],
)
def test_missing_workers_are_named(tmp_path: Path, text: str, alive: list[str], line: str) -> None:
    (tmp_path / "cluster.yaml").write_text(text, encoding="utf-8")
    said = attach.missing_workers(alive, tmp_path / "cluster.yaml")
    assert said.startswith(line) and bool(said) == bool(line)


@pytest.mark.parametrize("text", [None, "", "[1, 2]", "max_workers: {", "available_node_types: {a: 1}"])
def test_without_a_readable_configuration_only_existing_machines_are_known(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "cluster.yaml").write_text(text, encoding="utf-8")
    now = Capacity(8, 1, final=False)
    assert attach.largest_capacity(now, 2, tmp_path / "cluster.yaml") == now


@dataclass
class TuneTrial:
    """A trial that Tune lost, with the files that Tune writes."""

    folder: Path

    @property
    def error_file(self) -> str:
        return str(self.folder / "error.txt")

    @property
    def pickled_error_file(self) -> str:
        return str(self.folder / "error.pkl")

    def lost(self, error: Exception, pickled: bool) -> TuneTrial:
        with Path(self.error_file).open("a", encoding="utf-8") as file:
            file.write(f"Failure # 1 (occurred at 2026-01-01_00-00-00)\n{error}\n")
        if pickled:
            Path(self.pickled_error_file).write_bytes(cloudpickle.dumps(error))  # type: ignore[no-untyped-call]
        return self


def test_only_a_process_death_is_reported_as_one_and_other_errors_keep_tunes_words(tmp_path: Path) -> None:
    trial = TuneTrial(tmp_path)
    assert trials._why_lost(trial) == "Tune reports an error without a message"
    assert trials._why_lost(trial.lost(RayActorError(), pickled=True)) == "process died"
    task = "Traceback (most recent call last):\n  File x, line 1\nValueError: cannot unpickle the jobs"
    assert trials._why_lost(trial.lost(RuntimeError(task), pickled=True)) == (
        "Tune reports ValueError: cannot unpickle the jobs"
    )
    trial.lost(RayActorError(), pickled=True)
    assert trials._why_lost(trial.lost(RuntimeError("no node fits"), pickled=False)) == "Tune reports no node fits"


class Unreadable(Job):
    """A job that cannot be unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return exec, ("raise ValueError('these bytes are no job')",)


def test_workers_waiting_for_machines_are_reported_once_and_running_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.util.queue import Empty

    class Silent:
        """A queue that stays empty after its first items."""

        def __init__(self, *held: bytes | None) -> None:
            self.left = list(held)

        def get(self, timeout: float) -> bytes | None:
            if self.left:
                return self.left.pop(0)
            time.sleep(timeout)
            raise Empty

    def said(words: Silent) -> list[Message]:
        ending, heard = Future[Exception | None](), list[Message]()
        timer = threading.Timer(0.3, ending.set_result, (None,))
        timer.start()
        together._pass_on(words, heard.append, ending, waits)  # type: ignore[arg-type]
        timer.join()
        return heard

    monkeypatch.setattr(together, "WAIT_NOTICE_SECONDS", 0.1)
    monkeypatch.setattr(together, "LOOK_EVERY", 0.02)
    waits, epoch = Message(waits=together._waits_for(Demand(4, 0.0))), Message(epoch=1, epochs=2)
    assert waits.waits == "waiting for machines that can hold 4 workers at once"
    assert said(Silent()) == [waits]
    assert said(Silent(None, pickle.dumps(epoch))) == [epoch]


def test_what_mlflow_changes_in_warnings_while_ray_starts_is_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with quiet.environment({"MVAE_ANY": "1"}):
        warnings.showwarning = mlflows = lambda *_, **__: None
    assert warnings.showwarning is mlflows


def test_names_that_we_replace_in_mlflow_exist_in_this_version() -> None:
    untouched = (
        "from mlflow.utils import environment; print(callable(environment.warn_dependency_requirement_mismatches))"
    )
    assert subprocess.run([sys.executable, "-c", untouched], capture_output=True, encoding="utf-8").stdout == "True\n"


@pytest.mark.slow
def test_a_private_cluster_runs_jobs_reports_failures_and_leaves_nothing_behind(
    storage: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "MOST_PROCESS_DEATHS", 1)
    ours = [*quiet.SILENCE, "RAY_AUTH_MODE"]
    before = {name: os.environ.get(name) for name in ours}
    store = Store.open(storage, "main", create=True)
    good, bad = digits_job(store, cache, seed=0), digits_job(store, cache, seed=1)
    bad = Job(**{**bad.__dict__, "key": "0" * 16})
    started: list[str] = []
    lost: list[Message] = []
    said: dict[str, list[Message]] = {good.key: [], bad.key: []}
    with cluster() as capacity:
        assert capacity.cpus >= 1
        processes = " ".join(command_line(process) for process in descendants(os.getpid()))
        assert "raylet" in processes
        assert not re.search(r"/monitor\.py|log_monitor\.py|ray::IDLE", processes), processes
        assert not re.search(r"/dashboard\.py|DashboardAgent", processes), processes
        assert idle_agent.__file__ in processes, "the dashboard's agent is not replaced"
        assert start_worker.__file__ in processes, "workers are not started by our script"
        run_jobs(
            [good, bad],
            Listener(started.append, lambda key, word: said[key].append(word)),
            max_concurrent=1,
        )
        assert not any(word.again for words in said.values() for word in words)
        run_jobs(
            [Unreadable(**good.__dict__)],
            Listener(lambda key: None, lambda key, word: lost.append(word)),
            max_concurrent=1,
        )
    assert started == [good.key, bad.key]
    again = [word.again for word in lost[:-1]]
    assert again == ["Tune reports ValueError: these bytes are no job"]
    assert lost[-1].failed == f"{again[0]}; no retries left after 2 failures"
    assert "Traceback" in lost[-1].details
    assert said[good.key][-1].done
    assert "another key" in said[bad.key][-1].failed
    assert store.results.keys() == [good.key]
    assert {name: os.environ.get(name) for name in ours} == before
    owners = [path.read_text(encoding="utf-8") for path in temporary().glob(f"{PREFIX}*/{OWNER}")]
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
def test_garbage_collection_in_a_thread_during_ray_shutdown_does_not_kill_the_driver() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECTS_WHILE_RAY_SHUTS_DOWN],
        capture_output=True,
        encoding="utf-8",
        cwd=ROOT,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_a_trial_rerun_after_its_result_is_reported_once() -> None:
    heard = list[tuple[str, str]]()
    listener = Listener(
        lambda key: heard.append((key, "started")),
        lambda key, message: heard.append((key, "done" if message.done else f"{message.again}{message.failed}")),
    )
    callback = trials.relay(listener)
    trial = SimpleNamespace(config={"key": "k"}, error_file="", pickled_error_file="", num_failures=1)
    message = {"word": asdict(Message(1, 1, done=True))}
    callback.on_trial_start(0, [], trial)
    callback.on_trial_result(0, [], trial, message)
    callback.on_trial_recover(0, [], trial)
    callback.on_trial_start(0, [], trial)
    callback.on_trial_result(0, [], trial, message)
    callback.on_trial_error(0, [], trial)
    assert heard == [("k", "started"), ("k", "done")]
