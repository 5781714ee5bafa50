"""Opens the database of a search's study: a SQLite file next to the results, or a database that the user names.

If the database is locked or its server restarts, requests are retried for PATIENCE_SECONDS while trials keep training.
"""

import functools
import logging
import os
import re
import shlex
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import optuna

from mvae.refusal import Refusal
from mvae.storage.files import atomic_path, locked
from sweeps.cli.programs import installed
from sweeps.cli.tracking_uri import without_credentials
from sweeps.store.lists import STUDY
from sweeps.store.sqlite import sqlite_path, sqlite_uri
from sweeps.store.store import Store

BUSY_SECONDS = 5.0
"""Seconds that one request waits while another program locks the SQLite file."""
PATIENCE_SECONDS = 300.0
"""Seconds without an answer from the database after which the search ends."""
PAUSE_SECONDS = 1.0
"""Seconds between two retries."""

REQUESTS = (
    *("create_new_study", "get_study_id_from_name", "get_study_name_from_id", "get_study_directions"),
    *("get_study_user_attrs", "get_study_system_attrs", "get_all_studies", "set_study_user_attr"),
    *("set_study_system_attr", "create_new_trial", "_create_new_trial", "get_trial", "_get_trials", "get_all_trials"),
    *("get_trial_id_from_study_id_trial_number", "get_best_trial", "_get_best_trial_id", "set_trial_param"),
    *("_set_trial_param", "set_trial_state_values", "set_trial_intermediate_value", "set_trial_user_attr"),
    "set_trial_system_attr",
)
"""Methods of Optuna's storage that query the database. Each method uses its own transaction, so a failed call has no
effect and can be retried."""

HELD = re.compile(
    r"(database|table|schema) is locked|lock (wait )?timeout"
    "|system is (starting up|shutting down|not yet accepting|in recovery)"
    "|too many (clients|connections)|terminating connection",
    re.IGNORECASE,
)
"""Errors of SQLite, PostgreSQL and MySQL while another program locks the database, or its server restarts."""

FILE_TROUBLE = {
    "disk is full": "free up space on its disk",
    "readonly database": "make the file and its folder writable",
    "unable to open database file": "make the file and its folder readable and writable",
    "disk I/O error": "check its disk, and your quota on this disk",
}
"""SQLite's errors about a file that is not damaged, and the remedy for each."""

Answer = TypeVar("Answer")


class StudyLost(OSError):
    """The study's database cannot be used. The message says why and what to do."""

    held = False
    """Whether the same command may succeed later, because another program locks the database or its server restarts."""


def study_uri(store: Store, given: str | None) -> str:
    """Returns the URI of the study's database: the given URI, else the URI of a file in the sweep's storage folder.

    Raises:
        Refusal: no database was given and storage is object storage, or the given SQLite URI names no file.
    """
    if given is not None:
        try:
            path = sqlite_path(given)
        except Refusal as refusal:
            raise Refusal(f"--study-uri {refusal}") from None
        return given if path is None else sqlite_uri(path.absolute())
    if store.folder.is_remote:
        raise Refusal(
            f"--storage {store.root} cannot hold the study's database: set --study-uri to a database, for example"
            " postgresql://HOST/NAME or sqlite:////ABSOLUTE/study.db"
        )
    return sqlite_uri(str(store.folder / STUDY))


def exists(uri: str) -> bool:
    """Whether the database's file exists. Always True for a database server."""
    path = sqlite_path(uri)
    return path is None or path.exists()


def check_can_be_made(uri: str) -> None:
    """Raises Refusal if the database's file is missing and cannot be created, because its folder is not writable."""
    path = sqlite_path(uri)
    if path is not None and not path.exists() and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise Refusal(
            f"--study-uri {uri}: folder {path.parent} does not exist or is not writable; choose another folder"
        )


