"""Where a search's study lies: a SQLite file beside the results, or a database that the user names.

A database that is locked, or whose server restarts, is asked again for PATIENCE_SECONDS; trials train on meanwhile.
"""

from __future__ import annotations

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
from sweeps.store.sqlite import sqlite_path, sqlite_uri
from sweeps.store.store import Store

BUSY_SECONDS = 5.0
"""Seconds that one request waits while another program holds the SQLite file."""
PATIENCE_SECONDS = 300.0
"""Seconds after which a database that does not answer ends the search."""
PAUSE_SECONDS = 1.0
"""Seconds between two attempts."""

REQUESTS = (
    *("create_new_study", "get_study_id_from_name", "get_study_name_from_id", "get_study_directions"),
    *("get_study_user_attrs", "get_study_system_attrs", "get_all_studies", "set_study_user_attr"),
    *("set_study_system_attr", "create_new_trial", "_create_new_trial", "get_trial", "_get_trials", "get_all_trials"),
    *("get_trial_id_from_study_id_trial_number", "get_best_trial", "_get_best_trial_id", "set_trial_param"),
    *("_set_trial_param", "set_trial_state_values", "set_trial_intermediate_value", "set_trial_user_attr"),
    "set_trial_system_attr",
)
"""Methods of Optuna's storage that ask the database, each in a transaction of its own: one that failed did nothing."""

HELD = re.compile(
    r"(database|table|schema) is locked|lock (wait )?timeout"
    "|system is (starting up|shutting down|not yet accepting|in recovery)"
    "|too many (clients|connections)|terminating connection",
    re.IGNORECASE,
)
"""What SQLite, PostgreSQL and MySQL answer while another program holds the database, or its server restarts."""

FILE_TROUBLE = {
    "disk is full": "free space on its disk",
    "readonly database": "make the file and its folder writable",
    "unable to open database file": "make the file and its folder readable and writable",
    "disk I/O error": "check its disk",
}
"""What SQLite says of a file that is not damaged, and what helps."""

Answer = TypeVar("Answer")


class StudyLost(OSError):
    """The study's database cannot be used. The text says why, then what to do."""

    held = False
    """Whether another program holds it, or its server is about to answer: the same command may succeed later."""


def study_uri(store: Store, given: str | None) -> str:
    """Where the study lies: the database that was given, else a file in the storage folder of the name.

    Raises:
        Refusal: storage is a store of objects, which holds no database; the URI means no file.
    """
    if given is not None:
        try:
            path = sqlite_path(given)
        except Refusal as refusal:
            raise Refusal(f"--study-uri {refusal}") from None
        return given if path is None else sqlite_uri(path.absolute())
    if store.folder.is_remote:
        raise Refusal(
            f"--storage {store.root} cannot hold the study's database: give --study-uri a database,"
            " postgresql://HOST/NAME or sqlite:////ABSOLUTE/study.db"
        )
    return sqlite_uri(str(store.folder / "study.db"))


def exists(uri: str) -> bool:
    """Whether a file holds the study; True where it is no file."""
    path = sqlite_path(uri)
    return path is None or path.exists()


def check_can_be_made(uri: str) -> None:
    """Raise Refusal where a file that is named cannot be made: its folder is not there, or not ours."""
    path = sqlite_path(uri)
    if path is not None and not path.exists() and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise Refusal(f"--study-uri {uri}: the folder {path.parent} is not there or cannot be written; choose another")


