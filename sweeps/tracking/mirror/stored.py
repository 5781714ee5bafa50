"""Opens MLflow's database, reads runs page by page, and converts metrics and data sets to MLflow's types."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Run

from mvae.storage.clock import Clock
from mvae.storage.files import atomic_path, locked
from mvae.training.records import Record
from sweeps.planning.state import TrialState
from sweeps.store.sqlite import Unusable, identity_of, sqlite_uri
from sweeps.tracking.database import check_content
from sweeps.tracking.view import DatasetView, RunView

METRICS_A_REQUEST = 800
"""Largest number of metrics per request. MLflow allows 1000 metrics, tags and parameters together."""
PAGE = 1000
"""Largest number of runs or models in one reply."""
NOTE = "mlflow.note.content"
"""Name of the tag that MLflow shows as a description, in Markdown."""

MLFLOW_STATUS = {
    TrialState.PENDING: "KILLED",  # a pending trial with a run was interrupted
    TrialState.RUNNING: "RUNNING",
    TrialState.DONE: "FINISHED",
    TrialState.FAILED: "FAILED",
    TrialState.INTERRUPTED: "KILLED",
    TrialState.PRUNED: "KILLED",  # tag mvae.pruned says at which epoch
    TrialState.DIVERGED: "FAILED",  # tag mvae.error says what is not finite
}


_opened: dict[Path, list[tuple[int, int] | None]] = {}


def open_database(path: Path, cache: Path | None = None) -> str:
    """Returns the tracking URI of the SQLite database at `path`. Makes the database if it does not exist.

    A new database appears complete or not at all. MLflow fills an empty database in steps, so a kill or a second
    process would otherwise leave a broken database.

    MLflow keeps connections by URI until the process ends. So if the file was deleted and another file made at the
    same path, the returned URI spells the path differently.

    Args:
        cache: folder that keeps an empty database to copy. Without the copy, making a database takes a
            second of CPU time.
    """
    with locked(path):
        if not path.exists():
            with atomic_path(path) as temporary:
                _make_database(temporary, cache)
        identity = identity_of(path)
    files = _opened.setdefault(path, [])
    if identity not in files:
        files.append(identity)
    return sqlite_uri(f"{path.parent}{'/.' * files.index(identity)}/{path.name}")


def _make_database(path: Path, cache: Path | None) -> None:
    kept = None if cache is None else cache / f"mlflow-{mlflow.__version__}.db"
    if kept is not None:
        with suppress(OSError, Unusable):
            check_content(kept)
            if kept.is_file() and kept.stat().st_size:
                shutil.copyfile(kept, path)
                return
    path.unlink(missing_ok=True)
    mlflow.MlflowClient(sqlite_uri(path)).search_experiments(max_results=1)
    if kept is not None:
        with suppress(OSError), atomic_path(kept) as temporary:
            shutil.copyfile(path, temporary)


@dataclass
class Held:
    """Content of one run in MLflow, as far as this process knows."""

    run_id: str
    name: str
    started: int
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    has_dataset: bool
    steps: set[int] | None = None
    """Epochs that MLflow has; None until they are read from MLflow."""

    @classmethod
    def of(cls, run: Run) -> Held:
        return cls(
            run_id=run.info.run_id,
            name=run.info.run_name or "",
            started=run.info.start_time or 0,
            status=run.info.status,
            tags=dict(run.data.tags),
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            has_dataset=bool(run.inputs and run.inputs.dataset_inputs),
        )


def all_pages(search: Callable[..., Any], where: dict[str, Any]) -> Iterator[Any]:
    """Yields everything that a search finds, over all pages of replies."""
    token: str | None = None
    while True:
        page = search(**where, page_token=token)
        yield from page
        if not (token := page.token):
            return


def metrics_of(record: Record) -> list[Metric]:
    """Returns the metrics of one epoch with the record's time, so that logging an epoch twice does not add values."""
    speed = {f"speed/{name}": value for name, value in record.get("speed", {}).items()}
    system = {f"system/{name}": value for name, value in record.get("system", {}).items()}
    values = {**record["metrics"], **speed, **system, "epoch": record["epoch"]}
    when = milliseconds(record["time"])
    return [Metric(name, float(value), when, record["epoch"]) for name, value in values.items()]


def last_step(view: RunView, clock: Clock) -> tuple[int, int]:
    """Returns the step and the time for final metrics: the last epoch, and the time in ms at which this epoch ended."""
    if not view.history:
        return 0, milliseconds(view.started or view.ended or clock.time())
    last = view.history[-1]
    return last["epoch"], milliseconds(last["time"])


def batches(steps: Iterable[list[Metric]]) -> Iterator[list[Metric]]:
    """Yields batches of whole steps. A batch has as many steps as fit into one request."""
    batch: list[Metric] = []
    for step in steps:
        if batch and len(batch) + len(step) > METRICS_A_REQUEST:
            yield batch
            batch = []
        batch = batch + step
    if batch:
        yield batch


def dataset_input(view: DatasetView) -> DatasetInput:
    """Converts a data set to MLflow's format for an input of a run."""
    source = json.dumps(dict(view.source), sort_keys=True, default=str)
    shown = Dataset(name=view.name, digest=view.fingerprint[:36], source_type="code", source=source)
    return DatasetInput(shown, [InputTag("mlflow.data.context", "training")])


def milliseconds(seconds: float) -> int:
    """Converts seconds to whole milliseconds, the unit of MLflow's times."""
    return round(seconds * 1000)
