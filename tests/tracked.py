"""A storage and its MLflow database for tests, used by several drivers in turn."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlflow.pytorch
import pytest
from mlflow import entities

from mvae.storage.objects import place
from mvae.training.records import MODEL, Checkpoint, Record, StoredFile
from sweeps.cli.tracking_uri import default_uri, place_of_artifacts
from sweeps.planning.state import TrialState
from sweeps.store.results import Result
from sweeps.table.comparison import Report
from sweeps.table.entries import Entry, Run
from sweeps.tracking.cells import cell_views, sweep_numbers
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.view import RunView, SweepView

PROJECT = Path(__file__).parents[1]
NAMESPACE = "6f1c1f0e-0000-4000-8000-000000000001"
STARTED = 1_700_000_000.0
SWEEP = SweepView(
    name="table4",
    state=TrialState.RUNNING,
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
        key, f"mvae {key}", TrialState.DONE, {"model": "mvae", "seed": 0}, results=(result,), started=STARTED
    )


def running(key: str, epochs: int) -> RunView:
    fields = {"model": "mvae", "seed": 0}
    return RunView(key, f"mvae {key}", TrialState.RUNNING, fields, records=records(epochs), started=STARTED)


def table(*views: RunView) -> Report:
    """The table with one cell, whose seeds are these finished views."""
    runs = tuple(
        Run("mvae", 0.05, seed, view.key, "accuracy-v1", view.final["test/accuracy"], 3, None, None, mixed=False)
        for seed, view in enumerate(views)
    )
    entry = Entry("mvae", 0.05, "mvae", 0.75, 0.03, runs, metric="test/accuracy", quantity="test/accuracy")
    return Report("digits", "test/accuracy", "fraction", None, ("mvae",), (0.05,), {("mvae", 0.05): entry}, ())


def reported(sweep: SweepView, *views: RunView) -> SweepView:
    """The finished sweep after the report of these finished views."""
    report, by_key = table(*views), {view.key: view for view in views}
    shown = cell_views(report, by_key.__getitem__)
    return replace(sweep, state=TrialState.DONE, numbers=sweep_numbers(report), cells=shown)


def checkpoint(epoch: int) -> Checkpoint:
    weights = StoredFile(bytes=1, sha256="e" * 64)
    return Checkpoint(place("/storage/checkpoints/x"), epoch, "a", {MODEL: weights}, [], {}, final=False)


def no_model(view: RunView) -> None:
    return None


@dataclass
class Storage:
    """A storage folder, and the drivers that use it one after the other."""

    folder: Path
    uri: str
    said: list[str] = field(default_factory=list)
    load_model: Callable[[RunView], Any] = no_model
    record: Path | None = None
    """See `Tracker`."""

    def driver(self, *views: RunView, sweep: SweepView = SWEEP, retry_seconds: float = 0.3) -> Tracker:
        """Starts a new driver's tracker that knows these views."""
        tracker = self.idle(sweep, retry_seconds)
        for view in views:
            tracker.update(view)
        tracker.start()
        return tracker

    def idle(self, sweep: SweepView = SWEEP, retry_seconds: float = 0.3) -> Tracker:
        """A new driver's tracker, not yet started."""
        return Tracker(
            self.uri,
            namespace=NAMESPACE,
            experiment="main",
            sweep=sweep,
            artifacts=place_of_artifacts(self.uri, self.folder),
            load_model=lambda view: self.load_model(view),
            say=self.said.append,
            retry_seconds=retry_seconds,
            record=None if self.record is None else place(self.record),
        )

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    def runs(self) -> dict[str, entities.Run]:
        """All runs in MLflow by key, cell or sweep; fails if there are duplicates."""
        client = mlflow.MlflowClient(self._now())
        experiment = client.get_experiment_by_name("main")
        found: dict[str, entities.Run] = {}
        for run in client.search_runs([experiment.experiment_id]) if experiment else []:
            tags = run.data.tags
            name = tags.get("mvae.key") or tags.get("mvae.cell_of") or tags["mvae.sweep"]
            assert name not in found, f"two runs of {name}"
            found[name] = run
        return found

    def _now(self) -> str:
        """URI of a copy of the database; MLflow would read a replaced file through its old connection."""
        copy = self.folder / f"copy-{time.monotonic_ns()}.db"
        with sqlite3.connect(self.database) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        return f"sqlite:///{copy}"

    def rows(self) -> list[tuple[str, str, int, int, float]]:
        """Every stored metric value, sorted: key, metric, step, timestamp, value."""
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
    """The `Storage.rows` of a view if each step is logged once."""
    last = view.history[-1]
    rows = [
        (view.key, name, record["epoch"], round(record["time"] * 1000), float(value))
        for record in view.history
        for name, value in {**record["metrics"], "epoch": record["epoch"]}.items()
    ]
    return sorted(rows + [(view.key, n, last["epoch"], round(last["time"] * 1000), v) for n, v in view.final.items()])


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Waits until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never became true"
        time.sleep(0.02)


@pytest.fixture
def storage(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    return Storage(tmp_path, default_uri(tmp_path))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
