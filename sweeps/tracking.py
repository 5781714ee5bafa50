"""The MLflow writer: makes a tracking store hold what the views of sweeps/view.py say. Nothing else imports mlflow.

Storage is the truth and MLflow a view of it, so there is one operation: compare what MLflow holds of a key with what is
known of it, and write what is missing. A live update, the clean-up after a killed driver, a rebuilt database and a
sweep's first appearance on a new server are all that operation. One parent run a (namespace, sweep) and one child run a
(namespace, key) are found by their tags, however often anything was killed.

Import this in the writing thread only (sweeps/tracker.py): it takes two seconds, and importing it silences MLflow.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mvae.files import atomic_path, listing, locked, sha256_cached
from mvae.remote import Place, RemotePath
from sweeps.pages import VIEW, experiment_note, model_note, run_note, saved_view, source_tags, sweep_note, view_id
from sweeps.scratch import scratch
from sweeps.tracker import shown
from sweeps.view import DatasetView, RunView, Status, SweepView, member_tag, tagged

# Read by MLflow when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the caller tries again, once a minute
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import mlflow
import mlflow.pytorch
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.models import Model, infer_signature
from mlflow.utils import environment

if TYPE_CHECKING:
    import numpy as np
    import torch

    from mvae.checkpoint import Record

for _logger in ("mlflow", "alembic"):
    logging.getLogger(_logger).setLevel(logging.CRITICAL)  # what fails is raised, and said once by the caller
# It looks through all installed packages, for seconds, to warn of versions that we do not ask for.
vars(environment)["warn_dependency_requirement_mismatches"] = lambda _: None

LoadModel = Callable[[RunView], "tuple[torch.nn.Module, np.ndarray | None] | None"]
"""The trained module of a finished run, in evaluation mode, and an example of its input; None where there is none.

