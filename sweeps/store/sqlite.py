"""SQLite files: converts paths to URIs and back, and checks a file before MLflow or Optuna opens it.

MLflow and Optuna open databases with SQLAlchemy, which reads `%2F` in a URI as `/` and the text after `?` as options.
So this module converts paths with SQLAlchemy's own functions. The import of SQLAlchemy takes a second, so it happens
only for paths with special characters. All versions of SQLAlchemy read other paths unchanged.
"""

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mvae.refusal import Refusal

PREFIX = "sqlite:///"
DRIVER = "sqlite+pysqlite"
"""URI scheme for paths with special characters.

If a URI begins with `sqlite:///`, MLflow takes the text after this prefix literally as a file's path, and makes the
file's folder.
"""

MAGIC = b"SQLite format 3\0"
BUSY_SECONDS = 2.0
"""Seconds to wait while another program has locked the database."""
WHOLE_BYTES = 2**28
"""Size in bytes of the largest file that is checked completely. The check takes 1 s per 0.1 GB."""

_SQLITE = re.compile(r"sqlite(\+\w+)?:///(?=.)")
_PLAIN = re.compile(r"[A-Za-z0-9_./-]*")


class Unusable(Refusal):
    """A database that cannot be used until the user acts. The message says what is wrong, then what to do."""


def sqlite_uri(path: Path | str) -> str:
    """Returns the URI with which SQLAlchemy opens a database file.

    Args:
        path: path of the file. A string keeps `/./`, a `Path` does not.
    Raises:
        Refusal: the installed SQLAlchemy has no URI for this path.
    """
    if _PLAIN.fullmatch(str(path)):
        return f"{PREFIX}{path}"
    from sqlalchemy import URL, make_url

    uri = URL.create(DRIVER, database=str(path)).render_as_string(hide_password=False)
    if make_url(uri).database != str(path):  # SQLAlchemy before 2.1 does not escape paths
        raise Refusal(
            f"{path} cannot be written as a database URI: choose a path without ? and %, or install SQLAlchemy 2.1"
        )
    return uri


def sqlite_path(uri: str) -> Path | None:
    """Returns the file that SQLAlchemy opens for a SQLite URI, or None for any other URI.

    Raises:
        Refusal: the URI has options, names a database in memory, or leads to another file than its text suggests.
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
        raise Refusal(f"{uri} means the file {path}: to use {literally}, write {sqlite_uri(literally)}")
    if options or database in ("", ":memory:"):
        raise Refusal(f"{uri} does not name a file: write {PREFIX}/ABSOLUTE/PATH, with %3F for ? and %25 for %")
    return path


def identity_of(path: Path) -> tuple[int, int] | None:
    """Returns a file's device and inode, which change if the file is recreated, or None if the file does not exist."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@dataclass(frozen=True)
class Found:
    """Tables and schema version of a SQLite file."""

    tables: frozenset[str]
    revision: str
    """Schema version, which Alembic records for MLflow and Optuna; empty if none is recorded."""


def look_into(path: Path) -> Found | None:
    """Returns the tables of an existing database, or None if another program has locked the file.

    First checks all pages of the file, unless the file is larger than WHOLE_BYTES.

    Raises:
        sqlite3.DatabaseError: the file is damaged, or is not a SQLite file.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"  # not read-only, so that SQLite can undo a killed writer's transaction
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
            if path.stat().st_size <= WHOLE_BYTES:
                (verdict,) = connection.execute("pragma quick_check(1)").fetchone()
                if verdict != "ok":
                    raise sqlite3.DatabaseError(" ".join(verdict.split()))
            query = "select name from sqlite_master where type = 'table'"
            tables = frozenset(name for (name,) in connection.execute(query))
            query = "select version_num from alembic_version"
            revisions = list(connection.execute(query)) if "alembic_version" in tables else []
    except sqlite3.OperationalError:
        return None
    return Found(tables, revisions[0][0] if len(revisions) == 1 else "")
