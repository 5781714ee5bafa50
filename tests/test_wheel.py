"""A wheel installs no names that may collide, and works beside another project's package of the same name."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sweeps.store.provenance import source_digest
from tests.sweeping import ROOT

SOURCES = ("mvae", "mvae_suite", "sweeps", "pipelines", "pyproject.toml", "setup.py", "README.md", "LICENSE")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
LOOK = """
import site, sys
sys.path = [path for path in sys.path if path != ""]
site.addsitedir(sys.argv[1])
import mvae, sweeps
print(mvae.__file__, sweeps.__file__)
from sweeps.store.provenance import source_digest
print(source_digest())
from sweeps.commands.entry import main
main(["run"])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was unpacked, as pip does. The wheel is built twice in the same folder."""
    root = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *SOURCES],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split():
        if (ROOT / name).is_file():
            (root / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "source" / name).write_bytes((ROOT / name).read_bytes())
    for _ in range(2):
        subprocess.run([sys.executable, "-c", BUILD, str(root)], cwd=root / "source", check=True, capture_output=True)
    (wheel,) = root.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(root / "site")
    return root / "site"


def test_a_wheel_installs_only_names_of_its_own(site: Path) -> None:
    names = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"mvae", "mvae_suite", "mvae_suite.pth"}
    assert {path.name for path in (site / "mvae_suite").iterdir()} == {"__init__.py", "sweeps", "pipelines"}


def test_an_installed_wheel_finds_its_packages_and_pipelines(site: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-c", LOOK, str(site)], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0] == f"{site / 'mvae' / '__init__.py'} {site / 'mvae_suite' / 'sweeps' / '__init__.py'}"
    assert lines[1] == source_digest(), "the digest of the code is the same wherever it is installed"
    assert any(line.startswith("  weak_supervision ") for line in lines)


BESIDE = """
import site, subprocess, sys
sys.path = [path for path in sys.path if path != ""]
site.addsitedir(sys.argv[1])
import mvae_suite
sys.argv = ["mvae", "run"]
print(mvae_suite.main())
import pipelines, sweeps
child = "import sweeps; print(sweeps.__file__)"
other = subprocess.run([sys.executable, "-c", child], capture_output=True, encoding="utf-8", cwd="/")
print(sweeps.__file__, pipelines.__file__)
print(other.stdout)
"""


def test_the_command_works_beside_another_projects_packages_of_the_same_names(site: Path, tmp_path: Path) -> None:
    for name in ("sweeps", "pipelines"):
        foreign = tmp_path / "site" / name / "__init__.py"
        foreign.parent.mkdir(parents=True)
        foreign.write_text("raise ImportError('the other project')\n", encoding="utf-8")
    for path in site.iterdir():
        (tmp_path / "site" / path.name).symlink_to(path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-c", BESIDE, str(tmp_path / "site")]
    ran = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert ran.returncode == 0, ran.stderr
    *page, code, loaded, of_a_child = filter(None, ran.stdout.splitlines())
    assert any(line.startswith("  weak_supervision ") for line in page) and code == "0"
    own = site / "mvae_suite"
    assert loaded == f"{own / 'sweeps' / '__init__.py'} {own / 'pipelines' / '__init__.py'}"
    assert of_a_child == str(own / "sweeps" / "__init__.py")
