"""What a run has besides numbers: files, and the trained model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import mlflow
import mlflow.pytorch
from mlflow.entities import FileInfo, LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.models import Model, infer_signature

from mvae.storage.clock import Clock
from mvae.storage.objects import place
from mvae.storage.place import AnyPlace
from sweeps.store.scratch import scratch
from sweeps.tracking.mirror.stored import NOTE, Held, last_step
from sweeps.tracking.notes import model_note
from sweeps.tracking.view import RunView

if TYPE_CHECKING:
    import numpy as np
    import torch

LoadModel = Callable[[RunView], "tuple[torch.nn.Module, np.ndarray | None] | None"]
"""The trained module of a finished run, in evaluation mode, and an example of its input; None where there is none.

The example alone is None for a module that wants more than one array.
"""


class Uploads:
    """Puts files and models into the artifacts of runs of one experiment.

    Args:
        experiment: its id.
        namespace: UUID of the storage name whose runs these are.
        load_model: see `LoadModel`; an error in it is said, and costs that model alone.
        say: takes a line for the user.
        models: those that are there, by their run.
        deep: look for deleted files in folders at any depth. A look costs a request per folder, so on a server only the
            first level is compared.
        clock: dates the numbers of a trial that has no dates of its own.
    """

    def __init__(
        self,
        client: mlflow.MlflowClient,
        experiment: str,
        namespace: str,
        load_model: LoadModel,
        say: Callable[[str], None],
        models: dict[str | None, LoggedModel],
        *,
        deep: bool,
        clock: Clock,
    ) -> None:
        self._client, self._experiment, self._namespace = client, experiment, namespace
        self._load_model, self._say, self._models = load_model, say, models
        self._deep, self._clock = deep, clock
        self._seen: set[tuple[str, str]] = set()  # runs and names, and models, that were looked for

    def files(self, held: Held, given: AnyPlace | None, name: str) -> dict[str, str]:
        """A folder or a file as artifacts under `name`, again when one has changed; the tag that says so."""
        if given is None:
            return {}
        root = place(given)
        versions = root.listing() or ({".": root.version()} if root.is_file() else {})
        if not versions:
            return {}
        files = {path: root / path for path in versions}
        try:
            marks = (f"{files[path].content_mark(version)} {path}" for path, version in versions.items())
            digest = {f"mvae.files.{name}": hashlib.sha256("\n".join(marks).encode()).hexdigest()}
            below = [str(PurePosixPath(path).parent / file.name) for path, file in files.items()]
            ask = self._client.list_artifacts
            if not digest.items() <= held.tags.items() or self._lacks(ask, held.run_id, name, below):
                with scratch("files") as copies:
                    for path, file in files.items():
                        folder = PurePosixPath(name, PurePosixPath(path).parent)
                        self._client.log_artifact(held.run_id, str(file.fetched(copies)), str(folder))
                self._seen.add((held.run_id, name))
        except FileNotFoundError:
            if all(file.exists() for file in files.values()):
                raise
            return {}  # one went meanwhile: the next time tells
        return digest

    def model(self, held: Held, view: RunView) -> dict[str, str]:
        """The final model, once; the tag that says so. One half-uploaded by a dead driver, or deleted, is logged again.

        Not by `mlflow.pytorch.log_model`, which wants an active run and the process-wide tracking URI, and which on
        leaving would end a run that is not ours to end; this is what it does, without them.
        """
        model = self._models.get(held.run_id)
        ask, needed = self._client.list_logged_model_artifacts, ("MLmodel", "data/model.pth")
        if model and (model.status != LoggedModelStatus.READY or self._lacks(ask, model.model_id, "", needed)):
            self._client.delete_logged_model(model.model_id)
            model = None
        if model is None:
            with scratch("model") as temporary:
                model = self._log_model(held, view, temporary / "model")
            if model is None:
                return {}
        return {"mvae.logged_model": f"models:/{model.model_id}"}

    def _lacks(self, ask: Callable[..., Iterable[FileInfo]], owner: str, folder: str, files: Iterable[str]) -> bool:
        """Whether somebody has deleted one of the files in a folder of artifacts; asked once per owner and folder.

        Args:
            ask: lists a folder of the artifacts of `owner`, which is the id of a run or of a model.
        """
        if (owner, folder) in self._seen:
            return False
        self._seen.add((owner, folder))
        depth = None if self._deep else len(PurePosixPath(folder).parts) + 1
        wanted = {PurePosixPath(*PurePosixPath(folder, file).parts[:depth]) for file in files}
        return not wanted <= set(self._names(partial(ask, owner), folder))

    def _names(self, ask: Callable[[str], Iterable[FileInfo]], folder: str) -> Iterator[PurePosixPath]:
        for found in ask(folder):
            if found.is_dir and self._deep:
                yield from self._names(ask, found.path)
            else:
                yield PurePosixPath(found.path)

    def _log_model(self, held: Held, view: RunView, folder: Path) -> LoggedModel | None:
        try:
            loaded = self._load_model(view)
            signature = None if loaded is None or loaded[1] is None else _signature(loaded[0], loaded[1])
        except Exception as error:  # the model's own trouble must not look like the server's, nor be tried for ever
            self._say(f"MLflow: the model of {view.name} is left out: {type(error).__name__}: {error}")
            loaded = None
        if loaded is None:
            return None
        model = self._client.create_logged_model(
            self._experiment,
            name="model",
            source_run_id=held.run_id,
            tags={"mvae.namespace": self._namespace, "mvae.key": view.key, NOTE: model_note(view, held.run_id)},
            params={name: str(value) for name, value in view.fields.items()},
        )
        mlflow.pytorch.save_model(
            loaded[0],
            str(folder),
            mlflow_model=Model(
                artifact_path=model.artifact_location,
                run_id=held.run_id,
                model_uuid=model.model_id,
                model_id=model.model_id,
            ),
            signature=signature,
            serialization_format="pickle",
            pip_requirements=["torch"],
        )
        epoch, when = last_step(view, self._clock)
        final = [Metric(name, value, when, epoch, model_id=model.model_id) for name, value in view.final.items()]
        if final:
            self._client.log_batch(held.run_id, metrics=final)  # the run has them already, and they are not doubled
        self._client.log_outputs(held.run_id, [LoggedModelOutput(model.model_id, step=epoch)])
        self._client.log_model_artifacts(model.model_id, str(folder))
        model = self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        self._models[held.run_id] = model
        self._seen.add((model.model_id, ""))
        return model


def _signature(module: torch.nn.Module, example: np.ndarray) -> Any:
    """MLflow's note of shapes and types, from one run of the module on the example."""
    import torch

    with torch.no_grad():
        output = module(torch.from_numpy(example))
    return infer_signature(example, output.numpy())
