"""Starts the command `mvae`, both from a wheel and from a clone.

A wheel has the packages `sweeps` and `pipelines` in this folder (see setup.py). Other installed projects may have
packages with the same names. So the command and its processes search this folder before all other folders.
"""

import os
import sys
from pathlib import Path


def main() -> int:
    """Runs `mvae` and returns its exit code."""
    folder = Path(__file__).resolve().parent
    if (folder / "sweeps").is_dir():  # in a clone the packages are beside this folder
        sys.path.insert(0, str(folder))
        before = os.environ.get("PYTHONPATH")  # Ray's processes inherit it
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), before)))
    from sweeps.commands.entry import main as run

    return run()
