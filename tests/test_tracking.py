"""MLflow is a view of storage: whatever was killed, locked, deleted or unreachable, it ends complete, no doubles."""

from __future__ import annotations

import http.server
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy as np
import pytest
import torch
from mlflow.entities import Run

from mvae.refusal import Refusal
from mvae.storage.files import atomic_path, write_atomically
from mvae.training.records import Record
from sweeps.cli.tracking_uri import default_uri, place_of_artifacts, tracking_uri
from sweeps.store.results import Result
from sweeps.tracking import mirror, tracker
from sweeps.tracking.server import ask
from sweeps.tracking.tracker import Tracker, check
from sweeps.tracking.view import CheckpointView, DatasetView, RunView, Status, SweepView

PROJECT = Path(__file__).parents[1]
NAMESPACE = "6f1c1f0e-0000-4000-8000-000000000001"
STARTED = 1_700_000_000.0
SWEEP = SweepView(
    name="table4",
    status=Status.RUNNING,
    title="Table 4 on digits",
    source="supplement, section 8",
    command="python pipelines/weak_supervision.py",
    started=STARTED,
)
KEYS = ("00000000000000aa", "00000000000000bb", "00000000000000cc")


def records(epochs: int) -> tuple[Record, ...]:
    return tuple(
        Record(
            epoch=epoch,
            time=STARTED + 2 * epoch,
            metrics={"train/loss": 1 / epoch, "validation/accuracy": 0.5 + epoch / 100},
        )
        for epoch in range(1, epochs + 1)
    )


def finished(key: str, epochs: int = 3, accuracy: float = 0.75) -> RunView:
    result = Result(
        key=key,
        measure="accuracy-v1",
        trial={},
        metrics={"test/accuracy": accuracy, "best/validation_accuracy": 0.5 + epochs / 100},
        provenance={"host": "node-1", "git_sha": "c0ffee", "attempts": ["a", "b"], "mixed": False},
        history=list(records(epochs)),
    )
    return RunView(
        key, f"mvae {key}", Status.FINISHED, {"model": "mvae", "seed": 0}, results=(result,), started=STARTED
    )


def running(key: str, epochs: int) -> RunView:
    fields = {"model": "mvae", "seed": 0}
    return RunView(key, f"mvae {key}", Status.RUNNING, fields, records=records(epochs), started=STARTED)


def no_model(view: RunView) -> None:
    return None


@dataclass
class Storage:
    """A storage folder, and the drivers that come and go over it."""

    folder: Path
    uri: str
    said: list[str] = field(default_factory=list)
    load_model: Callable[[RunView], Any] = no_model

    def driver(self, *views: RunView, sweep: SweepView = SWEEP, retry_seconds: float = 0.3) -> Tracker:
        """A new driver's tracker, started, that knows these views."""
        tracker = self.idle(sweep, retry_seconds)
        for view in views:
            tracker.update(view)
        tracker.start()
        return tracker

    def idle(self, sweep: SweepView = SWEEP, retry_seconds: float = 0.3) -> Tracker:
        """A new driver's tracker, not started."""
        return Tracker(
            self.uri,
            namespace=NAMESPACE,
            experiment="main",
            sweep=sweep,
            artifacts=place_of_artifacts(self.uri, self.folder),
            load_model=lambda view: self.load_model(view),
            say=self.said.append,
            retry_seconds=retry_seconds,
        )

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    def runs(self) -> dict[str, Run]:
        """All runs in MLflow by key or sweep; a double fails."""
        client = mlflow.MlflowClient(self._now())
        experiment = client.get_experiment_by_name("main")
        found: dict[str, Run] = {}
        for run in client.search_runs([experiment.experiment_id]) if experiment else []:
            name = run.data.tags.get("mvae.key") or run.data.tags["mvae.sweep"]
            assert name not in found, f"two runs of {name}"
            found[name] = run
        return found

    def _now(self) -> str:
        """A copy of the database: MLflow would read a new file at an old path through its old connection."""
        copy = self.folder / f"copy-{time.monotonic_ns()}.db"
        with sqlite3.connect(self.database) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        return f"sqlite:///{copy}"

    def rows(self) -> list[tuple[str, str, int, int, float]]:
        """Every metric value stored: key, metric, step, timestamp, value; sorted."""
        with sqlite3.connect(self.database) as connection:
            return sorted(
                connection.execute(
                    "select tags.value, metrics.key, step, timestamp, metrics.value from metrics "
                    "join tags on tags.run_uuid = metrics.run_uuid and tags.key = 'mvae.key' "
                    "join runs on runs.run_uuid = metrics.run_uuid and runs.lifecycle_stage = 'active'"
                )
            )

    def models(self) -> int:
        with sqlite3.connect(self.database) as connection:
            return int(connection.execute("select count(*) from logged_models").fetchone()[0])


