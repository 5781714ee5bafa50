"""Gives a home directory to a process without one, for example in a container with a numeric user and no HOME.

Some libraries, for example ray.tune, look up the home directory while they are imported. The cache of data sets
(~/.cache/mvae) is also in the home directory.
"""

import os
import tempfile
from pathlib import Path

NAME = "mvae-home-"
"""Prefix of the names of temporary home folders."""


def ensure_home() -> Path | None:
    """Sets HOME to a temporary folder of this user, if this process has no home directory.

    Returns:
        The temporary home folder, from this call or an earlier one, or None if the process has a home directory.
    """
    try:
        home = Path.home()
    except RuntimeError:
        home = _own_folder(Path(tempfile.gettempdir()) / f"{NAME}{os.getuid()}")
        os.environ["HOME"] = str(home)
    return home if home.name.startswith(NAME) else None


def _own_folder(wanted: Path) -> Path:
    """Creates `wanted` if missing and returns it. Returns a new folder if it is unusable, a link or another user's."""
    try:
        wanted.mkdir(mode=0o700, exist_ok=True)
        if wanted.stat().st_uid == os.getuid() and not wanted.is_symlink():
            return wanted
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix=f"{wanted.name}-"))
