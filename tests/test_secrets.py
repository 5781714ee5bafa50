"""Planted secrets appear in no output, file, MLflow run or command line. A cluster's token is only in its own file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from sweeps.tracking.server import ask
from tests.processes import command_line
from tests.sweeping import Driver, Place, place
from tests.tracked import free_port, until

pytestmark = pytest.mark.slow

PASSWORD, KEY, TOKEN = "planted-password", "planted-key", "planted-token"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": KEY, "RAY_AUTH_TOKEN": TOKEN}
SECRETS = (PASSWORD, KEY, TOKEN)
SWEEP = ("--arms", "mvae", "--targets", "own", "--fractions", "1", "--seeds", "0")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of a real tracking server that keeps its database, artifacts and log in tmp_path."""
    port = free_port()
    stores = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts-destination", f"{tmp_path}/served"]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port), *stores],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    until(lambda: not ask(f"http://127.0.0.1:{port}"), 90)
    yield f"127.0.0.1:{port}"
    os.killpg(process.pid, signal.SIGKILL)  # the server leads the session that we started
    process.wait()


def holders(secret: str, *folders: Path) -> list[str]:
    """Files whose name or content has the secret."""
    found = (path for folder in folders for path in folder.rglob("*"))
    return [str(path) for path in found if secret in str(path) or (path.is_file() and has(path, secret))]


def has(path: Path, secret: str) -> bool:
    try:
        return secret.encode() in path.read_bytes()
    except OSError:  # deleted meanwhile
        return False


def others(driver: Driver) -> Iterable[str]:
    """Command lines of all processes that the driver started. The driver's own line is what the user typed."""
    return [command_line(one) for one in driver.tree() if one[0] != driver.process.pid]


def leaks(driver: Driver, here: Place, *folders: Path) -> list[str]:
    """Every place that shows a planted secret."""
    printed = "".join(driver._said())
    lines = [line for line in (*printed.splitlines(), *others(driver)) if any(secret in line for secret in SECRETS)]
    return lines + [file for secret in SECRETS for file in holders(secret, here.root, *folders)]


def test_no_planted_secret_appears_anywhere(server: str, tmp_path: Path) -> None:
    uri = f"http://somebody:{PASSWORD}@{server}"
    with place(begun=True) as here:
        first = here.start(*SWEEP, "--epochs", "10000", "--tracking-uri", uri, **ENVIRONMENT)
        first.until(lambda: sum(here.epochs().values()) >= 2, "two epochs are saved")
        assert len(list(others(first))) > 4, "Ray's processes are not found"
        assert leaks(first, here, tmp_path) == []
        stopped = first.signalled(signal.SIGTERM)
        assert f"--tracking-uri http://{server}" in stopped.out + stopped.err, "no line says how to resume"
        assert leaks(first, here, tmp_path) == []

        second = here.start(*SWEEP, "--epochs", "3", MLFLOW_TRACKING_URI=uri, **ENVIRONMENT)
        assert second.ended().code == 0, second._said()
        assert len(here.results()) == 1
        assert list((tmp_path / "served").rglob("*.md")) or list((tmp_path / "served").rglob("*.json"))
        assert leaks(second, here, tmp_path) == []


def test_a_private_clusters_token_is_only_in_its_own_file(tmp_path: Path) -> None:
    with place(begun=True) as here:
        driver = here.start(*SWEEP, "--epochs", "10000", RAY_AUTH_TOKEN=TOKEN)
        driver.until(lambda: sum(here.epochs().values()) >= 1, "an epoch is saved")
        (file,) = here.temporary.glob("mvae-ray-*/token")
        token = file.read_text(encoding="ascii")
        assert len(token) == 64 and token != TOKEN
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert holders(token, here.root) == [str(file)]
        assert not [line for line in others(driver) if token in line]
        driver.signalled(signal.SIGTERM)
        assert holders(token, here.root) == []
        again = here.start(*SWEEP, "--epochs", "10000")
        again.until(lambda: [*here.temporary.glob("mvae-ray-*/token")] != [], "the next token is made")
        (file,) = here.temporary.glob("mvae-ray-*/token")
        again.until(lambda: len(file.read_text(encoding="ascii")) == 64, "the next token is written")
        assert file.read_text(encoding="ascii") != token
        again.signalled(signal.SIGTERM)
