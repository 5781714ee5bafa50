"""A process without a home directory: HOME is unset, and the system does not know its user."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mvae.data import default_cache, default_data_root
from mvae.home import ensure_home
from mvae.refusal import Refusal
from pipelines.weak_supervision import Options
from sweeps.cli.options import read

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Removes the home directory; returns the temporary folder."""

    def unknown(_: int) -> NoReturn:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setenv("HOME", "")  # so that monkeypatch restores it after the test
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("MVAE_DATA", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_without_a_home_directory_a_substitute_folder_is_used_and_found_again(homeless: Path) -> None:
    folder = homeless / f"mvae-home-{os.getuid()}"
    assert ensure_home() == folder == Path.home()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert ensure_home() == folder, "a second call must return the folder again"
    del os.environ["HOME"]
    assert ensure_home() == folder


def test_with_a_home_directory_no_substitute_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ensure_home() is None
    assert Path.home() == tmp_path


def test_a_folder_owned_by_another_user_is_no_substitute(homeless: Path) -> None:
    (homeless / "elsewhere").mkdir()
    (homeless / f"mvae-home-{os.getuid()}").symlink_to(homeless / "elsewhere")
    assert ensure_home() not in (None, homeless / f"mvae-home-{os.getuid()}")


@pytest.mark.parametrize("ask", [default_cache, default_data_root, lambda: read(Options, ("--plan",)).data_root])
def test_the_default_data_folder_is_known_without_a_home_directory(homeless: Path, ask: Any) -> None:
    assert ask() == homeless / f"mvae-home-{os.getuid()}" / ".cache" / "mvae"


def test_a_storage_in_the_home_directory_lies_in_the_substitute_folder(homeless: Path) -> None:
    assert read(Options, ("--storage", "~/runs")).storage == homeless / f"mvae-home-{os.getuid()}" / "runs"


@pytest.mark.parametrize("option", ["--storage", "--cache", "--data-root", "--plugins"])
def test_the_home_directory_of_an_unknown_user_is_refused_and_not_created(option: str) -> None:
    with pytest.raises(Refusal, match=rf"^{option} ~nobody-at-all/x: unknown user nobody-at-all"):
        read(Options, (option, "~nobody-at-all/x"))


IMPORTS_TUNE = """
import pwd
def unknown(_): raise KeyError("getpwuid(): uid not found")
pwd.getpwuid = unknown
from pipelines.weak_supervision import Options
from sweeps.cli.options import read
read(Options, ("--cache", "/nowhere", "--data-root", "/nowhere"))
import ray.tune
"""


@pytest.mark.slow
def test_ray_tune_can_be_imported_without_a_home_directory(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HOME"} | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS_TUNE],
        capture_output=True,
        encoding="utf-8",
        cwd=ROOT,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
