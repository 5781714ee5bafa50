"""What the tracking server should show of a sweep and of its runs: plain values, made by the driver from storage.

A `RunView` is all that is known of one key, a `SweepView` all that is known of one command. tracker.py sends the
newest of each to mirror/, which makes MLflow hold what they say. Neither Ray nor MLflow is needed here.
"""

from __future__ import annotations

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
    """The data set of a run, as MLflow's own data set entry shows it."""

    name: str
    fingerprint: str
    """Hex digest from `mvae.data.fingerprint`; MLflow shows its first 36 digits and a tag holds it whole."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where it comes from, JSON-able: files, version of the transform, numbers of examples."""


@dataclass(frozen=True)
class RunView:
    """All that is known of one key. The last one given replaces what was said before."""

    key: str
    name: str
    """What MLflow's lists call the run, for people: "mvae 1 % seed 0"."""
    state: TrialState
    fields: Mapping[str, Any]
    """The trial's hashed fields: they become params, and tags `mvae.<field>` to group by."""
    records: tuple[Record, ...] = ()
    """At least one per finished epoch, covered by a committed checkpoint; of two of an epoch the last one counts."""
    results: tuple[Result, ...] = ()
    """One a measure that is done; their metrics are the run's final numbers, their provenance becomes tags."""
    tags: Mapping[str, Any] = field(default_factory=dict)
    """What neither the trial's fields nor its results say: cell, row, column; shown as `mvae.<name>`."""
    error: str | None = None
    """Why it failed; shown until it runs again without."""
    traceback: AnyPlace | None = None
    dataset: DatasetView | None = None
    checkpoint: Checkpoint | None = None
    """The newest."""
    artifacts: AnyPlace | None = None
    """Folder of pictures (PNG) to show; it need not exist."""
    started: float | None = None
    """Unix seconds of the first attempt; without it, the time of the first record."""
    ended: float | None = None
    """Unix seconds; without it, the time of the last record."""

    @property
    def history(self) -> tuple[Record, ...]:
        """The records of all finished epochs in order: those of the running trial, else those that a result carries."""
        carried = {record["epoch"]: record for result in self.results for record in result.history}
        return tuple(record for _, record in sorted({**carried, **{r["epoch"]: r for r in self.records}}.items()))

    @property
    def final(self) -> dict[str, float]:
        """The numbers of all measures together (test/accuracy and so on), less those that every epoch has.

        Of a likelihood measured with several numbers of samples, that with the most is shown.
        """
        per_epoch = {name for record in self.history for name in record["metrics"]} | {"speed/examples_per_second"}
        by_samples = sorted(self.results, key=lambda result: result.samples)
        metrics = [item for result in by_samples for item in result.metrics.items()]
        gained = [result.provenance.get("speed", {}) for result in by_samples]
        metrics += [(f"speed/{name}", value) for one in gained for name, value in one.items()]
        return {name: float(value) for name, value in metrics if name not in per_epoch}

    def all_tags(self, sweep: str) -> dict[str, str]:
        """The tags of the run, by MLflow's names.

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
        every = (self.fields, *(result.provenance for result in self.results), self.tags, own)
        tags = {name: value for values in every for name, value in tagged(values).items()}
        return {**tags, member_tag(sweep): "yes"}


@dataclass(frozen=True)
class SweepView:
    """All that is known of one command: the parent of the runs that it makes."""

    name: str
    """Names the sweep within its storage name, and the parent run: "weak_supervision digits"."""
    state: TrialState
    title: str
    """One line: what is computed."""
    source: str = ""
    """The published table or figure: "supplement, section 8, Table 4"."""
    command: str = ""
    """What to type to resume or to extend the sweep."""
    program: str = ""
    """File name of the pipeline: MLflow's column "Source", of the trials that this sweep is the first to make too."""
    metrics: tuple[str, ...] = ()
    """The metrics that stand in the table's cells: columns of the sweep's view of its runs."""
    settings: tuple[str, ...] = ()
    """Of a search, what it varies: further columns, of runs that are then not grouped by cell."""
    tags: Mapping[str, Any] = field(default_factory=dict)
    """Git sha, data set, preset, plug-ins; shown as `mvae.<name>`."""
    report: AnyPlace | None = None
    """Folder of the report; it need not exist. Its table and pictures are in the description."""
    started: float | None = None
    ended: float | None = None


def member_tag(sweep: str) -> str:
    """The tag that every run of a sweep carries, whichever sweep made it."""
    return f"mvae.sweep.{sweep}"


def tagged(values: Mapping[str, Any]) -> dict[str, str]:
    """Tags as MLflow takes them: `mvae.` before names that are not MLflow's own; text as it is, the rest as JSON."""
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
        for name, value in values.items()
        if value is not None
    }
    return {name if name.startswith("mlflow.") else f"mvae.{name}": text for name, text in texts.items()}