@contextmanager
def database(
    uri: str, say: Callable[[str], None] | None = None, *, only_held: bool = False
) -> Iterator[optuna.storages.RDBStorage]:
    """Optuna's storage, whose requests are repeated while the database does not answer.

    Args:
        say: takes a line when the database stops to answer, and when it answers again; None: nothing is repeated.
        only_held: repeat requests only while another program holds the database. At a command's start a server that is
            not there is taken for a mistake in its URI.
    Raises:
        StudyLost: on entry, and from every request: the database cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        patiently = functools.partial(_patiently, uri, say, only_held=only_held)
        storage = patiently(_opened, uri)
        for name in REQUESTS:
            setattr(storage, name, functools.partial(patiently, getattr(storage, name)))
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


def make(uri: str, say: Callable[[str], None] | None = None) -> None:
    """Makes the database's file where there is none, whole or not at all: Optuna makes its tables in steps.

    Raises:
        StudyLost: it cannot be made.
    """
    path = sqlite_path(uri)
    if path is None:
        return
    with locked(path):
        if path.exists():
            return
        with atomic_path(path) as temporary:
            made = _patiently(uri, say, _opened, sqlite_uri(temporary))
            made.remove_session()
            made.engine.dispose()


def _opened(uri: str) -> optuna.storages.RDBStorage:
    file = sqlite_path(uri) is not None
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_SECONDS}} if file else {"pool_pre_ping": True}
    try:
        return optuna.storages.RDBStorage(uri, engine_kwargs=options)
    except (ImportError, RuntimeError, ValueError) as error:  # no driver, tables of another version, no port
        raise _lost(uri, error) from None


def _patiently(
    uri: str,
    say: Callable[[str], None] | None,
    ask: Callable[..., Answer],
    *args: Any,
    only_held: bool = False,
    **kwargs: Any,
) -> Answer:
    """Asks the database, again and again while it does not answer.

    Args:
        only_held: as `database` has it.
    Raises:
        StudyLost: it did not answer for PATIENCE_SECONDS, or will not: it is damaged, or no database.
        KeyError, RuntimeError, ValueError: Optuna's own answers, about what it was asked.
    """
    from sqlalchemy.exc import SQLAlchemyError

    began, attempts = time.monotonic(), 0
    while True:
        try:
            answer = ask(*args, **kwargs)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            lost = _lost(uri, error)
            may_pass = lost.held if only_held else _may_pass(error)
            if say is None or not may_pass or time.monotonic() - began > PATIENCE_SECONDS:
                raise lost from None
            if not attempts:
                say(f"{lost}; trying again for {PATIENCE_SECONDS / 60:g} min")
            attempts += 1
            time.sleep(PAUSE_SECONDS)
        else:
            if attempts and say is not None:
                say(f"the study's database {without_credentials(uri)} answers again")
            return answer


def _may_pass(error: Exception) -> bool:
    """Whether the database may answer later: it is locked, or its server is not there."""
    from sqlalchemy import exc

    passing = (exc.DisconnectionError, exc.InterfaceError, exc.OperationalError, exc.TimeoutError)
    return isinstance(error, passing) or isinstance(error.__cause__, passing)


def _lost(uri: str, error: Exception) -> StudyLost:
    cause = error.__cause__ if error.__cause__ is not None and not hasattr(error, "orig") else error
    said = str(getattr(cause, "orig", None) or cause).strip() or type(error).__name__
    path = sqlite_path(uri)
    if "locked" in said and path is not None:
        right = "end the other program that has it open"
    elif "optuna storage upgrade" in said:
        right = f"type `{installed('optuna')} storage upgrade --storage {shlex.quote(without_credentials(uri))}`"
    elif "pip install -U optuna" in said:
        right = f"type `{installed('python')} -m pip install --upgrade optuna`, or name another with --study-uri"
    elif path is not None and (helps := next((what for trouble, what in FILE_TROUBLE.items() if trouble in said), "")):
        right = helps
    elif path is not None and path.exists():
        right = "move it away and it is made from storage again"
    else:
        right = "start its server, or correct --study-uri"
    said_briefly = textwrap.shorten(said, 200, placeholder=" ...")
    lost = StudyLost(without_credentials(f"the study's database {uri} cannot be used ({said_briefly}): {right}"))
    lost.held = bool(HELD.search(said))
    return lost
