"""Writes one MLflow run per cell of a sweep's table. The run has the cell's numbers over seeds, final and by epoch.

A cell's numbers change if the sweep gets more seeds. MLflow cannot replace values, so a run that differs from its view
is deleted and created again. The digest of the view is written last. So a run without a digest is incomplete.
"""

import hashlib

import mlflow
from mlflow.entities import Metric, RunTag

from sweeps.planning.state import TrialState
from sweeps.tracking.mirror.stored import MLFLOW_STATUS, Held, batches, metrics_of, milliseconds
from sweeps.tracking.view import CellView, member_tag, tagged

CELL = "mvae.cell_of"
"""Name of the tag that identifies a cell's run: sweep, row and column."""
DIGEST = "mvae.digest"
"""Name of the tag with the digest of the view. A run with this tag is complete."""


class Cells:
    """The MLflow runs of all cells in one namespace.

    Args:
        experiment: id of the experiment.
        namespace: UUID of the storage name.
    """

    def __init__(self, client: mlflow.MlflowClient, experiment: str, namespace: str) -> None:
        self._client, self._experiment, self._namespace = client, experiment, namespace
        self._runs: dict[str, Held] = {}

    def holds(self, held: Held) -> bool:
        """Registers a cell's run and returns True. Returns False for other runs.

        If another run of this cell is registered already, deletes the other run.
        """
        if (place := held.tags.get(CELL)) is None:
            return False
        if (other := self._runs.get(place)) is not None:
            self._client.delete_run(other.run_id)
        self._runs[place] = held
        return True

    def sync(self, cells: tuple[CellView, ...], sweep: str, parent: str) -> None:
        """Creates, replaces and deletes runs so that each cell of a sweep has one run that matches its view.

        Args:
            sweep: name of the sweep.
            parent: id of the sweep's run.
        """
        wanted = {f"{sweep}: {cell.place}": cell for cell in cells}
        for place in [place for place in self._runs if place.startswith(f"{sweep}: ") and place not in wanted]:
            self._client.delete_run(self._runs.pop(place).run_id)
        for place, cell in wanted.items():
            tags = {"mvae.kind": "cell", CELL: place, "mlflow.parentRunId": parent, member_tag(sweep): "yes"}
            self._sync(place, cell, {**tagged(cell.tags), "mvae.namespace": self._namespace, **tags})

    def settle(self) -> None:
        """Deletes the incomplete runs that a dead driver left RUNNING. `sync` creates these runs again."""
        for place in [place for place, held in self._runs.items() if held.status == "RUNNING"]:
            self._client.delete_run(self._runs.pop(place).run_id)

    def _sync(self, place: str, cell: CellView, tags: dict[str, str]) -> None:
        digest = hashlib.sha256(repr(cell).encode(errors="surrogatepass")).hexdigest()
        held = self._runs.get(place)
        if held is not None:
            if _is_complete(held, cell, {**tags, DIGEST: digest}):
                return
            self._client.delete_run(self._runs.pop(place).run_id)
        started = milliseconds(cell.started)
        run = self._client.create_run(self._experiment, start_time=started, tags=tags, run_name=cell.name)
        last = cell.epochs[-1]["epoch"] if cell.epochs else 0
        final = [Metric(name, value, milliseconds(cell.ended), last) for name, value in cell.numbers.items()]
        parts = list(batches([*map(metrics_of, cell.epochs), final]))
        for number, metrics in enumerate(parts, 1):
            last_tags = [RunTag(DIGEST, digest)] if number == len(parts) else []
            self._client.log_batch(run.info.run_id, metrics=metrics, tags=last_tags)
        done = MLFLOW_STATUS[TrialState.DONE]
        self._client.set_terminated(run.info.run_id, status=done, end_time=max(milliseconds(cell.ended), started))
        held = Held.of(run)
        held.status, held.tags = done, {**held.tags, DIGEST: digest}
        held.metrics = {metric.key: metric.value for metrics in parts for metric in metrics}
        self._runs[place] = held


def _is_complete(held: Held, cell: CellView, tags: dict[str, str]) -> bool:
    last = [metric for record in cell.epochs[-1:] for metric in metrics_of(record)]
    wanted = {metric.key: metric.value for metric in last} | dict(cell.numbers)
    finished = held.status == MLFLOW_STATUS[TrialState.DONE]
    return finished and held.name == cell.name and tags.items() <= held.tags.items() and held.metrics == wanted
