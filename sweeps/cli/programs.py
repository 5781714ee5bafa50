"""Names of this environment's programs and pipelines, as the user can type them in the working directory."""

import shutil
import sys
from pathlib import Path


def installed(program: str) -> str:
    """Returns a program's name if the shell finds the program in this environment, else the program's path."""
    ours = Path(sys.executable).with_name(program)
    found = shutil.which(program)
    if not ours.exists() or (found and Path(found).absolute().parent == ours.parent):
        return program
    return from_here(ours)


def from_here(path: Path) -> str:
    """Returns a relative path for anything inside the working directory, else an absolute path."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