def expected_rows(view: RunView) -> list[tuple[str, str, int, int, float]]:
    """What `Storage.rows` holds of a view whose every step was logged once."""
    last = view.history[-1]
    rows = [
        (view.key, name, record["epoch"], round(record["time"] * 1000), float(value))
        for record in view.history
        for name, value in {**record["metrics"], "epoch": record["epoch"]}.items()
    ]
    return sorted(rows + [(view.key, n, last["epoch"], round(last["time"] * 1000), v) for n, v in view.final.items()])


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


@pytest.fixture
def storage(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    return Storage(tmp_path, default_uri(tmp_path))


def test_a_finished_key_shows_its_fields_numbers_data_set_checkpoint_and_pictures(storage: Storage) -> None:
    pictures = storage.folder / "pictures"
    pictures.mkdir()
    (pictures / "samples.png").write_bytes(b"png")
    view = replace(
        finished(KEYS[0]),
        tags={"row": "mvae", "mlflow.source.name": "weak_supervision"},
        dataset=DatasetView("digits", "d" * 64, {"version": 1}),
        checkpoint=CheckpointView("/storage/checkpoints/x", "e" * 64, 3),
        artifacts=pictures,
    )
    assert storage.driver(view).close()
    run = storage.runs()[view.key]
    assert (run.info.status, run.info.start_time) == ("FINISHED", 1_700_000_000_000)
    assert run.info.end_time == 1_700_000_006_000
    assert run.data.params == {"model": "mvae", "seed": "0"}
    assert run.data.metrics["test/accuracy"] == 0.75
    assert run.data.metrics["best/validation_accuracy"] == 0.53
    assert storage.rows() == expected_rows(view)
    tags = run.data.tags
    assert (tags["mvae.model"], tags["mvae.seed"], tags["mvae.row"]) == ("mvae", "0", "mvae")
    assert (tags["mvae.git_sha"], tags["mvae.attempts"], tags["mvae.mixed"]) == ("c0ffee", '["a", "b"]', "false")
    assert (tags["mvae.namespace"], tags["mlflow.source.name"]) == (NAMESPACE, "weak_supervision")
    assert (tags["mvae.checkpoint.uri"], tags["mvae.checkpoint.sha256"]) == (
        "/storage/checkpoints/x",
        "e" * 64,
    )
    assert tags["mvae.fingerprint"] == "d" * 64
    assert run.inputs is not None
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", "d" * 36)
    artifacts = mlflow.MlflowClient(storage.uri).list_artifacts(run.info.run_id, "samples")
    assert [file.path for file in artifacts] == ["samples/samples.png"]
    assert storage.said == []


def test_pictures_that_are_being_written_are_left_for_the_next_time(storage: Storage) -> None:
    pictures = storage.folder / "pictures"
    write_atomically(pictures / "epoch-1" / "a.png", b"a")
    view = replace(running(KEYS[0], 1), artifacts=pictures)
    with atomic_path(pictures / "epoch-2" / "b.png") as temporary:
        temporary.write_bytes(b"half")
        assert storage.driver(view).close()
        shown = mlflow.MlflowClient(storage.uri).list_artifacts(storage.runs()[view.key].info.run_id, "samples")
        assert [file.path for file in shown] == ["samples/epoch-1"]
    assert storage.driver(view).close()
    run = storage.runs()[view.key].info
    assert mlflow.artifacts.load_text(f"{run.artifact_uri}/samples/epoch-1/a.png") == "a"
    assert mlflow.artifacts.load_text(f"{run.artifact_uri}/samples/epoch-2/b.png") == "half"
    assert storage.said == []


def test_a_failed_keys_traceback_is_an_artifact_of_its_run(storage: Storage) -> None:
    traceback = storage.folder / "key.txt"
    traceback.write_text("Traceback", encoding="utf-8")
    view = replace(running(KEYS[0], 1), status=Status.FAILED, error="no", traceback=traceback)
    assert storage.driver(view).close()
    run = storage.runs()[view.key]
    assert (run.info.status, run.data.tags["mvae.error"]) == ("FAILED", "no")
    artifacts = mlflow.MlflowClient(storage.uri).list_artifacts(run.info.run_id, "errors")
    assert [file.path for file in artifacts] == ["errors/key.txt"]


def test_the_final_model_is_logged_once_and_predicts_the_same_after_loading(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.SiLU()).eval()
    example = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 4)
    storage.load_model = lambda view: (module, example)
    for _ in range(3):
        assert storage.driver(finished(KEYS[0]), running(KEYS[1], 2)).close()
    assert storage.models() == 1
    assert mlflow.active_run() is None
    run = storage.runs()[KEYS[0]]
    assert run.info.status == "FINISHED"
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", storage.uri)
    for uri in (f"runs:/{run.info.run_id}/model", run.data.tags["mvae.logged_model"]):
        loaded = mlflow.pytorch.load_model(uri)
        assert torch.equal(loaded(torch.from_numpy(example)), module(torch.from_numpy(example)))


