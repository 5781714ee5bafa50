"""MLflow's SQLite database before MLflow opens it: a file that MLflow would refuse is refused with what to type.

MLflow itself takes two seconds to import and ten to give a database up, and then says so in a traceback. So the newest
version of its tables is read from the names in its migration files.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
import shlex
import sqlite3
import tempfile
from pathlib import Path

from sweeps.cli.programs import installed
from sweeps.store.sqlite import MAGIC, Unusable, look_into, sqlite_uri

REBUILT = "move it away and it is rebuilt from storage"
OUT_OF_DATE = "out-of-date database schema"
"""Words by which MLflow refuses any database whose tables are of another version."""

_REVISION = re.compile(r"^(down_)?revision\s*(?::[^=]*)?=\s*[\"']([^\"']+)[\"']", re.M)


def check_file(path: Path) -> None:
    """Refuses a file that MLflow cannot use; a file that does not exist yet is not made.

    Raises:
        Unusable: one line.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:  # permissions alone say little where root asks
            probe.write(b"probe")
    except OSError:
        raise Unusable(
            f"tracking database {path}: {folder} is not a folder that can be written; name one that can"
        ) from None
    check_content(path)


def check_content(path: Path) -> None:
    """As `check_file`, without a look at the folder: a disk that is full now may have room again.

    Raises:
        Unusable: one line.
    """
    if not path.exists():
        return
    if not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
        raise Unusable(f"tracking database {path} is not a file that can be read and written: name another")
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
    if head not in (b"", MAGIC):
        raise Unusable(f"tracking database {path} is not a SQLite file: {REBUILT}")
    try:
        found = look_into(path)
    except sqlite3.DatabaseError as error:
        raise Unusable(f"tracking database {path} is damaged ({error}): {REBUILT}") from None
    if found is None or not found.tables:
        return
    if "experiments" not in found.tables:
        raise Unusable(f"tracking database {path} belongs to another program: name another file")
    newest, known = revisions()
    if not newest or found.revision == newest:
        return
    if not found.revision:
        raise Unusable(f"tracking database {path} is half made: {REBUILT}")
    if found.revision in known:
        raise Unusable(
            f"tracking database {path} is from an older MLflow: {how_to_migrate(sqlite_uri(path.absolute()))}"
        )
    raise Unusable(
        f"tracking database {path} is from a newer MLflow than {importlib.metadata.version('mlflow')}:"
        f" `{installed('python')} -m pip install --upgrade mlflow`, or {REBUILT}"
    )


def how_to_migrate(uri: str) -> str:
    """What to do with a database whose tables are older than the installed MLflow."""
    command = f"{installed('mlflow')} db upgrade {shlex.quote(uri)}"
    return f"make a copy, then type `{command}` to migrate it; or {REBUILT}"


@functools.cache
def revisions() -> tuple[str, frozenset[str]]:
    """Newest version of MLflow's tables, and all versions that MLflow can migrate; empty if they cannot be found."""
    spec = importlib.util.find_spec("mlflow")
    folders = (
        [Path(place, "store", "db_migrations", "versions") for place in spec.submodule_search_locations or ()]
        if spec
        else []
    )
    files = [file for folder in folders for file in folder.glob("*.py")]
    found = [match for file in files for match in _REVISION.findall(file.read_text(encoding="utf-8"))]
    own = {name for down, name in found if not down}
    newest = own - {name for down, name in found if down}
    return (newest.pop() if len(newest) == 1 else ""), frozenset(own)
