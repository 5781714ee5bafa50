"""Gives a home directory to a process without one, for example in a container with a numeric user and no HOME.

Libraries ask for the home directory at import time (ray.tune). The cache of data sets is also there (~/.cache/mvae).
"""

import os
import tempfile
from pathlib import Path

NAME = "mvae-home-"
"""Prefix of the names of temporary home folders."""


def ensure_home() -> Path | None:
    """If this process has no home directory, sets HOME to a folder of this user in the system's temporary folder.

    Returns:
        The temporary home folder, from this call or an earlier one; None if the process has a home directory.
    """
    try:
        home = Path.home()
    except RuntimeError:
        home = _own_folder(Path(tempfile.gettempdir()) / f"{NAME}{os.getuid()}")
        os.environ["HOME"] = str(home)
    return home if home.name.startswith(NAME) else None


def _own_folder(wanted: Path) -> Path:
    """Returns the wanted folder, so that later commands find it again. Returns a new folder if it has another owner."""
    try:
        wanted.mkdir(mode=0o700, exist_ok=True)
        if wanted.stat().st_uid == os.getuid() and not wanted.is_symlink():
            return wanted
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix=f"{wanted.name}-"))
