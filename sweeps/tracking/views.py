"""The catalogue: what the driver knows of each key of its sweep, as the views that MLflow is to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvae import plugins
from mvae.data import Kind, Modality, source
from mvae.measure import VERSIONS
from mvae.models import arm
from mvae.storage.place import Place, each
from mvae.training.records import MODEL, Record
from mvae.trial import Trial
from sweeps.cli.words import counted
from sweeps.planning.plan import Cell, Fingerprints, Plan, fingerprint_of
from sweeps.planning.state import TrialState
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.table.entries import grouped
from sweeps.table.published import column_label
from sweeps.tracking.view import DatasetView, RunView

if TYPE_CHECKING:
    import torch


class Catalogue:
    """Views of all keys of a plan, kept up to date by the driver's main thread."""

    def __init__(self, plan: Plan, store: Store, fingerprints: Fingerprints, cache: Path | None = None) -> None:
        self._plan, self._store, self._fingerprints, self._cache = plan, store, fingerprints, cache
        self._cells: dict[str, list[Cell]] = {}
        for key, cell in zip(plan.keys, plan.cells, strict=True):
            self._cells.setdefault(key, []).append(cell)
        there = store.results.where(lambda key, measure: key in plan.trials and _current(measure))
        results = grouped(there, lambda result: result.key)
        views = each(lambda key: self._from_storage(key, results.get(key, [])), plan.trials, store.root)
        self._views = dict(zip(plan.trials, views, strict=True))

    def name(self, key: str) -> str:
        """How people call the trial: MVAE 1% seed 0; VAE seed 0, where it is the same for all columns."""
        return f"{self._cell(key)} seed {self._cells[key][0].trial.seed}"

    def view(self, key: str) -> RunView:
        return self._views[key]

    def running(self, key: str) -> RunView:
        return self._set(key, state=TrialState.RUNNING, error=None, traceback=None)

    def committed(self, key: str, records: Sequence[Record]) -> RunView:
        """A complete checkpoint covers these records, some perhaps known already."""
        newest = self._store.checkpoints(key).latest(digests=False)
        return self._set(key, records=(*self._views[key].records, *records), checkpoint=newest)

    def failed(self, key: str, why: str, traceback: Place | None = None) -> RunView:
        """Its trial ended without a result; the file holds the traceback."""
        return self._set(key, state=TrialState.FAILED, error=why, traceback=traceback)

    def finished(self, key: str) -> RunView:
        """Its results are in storage."""
        self._views[key] = self._from_storage(
            key, self._store.results.where(lambda other, measure: other == key and _current(measure))
        )
        return self._views[key]

    def add(self, plan: Plan, key: str) -> RunView:
        """The plan has grown by a key with one cell."""
        self._plan = plan
        self._cells[key] = [cell for cell, of in zip(plan.cells, plan.keys, strict=True) if of == key]
        return self.finished(key)

    def pruned(self, key: str, epoch: int) -> RunView:
        """A search gave its trial up after so many epochs."""
        return self._set(key, state=TrialState.PRUNED, tags={**self._views[key].tags, "pruned": epoch})

    def load_model(self, view: RunView) -> tuple[torch.nn.Module, np.ndarray | None] | None:
        """The trained module of a key on the CPU, in evaluation mode, and an example of its input.

        Pickled, it takes along what plug-ins define, so that it can be read without them. The example is None for a
        module that wants more than an image.
        """
        from cloudpickle import register_pickle_by_value

        for module_of_plugin in plugins.modules():
            register_pickle_by_value(module_of_plugin)
        trial = self._plan.trials[view.key].trial
        checkpoints = self._store.checkpoints(view.key)
        newest, modalities = checkpoints.latest(), self._modalities(trial)
        if newest is None or modalities is None:
            return None
        chosen = arm(trial.model)
        module = chosen.build(trial, modalities)
        module.load_state_dict(checkpoints.load(newest, MODEL))
        from_image = chosen.measures & {"accuracy", "readout"} and modalities[0].kind is Kind.IMAGE
        return module.eval(), np.zeros((1, *modalities[0].shape), dtype=np.float32) if from_image else None

    def _modalities(self, trial: Trial) -> tuple[Modality, ...] | None:
        """What a trial's model was built for; None where that stands in converted data which are not there."""
        if source(trial.dataset).made_of is None:
            return source(trial.dataset).modalities
        from mvae.data import load_converted

        data = load_converted(trial.dataset, fingerprint_of(trial.dataset, self._fingerprints), self._cache)
        return None if data is None else data.knowing(trial.vocabulary).modalities

    def made_by_others(self) -> str:
        """A line on results that another state of a plug-in has made, since they stand; empty where there are none."""
        others, names = 0, dict[str, None]()
        for key, planned in self._plan.trials.items():
            today = plugins.made_by(planned.trial)
            then = [result.provenance.get("plugins", today) for result in self._views[key].results]
            if changed := {name for made in then for name in today if made.get(name, today[name]) != today[name]}:
                others += 1
                names |= dict.fromkeys(sorted(changed))
        if not others:
            return ""
        return (
            f"Warning: {counted(others, 'trial')} ran with another {' and '.join(names)} than today's, and what it gave"
            " stands. To run them again, raise `version` in the Source or Arm that has changed"
        )

    def _cell(self, key: str) -> str:
        """The trial's name without its seed: what the seeds of one entry of the table have in common."""
        return " ".join(part for part in (self._cells[key][0].trained, self._column(key)) if part)

    def _column(self, key: str) -> str:
        """The column that the trial is trained for, "" where its cells differ in what is measured alone."""
        columns = {cell.column for cell in self._cells[key]}
        measured = {value for cell in self._cells[key] for _, value in cell.measure.parameters}
        return "" if len(columns) > 1 or columns & measured else column_label(columns.pop())

    def _set(self, key: str, **changes: Any) -> RunView:
        self._views[key] = replace(self._views[key], **changes)
        return self._views[key]

    def _from_storage(self, key: str, found: Sequence[Result]) -> RunView:
        planned, cell = self._plan.trials[key], self._cells[key][0]
        finished = {measure.token for measure in planned.measures} <= {result.measure for result in found}
        newest = self._store.checkpoints(key).latest(digests=not finished)
        data = source(planned.trial.dataset)
        about = {"split": data.split_rule, "version": data.version}
        return RunView(
            key=key,
            name=self.name(key),
            state=TrialState.DONE if finished else planned.state,
            fields=planned.trial.hashed_fields(),
            records=tuple(newest.history) if newest else (),
            results=tuple(found),
            tags={"cell": self._cell(key), "row": cell.trained, "column": self._column(key) or None},
            dataset=DatasetView(data.name, fingerprint_of(data.name, self._fingerprints), about),
            checkpoint=newest,
            artifacts=self._store.artifacts(key),
            started=min((r.provenance["started"] for r in found if "started" in r.provenance), default=None),
            ended=max((r.provenance["finished"] for r in found if "finished" in r.provenance), default=None),
        )


def _current(token: str) -> bool:
    """Whether a measure's token (likelihood-s1000-v1) is of a version that this package computes."""
    label, _, version = token.rpartition("-v")
    return (label.partition("-")[0], int(version)) in VERSIONS
