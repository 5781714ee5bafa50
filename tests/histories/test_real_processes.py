"""Twenty schedules with real processes on a folder: SIGKILL, SIGSTOP and SIGCONT at random moments."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from mvae.training.checkpoint import Checkpoints
from mvae.training.records import MODEL
from sweeps.store.results import Results
from tests.histories.worker import EPOCHS, KEYS, MEASURE, alone, expected

LIMIT = 60.0
"""Seconds after which a schedule fails."""


def start(folder: Path) -> int:
    pid = os.fork()
    if pid == 0:
        alone(folder)
    return pid


def ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def results_on_disk(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "results").glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_real_processes_that_die_stop_and_return_write_each_result_once(tmp_path: Path, seed: int) -> None:
    chance, running, seen = random.Random(seed), list[int](), dict[str, bytes]()
    (tmp_path / "results").mkdir()
    try:
        for _ in range(8):
            if len(running) < 3:
                running.append(start(tmp_path))
            time.sleep(chance.uniform(0.0, 0.15))
            victim, what = chance.choice(running), chance.choice(["kill", "stop", "cont", "wait"])
            if what != "wait":
                os.kill(victim, {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "cont": signal.SIGCONT}[what])
            now = results_on_disk(tmp_path)
            assert {name: now.get(name) for name in seen} == seen, "a result changed or is lost"
            seen = now
            running = [pid for pid in running if not ended(pid)]
        for pid in running:
            os.kill(pid, signal.SIGCONT)
        _finish(tmp_path, running)
    finally:
        for pid in running:
            if not ended(pid):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    now = results_on_disk(tmp_path)
    assert {name: now.get(name) for name in seen} == seen
    assert sorted(now) == [f"{key}.{MEASURE}.json" for key in KEYS]
    for result in Results(tmp_path / "results"):
        assert result.metrics == expected()
        assert [record["epoch"] for record in result.history] == list(range(1, EPOCHS + 1))
        checkpoints = Checkpoints(tmp_path / "checkpoints" / result.key, "reader")
        newest = checkpoints.latest()
        assert newest is not None and newest.epoch == EPOCHS
        assert checkpoints.load(newest, MODEL)["count"] == EPOCHS
    assert not (tmp_path / "lease.json").exists()


def _finish(folder: Path, running: list[int]) -> None:
    """Starts processes until one finds nothing left to do and ends."""
    end, complete = time.monotonic() + LIMIT, False
    while time.monotonic() < end:
        running[:] = [pid for pid in running if not ended(pid)]
        if not running:
            if complete:
                return
            complete = len(results_on_disk(folder)) == len(KEYS)  # one more process takes over the lease of a dead one
            running.append(start(folder))
        time.sleep(0.05)
    lease = folder / "lease.json"
    raise AssertionError(json.loads(lease.read_bytes()) if lease.exists() else "no lease, but no results")