def test_a_model_that_a_dead_driver_left_half_uploaded_is_logged_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.load_model = lambda view: (torch.nn.Linear(4, 3).eval(), np.zeros((1, 4), np.float32))
    with monkeypatch.context() as broken:

        def fail(*args: object) -> None:
            raise OSError("the driver dies here")

        broken.setattr(mlflow.MlflowClient, "log_model_artifacts", fail)
        driver = storage.driver(finished(KEYS[0]))
        until(lambda: storage.said)
        assert not driver.close(1.0)
    assert storage.driver(finished(KEYS[0])).close()
    run = storage.runs()[KEYS[0]]
    model = mlflow.MlflowClient(storage.uri).get_logged_model(run.data.tags["mvae.logged_model"].rpartition("/")[2])
    assert model.status == "READY"
    assert len(mlflow.MlflowClient(storage.uri).search_logged_models([run.info.experiment_id])) == 1


def test_a_model_that_takes_more_than_one_array_is_logged_without_a_signature(storage: Storage) -> None:
    storage.load_model = lambda view: (torch.nn.Bilinear(4, 3, 2).eval(), None)
    assert storage.driver(finished(KEYS[0])).close()
    assert storage.models() == 1
    assert storage.runs()[KEYS[0]].info.status == "FINISHED"
    assert storage.said == []


def test_a_model_that_cannot_be_built_is_said_and_costs_that_model_alone(storage: Storage) -> None:
    def damaged(view: RunView) -> None:
        raise ValueError("weights are damaged")

    storage.load_model = damaged
    assert storage.driver(finished(KEYS[0])).close()
    assert storage.runs()[KEYS[0]].info.status == "FINISHED"
    assert storage.said == [f"MLflow: the model of mvae {KEYS[0]} is left out: ValueError: weights are damaged"]


def test_epochs_arrive_one_by_one_and_none_twice(storage: Storage) -> None:
    driver = storage.driver()
    for epochs in (1, 2, 2, 3):
        driver.update(running(KEYS[0], epochs))
        until(lambda: len({row[2] for row in storage.rows()}) == epochs)  # noqa: B023
    assert storage.runs()[KEYS[0]].info.status == "RUNNING"
    driver.update(finished(KEYS[0], 3))
    assert driver.close()
    assert storage.rows() == expected_rows(finished(KEYS[0], 3))


def test_an_epoch_that_ran_twice_keeps_its_first_time(storage: Storage) -> None:
    assert storage.driver(running(KEYS[0], 3)).close()
    again = replace(running(KEYS[0], 3), records=tuple(Record(**{**r, "time": r["time"] + 99}) for r in records(3)))
    assert storage.driver(again).close()
    assert {row[3] for row in storage.rows()} == {round(r["time"] * 1000) for r in records(3)}


def test_a_second_start_over_the_same_storage_changes_nothing(storage: Storage) -> None:
    views = [finished(KEYS[0]), replace(running(KEYS[1], 2), status=Status.PENDING)]
    sweep = replace(SWEEP, status=Status.KILLED)
    assert storage.driver(*views, sweep=sweep).close()
    before = {name: run.to_dictionary() for name, run in storage.runs().items()}
    rows = storage.rows()
    assert storage.driver(*views, sweep=sweep).close()
    after = {name: run.to_dictionary() for name, run in storage.runs().items()}
    for run in (before[SWEEP.name], after[SWEEP.name]):
        del run["info"]["end_time"]  # the sweep itself ran twice
    assert after == before
    assert storage.rows() == rows


