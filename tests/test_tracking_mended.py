"""MLflow is a view of storage: after kills, locks or deletions it ends complete and without duplicates."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import mlflow.pytorch
import pytest

from sweeps.planning.state import TrialState
from sweeps.tracking import mirror
from sweeps.tracking.view import RunView
from tests.tracked import KEYS, PROJECT, SWEEP, Storage, expected_rows, finished, reported, running, storage, until

__all__ = ["storage"]


def test_after_close_no_run_is_running_and_failed_runs_stay_failed(storage: Storage) -> None:
    failed = replace(running(KEYS[1], 1), state=TrialState.FAILED, error="loss is nan")
    waiting = RunView(KEYS[2], "waits", TrialState.PENDING, {"seed": 2})
    assert storage.driver(running(KEYS[0], 1), failed, waiting).close()
    runs = storage.runs()
    assert {name: run.info.status for name, run in runs.items()} == {
        KEYS[0]: "KILLED",
        KEYS[1]: "FAILED",
        "table4": "KILLED",
    }
    assert runs[KEYS[1]].data.tags["mvae.error"] == "loss is nan"
    assert storage.driver(finished(KEYS[1])).close()
    assert "mvae.error" not in storage.runs()[KEYS[1]].data.tags


def test_runs_left_running_by_a_dead_driver_are_corrected(storage: Storage) -> None:
    dead = storage.driver(*(running(key, 1) for key in KEYS), sweep=replace(SWEEP, name="other"))
    until(lambda: len(storage.runs()) == 4)  # the dead driver is never closed
    interrupted = replace(running(KEYS[1], 2), state=TrialState.PENDING)
    driver = storage.driver(finished(KEYS[0]), interrupted)
    until(lambda: "RUNNING" not in {run.info.status for name, run in storage.runs().items() if name != "table4"})
    runs = storage.runs()
    assert [runs[name].info.status for name in (*KEYS, "other")] == ["FINISHED", "KILLED", "KILLED", "KILLED"]
    driver.update(running(KEYS[1], 3))
    until(lambda: storage.runs()[KEYS[1]].info.status == "RUNNING")
    assert driver.close()
    assert storage.rows() == sorted(
        [*expected_rows(finished(KEYS[0])), *expected_rows(running(KEYS[1], 3)), *expected_rows(running(KEYS[2], 1))]
    )
    assert dead is not driver


def test_a_duplicate_run_is_removed_and_the_older_one_stays(storage: Storage) -> None:
    assert storage.driver(finished(KEYS[0])).close()
    first = storage.runs()[KEYS[0]]
    tags = {name: first.data.tags[name] for name in ("mvae.namespace", "mvae.key", "mlflow.parentRunId")}
    mlflow.MlflowClient(storage.uri).create_run(first.info.experiment_id, tags=tags)
    assert storage.driver(finished(KEYS[0])).close()
    assert storage.runs()[KEYS[0]].info.run_id == first.info.run_id


def test_a_run_whose_numbers_contradict_storage_is_recreated(storage: Storage) -> None:
    assert storage.driver(finished(KEYS[0], accuracy=0.5)).close()
    assert storage.driver(finished(KEYS[0], accuracy=0.6)).close()
    assert storage.rows() == expected_rows(finished(KEYS[0], accuracy=0.6))


def test_an_empty_database_is_filled_from_storage_with_the_lost_contents(
    storage: Storage, empty_database: Path
) -> None:
    views = [finished(KEYS[0], 5), finished(KEYS[1], 2)]
    assert storage.driver(*views).close()
    rows = storage.rows()
    storage.database.unlink()
    shutil.copyfile(empty_database, storage.database)
    assert storage.driver(*views).close()
    assert storage.rows() == rows == sorted([*expected_rows(views[0]), *expected_rows(views[1])])


def test_a_database_deleted_during_a_sweep_is_rebuilt_by_the_next_update(storage: Storage) -> None:
    driver = storage.driver(finished(KEYS[0]), running(KEYS[1], 1))
    until(lambda: storage.rows() == sorted([*expected_rows(finished(KEYS[0])), *expected_rows(running(KEYS[1], 1))]))
    storage.database.unlink()
    driver.update(running(KEYS[1], 2))
    assert driver.close()
    assert storage.rows() == sorted([*expected_rows(finished(KEYS[0])), *expected_rows(running(KEYS[1], 2))])


def test_a_deleted_experiment_is_restored(storage: Storage) -> None:
    assert storage.driver(finished(KEYS[0])).close()
    client = mlflow.MlflowClient(storage.uri)
    client.delete_experiment(storage.runs()[KEYS[0]].info.experiment_id)
    assert storage.driver(finished(KEYS[0])).close()
    assert storage.rows() == expected_rows(finished(KEYS[0]))


def test_a_locked_database_gives_one_warning_and_no_wait(storage: Storage) -> None:
    with sqlite3.connect(storage.database, isolation_level=None) as other:
        other.execute("begin exclusive")
        driver = storage.driver(finished(KEYS[0]))
        until(lambda: storage.said)
        start = time.monotonic()
        driver.update(running(KEYS[1], 2))
        assert time.monotonic() - start < 0.5
        other.execute("rollback")
    assert driver.close()
    assert [line for line in storage.said if "training continues" in line] == storage.said[:1]
    assert "locked" in storage.said[0]
    assert storage.rows() == sorted([*expected_rows(finished(KEYS[0])), *expected_rows(running(KEYS[1], 2))])


def test_a_view_that_cannot_be_written_does_not_block_the_others(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = mirror.Mirror.sync

    def refuse(mirror: mirror.Mirror, view: RunView, sweep: str) -> None:
        if view.key == KEYS[0]:
            raise ValueError("this one never")
        write(mirror, view, sweep)

    monkeypatch.setattr(mirror.Mirror, "sync", refuse)
    driver = storage.driver(*(finished(key) for key in KEYS))
    until(lambda: {KEYS[1], KEYS[2]} <= set(storage.runs()))
    assert not driver.close(0.1)
    assert len(storage.said) == 2  # the warning, and that MLflow is behind


WRITER = """
import sys, time
sys.path.insert(0, sys.argv[2])
from tests.tracked import KEYS, SWEEP, Storage, finished, reported, running
from pathlib import Path
storage = Storage(Path(sys.argv[1]), "sqlite:///" + sys.argv[1] + "/mlflow.db")
driver = storage.driver(finished(KEYS[0]))
for epoch in range(1, 400):
    driver.update(running(KEYS[1], epoch))
    driver.update(running(KEYS[2], epoch))
    driver.update_sweep(reported(SWEEP, finished(KEYS[0], epoch)))
    time.sleep(0.02)
