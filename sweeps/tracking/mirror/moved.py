"""Corrects MLflow's absolute artifact locations after the storage was moved or copied.

MLflow stores an artifact location for each experiment, run and model, and has no function that changes these locations.
So this module changes MLflow's tables `experiments`, `runs` and `logged_models`.
"""

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
    """Returns the location of a folder of artifacts as MLflow expects it: a URI."""
    return str(artifacts) if place(artifacts).is_remote else Path(str(artifacts)).as_uri()


def follow(uri: str, experiment: str, namespace: str, artifacts: AnyPlace) -> str:
    """Points MLflow to the artifacts at the storage's current location.

    New runs of the experiment write to `artifacts`. A run or model of this namespace is changed if its files are in
    `artifacts`, or if they no longer exist at the recorded location. Other namespaces of a shared database are not
    changed.

    Args:
        uri: URI of MLflow's database.
        experiment: id of the experiment.
        namespace: UUID of the storage name.
        artifacts: current location of the experiment's artifacts.
    Returns:
        A line for the user, or "" if no run or model was changed.
    """
    with create_engine(uri, poolclass=NullPool).begin() as connection:
        before = str(connection.execute(LOCATION, {"experiment": experiment}).scalar())
        which = {"experiment": experiment, "namespace": namespace}
        runs = _moved(((key, key, at) for key, at in connection.execute(RUNS, which)), place(artifacts))
        models = _moved(((key, f"models/{key}", at) for key, at in connection.execute(MODELS, which)), place(artifacts))
        now = location(artifacts)
        if before != now and urlsplit(before).scheme in ("", "file", urlsplit(now).scheme):
            connection.execute(
                text("update experiments set artifact_location = :now where experiment_id = :experiment"),
                {"now": now, "experiment": experiment},
            )
        if runs:
            connection.execute(text("update runs set artifact_uri = :now where run_uuid = :key"), runs)
        if models:
            connection.execute(text("update logged_models set artifact_location = :now where model_id = :key"), models)
    if not (runs or models):
        return ""
    return (
        f"the storage has moved: MLflow now finds the artifacts of {counted(len(runs), 'run')} and"
        f" {counted(len(models), 'model')} in {artifacts}"
    )


def _moved(found: Iterable[tuple[str, str, str]], artifacts: Place) -> list[dict[str, str]]:
    """Returns the ids and new locations of the runs or models whose location must change.

    Args:
        found: id, folder below the experiment's location, and recorded location of each run or model.
    """
    now = location(artifacts)
    elsewhere = [
        (key, at, at[at.rindex(f"/{folder}/") + 1 :])
        for key, folder, at in found
        if not at.startswith(f"{now}/") and f"/{folder}/" in at
    ]

    def followed(key: str, at: str, below: str) -> list[dict[str, str]]:
        before = urlsplit(at)
        gone = before.scheme in ("", "file") and not os.path.exists(url2pathname(before.path))  # or not accessible
        return [{"key": key, "now": f"{now}/{below}"}] if gone or (artifacts / below).exists() else []

    return list(chain.from_iterable(each(lambda one: followed(*one), elsewhere, artifacts)))