@contextmanager
def database(
    uri: str, say: Callable[[str], None] | None = None, *, only_held: bool = False
) -> Iterator[optuna.storages.RDBStorage]:
    """Opens Optuna's storage, whose requests are retried while the database does not answer.

    Args:
        say: called with a line when the database stops answering, and when it answers again. None disables retries.
        only_held: retry only while another program locks the database or its server restarts. Used at the start of a
            command, when an unreachable server probably means a wrong URI.
    Raises:
        StudyLost: the database cannot be used. Raised on entry and by every request.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        retried = functools.partial(_retried, uri, say, only_held=only_held)
        storage = retried(_opened, uri)
        for name in REQUESTS:
            setattr(storage, name, functools.partial(retried, getattr(storage, name)))
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


def make(uri: str, say: Callable[[str], None] | None = None) -> None:
    """Creates the database's file with all its tables, atomically, if the file does not exist.

    Optuna itself would create the tables one by one, so a kill could leave some of them missing.

    Raises:
        StudyLost: the file cannot be created.
    """
    path = sqlite_path(uri)
    if path is None:
        return
    with locked(path):
        if path.exists():
            return
        with atomic_path(path) as temporary:
            storage = _retried(uri, say, _opened, sqlite_uri(temporary))
            storage.remove_session()
            storage.engine.dispose()


def _opened(uri: str) -> optuna.storages.RDBStorage:
    is_file = sqlite_path(uri) is not None
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_SECONDS}} if is_file else {"pool_pre_ping": True}
    try:
        return optuna.storages.RDBStorage(uri, engine_kwargs=options)
    except (ImportError, RuntimeError, ValueError) as error:  # missing driver, tables of another version, invalid port
        raise _lost(uri, error) from None


def _retried(
    uri: str,
    say: Callable[[str], None] | None,
    request: Callable[..., Answer],
    *args: Any,
    only_held: bool = False,
    **kwargs: Any,
) -> Answer:
    """Calls `request(*args, **kwargs)` and retries while the database does not answer.

    Args:
        only_held: as in `database`.
    Raises:
        StudyLost: the database did not answer for PATIENCE_SECONDS, or a retry cannot help because the file is damaged
            or not a database.
        KeyError, RuntimeError, ValueError: raised by Optuna about the request itself.
    """
    from sqlalchemy.exc import SQLAlchemyError

    began, attempts = time.monotonic(), 0
    while True:
        try:
            answer = request(*args, **kwargs)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            lost = _lost(uri, error)
            may_recover = lost.held if only_held else _may_recover(error)
            if say is None or not may_recover or time.monotonic() - began > PATIENCE_SECONDS:
                raise lost from None
            if not attempts:
                say(f"{lost}; trying again for {PATIENCE_SECONDS / 60:g} min")
            attempts += 1
            time.sleep(PAUSE_SECONDS)
        else:
            if attempts and say is not None:
                say(f"the study's database {without_credentials(uri)} answers again")
            return answer


def _may_recover(error: Exception) -> bool:
    from sqlalchemy import exc

    temporary = (exc.DisconnectionError, exc.InterfaceError, exc.OperationalError, exc.TimeoutError)
    return isinstance(error, temporary) or isinstance(error.__cause__, temporary)


def _lost(uri: str, error: Exception) -> StudyLost:
    cause = error.__cause__ if error.__cause__ is not None and not hasattr(error, "orig") else error
    reason = str(getattr(cause, "orig", None) or cause).strip() or type(error).__name__
    path = sqlite_path(uri)
    if "locked" in reason and path is not None:
        advice = "end the other program that has it open"
    elif "optuna storage upgrade" in reason:
        advice = f"run `{installed('optuna')} storage upgrade --storage {shlex.quote(without_credentials(uri))}`"
    elif "pip install -U optuna" in reason:
        advice = f"run `{installed('python')} -m pip install --upgrade optuna`, or choose another --study-uri"
    elif path is not None and (remedy := next((todo for text, todo in FILE_TROUBLE.items() if text in reason), "")):
        advice = remedy
    elif path is not None and path.exists():
        advice = "move the file away and repeat your command to rebuild it from storage"
    else:
        advice = "start its server, or correct --study-uri"
    short_reason = textwrap.shorten(reason, 200, placeholder=" ...")
    lost = StudyLost(without_credentials(f"the study's database {uri} cannot be used ({short_reason}): {advice}"))
    lost.held = bool(HELD.search(reason))
    return lost
