"""Temporary folders that outlive nobody: each says whose it is, and the next driver removes those of the dead.

<temporary>/mvae-<what for>-<random>/owner.json     the process that made it (sweeps/store/processes.py)
"""

from __future__ import annotations

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
KINDS = ("ray", "model", "files")
"""What folders are made for; others that begin with the same prefix are none of ours."""
OWNER = "owner.json"
UNCLAIMED_SECONDS = 3600.0
"""An empty folder that names no owner for so long was left by a process that died while it made or removed it."""


@contextmanager
def scratch(what_for: str) -> Iterator[Path]:
    """A folder for as long as the block lasts.

    Args:
        what_for: one of KINDS, part of the folder's name.
    """
    assert what_for in KINDS, f"nobody would clear folders for {what_for} away"
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{what_for}-", dir=temporary()))
    try:
        (folder / OWNER).write_text(json.dumps(asdict(this_process())), encoding="utf-8")
        yield folder
    finally:
        _remove(folder)


def temporary() -> Path:
    """A folder whose paths leave room for Ray's sockets, which may have 107 characters."""
    default = Path(tempfile.gettempdir())
    short = Path("/tmp")  # noqa: S108
    return default if len(str(default)) <= 24 or not short.is_dir() else short


def remove_folders_of_the_dead() -> None:
    """Removes what killed processes left behind here; folders of other hosts and containers stay."""
    for folder in [found for kind in KINDS for found in temporary().glob(f"{PREFIX}{kind}-*")]:
        with suppress(OSError, ValueError, TypeError):  # gone meanwhile, somebody else's, or no folder at all
            if not (folder / OWNER).exists():
                if time.time() - folder.stat().st_mtime > UNCLAIMED_SECONDS:
                    folder.rmdir()
            elif Process(**json.loads((folder / OWNER).read_text(encoding="utf-8"))).is_dead():
                _remove(folder)


def _remove(folder: Path) -> None:
    """The owner goes last: a folder that was removed half-way is still somebody's."""
    for inside in folder.iterdir() if folder.is_dir() else ():
        if inside.name != OWNER:
            shutil.rmtree(inside, ignore_errors=True)
            with suppress(OSError):
                inside.unlink()
    shutil.rmtree(folder, ignore_errors=True)
