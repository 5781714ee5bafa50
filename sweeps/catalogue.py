"""The catalogue: what the driver knows of each key of its sweep, as the views that MLflow is to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mvae.checkpoint import MODEL, Checkpoint, Record
from mvae.data import source
from mvae.models import arm
from sweeps.plan import Cell, Plan, State
from sweeps.results import Result
from sweeps.storage import Store
from sweeps.tables import column_label
from sweeps.view import CheckpointView, DatasetView, RunView, Status

if TYPE_CHECKING:
    import numpy as np
    import torch

ABOUT_A_RESULT = ("git", "host", "device", "device_name", "threads", "versions", "seconds", "mixed", "attempts")
"""What a result's provenance says that becomes tags."""


class Catalogue:
    """Views of all keys of a plan, kept up to date by the driver's main thread."""

    def __init__(self, plan: Plan, store: Store, fingerprint: str) -> None:
        self._plan, self._store, self._fingerprint = plan, store, fingerprint
        self._cells: dict[str, Cell] = dict(zip(reversed(plan.keys), reversed(plan.cells), strict=True))
        self._views = {key: self._from_storage(key) for key in plan.trials}

    def name(self, key: str) -> str:
        """How people call the trial: MVAE 1% seed 0."""
        cell = self._cells[key]
        return f"{cell.row} {column_label(cell.column)} seed {cell.trial.seed}"

    def view(self, key: str) -> RunView:
        """What is known of a key now."""
        return self._views[key]

    def running(self, key: str) -> RunView:
        """Its trial has begun."""
        return self._set(key, status=Status.RUNNING, error=None)

    def committed(self, key: str, records: Sequence[Record]) -> RunView:
        """A complete checkpoint covers these records, some perhaps known already."""
        known = {record["epoch"]: record for record in self._views[key].records}
        merged = {**known, **{record["epoch"]: record for record in records}}
        ordered = tuple(record for _, record in sorted(merged.items()))
        newest = self._store.checkpoints(key).latest(digests=False)
        return self._set(key, records=ordered, checkpoint=_checkpoint(newest))

    def failed(self, key: str, why: str) -> RunView:
        """Its trial ended without a result."""
        return self._set(key, status=Status.FAILED, error=why)

    def finished(self, key: str) -> RunView:
        """Its results are in storage."""
        self._views[key] = self._from_storage(key)
        return self._views[key]

    def load_model(self, view: RunView) -> tuple[torch.nn.Module, np.ndarray] | None:
        """The trained module of a key on the CPU, in evaluation mode, and an example of its input."""
        import numpy as np

        trial = self._plan.trials[view.key].trial
        checkpoints = self._store.checkpoints(view.key)
        newest = checkpoints.latest()
        if newest is None:
            return None
        modalities = source(trial.dataset).modalities
        module = arm(trial.model).build(trial, modalities)
        module.load_state_dict(checkpoints.load(newest, MODEL))
        return module.eval(), np.zeros((1, *modalities[0].shape), dtype=np.float32)

    def _set(self, key: str, **changes: Any) -> RunView:
        self._views[key] = replace(self._views[key], **changes)
        return self._views[key]

    def _from_storage(self, key: str) -> RunView:
        planned, cell = self._plan.trials[key], self._cells[key]
        read = (self._store.results.read(key, measure.token) for measure in planned.measures)
        results = tuple(result for result in read if result is not None)
        finished = len(results) == len(planned.measures)
        newest = self._store.checkpoints(key).latest(digests=not finished)
        begun = planned.state is State.PARTIAL
        fields = planned.trial.hashed_fields()
        return RunView(
            key=key,
            name=self.name(key),
            status=Status.FINISHED if finished else Status.KILLED if begun else Status.PENDING,
            fields=fields,
            records=tuple(newest.history) if newest else (),
            results=results,
            tags={"row": cell.row, "column": column_label(cell.column), **_about(results)},
            dataset=_dataset(planned.trial.dataset, self._fingerprint),
            checkpoint=_checkpoint(newest),
            artifacts=self._store.artifacts(key),
            started=min((r.provenance["started"] for r in results if "started" in r.provenance), default=None),
            ended=max((r.provenance["finished"] for r in results if "finished" in r.provenance), default=None),
        )


def _about(results: Sequence[Result]) -> dict[str, Any]:
    return {name: result.provenance[name] for result in results for name in ABOUT_A_RESULT if name in result.provenance}


def _checkpoint(newest: Checkpoint | None) -> CheckpointView | None:
    return CheckpointView(str(newest.path), newest.files[MODEL].sha256, newest.epoch) if newest else None


def _dataset(name: str, fingerprint: str) -> DatasetView:
    return DatasetView(name, fingerprint, {"split": source(name).split_rule, "version": source(name).version})
