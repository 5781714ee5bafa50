"""SQLite files: their URIs, and what is wrong with one before MLflow or Optuna opens it.

SQLAlchemy, through which both open a database, reads %2F in a URI as / and takes what follows ? for options. So a path
becomes a URI, and a URI a path, by SQLAlchemy's own functions. Importing SQLAlchemy takes a second: paths and URIs
without special characters, which mean the same in every version, do without it.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mvae.refusal import Refusal

PREFIX = "sqlite:///"
DRIVER = "sqlite+pysqlite"
"""Named in the URIs of paths with special characters: of one that begins with sqlite:///, MLflow takes the rest for a
path as it stands, and makes a folder of that name."""

MAGIC = b"SQLite format 3\0"
BUSY_SECONDS = 2.0
"""Seconds that a look into a database waits while another program holds it."""
WHOLE_BYTES = 2**28
"""Size up to which a look reads the whole file: 0.1 GB take a second."""

_SQLITE = re.compile(r"sqlite(\+\w+)?:///(?=.)")
_PLAIN = re.compile(r"[A-Za-z0-9_./-]*")


class Unusable(Refusal):
    """A database that stays unusable until somebody acts. The message says what is wrong, then what to do."""


def sqlite_uri(path: Path | str) -> str:
    """The URI by which SQLAlchemy opens the file; of a text, its /./ stay.

    Raises:
        Refusal: the installed SQLAlchemy has no URI for this path.
    """
    if _PLAIN.fullmatch(str(path)):
        return f"{PREFIX}{path}"
    from sqlalchemy import URL, make_url

    uri = URL.create(DRIVER, database=str(path)).render_as_string(hide_password=False)
    if make_url(uri).database != str(path):  # before 2.1 nothing in a URI is escaped
        raise Refusal(f"{path} cannot be written as a database's URI: choose a path without ? and %, or SQLAlchemy 2.1")
    return uri


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite URI as SQLAlchemy reads it; None for any other URI.

    Raises:
        Refusal: the URI has options, or is of a database in memory; or what it says is not what it means.
    """
    found = _SQLITE.match(uri)
    if found is None:
        return None
    typed = uri[found.end() :]
    if _PLAIN.fullmatch(typed):
        return Path(typed)
    from sqlalchemy import make_url

    literally = Path(typed)
    database, options = make_url(uri).database or "", "?" in typed
    path = Path(database)
    elsewhere = path.parent != literally.parent
    if elsewhere and literally.parent.is_dir() and (options or not path.parent.is_dir()):
        raise Refusal(f"{uri} means the file {path}; for {literally} write {sqlite_uri(literally)}")
    if options or database in ("", ":memory:"):
        raise Refusal(f"{uri} does not name a file: write {PREFIX}/ABSOLUTE/PATH, and in it %3F for ? and %25 for %")
    return path


@dataclass(frozen=True)
class Found:
    """What is in a SQLite file."""

    tables: frozenset[str]
    revision: str
    """Version of the tables, as Alembic keeps it for MLflow and for Optuna; empty if there is none."""


def look_into(path: Path) -> Found | None:
    """Opens a database that exists, and checks its pages; returns None while another program holds it.

    Raises:
        sqlite3.DatabaseError: the file is damaged, or is not a SQLite file.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"  # not read-only: what a killed writer left half done is undone first
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
            if path.stat().st_size <= WHOLE_BYTES:
                (verdict,) = connection.execute("pragma quick_check(1)").fetchone()
                if verdict != "ok":
                    raise sqlite3.DatabaseError(" ".join(verdict.split()))
            names = connection.execute("select name from sqlite_master where type = 'table'")
            tables = frozenset(name for (name,) in names)
            asks = "select version_num from alembic_version"
            revisions = list(connection.execute(asks)) if "alembic_version" in tables else []
    except sqlite3.OperationalError:
        return None
    return Found(tables, revisions[0][0] if len(revisions) == 1 else "")
