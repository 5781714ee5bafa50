"""Deletes the runs, models and artifacts of one sweep from MLflow (`mvae rm`).

In a database, runs and models are deleted for good, as `mlflow gc` does. An MLflow server can only mark runs and models
as deleted; `mlflow gc` on the server then deletes them for good. A run that another sweep uses stays, and becomes a
child of that sweep's run.

A kill at any moment is harmless: the artifacts of a run are deleted before the run, and the sweep's own run is
deleted last.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
from mlflow.entities import Run, ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking._tracking_service.utils import _get_store

from mvae.storage.objects import place
from mvae.storage.place import AnyPlace, Place
from sweeps.store.sqlite import sqlite_path
from sweeps.tracking.mirror.moved import follow, location
from sweeps.tracking.mirror.stored import PAGE, all_pages, open_database
from sweeps.tracking.notes import VIEW, view_id
from sweeps.tracking.view import member_tag

PARENT = "mlflow.parentRunId"


@dataclass
class Removal:
    """Deletes the MLflow runs and models of one sweep, and of the trials that only this sweep uses.

    Args:
        uri: tracking URI.
        namespace: UUID of the storage name.
        experiment: name of the MLflow experiment with all sweeps of the storage name.
        artifacts: location of the artifacts, or None if an MLflow server decides.
        sweep: name of the sweep to remove.
        keys: keys of the trials to remove.
        others: keys of every other sweep, by the sweep's name.
    Raises:
        Exception: MLflow cannot be read or written. All methods raise such errors too.
    """

    uri: str
    namespace: str
    experiment: str
    artifacts: AnyPlace | None
    sweep: str
    keys: frozenset[str]
    others: Mapping[str, frozenset[str]]
    left: list[str] = field(default_factory=list)
    """Locations of artifacts that were not deleted, because the artifacts are outside the storage."""

    def __post_init__(self) -> None:
        path = sqlite_path(self.uri)
        self._id = ""
        if path is not None and not path.exists():
            return
        uri = self.uri if path is None else open_database(path)
        self._client = mlflow.MlflowClient(uri)
        store = _get_store(uri)  # type: ignore[no-untyped-call]
        self._hard: Any = store if hasattr(store, "_hard_delete_run") else None
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            return
        self._id, self._tags = str(found.experiment_id), dict(found.tags)
        if self.artifacts is not None:
            follow(uri, self._id, self.namespace, self.artifacts)

    def runs(self) -> int:
        """Returns the number of runs that `delete` would delete."""
        return sum(self._is_doomed(run) for run in self._runs(ViewType.ACTIVE_ONLY))

    def delete(self, check: Callable[[], object]) -> None:
        """Deletes everything. A second call, or a call after a kill, deletes what is left.

        Args:
            check: called before each deletion of a run or model; may raise an error to stop.
        """
        if not self._id:
            return
        runs = list(self._runs(ViewType.ALL))
        doomed = [run for run in runs if self._is_doomed(run)]
        parents = [run for run in doomed if "mvae.sweep" in run.data.tags]
        gone = {run.info.run_id for run in doomed}
        for run in runs:
            if run.info.run_id not in gone and run.info.lifecycle_stage == "active":
                self._keep(run, gone, runs)
        for model in list(all_pages(self._client.search_logged_models, self._where())):
            if model.tags.get("mvae.key") in self.keys or model.source_run_id in gone:
                check()
                self._delete_artifacts(model.artifact_location, model.model_id)
                self._delete_model(model.model_id)
        for run in [*(run for run in doomed if run not in parents), *parents]:
            check()
            self._delete_artifacts(run.info.artifact_uri, run.info.run_id)
            self._delete_run(run)
        view = VIEW + view_id(self.sweep)
        if view in self._tags:
            self._client.delete_experiment_tag(self._id, view)

    def _is_doomed(self, run: Run) -> bool:
        tags = run.data.tags
        if "mvae.key" in tags:
            return tags["mvae.key"] in self.keys
        return tags.get("mvae.sweep") == self.sweep or member_tag(self.sweep) in tags  # the sweep's run, or a cell's

    def _keep(self, run: Run, gone: set[str], runs: list[Run]) -> None:
        """Removes the sweep's tag from a run that stays. If the run's parent is deleted, finds a new parent."""
        tags = run.data.tags
        if member_tag(self.sweep) in tags:
            self._client.delete_tag(run.info.run_id, member_tag(self.sweep))
        if tags.get(PARENT) not in gone:
            return
        using = [name for name, keys in self.others.items() if tags.get("mvae.key") in keys]
        parents = {one.data.tags.get("mvae.sweep"): one.info.run_id for one in runs if "mvae.sweep" in one.data.tags}
        new = next((parents[name] for name in using if name in parents), None)
        if new is None:
            self._client.delete_tag(run.info.run_id, PARENT)
        else:
            self._client.set_tag(run.info.run_id, PARENT, new)

    def _runs(self, which: int) -> Iterator[Run]:
        if self._id:
            yield from all_pages(self._client.search_runs, {**self._where(), "run_view_type": which})

    def _where(self) -> dict[str, Any]:
        return {
            "experiment_ids": [self._id],
            "filter_string": f"tags.`mvae.namespace` = '{self.namespace}'",
            "max_results": PAGE,
        }

    def _delete_artifacts(self, uri: str, owner: str) -> None:
        """Deletes a folder of artifacts. Also deletes the parent folder if the parent's name is the id `owner`."""
        if self.artifacts is None:  # a path of the server's machine may be another folder here
            if urlsplit(uri).scheme in ("", "file"):
                self.left.append(uri)
            else:
                get_artifact_repository(uri, tracking_uri=self.uri).delete_artifacts()  # type: ignore[no-untyped-call]
        elif not uri.startswith(f"{location(self.artifacts)}/") or ".." in PurePosixPath(urlsplit(uri).path).parts:
            self.left.append(uri)
        elif place(self.artifacts).is_remote:
            get_artifact_repository(uri, tracking_uri=self.uri).delete_artifacts()  # type: ignore[no-untyped-call]
        else:
            folder = place(url2pathname(urlsplit(uri).path))
            self._delete_folder(folder.parent if folder.parent.name == owner else folder)

    def _delete_folder(self, folder: Place) -> None:
        """Deletes a folder below the artifacts, unless a part of the folder's path is a link."""
        assert self.artifacts is not None
        way = [folder]
        while way[-1] != place(self.artifacts):
            way.append(way[-1].parent)
        if any(step.is_link() for step in way):
            self.left.append(str(folder))
            return
        folder.remove_tree()
        if folder.exists():
            raise PermissionError(13, os.strerror(13), str(folder))

    def _delete_run(self, run: Run) -> None:
        if self._hard is not None:
            self._hard._hard_delete_run(run.info.run_id)
        elif run.info.lifecycle_stage == "active":
            self._client.delete_run(run.info.run_id)

    def _delete_model(self, model: str) -> None:
        if self._hard is not None and hasattr(self._hard, "_hard_delete_logged_model"):
            self._hard._hard_delete_logged_model(model)
        else:
            self._client.delete_logged_model(model)
