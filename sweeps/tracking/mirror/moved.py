"""A storage that was moved or copied: MLflow's absolute artifact locations are compared with where it is now.

MLflow stores the location of an experiment's artifacts, and from it one of every run and model, and has no call that
changes them. So they are changed in its tables: `experiments`, `runs` and `logged_models`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from sqlalchemy import NullPool, create_engine, text

from mvae.storage.objects import place
from mvae.storage.place import AnyPlace, Place, each
from sweeps.cli.words import counted

RUNS = text(
    "select runs.run_uuid, runs.artifact_uri from runs join tags on tags.run_uuid = runs.run_uuid"
    " where runs.experiment_id = :experiment and tags.key = 'mvae.namespace' and tags.value = :namespace"
)
MODELS = text(
    "select logged_models.model_id, logged_models.artifact_location from logged_models"
    " join logged_model_tags on logged_model_tags.model_id = logged_models.model_id"
    " where logged_models.experiment_id = :experiment"
    " and logged_model_tags.tag_key = 'mvae.namespace' and logged_model_tags.tag_value = :namespace"
)
LOCATION = text("select artifact_location from experiments where experiment_id = :experiment")


def location(artifacts: AnyPlace) -> str:
    """A folder of artifacts as MLflow wants it."""
    return str(artifacts) if place(artifacts).is_remote else Path(str(artifacts)).as_uri()


def follow(uri: str, experiment: str, namespace: str, artifacts: AnyPlace) -> str:
    """Points MLflow to the artifacts in the storage, wherever that was when they were written.

    New runs of the experiment write to `artifacts`. A run or model of this namespace follows if its files are there, or
    if they are no longer where MLflow looks for them. Other namespaces of a shared database stay as they are.

    Args:
        uri: of MLflow's database.
    Returns:
        A line for the user; empty if nothing had moved.
    """
    with create_engine(uri, poolclass=NullPool).begin() as connection:
        before = str(connection.execute(LOCATION, {"experiment": experiment}).scalar())
        which = {"experiment": experiment, "namespace": namespace}
        runs = _moved(((key, key, at) for key, at in connection.execute(RUNS, which)), place(artifacts))
        named = ((key, f"models/{key}", at) for key, at in connection.execute(MODELS, which))
        models = _moved(named, place(artifacts))
        now = location(artifacts)
        if before != now and urlsplit(before).scheme in ("", "file", urlsplit(now).scheme):
            asks = "update experiments set artifact_location = :now where experiment_id = :experiment"
            connection.execute(text(asks), {"now": now, "experiment": experiment})
        if runs:
            connection.execute(text("update runs set artifact_uri = :now where run_uuid = :key"), runs)
        if models:
            asks = "update logged_models set artifact_location = :now where model_id = :key"
            connection.execute(text(asks), models)
    if not (runs or models):
        return ""
    counts = f"{counted(len(runs), 'run')} and {counted(len(models), 'model')}"
    return f"MLflow's artifacts moved with the storage: {counts} now have their files in {artifacts}"


def _moved(found: Iterable[tuple[str, str, str]], artifacts: Place) -> list[dict[str, str]]:
    """What is to be changed: id and new location.

    Args:
        found: id, the folder in the experiment's location that is named after it, and the location that MLflow has.
    """
    now = location(artifacts)
    elsewhere = [
        (key, at, at[at.rindex(f"/{folder}/") + 1 :])
        for key, folder, at in found
        if not at.startswith(f"{now}/") and f"/{folder}/" in at
    ]

    def followed(key: str, at: str, below: str) -> list[dict[str, str]]:
        before = urlsplit(at)
        gone = before.scheme in ("", "file") and not os.path.exists(url2pathname(before.path))  # nor if nobody may look
        return [{"key": key, "now": f"{now}/{below}"}] if gone or (artifacts / below).exists() else []

    return list(chain.from_iterable(each(lambda one: followed(*one), elsewhere, artifacts)))