def test_a_child_stays_with_the_first_sweep_and_later_ones_find_it_by_tag(storage: Storage) -> None:
    later = replace(SWEEP, name="table5", title="Table 5", status=Status.FINISHED)
    assert storage.driver(finished(KEYS[0])).close()
    assert storage.driver(finished(KEYS[0]), finished(KEYS[1]), sweep=later).close()
    runs = storage.runs()
    parent = {key: runs[key].data.tags["mlflow.parentRunId"] for key in KEYS[:2]}
    assert parent == {KEYS[0]: runs["table4"].info.run_id, KEYS[1]: runs["table5"].info.run_id}
    client = mlflow.MlflowClient(storage.uri)
    found = client.search_runs([runs["table5"].info.experiment_id], "tags.`mvae.sweep.table5` = 'yes'")
    assert {run.data.tags["mvae.key"] for run in found} == set(KEYS[:2])


def test_the_parent_shows_the_command_the_table_and_the_newest_report(storage: Storage) -> None:
    report = storage.folder / "report"
    report.mkdir()
    table = report / "table.md"
    table.write_text("| old |", encoding="utf-8")
    sweep = replace(SWEEP, report=report)
    driver = storage.driver(finished(KEYS[0]), sweep=sweep)
    until(lambda: "| old |" in str(storage.runs()["table4"].data.tags if storage.runs() else ""))
    table.write_text("| newer |", encoding="utf-8")
    driver.update_sweep(replace(sweep, status=Status.FINISHED))
    assert driver.close()
    run = storage.runs()["table4"]
    note = run.data.tags["mlflow.note.content"]
    assert run.info.status == "FINISHED"
    assert "| newer |" in note
    assert SWEEP.command in note
    artifacts = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/report/table.md")
    assert artifacts == "| newer |"


def test_nothing_is_running_after_close_and_failed_stays_failed(storage: Storage) -> None:
    failed = replace(running(KEYS[1], 1), status=Status.FAILED, error="loss is nan")
    waiting = RunView(KEYS[2], "waits", Status.PENDING, {"seed": 2})
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


def test_runs_that_a_dead_driver_left_running_are_put_right(storage: Storage) -> None:
    dead = storage.driver(*(running(key, 1) for key in KEYS), sweep=replace(SWEEP, name="other"))
    until(lambda: len(storage.runs()) == 4)  # and is never closed
    interrupted = replace(running(KEYS[1], 2), status=Status.PENDING)
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


def test_a_double_is_removed_and_the_older_run_stays(storage: Storage) -> None:
    assert storage.driver(finished(KEYS[0])).close()
    first = storage.runs()[KEYS[0]]
    tags = {name: first.data.tags[name] for name in ("mvae.namespace", "mvae.key", "mlflow.parentRunId")}
    mlflow.MlflowClient(storage.uri).create_run(first.info.experiment_id, tags=tags)
    assert storage.driver(finished(KEYS[0])).close()
    assert storage.runs()[KEYS[0]].info.run_id == first.info.run_id


def test_a_run_whose_numbers_contradict_storage_is_made_anew(storage: Storage) -> None:
    assert storage.driver(finished(KEYS[0], accuracy=0.5)).close()
    assert storage.driver(finished(KEYS[0], accuracy=0.6)).close()
    assert storage.rows() == expected_rows(finished(KEYS[0], accuracy=0.6))


def test_an_empty_database_is_filled_from_storage_as_the_lost_one_was(storage: Storage, empty_database: Path) -> None:
    views = [finished(KEYS[0], 5), finished(KEYS[1], 2)]
    assert storage.driver(*views).close()
    rows = storage.rows()
    storage.database.unlink()
    shutil.copyfile(empty_database, storage.database)
    assert storage.driver(*views).close()
    assert storage.rows() == rows == sorted([*expected_rows(views[0]), *expected_rows(views[1])])


def test_a_database_deleted_in_mid_sweep_is_rebuilt_by_the_next_update(storage: Storage) -> None:
    driver = storage.driver(finished(KEYS[0]), running(KEYS[1], 1))
    until(lambda: storage.rows() == sorted([*expected_rows(finished(KEYS[0])), *expected_rows(running(KEYS[1], 1))]))
    storage.database.unlink()
    driver.update(running(KEYS[1], 2))
    assert driver.close()
    assert storage.rows() == sorted([*expected_rows(finished(KEYS[0])), *expected_rows(running(KEYS[1], 2))])


