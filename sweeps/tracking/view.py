"""RunView, CellView and SweepView: what MLflow should show about a trial, a cell of the table, and a sweep.

The driver makes these plain values from storage. tracker.py passes the newest views to mirror/, which writes what
MLflow lacks. This module needs neither Ray nor MLflow.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mvae.storage.place import AnyPlace
from mvae.training.records import MODEL, Checkpoint, Record
from sweeps.planning.state import TrialState
from sweeps.store.results import Result


@dataclass(frozen=True)
class DatasetView:
    """The data set that MLflow shows for a run."""

    name: str
    fingerprint: str
    """Hex digest from `mvae.data.fingerprint`. MLflow shows the first 36 digits; a tag holds all digits."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Origin of the data as JSON values: files, version of the transform, numbers of examples."""


@dataclass(frozen=True)
class RunView:
    """Everything that MLflow should show about one trial. A new view replaces the old view."""

    key: str
    name: str
    """Readable name in MLflow's lists: "digits MVAE 1% seed 0"."""
    state: TrialState
    fields: Mapping[str, Any]
    """The trial's hashed fields, which become parameters."""
    records: tuple[Record, ...] = ()
    """Records of finished epochs that a checkpoint includes. If an epoch has several records, the last one counts."""
    results: tuple[Result, ...] = ()
    """Results of finished measures. Metrics become the run's final numbers, and provenance becomes tags."""
    tags: Mapping[str, Any] = field(default_factory=dict)
    """Further tags, shown as `mvae.<name>`: cell, row, column."""
    error: str | None = None
    """Why the trial failed; shown until the trial runs again without an error."""
    traceback: AnyPlace | None = None
    dataset: DatasetView | None = None
    checkpoint: Checkpoint | None = None
    """Newest checkpoint."""
    artifacts: AnyPlace | None = None
    """Folder of pictures (PNG); it may be missing."""
    started: float | None = None
    """Start of the first attempt in Unix seconds; None means the time of the first record."""
    ended: float | None = None
    """End in Unix seconds; None means the time of the last record."""

    @property
    def history(self) -> tuple[Record, ...]:
        """Records of all finished epochs in order. `records` takes precedence over the records in `results`."""
        carried = {record["epoch"]: record for result in self.results for record in result.history}
        return tuple(record for _, record in sorted({**carried, **{r["epoch"]: r for r in self.records}}.items()))

    @property
    def final(self) -> dict[str, float]:
        """Metrics of all measures (for example test/accuracy), without the metrics that every epoch records.

        If a likelihood was measured with several numbers of samples, the largest number counts.
        """
        per_epoch = {name for record in self.history for name in record["metrics"]} | {"speed/examples_per_second"}
        by_samples = sorted(self.results, key=lambda result: result.samples)
        metrics = [item for result in by_samples for item in result.metrics.items()]
        metrics += [
            (f"speed/{name}", value) for one in by_samples for name, value in one.provenance.get("speed", {}).items()
        ]
        return {name: float(value) for name, value in metrics if name not in per_epoch}

    def all_tags(self, sweep: str) -> dict[str, str]:
        """Returns all tags of the run, by their names in MLflow.

        Args:
            sweep: name of a sweep that lists the key.
        """
        own: dict[str, Any] = {
            "kind": "trial",
            "key": self.key,
            "error": self.error,
            "measures": sorted(result.measure for result in self.results) or None,
            "fingerprint": None if self.dataset is None else self.dataset.fingerprint,
        }
        if self.checkpoint is not None:
            own["checkpoint.uri"] = str(self.checkpoint.path)
            own["checkpoint.sha256"] = self.checkpoint.files[MODEL].sha256
            own["checkpoint.epoch"] = self.checkpoint.epoch
        tags = {
            name: value
            for values in (*(result.provenance for result in self.results), self.tags, own)
            for name, value in tagged(values).items()
        }
        return {**tags, member_tag(sweep): "yes"}


@dataclass(frozen=True)
class CellView:
    """Numbers of one cell of the table over its seeds. The cell gets its own run, so that MLflow can plot a band."""

    name: str
    """Readable name in MLflow's lists: "digits MVAE 1%: mean of 3 seeds"."""
    tags: Mapping[str, Any]
    """Row, column, cell and verdict, shown as `mvae.<name>`. Row and column identify the cell within its sweep."""
    numbers: Mapping[str, float]
    """Final numbers over seeds, for example test/accuracy/mean. All are finite."""
    epochs: tuple[Record, ...] = ()
    """Numbers over seeds by epoch, for example validation/accuracy/mean."""
    started: float = 0.0
    ended: float = 0.0
    """Start of the cell's first trial and end of its last trial, in Unix seconds."""

    @property
    def place(self) -> str:
        """Text that identifies the cell within its sweep: row and column."""
        return f"{self.tags['row']} | {self.tags['column']}"


@dataclass(frozen=True)
class SweepView:
    """Everything that MLflow should show about one sweep.

    The sweep's run is the parent of the trial runs that the sweep creates.
    """

    name: str
    """Name of the sweep and of its parent run: "weak_supervision digits". Unique within the storage name."""
    state: TrialState
    title: str
    source: str = ""
    """The published table or figure: "supplement, section 8, Table 4"."""
    command: str = ""
    """Command that resumes or extends the sweep."""
    program: str = ""
    """File name of the pipeline, for MLflow's column "Source" of the sweep and of trials that the sweep creates."""
    metrics: tuple[str, ...] = ()
    """Metrics in the table's cells. These metrics are columns of the saved view."""
    quantities: tuple[str, ...] = ()
    """Metrics without parameters. Numbers over seeds have these names, and are columns of the saved view."""
    watched: tuple[str, ...] = ()
    """Validation metrics whose mean and spread over seeds the view plots by epoch."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the sweep's run: cells done, and agreement per row. Known once there is a report."""
    cells: tuple[CellView, ...] | None = None
    """All cells that have a result; None until there is a report."""
    settings: tuple[str, ...] = ()
    """Settings that a search varies. They become columns of the search's saved view, which does not group trials."""
    tags: Mapping[str, Any] = field(default_factory=dict)
    """Git sha, data set, preset, plug-ins; shown as `mvae.<name>`."""
    report: AnyPlace | None = None
    """Folder of the report; it may be missing. The description shows its table and pictures."""
    started: float | None = None
    ended: float | None = None


def member_tag(sweep: str) -> str:
    """Returns the name of the tag that all runs of a sweep have, including runs that another sweep created."""
    return f"mvae.sweep.{sweep}"


def tagged(values: Mapping[str, Any]) -> dict[str, str]:
    """Converts values to MLflow tags. Adds the prefix `mvae.` to names without the prefix `mlflow.`.

    Converts values other than text to JSON, and omits values that are None.
    """
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
        for name, value in values.items()
        if value is not None
    }
    return {name if name.startswith("mlflow.") else f"mvae.{name}": text for name, text in texts.items()}
