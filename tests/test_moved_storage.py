"""A storage that was moved, copied or remounted: MLflow finds its artifacts, and deleted artifacts are restored."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow.pytorch
import numpy as np
import pytest
import torch

from mvae.storage.files import write_atomically
from sweeps.cli.tracking_uri import default_uri
from sweeps.tracking.mirror import Mirror
from sweeps.tracking.mirror.moved import follow, location
from sweeps.tracking.view import RunView
from tests.tracked import KEYS, NAMESPACE, SWEEP, Storage, finished, no_model

OLD, NEW = KEYS[:2]


def a_model(view: RunView) -> tuple[torch.nn.Module, np.ndarray]:
    return torch.nn.Linear(4, 3).eval(), np.zeros((1, 4), np.float32)


def with_pictures(storage: Storage, key: str) -> RunView:
    """A finished trial whose pictures are in the storage, one of them in a subfolder."""
    for name in ("a.png", "epoch-1/b.png"):
        write_atomically(storage.folder / "main" / "artifacts" / key / name, f"{key} {name}".encode())
    return replace(finished(key), artifacts=storage.folder / "main" / "artifacts" / key)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A storage with one finished trial whose pictures and model are in MLflow."""
    folder = tmp_path_factory.mktemp("moved") / "once"
    folder.mkdir()
    shutil.copyfile(empty_database, folder / "mlflow.db")
    made = Storage(folder, default_uri(folder), load_model=a_model)
    assert made.driver(with_pictures(made, OLD)).close()
    assert made.said == []
    return folder


@pytest.fixture
def storage(finished_once: Path, tmp_path: Path) -> Storage:
    """A copy of that storage, as if it had been created at its path."""
    folder = tmp_path / "old"
    shutil.copytree(finished_once, folder)
    with sqlite3.connect(folder / "mlflow.db") as database:
        for where in ("experiments.artifact_location", "runs.artifact_uri", "logged_models.artifact_location"):
            table, column = where.split(".")
            made_at, here = (location(path / "mlartifacts") for path in (finished_once, folder))
            database.execute(f"update {table} set {column} = replace({column}, ?, ?)", (made_at, here))
    return opened(folder)


def opened(folder: Path) -> Storage:
    """The storage as a new process opens it at this path, without any remembered location."""
    mlflow.tracking._tracking_service.utils._artifact_repos_cache.clear()
    return Storage(folder, default_uri(folder), load_model=a_model)


def moved(old: Path, new: Path) -> None:
    old.rename(new)


def copied(old: Path, new: Path) -> None:
    shutil.copytree(old, new)


def mounted(old: Path, new: Path) -> None:
    new.symlink_to(old)