def test_a_deleted_experiment_comes_back(storage: Storage) -> None:
    assert storage.driver(finished(KEYS[0])).close()
    client = mlflow.MlflowClient(storage.uri)
    client.delete_experiment(storage.runs()[KEYS[0]].info.experiment_id)
    assert storage.driver(finished(KEYS[0])).close()
    assert storage.rows() == expected_rows(finished(KEYS[0]))


def test_a_locked_database_costs_one_warning_and_no_waiting(storage: Storage) -> None:
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


def test_a_view_that_cannot_be_written_does_not_keep_others_out(
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
from tests.test_tracking import KEYS, Storage, finished, running
from pathlib import Path
storage = Storage(Path(sys.argv[1]), "sqlite:///" + sys.argv[1] + "/mlflow.db")
driver = storage.driver(finished(KEYS[0]))
for epoch in range(1, 400):
    driver.update(running(KEYS[1], epoch))
    driver.update(running(KEYS[2], epoch))
    time.sleep(0.02)
"""


@pytest.mark.slow
def test_a_driver_killed_at_any_moment_leaves_nothing_that_the_next_does_not_mend(storage: Storage) -> None:
    command = [sys.executable, "-c", WRITER, str(storage.folder), str(PROJECT)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8") as writer:
        try:
            until(lambda: len(storage.rows()) > 30, 60)
            time.sleep(random.uniform(0, 0.5))
        finally:
            writer.kill()
        assert writer.stderr is not None
        assert writer.stderr.read() == ""  # MLflow's own lines stay off the console
    assert "RUNNING" in {run.info.status for run in storage.runs().values()}
    views = [finished(KEYS[0]), finished(KEYS[1], 400), replace(running(KEYS[2], 400), status=Status.PENDING)]
    assert storage.driver(*views, sweep=replace(SWEEP, status=Status.FINISHED)).close()
    assert storage.rows() == sorted(row for view in views for row in expected_rows(view))
    statuses = {name: run.info.status for name, run in storage.runs().items()}
    assert statuses == {KEYS[0]: "FINISHED", KEYS[1]: "FINISHED", KEYS[2]: "KILLED", "table4": "FINISHED"}


@dataclass
class Server:
    """A real tracking server on a database of its own."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--workers", "1", "--host", "127.0.0.1", "--port", str(self.port)]
        stores = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        stores += ["--artifacts-destination", str(self.folder / "served")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options, *stores],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(lambda: not ask(self.uri), 90)

    def kill(self) -> None:
        """The whole server at once, workers too: it leads a session that we started."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def server(storage: Storage) -> Iterator[Server]:
    server = Server(storage.folder, free_port())
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_that_dies_in_mid_sweep_costs_one_warning_and_ends_complete(storage: Storage, server: Server) -> None:
    server.start()
    check(server.uri)
    storage.uri = server.uri
    storage.load_model = lambda view: (torch.nn.Linear(4, 3).eval(), np.zeros((1, 4), np.float32))
    driver = storage.driver(running(KEYS[0], 1), retry_seconds=1)
    until(lambda: len(storage.rows()) == 3)
    server.kill()
    start = time.monotonic()
    driver.update(running(KEYS[0], 2))
    until(lambda: storage.said)
    driver.update(finished(KEYS[0]))
    driver.update(running(KEYS[1], 2))
    assert time.monotonic() - start < 10
    server.start()
    assert driver.close()
    assert [line.split(" (")[0] for line in storage.said if "training continues" in line] == [
        f"MLflow at {server.uri} cannot be written"
    ]
    assert storage.rows() == sorted([*expected_rows(finished(KEYS[0])), *expected_rows(running(KEYS[1], 2))])
    statuses = {name: run.info.status for name, run in storage.runs().items()}
    assert statuses == {KEYS[0]: "FINISHED", KEYS[1]: "KILLED", "table4": "KILLED"}
    assert storage.models() == 1


def test_a_server_that_stays_dead_bounds_the_wait_at_close(storage: Storage) -> None:
    storage.uri = f"http://127.0.0.1:{free_port()}"
    driver = storage.driver(finished(KEYS[0]))
    start = time.monotonic()
    assert not driver.close(1.0)
    assert time.monotonic() - start < 2
    until(lambda: len(storage.said) == 2)
    assert any("the same command fills in what is missing" in line for line in storage.said)


@pytest.mark.timeout(60)
def test_keys_that_are_written_again_are_no_progress_that_close_would_wait_for(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[str] = []

    def full(mirror: mirror.Mirror, sweep: SweepView) -> None:
        again.append(sweep.name)
        raise OSError("no space left on device")

    monkeypatch.setattr(mirror.Mirror, "sync_sweep", full)
    monkeypatch.setattr(tracker, "CLOSING_RETRY_SECONDS", 0.05)
    driver = storage.driver(*(finished(key) for key in KEYS))
    until(lambda: again)
    assert not driver.close(2.0)
    assert len(again) > 2, "all keys were written several times over"


def test_a_tracker_that_has_given_up_writes_no_further_key(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    server_answers = threading.Event()

    def slow(mirror: mirror.Mirror, view: RunView, sweep: str) -> None:
        written.append(view.key)
        server_answers.wait(30)

    monkeypatch.setattr(mirror.Mirror, "sync", slow)
    monkeypatch.setattr(mirror.Mirror, "sync_sweep", lambda mirror, sweep: written.append(sweep.name))
    driver = storage.driver(*(finished(key) for key in KEYS))
    until(lambda: written)
    assert not driver.close(0.1)
    server_answers.set()
    driver._thread.join(30)
    assert not driver._thread.is_alive()
    assert written == [KEYS[0]]


def test_closing_before_the_start_waits_for_nothing(storage: Storage) -> None:
    never = Tracker(
        storage.uri,
        namespace=NAMESPACE,
        experiment="main",
        sweep=SWEEP,
        artifacts=storage.folder,
        load_model=no_model,
        say=storage.said.append,
    )
    start = time.monotonic()
    assert not never.close()
    assert time.monotonic() - start < 1


def test_an_unreachable_server_is_refused_in_one_line() -> None:
    uri = f"http://someone:secret@127.0.0.1:{free_port()}"
    with pytest.raises(Refusal, match=r"cannot be reached \(.*refused\): start it, correct --tracking-uri") as error:
        check(uri)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_silent_server_is_refused_within_10_seconds() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        start = time.monotonic()
        with pytest.raises(Refusal, match="did not answer within"):
            check(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert time.monotonic() - start < 10


class Pages(http.server.BaseHTTPRequestHandler):
    """Some web site."""

    def do_GET(self) -> None:
        self.send_response(404 if "missing" in self.path else 200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_a_web_site_is_no_tracking_server() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Pages) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{site.server_port}"
        with pytest.raises(Refusal, match="is not an MLflow server"):
            check(uri)
        with pytest.raises(Refusal, match=r"refused the request .404"):
            check(f"{uri}/missing")
        site.shutdown()


def test_a_database_that_is_none_is_refused_and_a_new_one_is_not_made_yet(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database at all", encoding="utf-8")
    with pytest.raises(Refusal, match="is not a SQLite file"):
        check(f"sqlite:///{text}")
    with pytest.raises(Refusal, match="is not a folder that can be written"):
        check(f"sqlite:///{text}/mlflow.db")
    with pytest.raises(Refusal, match="is not a file that can be read and written"):
        check(f"sqlite:///{tmp_path}")
    check(default_uri(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_uri_is_given_to_mlflow_with_an_absolute_path_and_no_slash_after_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_uri("sqlite:///here.db") == f"sqlite:///{tmp_path}/here.db"
    assert tracking_uri(default_uri(tmp_path)) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri("http://there:5000/") == "http://there:5000"
    assert tracking_uri("postgresql+psycopg2://u:p@host/db") == "postgresql+psycopg2://u:p@host/db"


@pytest.mark.parametrize("uri", ["localhost:5000", "file:///tmp/mlruns", "./mlruns", "sqlite://", "ftp://host"])
def test_a_uri_that_mlflow_does_not_take_is_refused(uri: str) -> None:
    with pytest.raises(Refusal, match=r"write http://HOST:PORT for a server or sqlite:///"):
        tracking_uri(uri)


def test_the_driver_does_not_import_mlflow_before_it_tracks() -> None:
    imports = "import sys, sweeps.tracking.tracker, sweeps.tracking.view"
    code = f"{imports}; sys.exit('mlflow' in sys.modules or 'ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