The example alone is None for a module that wants more than one array.
"""

METRICS_A_REQUEST = 800
PAGE = 1000
"""Below MLflow's limit on a batch (1000 metrics, tags and params together); a page is ours."""
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a description, in Markdown."""

MLFLOW_STATUS = {
    Status.PENDING: "KILLED",  # it has a run, so it was interrupted
    Status.RUNNING: "RUNNING",
    Status.FINISHED: "FINISHED",
    Status.FAILED: "FAILED",
    Status.KILLED: "KILLED",
    Status.PRUNED: "KILLED",  # tag mvae.pruned says at which epoch
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
                mlflow.MlflowClient(f"sqlite:///{temporary}").search_experiments(max_results=1)
        found = path.stat()
    files = _opened.setdefault(path, [])
    identity = (found.st_dev, found.st_ino)
    if identity not in files:
        files.append(identity)
    return f"sqlite:///{path.parent}{'/.' * files.index(identity)}/{path.name}"


@dataclass
class _Held:
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
    def of(cls, run: Run) -> _Held:
        return cls(
            run_id=run.info.run_id,
            started=run.info.start_time or 0,
            status=run.info.status,
            tags=dict(run.data.tags),
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            has_dataset=bool(run.inputs and run.inputs.dataset_inputs),
        )


class Mirror:
    """One namespace's runs in one experiment of a tracking store.

    It remembers what it wrote, so that a live update costs no question. After any error throw it away and make another:
    that one asks the store what it holds. There must be one writer a namespace (the driver's lease sees to that).

    Args:
        uri: tracking URI.
        namespace: UUID of the storage name whose runs these are.
        experiment: MLflow's name for the group of all sweeps of that storage name.
        artifacts: where a new experiment keeps its artifacts; None leaves it to the server.
        load_model: see `LoadModel`; an error in it is said, and costs that model alone.
        say: takes a line for the user.
    Raises:
        Exception: whatever MLflow raises when the store cannot be read or written; so do all methods.
    """

    def __init__(
        self,
        uri: str,
        namespace: str,
        experiment: str,
        artifacts: Place | None,
        load_model: LoadModel,
        say: Callable[[str], None],
    ) -> None:
        self._uri = uri
        self._client = mlflow.MlflowClient(uri)
        self._namespace = namespace
        self._load_model = load_model
        self._say = say
        self._about: dict[str, str] = {}  # the experiment's tags
        self._experiment = self._find_experiment(experiment, artifacts)
        self._tag_experiment(NOTE, lambda there: there or experiment_note(experiment))
        self._parent: str | None = None
        self._source: dict[str, str] = {}
        self._sweeps: dict[str, _Held] = {}
        self._runs: dict[str, _Held] = {}
        where: dict[str, Any] = {
            "experiment_ids": [self._experiment],
            "filter_string": f"tags.`mvae.namespace` = '{namespace}'",
            "max_results": PAGE,
        }
        for run in _all_pages(self._client.search_runs, where):
            self._index(_Held.of(run))
        models = _all_pages(self._client.search_logged_models, where)
        self._models: dict[str | None, LoggedModel] = {model.source_run_id: model for model in models}

    def adopt(self, sweep: SweepView) -> None:
        """Find or make the parent run. Comes before the first `sync`: new runs become its children."""
        held = self._sweeps.get(sweep.name)
        if held is None:
            held = self._create(sweep.name, sweep.started, {"mvae.sweep": sweep.name})
            self._sweeps[sweep.name] = held
        self._parent = held.run_id
        self._source = source_tags(sweep)

    def sync_sweep(self, sweep: SweepView) -> None:
        """Make the parent run hold what `sweep` says."""
        self.adopt(sweep)
        held = self._sweeps[sweep.name]
        self._write(held, self._upload_files(held, sweep.report, "report"))
        own = {"mvae.kind": "sweep", "mvae.sweep": sweep.name, NOTE: sweep_note(sweep, self._experiment, held.run_id)}
        self._write(held, tags={**tagged(sweep.tags), **self._source, **own})
        self._tag_experiment(VIEW + view_id(sweep), lambda there: saved_view(sweep, _milliseconds(time.time()), there))
        self._write_status(held, sweep.status, sweep.ended)

    def sync(self, view: RunView, sweep: str) -> None:
        """Make the one run of `view.key` hold what the view says.

        A run that contradicts storage (final numbers of an older version of a measure) is deleted and made anew.
        A terminal status is written last, so that a FINISHED run is a complete one.

        Args:
            sweep: name of the sweep that lists the key now; the run's parent stays the first one.
        """
        history = view.history
        held = self._runs.get(view.key)
        if held is not None and _contradicts(held, view):
            self._client.delete_run(held.run_id)
            held = None
        if held is None:
            if view.status is Status.PENDING and not history:
                return
            assert self._parent is not None, "the sweep's own run comes first"
            started = view.started or (history[0]["time"] if history else None)
            tags = {**view.all_tags(sweep), "mvae.key": view.key, "mlflow.parentRunId": self._parent}
            held = self._runs[view.key] = self._create(view.name, started, tags)
        if view.status is Status.RUNNING:
            self._write_status(held, view.status, None)
        if view.error is None and held.tags.pop("mvae.error", None) is not None:
            self._client.delete_tag(held.run_id, "mvae.error")
        self._write_numbers(held, view, sweep)
        if view.dataset is not None and not held.has_dataset:
            self._client.log_inputs(held.run_id, [_dataset_input(view.dataset)])
            held.has_dataset = True
        uploaded = self._upload_files(held, view.artifacts, "samples")
        uploaded |= self._upload_files(held, view.traceback, "errors")
        if view.status is Status.FINISHED:
            uploaded |= self._upload_model(held, view)
        self._write(held, uploaded)
        self._write_status(held, view.status, view.ended or (history[-1]["time"] if history else None))

    def links(self) -> dict[str, str]:
        """Key to run: the page of a server, the run's id elsewhere."""
        page = f"{shown(self._uri)}/#/experiments/{self._experiment}/runs/" if self._uri.startswith("http") else ""
        return {key: page + held.run_id for key, held in self._runs.items()}

    def settle(self, sweep: str, keys: Iterable[str]) -> None:
        """Put right what a dead driver left RUNNING and nobody speaks for now: other sweeps and their keys."""
        known = set(keys)
        orphans = [held for key, held in self._runs.items() if key not in known]
        for held in [*orphans, *(held for name, held in self._sweeps.items() if name != sweep)]:
            if held.status in ("RUNNING", "SCHEDULED"):
                self._write_status(held, Status.KILLED, None)

    def _find_experiment(self, name: str, artifacts: Place | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = (
                None if artifacts is None else artifacts.as_uri() if isinstance(artifacts, Path) else str(artifacts)
            )
            kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on runs, not on LLM traces
            return str(self._client.create_experiment(name, artifact_location=location, tags=kind))
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        self._about = dict(found.tags)
        return str(found.experiment_id)

    def _tag_experiment(self, name: str, value: Callable[[str | None], str]) -> None:
        """Write a tag of the experiment where it differs from what is to be written, given what is there."""
        there = self._about.get(name)
        if (new := value(there)) != there:
            self._client.set_experiment_tag(self._experiment, name, new)
            self._about[name] = new

    def _index(self, held: _Held) -> None:
        """File a run under its name. Of two (a reply was lost on the way while a server died) the older one stays."""
        if (key := held.tags.get("mvae.key")) is not None:
            runs, name = self._runs, key
        elif (sweep := held.tags.get("mvae.sweep")) is not None:
            runs, name = self._sweeps, sweep
        else:
            return
        other = runs.get(name)
        if other is not None:
            held, spare = sorted((held, other), key=lambda run: (run.started, run.run_id))
            self._client.delete_run(spare.run_id)
        runs[name] = held

    def _create(self, name: str, started: float | None, tags: dict[str, str]) -> _Held:
        all_tags = {"mvae.namespace": self._namespace, **tags}
        when = _milliseconds(started or time.time())
        return _Held.of(self._client.create_run(self._experiment, start_time=when, tags=all_tags, run_name=name))

    def _write(self, held: _Held, tags: dict[str, str], params: Any = None, metrics: Sequence[Metric] = ()) -> None:
        """Metrics, tags that differ and params that are not there (they never change: the key is their hash)."""
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

    def _write_numbers(self, held: _Held, view: RunView, sweep: str) -> None:
        """Tags and params; epochs that are not there, oldest first; then final numbers that are not there.

        The metric "epoch" travels in one transaction with the rest of its step, so it tells which steps are complete.
        """
        history = view.history
        if held.steps is None:
            there = self._client.get_metric_history(held.run_id, "epoch") if "epoch" in held.metrics else []
            held.steps = {metric.step for metric in there}
        missing = [record for record in history if record["epoch"] not in held.steps]
        epoch, when = _last(view)
        final = {name: value for name, value in view.final.items() if name not in held.metrics}
        steps = [_metrics(record) for record in missing]
        steps.append([Metric(name, value, when, epoch) for name, value in final.items()])
        first = {} if "mlflow.source.name" in held.tags else self._source
        tags = {**first, **view.all_tags(sweep), NOTE: run_note(view)}
        for batch in list(_batches(steps)) or [[]]:
            self._write(held, tags, view.fields, batch)
        held.steps |= {record["epoch"] for record in missing}
        held.metrics.update(final)

    def _upload_files(self, held: _Held, place: Place | None, name: str) -> dict[str, str]:
        """A folder or a file as artifacts under `name`, again when one has changed; the tag that says so."""
        if isinstance(place, RemotePath):
            return self._upload_objects(held, place, name)
        if place is None:
            return {}
        files = [place / path for path in listing(place)] or [place] * place.is_file()
        if not files:
            return {}
        try:
            said = "\n".join(f"{sha256_cached(path)} {path.relative_to(place)}" for path in files)
            digest = {f"mvae.files.{name}": hashlib.sha256(said.encode()).hexdigest()}
            if not digest.items() <= held.tags.items():
                for path in files:
                    below = PurePosixPath(name, path.relative_to(place).parent)
                    self._client.log_artifact(held.run_id, str(path), str(below))
        except FileNotFoundError:
            if all(path.exists() for path in files):
                raise
            return {}  # one went meanwhile: the next time tells
        return digest

    def _upload_objects(self, held: _Held, place: RemotePath, name: str) -> dict[str, str]:
        """As `_upload_files`, told apart by size and time of change, and fetched only where they changed."""
        there = listing(place)
        alone = not there and place.is_file()
        if not there and not alone:
            return {}
        if alone:
            status = place.stat()
            there = {".": (status.st_size, status.st_mtime_ns)}
        said = "\n".join(f"{size} {changed} {path}" for path, (size, changed) in there.items())
        digest = {f"mvae.files.{name}": hashlib.sha256(said.encode()).hexdigest()}
        if not digest.items() <= held.tags.items():
            with scratch("files") as folder:
                copies = folder / "copies"
                for path in there:
                    copy = copies / (place.name if alone else path)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_bytes((place if alone else place / path).read_bytes())
                self._client.log_artifacts(held.run_id, str(copies), name)
        return digest

    def _upload_model(self, held: _Held, view: RunView) -> dict[str, str]:
        """The final model, once; the tag that says so. One left half-uploaded by a dead driver is logged again.

        Not by `mlflow.pytorch.log_model`, which wants an active run and the process-wide tracking URI, and which on
        leaving would end a run that is not ours to end; this is what it does, without them.
        """
        if "mvae.logged_model" in held.tags:
            return {}
        model = self._models.get(held.run_id)
        if model is not None and model.status != LoggedModelStatus.READY:
            self._client.delete_logged_model(model.model_id)
            model = None
        if model is None:
            with scratch("model") as temporary:
                model = self._log_model(held, view, temporary / "model")
            if model is None:
                return {}
        return {"mvae.logged_model": f"models:/{model.model_id}"}

    def _log_model(self, held: _Held, view: RunView, folder: Path) -> LoggedModel | None:
        try:
            loaded = self._load_model(view)
            signature = None if loaded is None or loaded[1] is None else _signature(loaded[0], loaded[1])
        except Exception as error:  # the model's own trouble must not look like the server's, nor be tried for ever
            self._say(f"MLflow: the model of {view.name} is left out: {type(error).__name__}: {error}")
            loaded = None
        if loaded is None:
            return None
        tags = {"mvae.namespace": self._namespace, "mvae.key": view.key, NOTE: model_note(view, held.run_id)}
        params = {name: str(value) for name, value in view.fields.items()}
        model = self._client.create_logged_model(
            self._experiment, name="model", source_run_id=held.run_id, tags=tags, params=params
        )
        self._models[held.run_id] = model
        about = Model(
            artifact_path=model.artifact_location,
            run_id=held.run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
        )
        mlflow.pytorch.save_model(
            loaded[0],
            str(folder),
            mlflow_model=about,
            signature=signature,
            serialization_format="pickle",
            pip_requirements=["torch"],
        )
        epoch, when = _last(view)
        final = [Metric(name, value, when, epoch, model_id=model.model_id) for name, value in view.final.items()]
        if final:
            self._client.log_batch(held.run_id, metrics=final)  # the run has them already, and they are not doubled
        self._client.log_outputs(held.run_id, [LoggedModelOutput(model.model_id, step=epoch)])
        self._client.log_model_artifacts(model.model_id, str(folder))
        self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return model

    def _write_status(self, held: _Held, status: Status, ended: float | None) -> None:
        wanted = MLFLOW_STATUS[status]
        if held.status == wanted:
            return
        if wanted == "RUNNING":
            self._client.update_run(held.run_id, status=wanted)
        else:
            when = max(_milliseconds(ended or time.time()), held.started)
            self._client.set_terminated(held.run_id, status=wanted, end_time=when)
        held.status = wanted


@dataclass(frozen=True)
class FinishedRun:
    """What MLflow holds of a key that is done."""

    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    sweeps: frozenset[str]
    """Names of the sweeps that list it."""
    curve: Callable[[str], tuple[float, ...]] = lambda _: ()
    """Of a metric by epoch, its values from the first epoch on; asks the store."""


def finished_runs(uri: str) -> list[FinishedRun]:
    """Every finished run of ours in a tracking store, by key; two namespaces may both have a key.

    Raises:
        Exception: whatever MLflow raises when the store cannot be read.
    """
    client = mlflow.MlflowClient(uri)
    experiments = [found.experiment_id for found in _all_pages(client.search_experiments, {"max_results": PAGE})]
    where = {"experiment_ids": experiments, "filter_string": "tags.`mvae.kind` = 'trial'", "max_results": PAGE}
    runs = [run for run in _all_pages(client.search_runs, where) if run.info.status == "FINISHED"]
    member = member_tag("")
    return [
        FinishedRun(
            dict(run.data.params),
            dict(run.data.tags),
            dict(run.data.metrics),
            frozenset(name.removeprefix(member) for name in run.data.tags if name.startswith(member)),
            partial(_curve, client, run.info.run_id),
        )
        for run in sorted(runs, key=lambda run: str(run.data.tags["mvae.key"]))
    ]


def _curve(client: mlflow.MlflowClient, run: str, metric: str) -> tuple[float, ...]:
    by_epoch = {point.step: point.value for point in client.get_metric_history(run, metric)}
    return tuple(by_epoch[epoch] for epoch in sorted(by_epoch) if epoch)


def _all_pages(search: Callable[..., Any], where: dict[str, Any]) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = search(**where, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _contradicts(held: _Held, view: RunView) -> bool:
    """Whether a final number in MLflow is not the one in storage (nan equals nan; stores clip infinities)."""
    return any(
        name in held.metrics and math.isfinite(value) and held.metrics[name] != value
        for name, value in view.final.items()
    )


def _metrics(record: Record) -> list[Metric]:
    """One epoch's metrics. The time kept with the record makes them equal however often they are logged."""
    speed = {f"speed/{name}": value for name, value in record.get("speed", {}).items()}
    values = {**record["metrics"], **speed, "epoch": record["epoch"]}
    when = _milliseconds(record["time"])
    return [Metric(name, float(value), when, record["epoch"]) for name, value in values.items()]


def _last(view: RunView) -> tuple[int, int]:
    """Step and time of the final numbers: those of the last epoch."""
    if not view.history:
        return 0, _milliseconds(view.started or view.ended or time.time())
    last = view.history[-1]
    return last["epoch"], _milliseconds(last["time"])


def _batches(steps: Iterable[list[Metric]]) -> Iterator[list[Metric]]:
    """Whole steps, as many as fit into one request."""
    batch: list[Metric] = []
    for step in steps:
        if batch and len(batch) + len(step) > METRICS_A_REQUEST:
            yield batch
            batch = []
        batch = batch + step
    if batch:
        yield batch


def _dataset_input(view: DatasetView) -> DatasetInput:
    source = json.dumps(dict(view.source), sort_keys=True, default=str)
    shown = Dataset(name=view.name, digest=view.fingerprint[:36], source_type="code", source=source)
    return DatasetInput(shown, [InputTag("mlflow.data.context", "training")])


def _signature(module: torch.nn.Module, example: np.ndarray) -> Any:
    """MLflow's note of shapes and types, from one run of the module on the example."""
    import torch

    with torch.no_grad():
        output = module(torch.from_numpy(example))
    return infer_signature(example, output.numpy())


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
