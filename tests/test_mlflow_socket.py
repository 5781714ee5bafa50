"""MLflow on a machine with other users: a socket that only its owner can open, and no port.

The server runs once for all tests and starts in 15 s.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sweeps.cli import browsing
from sweeps.cli.browsing import how_to_browse
from sweeps.cli.tracking_uri import default_uri
from tests.command_checks import REPOSITORY
from tests.processes import descendants
from tests.tracked import KEYS, Storage, finished, until

SCRIPT = REPOSITORY / "cluster/mlflow_server.sh"
SOMEONE_ELSE = 65534


def script(*words: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the script with the programs of this environment, in a home directory and working directory of its own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "MVAE_"))}
    return subprocess.run(
        ["bash", str(SCRIPT), *words],
        env={**unset, "PATH": path, "HOME": str(home), **variables},
        cwd=home,
        capture_output=True,
        encoding="utf-8",
        timeout=180,
    )


@pytest.fixture(scope="module")
def served(empty_database: Path) -> Iterator[Storage]:
    """A storage folder with a server on `private/socket`, below a folder that every user can enter."""
    home = Path(tempfile.mkdtemp(prefix="mvae-", dir="/tmp"))  # pytest's own folders are closed to others
    home.chmod(0o755)
    storage = Storage(home / "runs", default_uri(home / "runs"))
    storage.folder.mkdir()
    shutil.copyfile(empty_database, storage.database)
    place = {"MLFLOW_SOCKET": str(home / "private/socket")}
    try:
        started = script(home=home, **place)
        assert started.returncode == 0, started.stderr
        assert started.stdout.startswith(f"MLflow: type on your own machine: ssh -N -L 5000:{home}/private/socket ")
        yield storage
        assert script("stop", home=home, **place).returncode == 0
        until(lambda: not answers(storage))
    finally:
        pid = home / "private/pid"
        if pid.is_file():
            with_children = int(pid.read_text(encoding="ascii"))
            with suppress(ProcessLookupError):
                os.killpg(with_children, signal.SIGKILL)
        shutil.rmtree(home)


def address(storage: Storage) -> Path:
    return storage.folder.parent / "private/socket"


def ask(storage: Storage, path: str, body: dict[str, Any] | None = None) -> bytes:
    """Sends a request to the server as a browser does through `ssh -L 5000:SOCKET`."""
    connection = http.client.HTTPConnection("127.0.0.1", 5000, timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    try:
        connection.sock.connect(str(address(storage)))
        method = "GET" if body is None else "POST"
        connection.request(
            method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return answer.read()
    finally:
        connection.close()


def answers(storage: Storage) -> bool:
    try:
        return ask(storage, "/health") == b"OK"
    except (OSError, http.client.HTTPException):
        return False


def connects_as_someone_else(path: Path) -> bool:
    """Whether a process of another user can connect to a socket."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    child = os.fork()
    if child == 0:
        code = 2
        try:
            os.setgroups([])
            os.setresgid(SOMEONE_ELSE, SOMEONE_ELSE, SOMEONE_ELSE)
            os.setresuid(SOMEONE_ELSE, SOMEONE_ELSE, SOMEONE_ELSE)
            try:
                socket.socket(socket.AF_UNIX).connect(str(path))
                code = 0
            except PermissionError:
                code = 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1)
    return code == 0


def test_another_user_cannot_connect(served: Storage) -> None:
    assert address(served).parent.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(str(served.folder.parent / "open"))
        outside.listen()
        (served.folder.parent / "open").chmod(0o666)
        assert connects_as_someone_else(served.folder.parent / "open"), "the folder above is open to everyone"
    assert ask(served, "/health") == b"OK"
    assert not connects_as_someone_else(address(served))


def test_the_server_has_no_port(served: Storage) -> None:
    leader = int((address(served).parent / "pid").read_text(encoding="ascii"))
    processes = descendants(leader)
    assert len(processes) >= 2
    held = set[str]()
    for pid, _ in processes:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                held.add(os.readlink(link))
    tables = [Path(f"/proc/{leader}/net/{name}") for name in ("tcp", "tcp6", "udp", "udp6")]
    rows = [
        line.split()
        for table in tables
        if table.exists()
        for line in table.read_text(encoding="ascii").splitlines()[1:]
    ]
    assert any(link.startswith("socket:") for link in held) and rows
    assert not [row[1] for row in rows if f"socket:[{row[9]}]" in held]


def test_a_sweep_writes_to_the_database_while_the_server_shows_it(served: Storage) -> None:
    driver = served.driver(finished(KEYS[0]))
    assert driver.close()
    body = {"experiment_ids": [served.runs()[KEYS[0]].info.experiment_id]}
    found = json.loads(ask(served, "/api/2.0/mlflow/runs/search", body))["runs"]
    [shown] = [run for run in found if {"key": "mvae.key", "value": KEYS[0]} in run["data"]["tags"]]
    assert {"key": "test/accuracy", "value": 0.75} in [
        {"key": metric["key"], "value": metric["value"]} for metric in shown["data"]["metrics"]
    ]
    again = served.driver(finished(KEYS[1]))
    assert again.close()
    assert len(json.loads(ask(served, "/api/2.0/mlflow/runs/search", body))["runs"]) == len(found) + 1
    assert not served.said


@pytest.mark.parametrize(
    ("prepare", "where", "said"),
    [
        (lambda home: (home / "open").mkdir(mode=0o755), "open/socket", "other users may enter"),
        (lambda home: (home / "link").symlink_to("/"), "link/socket", "other users may enter /"),
        (lambda home: None, "x" * 120, "Linux allows 107"),
        (lambda home: None, "a b/socket", "contains a space"),
        (lambda home: None, "private/socket", "/runs is not a folder: set MVAE_STORAGE"),
    ],
)
def test_a_socket_that_others_could_open_is_refused(prepare: Any, where: str, said: str, tmp_path: Path) -> None:
    prepare(tmp_path)
    refused = script(home=tmp_path, MLFLOW_SOCKET=str(tmp_path / where))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr and refused.stderr.count("\n") == 1
    assert not (tmp_path / "open").exists() or (tmp_path / "open").stat().st_mode & 0o777 == 0o755, "left as it was"


def test_in_a_batch_job_the_last_line_of_a_command_starts_the_server_on_a_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (*browsing.BATCH_JOBS, "MLFLOW_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(REPOSITORY)
    uri = "sqlite:////scratch/me/runs/mlflow.db"
    assert how_to_browse(uri, on_cluster=False).endswith(f"ui --backend-store-uri {uri}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    command, _, why = how_to_browse(uri, on_cluster=False).partition(" (")
    assert command == (
        f"MLFLOW_BACKEND_STORE_URI={uri} MLFLOW_SOCKET=~/.mvae-mlflow/socket bash cluster/mlflow_server.sh"
    )
    assert why.endswith("docs/browse.md)")
    monkeypatch.setattr(browsing, "SERVER", REPOSITORY / "missing.sh")
    assert how_to_browse(uri, on_cluster=False).startswith("see 'On a machine with other users' in docs/browse.md")
    server = "http://127.0.0.1:5000"
    assert how_to_browse(server, on_cluster=False) == server
