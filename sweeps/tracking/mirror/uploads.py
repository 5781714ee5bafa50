"""Uploads files and the trained model of a run to MLflow."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import mlflow
import mlflow.pytorch
from mlflow.entities import FileInfo, LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, infer_signature

from mvae.storage.clock import Clock
from mvae.storage.objects import place
from mvae.storage.place import AnyPlace
from sweeps.store.scratch import scratch
from sweeps.tracking.mirror.images import IMAGES, LOGGED, images
from sweeps.tracking.mirror.stored import NOTE, Held, last_step
from sweeps.tracking.notes import model_name, model_note
from sweeps.tracking.view import RunView

if TYPE_CHECKING:
    import numpy as np
    import torch

LOGGED_MODEL = "mvae.logged_model"
"""Name of the tag with the URI of the run's model. The tag is written with the model's numbers, after the model."""

LoadModel = Callable[[RunView], "tuple[torch.nn.Module, np.ndarray | None] | None"]
"""Returns the trained module of a finished run, in evaluation mode, and an example of its input.

Returns None if there is no module. The example is None if the module needs more than one array.
"""


class Uploads:
    """Uploads files and models of runs of one experiment.

    Args:
        experiment: id of the experiment.
        namespace: UUID of the storage name.
        load_model: see `LoadModel`. If loading fails, `say` gets a line, and only this one model is skipped.
        say: shows a line to the user.
        models: logged models in MLflow, by run id.
        deep: whether to look for deleted files in subfolders too. Subfolders need a request each, so on a server only
            the first level is compared.
        clock: gives the time for final numbers of a trial without times.
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
        self._sent: set[tuple[object, ...]] = set()  # uploaded files: id of the run, folder, version with path, images
        self._seen: set[tuple[str, str]] = set()  # folders of runs (id, name) and models (id, "") already compared

    def files(self, held: Held, source: AnyPlace | None, name: str, last_epoch: int | None = None) -> dict[str, str]:
        """Uploads a folder or a file as artifacts under `name`, if it has changed or was deleted in MLflow.

        Args:
            last_epoch: newest epoch of a trial with samples, or 0 if no epoch has ended. If None, no images are made.
                Pictures drawn during training become MLflow's images by step. Pictures drawn at the end become both
                images and artifacts under `name`.
        Returns:
            The tag with the digest of the files, or an empty dict if there are no files.
        """
        if source is None:
            return {}
        root = place(source)
        versions = root.listing() or ({".": root.version()} if root.is_file() else {})
        if not versions:
            return {}
        files = {path: root / path for path in versions}
        try:
            steps = {} if last_epoch is None else images(versions, last_epoch)
            marks = {path: f"{files[path].content_mark(version)} {path}" for path, version in versions.items()}
            summary = "\n".join([*marks.values(), *([IMAGES] if steps else [])])
            digest = {f"mvae.files.{name}": hashlib.sha256(summary.encode()).hexdigest(), **(LOGGED if steps else {})}
            placed = {path: file for path, file in files.items() if path not in steps or len(Path(path).parts) == 1}
            below = [str(PurePosixPath(path).parent / file.name) for path, file in placed.items()]
            ask, run = self._client.list_artifacts, held.run_id
            complete = digest.items() <= held.tags.items() and not self._lacks(ask, run, name, below)
            if not complete or (steps and self._lacks(ask, run, IMAGES, chain(*steps.values()))):
                with scratch("files") as copies:
                    for path in files:
                        this = (run, name, marks[path], steps.get(path))
                        if this in self._sent:
                            continue
                        file = files[path].fetched(copies)
                        if path in placed:
                            folder = PurePosixPath(name, PurePosixPath(path).parent)
                            self._client.log_artifact(run, str(file), str(folder))
                        for image in steps.get(path, ()):
                            self._client.log_artifact(run, shutil.copyfile(file, copies / image), IMAGES)
                        self._sent.add(this)
                self._seen |= {(run, name), (run, IMAGES)}
        except FileNotFoundError:
            if all(file.exists() for file in files.values()):
                raise
            return {}  # a file was deleted meanwhile; the next call uploads the rest
        return digest

    def model(self, held: Held, view: RunView) -> dict[str, str]:
        """Logs the final model, unless MLflow already holds all of it.

        Replaces `mlflow.pytorch.log_model`, which needs an active run and the process-wide tracking URI, and which
        would end the run.

        Returns:
            The tag with the model's URI, which the caller writes with the final numbers, or {} if there is no model.
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
        return {LOGGED_MODEL: f"models:/{model.model_id}"}

    def _lacks(self, ask: Callable[..., Iterable[FileInfo]], owner: str, folder: str, files: Iterable[str]) -> bool:
        """Whether files are missing in a folder of artifacts. Later calls for the same owner and folder return False.

        Args:
            ask: lists a folder of an owner's artifacts.
            owner: id of a run or of a model.
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
        except Exception as error:  # if raised, the tracker would take it for an error of MLflow and retry
            self._say(
                f"cannot log the model of {view.name} to MLflow ({type(error).__name__}: {error}); skipping this model"
            )
            loaded = None
        if loaded is None:
            return None
        model = self._client.create_logged_model(
            self._experiment,
            name=model_name(view),
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
        epoch, _ = last_step(view, self._clock)
        self._client.log_outputs(held.run_id, [LoggedModelOutput(model.model_id, step=epoch)])
        self._client.log_model_artifacts(model.model_id, str(folder))
        model = self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        self._models[held.run_id] = model
        self._seen.add((model.model_id, ""))
        return model


def _signature(module: torch.nn.Module, example: np.ndarray) -> Any:
    import torch

    with torch.no_grad():
        output = module(torch.from_numpy(example))
    return infer_signature(example, output.numpy())
