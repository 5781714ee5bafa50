"""Where a search's study lies: a SQLite file beside the results, or a database that the user names."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvae.files import atomic_path, locked
from mvae.refusal import Refusal
from sweeps.storage import Store
from sweeps.tracker import shown

if TYPE_CHECKING:
    import optuna


def study_uri(store: Store, given: str | None) -> str:
    """Where the study lies: the database that was given, else a file in the storage folder of the name.

    Raises:
        Refusal: storage is a store of objects, which holds no database.
    """
    if given is not None:
        return given
    if not isinstance(store.folder, Path):
        raise Refusal(
            f"--storage {store.root} cannot hold the study's database: give --study-uri a database,"
            " postgresql://HOST/NAME or sqlite:////ABSOLUTE/study.db"
        )
    return f"sqlite:///{store.folder / 'study.db'}"


def exists(uri: str) -> bool:
    """Whether a file holds the study; True where it is no file."""
    path = _file(uri)
    return path is None or path.exists()


def check_can_be_made(uri: str) -> None:
    """Raise Refusal where a file that is named cannot be made: its folder is not there, or not ours."""
    path = _file(uri)
    if path is not None and not path.exists() and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise Refusal(f"--study-uri {uri}: the folder {path.parent} is not there or cannot be written; choose another")


@contextmanager
def database(uri: str) -> Iterator[optuna.storages.RDBStorage]:
    """Optuna's storage.

    Raises:
        Refusal: the database cannot be read or written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        with refusing(uri):
            storage = _storage(uri)
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


@contextmanager
def refusing(uri: str) -> Iterator[None]:
    """Turns whatever a database says into one line."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        path = _file(uri)
        right = "move it away and it is made from storage again" if path and path.exists() else "correct --study-uri"
        raise Refusal(f"the study's database {shown(uri)} cannot be used ({said[:160]}): {right}") from None


def make(uri: str) -> None:
    """Makes the database's file where there is none, whole or not at all: Optuna makes its tables in steps.

    Raises:
        Refusal: it cannot be made.
    """
    path = _file(uri)
    if path is None:
        return
    with refusing(uri), locked(path):
        if path.exists():
            return
        with atomic_path(path) as temporary:
            made = _storage(f"sqlite:///{temporary}")
            made.remove_session()
            made.engine.dispose()


def _storage(uri: str) -> optuna.storages.RDBStorage:
    import optuna

    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if _file(uri) else {"pool_pre_ping": True}
    return optuna.storages.RDBStorage(uri, engine_kwargs=options)


def _file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