@pytest.mark.parametrize("how", [moved, copied, mounted])
def test_a_moved_storage_has_all_old_and_new_artifacts_at_its_new_path(
    storage: Storage, how: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = storage.folder, storage.folder.with_name("new")
    how(old, new)
    before = files(old) if how is copied else {}
    there = opened(new)
    assert there.driver(with_pictures(there, OLD), with_pictures(there, NEW)).close()
    assert len(there.said) == 1
    assert there.said[0].startswith("the storage has moved: MLflow now finds the artifacts of 2 runs and 1 model")
    assert old.exists() == (how is not moved)
    assert not before or files(old) == before, "the original of a copied storage must not change"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", there.uri)
    for key, run in ((key, there.runs()[key]) for key in (OLD, NEW)):
        assert run.info.artifact_uri.startswith(f"{(new / 'mlartifacts').as_uri()}/")
        for name in ("a.png", "epoch-1/b.png"):
            assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/samples/{name}") == f"{key} {name}"
        assert isinstance(mlflow.pytorch.load_model(run.data.tags["mvae.logged_model"]), torch.nn.Linear)
    assert there.models() == 2, "the old model must not be logged again"
    again = opened(new)
    assert again.driver(with_pictures(again, OLD), with_pictures(again, NEW)).close()
    assert again.said == [] and again.models() == 2


def test_runs_of_another_storage_in_a_shared_database_keep_their_location(storage: Storage, tmp_path: Path) -> None:
    run = storage.runs()[OLD].info
    assert follow(storage.uri, run.experiment_id, "another namespace", tmp_path / "mlartifacts") == ""
    assert storage.runs()[OLD].info.artifact_uri == run.artifact_uri


def test_artifacts_that_exist_only_at_the_old_path_stay_there(storage: Storage, tmp_path: Path) -> None:
    run = storage.runs()[OLD].info
    follow(storage.uri, run.experiment_id, NAMESPACE, tmp_path / "elsewhere")
    assert storage.runs()[OLD].info.artifact_uri == run.artifact_uri
    experiment = mlflow.MlflowClient(storage._now()).get_experiment(run.experiment_id)
    assert experiment.artifact_location == location(tmp_path / "elsewhere"), "new runs must write to the new storage"


def artifacts(storage: Storage) -> Path:
    """Folder of the finished trial's artifacts in MLflow."""
    return storage.folder / "mlartifacts" / str(storage.runs()[OLD].info.run_id) / "artifacts"


@pytest.mark.parametrize("what", ["samples/a.png", "samples/epoch-1/b.png", "samples", ""])
def test_a_deleted_artifact_is_uploaded_again(storage: Storage, what: str) -> None:
    folder = artifacts(storage)
    before = files(folder)
    if (folder / what).is_dir():
        shutil.rmtree(folder / what)
    else:
        (folder / what).unlink()
    assert opened(storage.folder).driver(with_pictures(storage, OLD)).close()
    assert files(folder) == before


def test_on_a_server_only_the_first_level_of_artifacts_is_listed(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, view = artifacts(storage), with_pictures(storage, OLD)
    before = files(folder)

    def as_on_a_server() -> None:
        mirror = Mirror(storage.uri, NAMESPACE, "main", None, no_model, storage.said.append)
        mirror.adopt(SWEEP)
        mirror.sync(view, SWEEP.name)

    (folder / "samples" / "epoch-1" / "b.png").unlink()
    as_on_a_server()
    assert "samples/epoch-1/b.png" not in files(folder)
    (folder / "samples" / "a.png").unlink()
    as_on_a_server()
    assert files(folder) == before


def deleted_in_mlflow(storage: Storage, model: str) -> None:
    mlflow.MlflowClient(storage.uri).delete_logged_model(model)


def deleted_on_disk(storage: Storage, model: str) -> None:
    shutil.rmtree(storage.folder / "mlartifacts" / "models" / model)


def weights_deleted(storage: Storage, model: str) -> None:
    (storage.folder / "mlartifacts" / "models" / model / "artifacts" / "data" / "model.pth").unlink()


@pytest.mark.parametrize("delete", [deleted_in_mlflow, deleted_on_disk, weights_deleted])
def test_a_deleted_model_is_logged_again(
    storage: Storage, delete: Callable[[Storage, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = storage.runs()[OLD].data.tags["mvae.logged_model"]
    delete(storage, before.removeprefix("models:/"))
    assert opened(storage.folder).driver(with_pictures(storage, OLD)).close()
    after = storage.runs()[OLD].data.tags["mvae.logged_model"]
    assert after != before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", storage.uri)
    assert isinstance(mlflow.pytorch.load_model(after), torch.nn.Linear)


def test_a_deleted_run_is_restored_with_its_artifacts(storage: Storage) -> None:
    before = storage.runs()[OLD].info.run_id
    mlflow.MlflowClient(storage.uri).delete_run(before)
    assert opened(storage.folder).driver(with_pictures(storage, OLD)).close()
    after = storage.runs()[OLD].info
    assert after.run_id != before and after.status == "FINISHED"
    assert set(files(artifacts(storage))) == {"samples/a.png", "samples/epoch-1/b.png"}


def test_an_unreadable_old_location_counts_as_missing(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    new = storage.folder.with_name("new")
    moved(storage.folder, new)
    monkeypatch.setattr(os, "stat", refusing(os.stat, storage.folder))
    there = opened(new)
    run = there.runs()[OLD].info
    assert "1 model" in follow(there.uri, run.experiment_id, NAMESPACE, new / "mlartifacts")


def refusing(stat: Callable[..., os.stat_result], folder: Path) -> Callable[..., os.stat_result]:
    """`stat` without permission to look below a folder."""

    def refused(path: str | Path, **options: bool) -> os.stat_result:
        if str(path).startswith(str(folder)):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    return refused