"""


@pytest.mark.slow
def test_after_a_kill_at_any_moment_the_next_driver_repairs_mlflow(storage: Storage) -> None:
    command = [sys.executable, "-c", WRITER, str(storage.folder), str(PROJECT)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8") as writer:
        try:
            until(lambda: len(storage.rows()) > 30, 60)
            time.sleep(random.uniform(0, 0.5))
        finally:
            writer.kill()
        assert writer.stderr is not None
        assert writer.stderr.read() == ""  # MLflow's own lines are not printed
    assert "RUNNING" in {run.info.status for run in storage.runs().values()}
    views = [finished(KEYS[0]), finished(KEYS[1], 400), replace(running(KEYS[2], 400), state=TrialState.PENDING)]
    assert storage.driver(*views, sweep=reported(SWEEP, *views[:2])).close()
    assert storage.rows() == sorted(row for view in views for row in expected_rows(view))
    statuses = {name: run.info.status for name, run in storage.runs().items()}
    ended = (KEYS[0], KEYS[1], "table4", "table4: mvae | 5%")
    assert statuses == {**dict.fromkeys(ended, "FINISHED"), KEYS[2]: "KILLED"}


def test_a_delayed_start_writes_nothing_until_it_is_repeated_without_a_delay(storage: Storage) -> None:
    tracker = storage.idle()
    tracker.update(finished("k1"))
    tracker.start(delay=600)
    assert tracker.links(0.3) == {}
    tracker.start()
    assert list(tracker.links(30)) == ["k1"]
    assert tracker.close()


def test_closing_ends_the_delay_of_a_start(storage: Storage) -> None:
    tracker = storage.idle()
    tracker.update(finished("k1"))
    tracker.start(delay=600)
    assert tracker.close()
    assert "k1" in storage.runs()
