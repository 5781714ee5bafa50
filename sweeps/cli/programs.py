"""Names of this environment's programs and pipelines, the command that resumes a sweep, and the exit codes."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from sweeps.cli.tracking_uri import without_credentials

COMPLETE, INCOMPLETE, BAD_INPUT, OUT_OF_HOURS, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes of every pipeline and of `mvae`."""

STARTED_BY = "MVAE_STARTED_BY"
"""Environment variable: words to type before the pipeline's file instead of `python`. Set by cluster/slurm.sh."""

_typed: list[str] = []
"""Words that started the pipeline; empty if it was started by `python FILE`."""


def started_by(*words: str) -> None:
    """Records the words that started a pipeline (`mvae run NAME`), for its help page and for `command`."""
    _typed[:] = words


def how_to_start(python: str = "python") -> list[str]:
    """Returns the words that start this pipeline again, without its options."""
    if _typed:
        return list(_typed)
    return [*(shlex.split(os.environ.get(STARTED_BY, "")) or [python]), sys.argv[0]]


def installed(program: str) -> str:
    """Returns a program's name if the shell finds the program in this environment, else the program's path."""
    ours = Path(sys.executable).with_name(program)
    found = shutil.which(program)
    if not ours.exists() or (found and Path(found).absolute().parent == ours.parent):
        return program
    return from_here(ours)


def from_here(path: Path) -> str:
    """Returns a relative path if the path is inside the working directory, else an absolute path."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def command() -> str:
    """Returns the command that resumes this sweep, without --fresh and --resume, which may make a second run fail."""
    words = [word for word in sys.argv[1:] if word not in ("--fresh", "--resume")]
    return without_credentials(shlex.join([*how_to_start(installed("python")), *words]))


def stopped_by(cause: str) -> str:
    """Returns the last line that a stopped driver prints."""
    return f"Stopped by {cause}; finished trials are kept. To resume: {command()}"
