"""Parses MLflow's tracking URI, finds its artifact folder, and hides credentials in messages."""

import importlib.util
import re
from pathlib import Path

from mvae.refusal import Refusal
from mvae.storage.objects import place
from mvae.storage.place import AnyPlace, Place
from sweeps.store.sqlite import sqlite_path, sqlite_uri

DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Databases that MLflow can use directly, without an MLflow server, and the port of each."""


def default_uri(storage: AnyPlace) -> str:
    """Returns the default tracking URI: a SQLite file in the storage folder.

    Object storage cannot hold a SQLite file. `place_of_artifacts` refuses this URI before anything starts.
    """
    return (
        sqlite_uri(storage.absolute() / "mlflow.db") if isinstance(storage, Path) else f"sqlite:///{storage}/mlflow.db"
    )


def tracking_uri(uri: str, given_by: str = "tracking URI") -> str:
    """Normalises the URI: an absolute path for a SQLite file, no slash at the end of a server's URL.

    Args:
        given_by: option or environment variable that names the URI, for messages.
    Raises:
        Refusal: MLflow does not support the URI.
    """
    if _in_object_storage(uri):
        return uri
    scheme = uri.split(":", 1)[0].split("+", 1)[0] if "://" in uri else ""
    try:
        path = sqlite_path(uri)
    except Refusal as refusal:
        raise Refusal(f"{given_by} {refusal}") from None
    if path is not None:
        return sqlite_uri(path.absolute())
    if scheme in ("http", "https", "databricks", *DATABASES) or uri == "databricks":
        return uri.rstrip("/")
    raise Refusal(
        f"{given_by} {without_credentials(uri)} is not a URI that MLflow supports: write http://HOST:PORT for a server "
        f"or sqlite:////ABSOLUTE/PATH/mlflow.db for a file"
    )


def _in_object_storage(uri: str) -> bool:
    return uri.startswith("sqlite:///") and "://" in uri.removeprefix("sqlite:///")


def place_of_artifacts(uri: str, storage: AnyPlace) -> Place | None:
    """Returns MLflow's artifact folder, next to the results or MLflow's database, or None if a server decides.

    Args:
        uri: from `tracking_uri`.
    Raises:
        Refusal: the database would be in object storage, or a package that MLflow needs is missing.
    """
    if _in_object_storage(uri):
        raise Refusal(
            f"--storage {uri.removeprefix('sqlite:///').removesuffix('/mlflow.db')} cannot hold MLflow's database: set"
            " --tracking-uri (or MLFLOW_TRACKING_URI) to http://HOST:5000 or sqlite:////ABSOLUTE/mlflow.db"
        )
    if uri.startswith(("http", "databricks")):
        return None
    path = sqlite_path(uri)
    if isinstance(storage, Path):
        return place(storage / "mlartifacts")
    if path is not None:
        return place(path.parent / "mlartifacts")
    if {"?", "#"} & set(str(storage)):
        raise Refusal(f"--storage {storage.uri}: MLflow cuts a folder's name at ? and #: choose another folder")
    package = {"s3": "boto3", "gs": "google.cloud.storage"}.get(str(storage).partition("://")[0], "")
    if package and not _installed(package):
        raise Refusal(
            f"--tracking-uri {without_credentials(uri)} keeps artifacts in {storage}, for which MLflow needs {package}:"
            f" install {package}, or give an MLflow server, http://HOST:5000"
        )
    return storage / "mlartifacts"


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def without_credentials(text: str) -> str:
    """Removes user and password from every URI in a text.

    In a database URI, the credentials end at the last `@` before a space, because a password may contain `/` and `@`.
    """
    schemes = "|".join(DATABASES)
    text = re.sub(rf"\b((?:{schemes})(?:\+\w+)?)://\S*@", r"\1://", text)
    text = re.sub(r"://[^/\s']*@", "://", text)
    return re.sub(r"([?&](?:password|passwd|pwd)=)[^&\s'\"]*", r"\1...", text)
