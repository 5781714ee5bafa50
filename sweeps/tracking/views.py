"""Catalogue: makes a RunView of each trial of a sweep from storage, and updates the views while the sweep runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvae import plugins
from mvae.data import Kind, Modality, source
from mvae.measure import OWN, VERSIONS
from mvae.models import arm
from mvae.storage.clock import CLOCK, Clock
from mvae.storage.place import Place, each
from mvae.training.records import Record
from mvae.trial import Trial
from sweeps.cli.words import counted
from sweeps.planning.plan import Cell, Fingerprints, Plan, fingerprint_of
from sweeps.planning.state import TrialState
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.store.trained import trained_model
from sweeps.table.entries import grouped
from sweeps.table.published import column_label
from sweeps.tracking.view import DatasetView, RunView

if TYPE_CHECKING:
    import torch


class Catalogue:
    """RunViews of all trials of a plan, by key. The driver's main thread keeps the views up to date."""

    def __init__(
        self, plan: Plan, store: Store, fingerprints: Fingerprints, cache: Path | None = None, clock: Clock = CLOCK
    ) -> None:
        self._plan, self._store, self._fingerprints, self._cache = plan, store, fingerprints, cache
        self._clock = clock
        self._cells: dict[str, list[Cell]] = {}
        for key, cell in zip(plan.keys, plan.cells, strict=True):
            self._cells.setdefault(key, []).append(cell)
        stored = store.results.where(lambda key, measure: key in plan.trials and _current(measure))
        results = grouped(stored, lambda result: result.key)
        views = each(lambda key: self._from_storage(key, results.get(key, [])), plan.trials, store.root)
        self._views = dict(zip(plan.trials, views, strict=True))

    def name(self, key: str) -> str:
        """Returns the trial's readable name: "MVAE 1% seed 0", or "VAE seed 0" if all columns share the trial."""
        return f"{self._name_without_seed(key)} seed {self._cells[key][0].trial.seed}"

    def view(self, key: str) -> RunView:
        return self._views[key]

    def views(self) -> Iterable[RunView]:
        return self._views.values()

    def running(self, key: str) -> RunView:
        started = self._views[key].started or self._clock.time()
        return self._set(key, state=TrialState.RUNNING, error=None, traceback=None, started=started)

    def committed(self, key: str, records: Sequence[Record]) -> RunView:
        return self._set(
            key,
            records=(*self._views[key].records, *records),
            checkpoint=self._store.checkpoints(key).latest(digests=False),
        )

    def failed(self, key: str, why: str, traceback: Place | None = None) -> RunView:
        return self._set(key, state=TrialState.FAILED, error=why, traceback=traceback)

    def finished(self, key: str) -> RunView:
        self._views[key] = self._from_storage(
            key, self._store.results.where(lambda other, measure: other == key and _current(measure))
        )
        return self._views[key]

    def add(self, plan: Plan, key: str) -> RunView:
        """Adds a key and returns its view.

        Args:
            plan: extended plan that includes the new key.
        """
        self._plan = plan
        self._cells[key] = [cell for cell, of in zip(plan.cells, plan.keys, strict=True) if of == key]
        return self.finished(key)

    def pruned(self, key: str, epoch: int) -> RunView:
        return self._set(key, state=TrialState.PRUNED, tags={**self._views[key].tags, "pruned": epoch})

    def load_model(self, view: RunView) -> tuple[torch.nn.Module, np.ndarray | None] | None:
        """Returns the trained module of a key on the CPU, in evaluation mode, and an example of its input.

        Pickling the module includes the code of plug-ins, so loading the module does not need the plug-ins. The example
        is None if the module needs more than an image.
        """
        from cloudpickle import register_pickle_by_value

        for module_of_plugin in plugins.modules():
            register_pickle_by_value(module_of_plugin)
        trial = self._plan.trials[view.key].trial
        modalities = self._modalities(trial)
        module = None if modalities is None else trained_model(self._store, view.key, trial, modalities)
        if module is None or modalities is None:
            return None
        from_image = arm(trial.model).measures & {"accuracy", "readout"} and modalities[0].kind is Kind.IMAGE
        return module, np.zeros((1, *modalities[0].shape), dtype=np.float32) if from_image else None

    def _modalities(self, trial: Trial) -> tuple[Modality, ...] | None:
        """Returns the modalities of a trial's model, or None if the converted data that records them is missing."""
        if source(trial.dataset).made_of is None:
            return source(trial.dataset).modalities
        from mvae.data import load_converted

        data = load_converted(trial.dataset, fingerprint_of(trial.dataset, self._fingerprints), self._cache)
        return None if data is None else data.knowing(trial.vocabulary).modalities

    def made_by_others(self) -> str:
        """Returns a warning about results from another version of a plug-in, or "" if there are none."""
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
            f"Warning: {counted(others, 'trial')} ran with another version of {' and '.join(names)}; the results are"
            " kept. To run these trials again, raise `version` in the Source or Arm that has changed"
        )

    def _name_without_seed(self, key: str) -> str:
        return " ".join(part for part in (self._cells[key][0].trained, self._column(key)) if part)

    def _column(self, key: str) -> str:
        """Returns the column that the trial is trained for, or "" if its cells differ only in what is measured."""
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
        about = [result.provenance for result in found] or (newest.provenance.get("attempts", []) if newest else [])
        return RunView(
            key=key,
            name=f"{planned.trial.dataset} {self.name(key)}",
            state=TrialState.DONE if finished else _unfinished(planned.state),
            fields=planned.trial.hashed_fields(),
            records=tuple(newest.history) if newest else (),
            results=tuple(found),
            tags={"cell": self._name_without_seed(key), "row": cell.trained, "column": self._column(key) or None},
            dataset=DatasetView(
                data.name,
                fingerprint_of(data.name, self._fingerprints),
                {"split": data.split_rule, "version": data.version},
            ),
            checkpoint=newest,
            artifacts=self._store.artifacts(key),
            started=min((one["started"] for one in about if "started" in one), default=None),
            ended=max((r.provenance["finished"] for r in found if "finished" in r.provenance), default=None),
        )


def _unfinished(state: TrialState) -> TrialState:
    """Returns the state of a trial without all results. DONE becomes INTERRUPTED: a file was damaged after planning."""
    return TrialState.INTERRUPTED if state is TrialState.DONE else state


def _current(token: str) -> bool:
    """Whether this package can compute the measure version in a token, for example v1 in likelihood-s1000-v1."""
    label, _, version = token.rpartition("-v")
    return (label.partition("-")[0], int(version)) in VERSIONS | OWN.keys()
