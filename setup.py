"""Moves two packages into a folder of their own in a wheel. All other settings are in pyproject.toml.

Other projects may also have packages named `sweeps` and `pipelines`, and files installed in the same folder would
overwrite each other. So a wheel has ours in the folder mvae_suite/. The command `mvae` puts this folder first in
Python's path (mvae_suite/__init__.py), and a .pth file appends it to the path of all other programs:

    site-packages/mvae/                    the library
    site-packages/mvae_suite/__init__.py   starts `mvae`
    site-packages/mvae_suite/sweeps/
    site-packages/mvae_suite/pipelines/
    site-packages/mvae_suite.pth

An editable install (`pip install -e .`) copies nothing, and imports the packages from the clone.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDER = "mvae_suite"
MOVED = ("pipelines", "sweeps")


class Nested(build_py):  # type: ignore[misc]  # setuptools has no types
    """Copies the packages, then moves those whose names may collide into FOLDER."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        built = Path(self.build_lib)
        for name in MOVED:
            target = built / FOLDER / name
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build in the same folder
            (built / name).rename(target)
        (built / f"{FOLDER}.pth").write_text(f"{FOLDER}\n", encoding="utf-8")


setup(cmdclass={"build_py": Nested})
