"""The mirror: compares the runs of one namespace with their views, and writes the differences to MLflow."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag

from mvae.storage.clock import CLOCK, Clock
from mvae.storage.objects import place
from mvae.storage.place import AnyPlace
from sweeps.cli.tracking_uri import without_credentials
from sweeps.planning.state import TrialState
from sweeps.tracking.mirror.cells import Cells
from sweeps.tracking.mirror.moved import follow, location
from sweeps.tracking.mirror.stored import (
    MLFLOW_STATUS,
    NOTE,
    PAGE,
    Held,
    all_pages,
    batches,
    dataset_input,
    last_step,
    metrics_of,
    milliseconds,
)
from sweeps.tracking.mirror.uploads import LOGGED_MODEL, LoadModel, Uploads
from sweeps.tracking.notes import VIEW, experiment_note, run_note, saved_view, source_tags, sweep_note, view_id
from sweeps.tracking.view import RunView, SweepView, tagged


class Mirror:
    """The runs of one namespace in one MLflow experiment.

    A mirror remembers what it wrote, so live updates do not need to ask MLflow. After an error, discard the mirror. A
    new mirror reads MLflow's runs again. Only one process may write to a namespace at a time, which the driver's lease
    ensures.

    Args:
        uri: tracking URI.
        namespace: UUID of the storage name.
        experiment: name of the MLflow experiment with all sweeps of the storage name.
        artifacts: location of artifacts for a new experiment, or None to let the server decide.
        load_model: see `LoadModel`. If loading fails, `say` gets a line, and only this one model is skipped.
        say: shows a line to the user.
        clock: gives the time of values without a timestamp.
    Raises:
        Exception: MLflow cannot be read or written. All methods raise such errors too.
    """

    def __init__(
        self,
        uri: str,
        namespace: str,
        experiment: str,
        artifacts: AnyPlace | None,
        load_model: LoadModel,
        say: Callable[[str], None],
        clock: Clock = CLOCK,
    ) -> None:
        self._uri, self._clock = uri, clock
        self._client = mlflow.MlflowClient(uri)
        self._namespace = namespace
        self._about: dict[str, str] = {}  # the experiment's tags
        self.experiment = self._find_experiment(experiment, artifacts)
        if artifacts is not None and (moved := follow(uri, self.experiment, namespace, artifacts)):
            say(moved)
        self._tag_experiment(NOTE, lambda there: there or experiment_note(experiment))
        self._parent: str | None = None
        self._source: dict[str, str] = {}
        self._sweeps: dict[str, Held] = {}
        self._runs: dict[str, Held] = {}
        self._cells = Cells(self._client, self.experiment, namespace)
        where: dict[str, Any] = {
            "experiment_ids": [self.experiment],
            "filter_string": f"tags.`mvae.namespace` = '{namespace}'",
            "max_results": PAGE,
        }
        for run in all_pages(self._client.search_runs, where):
            self._index(Held.of(run))
        self._uploads = Uploads(
            self._client,
            self.experiment,
            namespace,
            load_model,
            say,
            {model.source_run_id: model for model in all_pages(self._client.search_logged_models, where)},
            deep=artifacts is not None and not place(artifacts).is_remote,
            clock=clock,
        )

    def adopt(self, sweep: SweepView) -> None:
        """Finds or creates the sweep's run, the parent of new trial runs. Call this method before the first `sync`."""
        if sweep.name not in self._sweeps:
            self._sweeps[sweep.name] = self._create(sweep.name, sweep.started, {"mvae.sweep": sweep.name})
        self._parent = self._sweeps[sweep.name].run_id
        self._source = source_tags(sweep)

    def sync_sweep(self, sweep: SweepView) -> None:
        self.adopt(sweep)
        held = self._sweeps[sweep.name]
        self._write(held, self._uploads.files(held, sweep.report, "report"))
        if sweep.cells is not None:
            self._cells.sync(sweep.cells, sweep.name, held.run_id)
        tags = {"mvae.kind": "sweep", "mvae.sweep": sweep.name, NOTE: sweep_note(sweep, self.experiment, held.run_id)}
        now = milliseconds(self._clock.time())
        changed = {name: value for name, value in sweep.numbers.items() if _differs(held.metrics.get(name), value)}
        metrics = [Metric(name, value, now, 0) for name, value in changed.items()]
        self._write(held, {**tagged(sweep.tags), **self._source, **tags}, metrics=metrics)
        held.metrics.update(changed)
        self._tag_experiment(VIEW + view_id(sweep.name), lambda there: saved_view(sweep, now, there))
        self._write_status(held, sweep.state, sweep.ended)

    def sync(self, view: RunView, sweep: str) -> None:
        """Writes a view to the run of its key.

        If the run's final numbers contradict storage, for example after a measure has changed, the run is deleted and
        created again. The status is written last, so a FINISHED run is always complete.

        Args:
            sweep: name of a sweep that lists the key. The run's parent remains the sweep that created the run.
        """
        history = view.history
        held = self._runs.get(view.key)
        finite = {name: value for name, value in view.final.items() if math.isfinite(value)}  # stores clip infinities
        if held is not None and any(held.metrics.get(name, value) != value for name, value in finite.items()):
            self._client.delete_run(held.run_id)
            held = None
        if held is None:
            if view.state is TrialState.PENDING and not history:
                return
            assert self._parent is not None, "call `adopt` first"
            started = view.started or (history[0]["time"] if history else None)
            tags = {"mvae.key": view.key, "mlflow.parentRunId": self._parent, NOTE: run_note(view), **self._source}
            tags |= view.all_tags(sweep)
            held = self._runs[view.key] = self._create(view.name, started, tags)
        if held.name != view.name:  # earlier releases left out the data set
            self._client.update_run(held.run_id, name=view.name)
            held.name = view.name
        if view.state is TrialState.RUNNING:
            self._write_status(held, view.state, None)
        if view.error is None and held.tags.pop("mvae.error", None) is not None:
            self._client.delete_tag(held.run_id, "mvae.error")
        if view.dataset is not None and not held.has_dataset:
            self._client.log_inputs(held.run_id, [dataset_input(view.dataset)])
            held.has_dataset = True
        uploaded: dict[str, str] = {}
        try:
            uploaded |= self._uploads.files(held, view.artifacts, "samples", history[-1]["epoch"] if history else 0)
            uploaded |= self._uploads.files(held, view.traceback, "errors")
            if view.state is TrialState.DONE:
                uploaded |= self._uploads.model(held, view)
        finally:  # MLflow shows the numbers even if it cannot store files
            self._write_numbers(held, view, sweep, uploaded)
        self._write_status(held, view.state, view.ended or (history[-1]["time"] if history else None))

    def links(self) -> dict[str, str]:
        """Returns the run of each key: the URL of the run's page if MLflow is a server, otherwise the run's id."""
        page = (
            f"{without_credentials(self._uri)}/#/experiments/{self.experiment}/runs/"
            if self._uri.startswith("http")
            else ""
        )
        return {key: page + held.run_id for key, held in self._runs.items()}

    def settle(self, sweep: str, keys: Iterable[str]) -> None:
        """Marks abandoned runs as interrupted. Deletes abandoned runs of cells.

        A run is abandoned if a dead driver left the run RUNNING.

        Args:
            sweep: the running sweep, which stays RUNNING.
            keys: keys of the running sweep. The runs of these keys do not change.
        """
        self._cells.settle()
        known = set(keys)
        orphans = [held for key, held in self._runs.items() if key not in known]
        for held in [*orphans, *(held for name, held in self._sweeps.items() if name != sweep)]:
            if held.status in ("RUNNING", "SCHEDULED"):
                self._write_status(held, TrialState.INTERRUPTED, None)

    def _find_experiment(self, name: str, artifacts: AnyPlace | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            at = None if artifacts is None else location(artifacts)
            kind = {"mlflow.experimentKind": "custom_model_development"}  # so that the UI shows runs, not LLM traces
            return str(self._client.create_experiment(name, artifact_location=at, tags=kind))
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        self._about = dict(found.tags)
        return str(found.experiment_id)

    def _tag_experiment(self, name: str, value: Callable[[str | None], str]) -> None:
        """Writes a tag of the experiment if the tag's value changes.

        Args:
            value: computes the new value from the current one.
        """
        current = self._about.get(name)
        if (new := value(current)) != current:
            self._client.set_experiment_tag(self.experiment, name, new)
            self._about[name] = new

    def _index(self, held: Held) -> None:
        """Registers a run by its key or sweep.

        If a key or sweep has two runs (because a server died and its reply was lost), deletes the newer run.
        """
        if self._cells.holds(held):
            return
        key, sweep = held.tags.get("mvae.key"), held.tags.get("mvae.sweep")
        runs, name = (self._sweeps, sweep) if key is None else (self._runs, key)
        if name is None:
            return
        if (other := runs.get(name)) is not None:
            held, spare = sorted((held, other), key=lambda run: (run.started, run.run_id))
            self._client.delete_run(spare.run_id)
        runs[name] = held

    def _create(self, name: str, started: float | None, tags: dict[str, str]) -> Held:
        when, tags = milliseconds(started or self._clock.time()), {"mvae.namespace": self._namespace, **tags}
        return Held.of(self._client.create_run(self.experiment, start_time=when, tags=tags, run_name=name))

    def _write(self, held: Held, tags: dict[str, str], params: Any = None, metrics: Sequence[Metric] = ()) -> None:
        """Writes metrics, changed tags and missing parameters. Parameters never change: the key is a hash of them."""
        new_tags = {name: value for name, value in tags.items() if held.tags.get(name) != value}
        new_params = {name: str(value) for name, value in (params or {}).items() if name not in held.params}
        if new_tags or new_params or metrics:
            self._client.log_batch(
                held.run_id,
                metrics=metrics,
                tags=[RunTag(name, value) for name, value in new_tags.items()],
                params=[Param(name, value) for name, value in new_params.items()],
            )
            held.tags.update(new_tags)
            held.params.update(new_params)

    def _write_numbers(self, held: Held, view: RunView, sweep: str, uploaded: dict[str, str]) -> None:
        """Writes tags and parameters, then missing epochs from oldest to newest, then missing final numbers.

        The metric "epoch" is written in one transaction with the other metrics of its epoch, so it shows which epochs
        are complete. Final numbers carry the id of the run's model. If the model is new, all final numbers
        are written again, with the new id. The run still shows each number once, because MLflow ignores a number that
        equals a stored number in name, value, step and time.

        Args:
            uploaded: tags that `Uploads.files` and `Uploads.model` returned.
        """
        history = view.history
        if held.steps is None:
            names = {metric.key for metric in metrics_of(history[0])} if history else {"epoch"}
            asks = names <= held.metrics.keys()  # if a name is missing, all epochs are logged again; none appears twice
            there = self._client.get_metric_history(held.run_id, "epoch") if asks else []
            held.steps = {metric.step for metric in there}
        missing = [record for record in history if record["epoch"] not in held.steps]
        epoch, when = last_step(view, self._clock)
        model = uploaded.get(LOGGED_MODEL, "")
        is_new = bool(model) and model != held.tags.get(LOGGED_MODEL)
        final = {name: value for name, value in view.final.items() if is_new or name not in held.metrics}
        owner = model.rpartition("/")[2] or None
        steps = [metrics_of(record) for record in missing]
        steps.append([Metric(name, value, when, epoch, model_id=owner) for name, value in final.items()])
        first = {} if "mlflow.source.name" in held.tags else self._source
        tags = {**first, **view.all_tags(sweep), NOTE: run_note(view), **uploaded}
        for batch in list(batches(steps)) or [[]]:
            self._write(held, tags, view.fields, batch)
        held.steps |= {record["epoch"] for record in missing}
        held.metrics.update(final)

    def _write_status(self, held: Held, state: TrialState, ended: float | None) -> None:
        wanted = MLFLOW_STATUS[state]
        if held.status == wanted:
            return
        if wanted == "RUNNING":
            self._client.update_run(held.run_id, status=wanted)
        else:
            when = max(milliseconds(ended or self._clock.time()), held.started)
            self._client.set_terminated(held.run_id, status=wanted, end_time=when)
        held.status = wanted


def _differs(held: float | None, value: float) -> bool:
    """Whether a sweep's new number differs from the number in MLflow. nan equals nan, and equals a missing number.

    MLflow cannot delete numbers, so the sweep's run keeps former numbers.
    """
    return not (math.isnan(value) if held is None or math.isnan(held) else held == value)
