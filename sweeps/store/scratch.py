"""Temporary folders. Each folder records the process that made it. The next driver deletes folders of dead processes.

<temporary>/mvae-<kind>-<random>/owner.json     the process that made the folder (sweeps/store/processes.py)
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from sweeps.store.processes import Process, this_process

PREFIX = "mvae-"
KINDS = ("ray", "model", "files", "verify")
"""Kinds of folders. Folders of other kinds belong to other programs and are never deleted."""
OWNER = "owner.json"
SESSIONS = "r"
"""Name of a private cluster's folder for sockets and logs, inside a temporary folder of kind `ray`."""
UNCLAIMED_SECONDS = 3600.0
"""Age in seconds after which an empty folder without owner.json is deleted: the process that made it has died."""


@contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """Makes a folder and deletes it after the block.

    Args:
        kind: one of KINDS; part of the folder's name.
    """
    assert kind in KINDS, f"folders of kind {kind!r} would never be cleaned up"
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-", dir=temporary()))
    try:
        (folder / OWNER).write_text(json.dumps(asdict(this_process())), encoding="utf-8")
        yield folder
    finally:
        _remove(folder)


def temporary() -> Path:
    """Returns the parent folder for temporary folders. Its path is short enough for the paths of Ray's sockets.

    A socket's path may have at most 107 characters. The longest path is:

    <temporary>/mvae-ray-<random>/SESSIONS/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store
    """
    default = Path(tempfile.gettempdir())
    short = Path("/tmp")  # noqa: S108
    return default if len(str(default)) <= 23 or not short.is_dir() else short


def remove_folders_of_the_dead() -> None:
    """Deletes temporary folders of processes that have ended. Keeps folders of other hosts and containers."""
    for folder in [found for kind in KINDS for found in temporary().glob(f"{PREFIX}{kind}-*")]:
        with suppress(OSError, ValueError, TypeError):  # deleted meanwhile, owned by another user, or a file
            if not (folder / OWNER).exists():
                if time.time() - folder.stat().st_mtime > UNCLAIMED_SECONDS:
                    folder.rmdir()
            elif Process(**json.loads((folder / OWNER).read_text(encoding="utf-8"))).is_dead():
                _remove(folder)


def _remove(folder: Path) -> None:
    """Deletes a folder, with owner.json last, so that a half-deleted folder still has an owner."""
    for inside in folder.iterdir() if folder.is_dir() else ():
        if inside.name != OWNER:
            shutil.rmtree(inside, ignore_errors=True)
            with suppress(OSError):
                inside.unlink()
    shutil.rmtree(folder, ignore_errors=True)
