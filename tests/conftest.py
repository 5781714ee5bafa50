"""Settings and fixtures of all tests: a clean environment, one thread for torch, temporary folders that are removed."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before torch, ray or mlflow is imported; child processes inherit these variables.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MPLBACKEND"] = "Agg"

IN_MEMORY = Path("/dev/shm")
ENOUGH = 8 * 2**30
"""Upper limit in bytes of the memory that tests use."""


def in_memory() -> bool:
    """Whether temporary files fit in memory. On disk they are slow, because tests write and sync thousands of files."""
    limit = Path("/sys/fs/cgroup/memory.max")
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        bounds = [shutil.disk_usage(IN_MEMORY).free, 1024 * int(lines["MemAvailable"].split()[0])]
        text = limit.read_text(encoding="utf-8").strip() if limit.exists() else ""
        bounds += [int(text)] if text.isdigit() else []
        runs_programs = not os.statvfs(IN_MEMORY).f_flag & os.ST_NOEXEC
    except (OSError, KeyError, ValueError):
        return False
    return runs_programs and min(bounds) > ENOUGH


if "TMPDIR" not in os.environ and in_memory():
    os.environ["TMPDIR"] = str(IN_MEMORY)
    tempfile.tempdir = None
for leaking in ("MVAE_STORAGE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
    os.environ.pop(leaking, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs files with slow tests first, so that two parallel processes finish at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, item.path.parent.name != "cluster"))


def pytest_sessionfinish() -> None:
    """Removes the folders that each test process has created for its session."""
    if "tests.sweeping" in sys.modules:
        sys.modules["tests.sweeping"].forget()


@pytest.fixture(autouse=True)
def plugins_forgotten() -> Iterator[None]:
    """Removes data sets and arms added by plug-ins after each test."""
    yield
    if "mvae.plugins" in sys.modules:
        sys.modules["mvae.plugins"].forget()


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """An empty folder for one test's results, checkpoints and MLflow database."""
    folder = tmp_path / "storage"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted data, created once per session and never in the home directory."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, created once because that takes seconds."""
    from sweeps.tracking import mirror

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    mirror.open_database(path)
    return path


@pytest.fixture
def tiny_root(tmp_path: Path) -> Path:
    """MNIST's raw files in miniature: 50 examples to train on."""
    from tests.tiny_mnist import write_tiny

    write_tiny(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a test fail if it starts a Ray cluster."""
    from sweeps import engine

    def started(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(engine, "cluster", started)
    monkeypatch.setattr("sweeps.engine.attach.cluster", started)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The data root with the MNIST family's raw files; for tests marked `real_data`."""
    root = os.environ.get("MVAE_DATA")
    if not root or not all((Path(root) / name / "raw").is_dir() for name in ("MNIST", "FashionMNIST")):
        pytest.skip("MVAE_DATA names no folder with MNIST/raw and FashionMNIST/raw")
    return Path(root)
