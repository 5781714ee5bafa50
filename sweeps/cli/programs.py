"""How programs and pipelines of this environment are called from the folder in which the user types."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def installed(program: str) -> str:
    """A program of this environment: its name if the shell finds it, else its path."""
    ours = Path(sys.executable).with_name(program)
    found = shutil.which(program)
    if not ours.exists() or (found and Path(found).absolute().parent == ours.parent):
        return program
    return from_here(ours)


def from_here(path: Path) -> str:
    """A path relative to the working directory if it is below it, else absolute."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
