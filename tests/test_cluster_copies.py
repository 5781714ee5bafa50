"""Files that cluster/*.yaml send to a machine: the whole repository and nothing else; all modules can be imported."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.cluster_checks import ray_files
from tests.command_checks import REPOSITORY
from tests.kubernetes_checks import ignored_by_docker

RAY_FILES = {path.stem: path for path in ray_files()}


class Recorder:
    """Replaces subprocess where Ray runs ssh and rsync; records the command lines."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def check_call(self, command: list[str], **_: Any) -> int:
        self.commands.append(command)
        return 0


def rsync_of_ray(config: dict[str, Any], source: str, target: str) -> list[str]:
    """Runs Ray's rsync for a folder of file_mounts locally, without ssh."""
    from ray.autoscaler._private.command_runner import SSHCommandRunner

    recorder = Recorder()
    provider = SimpleNamespace(external_ip=lambda node: "10.0.0.1", internal_ip=lambda node: "10.0.0.1")
    make: Any = SSHCommandRunner
    runner = make("", "head", provider, {"ssh_user": "nobody"}, "mvae-test", recorder, False)
    filters = {name: config.get(name) for name in ("rsync_exclude", "rsync_filter")}
    runner.run_rsync_up(source, target, options=filters)
    [command] = recorder.commands
    shell = command.index("--rsh")
    assert command[-1] == f"nobody@10.0.0.1:{target}"
    return [*command[:shell], *command[shell + 2 : -1], target]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working tree as on a laptop: every file of the repository, and local files that must not be sent."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        encoding="utf-8",
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    for name in PRIVATE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("of this machine alone", encoding="utf-8")
    return folder


PRIVATE = (
    ".git/config",
    ".venv/bin/python",
    ".mypy_cache/3.11/cache.json",
    "runs/main/results/one.json",
    "data/MNIST/raw/train-images-idx3-ubyte",
    "mlruns/0/meta.yaml",
    "mlflow.db",
    "mvae_suite.egg-info/PKG-INFO",
    "mvae/__pycache__/trial.cpython-311.pyc",
    "key.pem",
)
# Imports third-party packages once, then imports every module of each copy in a child process.
IMPORT = """
import importlib, json, os, sys, traceback
import matplotlib, mlflow, pandas, pydantic_settings, ray.train.torch, ray.tune, sklearn, torch, torchvision
for folder in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        os.chdir("/")
        sys.path.insert(0, folder)
        told = {}
        for name in json.loads(os.environ["MODULES"]):
            try:
                told[name] = importlib.import_module(name).__file__
            except BaseException:
                told[name] = traceback.format_exc()
        with open(f"{folder}.json", "w") as file:
            json.dump(told, file)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def copies(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that arrive at a machine, by the Ray YAML that sent them."""
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    made = {}
    for name, path in RAY_FILES.items():
        target = tmp_path_factory.mktemp("there") / "mvae-suite"
        command = rsync_of_ray(yaml.safe_load(path.read_text(encoding="utf-8")), f"{clone}/", f"{target}/")
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        made[name] = target
    return made


def modules(folder: Path) -> list[str]:
    packages = ("mvae", "sweeps", "pipelines")
    files = [path.relative_to(folder) for package in packages for path in (folder / package).rglob("*.py")]
    return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files)


@pytest.fixture(scope="module")
def imported(clone: Path, copies: dict[str, Path]) -> dict[str, dict[str, str]]:
    """For each copy, the origin of each of our modules, or why it could not be imported. Takes 7 s."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", IMPORT, *map(str, copies.values())],
        env={**inherited, "MODULES": json.dumps(modules(clone))},
        cwd=clone.parent,
        check=True,
        capture_output=True,
        timeout=300,
    )
    return {name: json.loads(Path(f"{copy}.json").read_text(encoding="utf-8")) for name, copy in copies.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", RAY_FILES)
def test_every_module_sent_by_a_ray_file_can_be_imported_on_the_machine(
    name: str, copies: dict[str, Path], imported: dict[str, dict[str, str]]
) -> None:
    assert len(imported[name]) > 50
    for module, where in imported[name].items():
        assert where.startswith(f"{copies[name]}/"), f"{module}: {where}"


@pytest.mark.parametrize("name", RAY_FILES)
def test_a_ray_file_sends_the_whole_repository_and_nothing_else(
    name: str, clone: Path, copies: dict[str, Path]
) -> None:
    sent = {str(path.relative_to(copies[name])) for path in copies[name].rglob("*") if path.is_file()}
    here = {str(path.relative_to(clone)) for path in clone.rglob("*") if path.is_file()}
    assert here - sent == set(PRIVATE)
    assert sent <= here


def test_docker_and_a_ray_file_exclude_the_same_files(clone: Path) -> None:
    """A pattern in .dockerignore is anchored, and also excludes everything below a folder."""

    def left_out(name: str) -> bool:
        parts = Path(name).parts
        tops = [pattern for pattern in ignored_by_docker() if not pattern.startswith("**/")]
        anywhere = [pattern[3:] for pattern in ignored_by_docker() if pattern.startswith("**/")]
        return any(fnmatch.fnmatch(parts[0], pattern) for pattern in tops) or any(
            fnmatch.fnmatch(part, pattern) for part in parts for pattern in anywhere
        )

    here = [str(path.relative_to(clone)) for path in clone.rglob("*") if path.is_file()]
    assert {name for name in here if left_out(name)} == set(PRIVATE)
