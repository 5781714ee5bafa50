"""A home directory for a process that has none, as in a container with a numeric user: HOME is unset, and the system
knows no such user.

Libraries ask for it when they are imported (ray.tune), and ours is where converted data is kept (~/.cache/mvae).
"""

import os
import tempfile
from pathlib import Path

NAME = "mvae-home-"
"""Prefix of the names of temporary home folders."""


def ensure_home() -> Path | None:
    """Sets HOME to a folder of this user in the temporary folder, if this process has no home directory.

    Returns:
        The folder that stands in, since this call or an earlier one; None if there is a home directory.
    """
    try:
        home = Path.home()
    except RuntimeError:
        home = _own_folder(Path(tempfile.gettempdir()) / f"{NAME}{os.getuid()}")
        os.environ["HOME"] = str(home)
    return home if home.name.startswith(NAME) else None


def _own_folder(wanted: Path) -> Path:
    """The folder, so that the next command finds what this one cached; another if that one is somebody else's."""
    try:
        wanted.mkdir(mode=0o700, exist_ok=True)
        if wanted.stat().st_uid == os.getuid() and not wanted.is_symlink():
            return wanted
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix=f"{wanted.name}-"))
