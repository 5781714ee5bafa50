"""The tracking URI: what the user types, what MLflow takes, and how messages show it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from mvae.refusal import Refusal
from mvae.storage.objects import RemotePath, place
from mvae.storage.place import AnyPlace, Place
from sweeps.store.sqlite import sqlite_path, sqlite_uri

DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Databases that MLflow can write without a server of its own, and their ports."""


def default_uri(storage: AnyPlace) -> str:
    """The tracking URI of those who have no server: one SQLite file in the storage folder.

    In a store of objects there can be none: `place_of_artifacts` refuses it, before anything starts.
    """
    return (
        sqlite_uri(storage.absolute() / "mlflow.db") if isinstance(storage, Path) else f"sqlite:///{storage}/mlflow.db"
    )


def tracking_uri(uri: str, given_by: str = "tracking URI") -> str:
    """The URI as MLflow takes it: a SQLite file's path made absolute, no slash after a server's.

    Args:
        given_by: what names the URI: the option, or the variable of the environment.
    Raises:
        Refusal: it is not a URI that MLflow takes.
    """
    if _in_a_store(uri):
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
        f"{given_by} {without_credentials(uri)} is not one that MLflow takes: write http://HOST:PORT for a server "
        f"or sqlite:////ABSOLUTE/PATH/mlflow.db for a file"
    )


def _in_a_store(uri: str) -> bool:
    return uri.startswith("sqlite:///") and "://" in uri.removeprefix("sqlite:///")


def place_of_artifacts(uri: str, storage: AnyPlace) -> Place | None:
    """Where MLflow keeps artifacts, beside the results or beside its own database; None where its server decides.

    Args:
        uri: from `tracking_uri`.
    Raises:
        Refusal: the database would have to lie in a store of objects; a package that MLflow needs is missing.
    """
    if _in_a_store(uri):
        raise Refusal(
            f"--storage {uri.removeprefix('sqlite:///').removesuffix('/mlflow.db')} cannot hold MLflow's database: give"
            " --tracking-uri (or MLFLOW_TRACKING_URI) a server, http://HOST:5000, or sqlite:////ABSOLUTE/mlflow.db"
        )
    if uri.startswith(("http", "databricks")):
        return None
    path = sqlite_path(uri)
    if isinstance(storage, Path):
        return place(storage / "mlartifacts")
    if path is not None:
        return place(path.parent / "mlartifacts")
    if isinstance(storage, RemotePath) and {"?", "#"} & set(storage.key):
        raise Refusal(
            f"--storage {storage.uri}: MLflow reads a ? or # as the end of a folder's name; choose another folder"
        )
    package = {"s3": "boto3", "gs": "google.cloud.storage"}.get(str(storage).partition("://")[0], "")
    if package and not _installed(package):
        raise Refusal(
            f"--tracking-uri {without_credentials(uri)} keeps artifacts in {storage}, for which MLflow needs {package}:"
            " install it, or give an MLflow server, http://HOST:5000"
        )
    return storage / "mlartifacts"


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def without_credentials(text: str) -> str:
    """A URI, or words with URIs among them, without user and password.

    In a database's URI, user and password reach to the last @ of the word, because they may hold / and @ themselves.
    """
    of_databases = "|".join(DATABASES)
    text = re.sub(rf"\b((?:{of_databases})(?:\+\w+)?)://\S*@", r"\1://", text)
    text = re.sub(r"://[^/\s']*@", "://", text)
    return re.sub(r"([?&](?:password|passwd|pwd)=)[^&\s'\"]*", r"\1...", text)
