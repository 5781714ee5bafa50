"""Checks MLflow's SQLite database before MLflow opens it. If MLflow cannot use the file, the error says what to do.

MLflow takes two seconds to import, and ten more to reject a database, which it does with a traceback. So this module
does not import MLflow. It reads the newest schema version from the migration files in MLflow's package.
"""

import functools
import importlib.metadata
import importlib.util
import os
import re
import shlex
import sqlite3
from pathlib import Path

from mvae.storage.objects import place
from sweeps.cli.programs import installed
from sweeps.store.sqlite import MAGIC, Unusable, look_into, sqlite_uri

REBUILT = "move the file away and repeat your command to rebuild it from storage"
OUT_OF_DATE = "out-of-date database schema"
"""Part of MLflow's error message about a database with another schema version."""

_REVISION = re.compile(r"^(down_)?revision\s*(?::[^=]*)?=\s*[\"']([^\"']+)[\"']", re.M)


def check_file(path: Path) -> None:
    """Checks that MLflow can use a database file and write to its folder. Does not create a missing file.

    Raises:
        Unusable: MLflow cannot use the file. The message is one line.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        place(folder).prove_writable()
    except OSError:
        raise Unusable(
            f"tracking database {path}: cannot write to the folder {folder}; choose another folder"
        ) from None
    check_content(path)


def check_content(path: Path) -> None:
    """Checks a database file, if it exists. Does not check the folder, because a full disk may have space later.

    Raises:
        Unusable: MLflow cannot use the file. The message is one line.
    """
    if not path.exists():
        return
    if not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
        raise Unusable(f"tracking database {path} is not a readable and writable file: choose another file")
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
        raise Unusable(f"tracking database {path} belongs to another program: choose another file")
    newest, known = revisions()
    if not newest or found.revision == newest:
        return
    if not found.revision:
        raise Unusable(f"tracking database {path} is incomplete: {REBUILT}")
    if found.revision in known:
        raise Unusable(
            f"tracking database {path} is from an older MLflow: {how_to_migrate(sqlite_uri(path.absolute()))}"
        )
    raise Unusable(
        f"tracking database {path} is from a newer MLflow than {importlib.metadata.version('mlflow')}:"
        f" run `{installed('python')} -m pip install --upgrade mlflow`, or {REBUILT}"
    )


def how_to_migrate(uri: str) -> str:
    """Returns advice about a database whose schema is older than the installed MLflow."""
    command = f"{installed('mlflow')} db upgrade {shlex.quote(uri)}"
    return f"back it up and run `{command}` to migrate it, or {REBUILT}"


@functools.cache
def revisions() -> tuple[str, frozenset[str]]:
    """Returns the newest schema version of the installed MLflow, and all schema versions that MLflow can migrate.

    Both results are empty if the migration files cannot be found.
    """
    spec = importlib.util.find_spec("mlflow")
    packages = (spec and spec.submodule_search_locations) or ()
    files = [file for package in packages for file in Path(package, "store/db_migrations/versions").glob("*.py")]
    found = [match for file in files for match in _REVISION.findall(file.read_text(encoding="utf-8"))]
    own = {name for down, name in found if not down}
    newest = own - {name for down, name in found if down}
    return (newest.pop() if len(newest) == 1 else ""), frozenset(own)
