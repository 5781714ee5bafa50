"""What MLflow holds, and the forms in which it wants to be told: runs, epochs, data sets, pages of answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Run

from mvae.storage.clock import Clock
from mvae.storage.files import atomic_path, locked
from sweeps.planning.state import TrialState
from sweeps.store.sqlite import sqlite_uri
from sweeps.tracking.view import DatasetView, RunView

if TYPE_CHECKING:
    from mvae.training.records import Record


METRICS_A_REQUEST = 800
PAGE = 1000
"""Below MLflow's limit on a batch (1000 metrics, tags and params together); a page is ours."""
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a description, in Markdown."""

MLFLOW_STATUS = {
    TrialState.PENDING: "KILLED",  # it has a run, so it was interrupted
    TrialState.RUNNING: "RUNNING",
    TrialState.DONE: "FINISHED",
    TrialState.FAILED: "FAILED",
    TrialState.INTERRUPTED: "KILLED",
    TrialState.PRUNED: "KILLED",  # tag mvae.pruned says at which epoch
    TrialState.DIVERGED: "FAILED",  # tag mvae.error says what is not finite
}


_opened: dict[Path, list[tuple[int, int]]] = {}


def open_database(path: Path) -> str:
    """The tracking URI of the SQLite database at `path`; where there is none a new one is made, whole or not at all.

    MLflow migrates an empty database in steps, which two processes at once, or one that is killed, leave broken. And it
    keeps connections by URI for as long as the process lives, so each new file at an old path gets a new spelling.
    """
    with locked(path):
        if not path.exists():
            with atomic_path(path) as temporary:
                mlflow.MlflowClient(sqlite_uri(temporary)).search_experiments(max_results=1)
        found = path.stat()
    files = _opened.setdefault(path, [])
    identity = (found.st_dev, found.st_ino)
    if identity not in files:
        files.append(identity)
    return sqlite_uri(f"{path.parent}{'/.' * files.index(identity)}/{path.name}")


@dataclass
class Held:
    """What MLflow holds of one run, as far as this process knows."""

    run_id: str
    started: int
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    has_dataset: bool
    steps: set[int] | None = None
    """Epochs that are logged; None until the server was asked."""

    @classmethod
    def of(cls, run: Run) -> Held:
        return cls(
            run_id=run.info.run_id,
            started=run.info.start_time or 0,
            status=run.info.status,
            tags=dict(run.data.tags),
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            has_dataset=bool(run.inputs and run.inputs.dataset_inputs),
        )


def all_pages(search: Callable[..., Any], where: dict[str, Any]) -> Iterator[Any]:
    """All that a search finds, however many answers it takes."""
    token: str | None = None
    while True:
        page = search(**where, page_token=token)
        yield from page
        if not (token := page.token):
            return


def metrics_of(record: Record) -> list[Metric]:
    """One epoch's metrics. The time kept with the record makes them equal however often they are logged."""
    speed = {f"speed/{name}": value for name, value in record.get("speed", {}).items()}
    values = {**record["metrics"], **speed, "epoch": record["epoch"]}
    when = milliseconds(record["time"])
    return [Metric(name, float(value), when, record["epoch"]) for name, value in values.items()]


def last_step(view: RunView, clock: Clock) -> tuple[int, int]:
    """Step and time of the final numbers: those of the last epoch."""
    if not view.history:
        return 0, milliseconds(view.started or view.ended or clock.time())
    last = view.history[-1]
    return last["epoch"], milliseconds(last["time"])


def batches(steps: Iterable[list[Metric]]) -> Iterator[list[Metric]]:
    """Whole steps, as many as fit into one request."""
    batch: list[Metric] = []
    for step in steps:
        if batch and len(batch) + len(step) > METRICS_A_REQUEST:
            yield batch
            batch = []
        batch = batch + step
    if batch:
        yield batch


def dataset_input(view: DatasetView) -> DatasetInput:
    """A data set as the input of a run."""
    source = json.dumps(dict(view.source), sort_keys=True, default=str)
    shown = Dataset(name=view.name, digest=view.fingerprint[:36], source_type="code", source=source)
    return DatasetInput(shown, [InputTag("mlflow.data.context", "training")])


def milliseconds(seconds: float) -> int:
    """A time as MLflow keeps it."""
    return round(seconds * 1000)
