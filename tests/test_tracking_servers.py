"""Tracking servers and addresses: refusals, and the cost of a server that dies or does not answer."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from mvae.refusal import Refusal
from sweeps.cli.tracking_uri import default_uri, tracking_uri
from sweeps.tracking import mirror, tracker
from sweeps.tracking.server import ask, check
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.view import RunView, SweepView
from tests.tracked import (
    KEYS,
    NAMESPACE,
    SWEEP,
    Storage,
    expected_rows,
    finished,
    free_port,
    no_model,
    running,
    storage,
    until,
)

__all__ = ["storage"]


@dataclass
class Server:
    """A real tracking server with its own database."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--workers", "1", "--host", "127.0.0.1", "--port", str(self.port)]
        stores = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        stores += ["--artifacts-destination", str(self.folder / "served")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options, *stores],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(lambda: not ask(self.uri), 90)

    def kill(self) -> None:
        """Kills the server and its workers at once: the server leads a session that we started."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(storage: Storage) -> Iterator[Server]:
    server = Server(storage.folder, free_port())
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_that_restarts_during_a_sweep_gives_one_warning_and_ends_complete(
    storage: Storage, server: Server
) -> None:
    server.start()
    check(server.uri)
    storage.uri = server.uri
    storage.load_model = lambda view: (torch.nn.Linear(4, 3).eval(), np.zeros((1, 4), np.float32))
    driver = storage.driver(running(KEYS[0], 1), retry_seconds=1)
    until(lambda: len(storage.rows()) == 3)
    server.kill()
    start = time.monotonic()
    driver.update(running(KEYS[0], 2))
    until(lambda: storage.said)
    driver.update(finished(KEYS[0]))
    driver.update(running(KEYS[1], 2))
    assert time.monotonic() - start < 10
    server.start()
    assert driver.close()
    assert [line.split(" (")[0] for line in storage.said if "training continues" in line] == [
        f"cannot write to MLflow at {server.uri}"
    ]
    assert storage.rows() == sorted([*expected_rows(finished(KEYS[0])), *expected_rows(running(KEYS[1], 2))])
    statuses = {name: run.info.status for name, run in storage.runs().items()}
    assert statuses == {KEYS[0]: "FINISHED", KEYS[1]: "KILLED", "table4": "KILLED"}
    assert storage.models() == 1


def test_closing_waits_a_limited_time_for_a_dead_server(storage: Storage) -> None:
    storage.uri = f"http://127.0.0.1:{free_port()}"
    driver = storage.driver(finished(KEYS[0]))
    start = time.monotonic()
    assert not driver.close(1.0)
    assert time.monotonic() - start < 2
    until(lambda: len(storage.said) == 2)
    assert any("run the same command again to fill in what is missing" in line for line in storage.said)


@pytest.mark.timeout(60)
def test_rewriting_known_keys_does_not_extend_the_wait_at_close(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[str] = []

    def full(mirror: mirror.Mirror, sweep: SweepView) -> None:
        again.append(sweep.name)
        raise OSError("no space left on device")

    monkeypatch.setattr(mirror.Mirror, "sync_sweep", full)
    monkeypatch.setattr(tracker, "CLOSING_RETRY_SECONDS", 0.05)
    driver = storage.driver(*(finished(key) for key in KEYS))
    until(lambda: again)
    assert not driver.close(2.0)
    assert len(again) > 2, "all keys were written several times"


def test_a_tracker_that_timed_out_writes_no_further_key(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    server_answers = threading.Event()

    def slow(mirror: mirror.Mirror, view: RunView, sweep: str) -> None:
        written.append(view.key)
        server_answers.wait(30)

    monkeypatch.setattr(mirror.Mirror, "sync", slow)
    monkeypatch.setattr(mirror.Mirror, "sync_sweep", lambda mirror, sweep: written.append(sweep.name))
    driver = storage.driver(*(finished(key) for key in KEYS))
    until(lambda: written)
    assert not driver.close(0.1)
    server_answers.set()
    driver._thread.join(30)
    assert not driver._thread.is_alive()
    assert written == [KEYS[0]]


def test_closing_before_the_start_does_not_wait(storage: Storage) -> None:
    never = Tracker(
        storage.uri,
        namespace=NAMESPACE,
        experiment="main",
        sweep=SWEEP,
        artifacts=storage.folder,
        load_model=no_model,
        say=storage.said.append,
    )
    start = time.monotonic()
    assert not never.close()
    assert time.monotonic() - start < 1


def test_an_unreachable_server_is_refused_in_one_line() -> None:
    uri = f"http://someone:secret@127.0.0.1:{free_port()}"
    with pytest.raises(Refusal, match=r"cannot be reached \(.*refused\): start it, correct --tracking-uri") as error:
        check(uri)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_refused_within_10_seconds() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        start = time.monotonic()
        with pytest.raises(Refusal, match="did not answer within"):
            check(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert time.monotonic() - start < 10


class Pages(http.server.BaseHTTPRequestHandler):
    """A web site that is no tracking server."""

    def do_GET(self) -> None:
        self.send_response(404 if "missing" in self.path else 200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_a_web_site_is_refused_as_a_tracking_server() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Pages) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{site.server_port}"
        with pytest.raises(Refusal, match="is not an MLflow server"):
            check(uri)
        with pytest.raises(Refusal, match=r"refused the request .404"):
            check(f"{uri}/missing")
        site.shutdown()


def test_a_file_that_is_no_database_is_refused_and_a_new_database_is_not_created_yet(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database at all", encoding="utf-8")
    with pytest.raises(Refusal, match="is not a SQLite file"):
        check(f"sqlite:///{text}")
    with pytest.raises(Refusal, match="cannot write to the folder"):
        check(f"sqlite:///{text}/mlflow.db")
    with pytest.raises(Refusal, match="is not a readable and writable file"):
        check(f"sqlite:///{tmp_path}")
    check(default_uri(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_mlflow_gets_uris_with_absolute_paths_and_without_a_trailing_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_uri("sqlite:///here.db") == f"sqlite:///{tmp_path}/here.db"
    assert tracking_uri(default_uri(tmp_path)) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri("http://there:5000/") == "http://there:5000"
    assert tracking_uri("postgresql+psycopg2://u:p@host/db") == "postgresql+psycopg2://u:p@host/db"


@pytest.mark.parametrize("uri", ["localhost:5000", "file:///tmp/mlruns", "./mlruns", "sqlite://", "ftp://host"])
def test_a_uri_that_mlflow_does_not_support_is_refused(uri: str) -> None:
    with pytest.raises(Refusal, match=r"write http://HOST:PORT for a server or sqlite:///"):
        tracking_uri(uri)
