"""Progress lines name what a command starts or waits for, and the usual duration. Runs without Ray and MLflow."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import ray

from mvae.data import DATASETS
from mvae.refusal import Refusal
from pipelines.weak_supervision import Options, sweep
from sweeps.cli.data_lines import preparing
from sweeps.cli.options import read
from sweeps.cli.tracking_uri import default_uri
from sweeps.engine import Capacity, attach
from sweeps.main import COMPLETE, main
from sweeps.tracking import server, tracker
from sweeps.tracking.view import RunView, SweepView
from tests.test_sweep import Heard, tracked
from tests.tracked import KEYS, Storage, finished

__all__ = ["tracked"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Options with which Ray would have been started."""
    options: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **given: options.append(given))
    monkeypatch.setattr(attach, "current_capacity", lambda: Capacity(2, 0, final=False))
    monkeypatch.setattr(attach, "capacity", lambda _: Capacity(2, 0))
    monkeypatch.setattr(attach, "alive", list)
    monkeypatch.setattr(attach, "watched", nullcontext)
    monkeypatch.setattr(attach, "shut_down", lambda: None)
    return options


def test_a_private_cluster_is_announced_before_it_is_started(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    said: list[str] = []

    def say(line: str) -> None:
        assert not started
        said.append(line)

    with attach.cluster(say=say):
        assert started
    assert said == ["Starting Ray on this machine, which usually takes 5 to 20 s"]


def test_joining_a_cluster_starts_nothing_and_announces_nothing(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    said: list[str] = []
    with attach.cluster(say=said.append):
        assert started
    assert said == []


@pytest.fixture
def silent() -> Iterator[str]:
    """URI of a server that never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_does_not_answer_at_once_is_announced_and_then_refused(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "NOTICE_SECONDS", 0.05)
    monkeypatch.setattr(server, "CHECK_LIMIT", 0.2)
    said: list[str] = []
    with pytest.raises(Refusal, match="did not answer within"):
        server.check(silent, said.append)
    (line,) = said
    assert line.startswith(f"Waiting for the tracking server {silent}, which usually answers within 1 s (at most ")


def test_a_database_file_is_checked_without_an_announcement(tmp_path: Path) -> None:
    said: list[str] = []
    server.check(default_uri(tmp_path), said.append)
    assert said == []


@pytest.mark.parametrize("server", [True, False], ids=["server", "file"])
def test_the_wait_for_a_server_at_the_end_is_announced_once(
    server: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Event()

    class Slow:
        """An MLflow that answers late."""

        experiment = "1"

        def sync(self, view: RunView, sweep: str) -> None:
            answers.wait(30)

        def sync_sweep(self, sweep: SweepView) -> None:
            pass

        def links(self) -> dict[str, str]:
            return {KEYS[0]: "a page"}

    monkeypatch.setattr(tracker, "NOTICE_SECONDS", 0.05)
    monkeypatch.setattr(tracker.Tracker, "_open", lambda _: Slow())
    storage = Storage(tmp_path, "http://me:secret@host:5000" if server else default_uri(tmp_path))
    driver = storage.driver(finished(KEYS[0]))
    assert driver.links(0.2) == {}
    assert not driver.close(0.2)
    answers.set()
    line = "Waiting for MLflow at http://host:5000 to store the latest results, which usually takes a few seconds"
    assert [said for said in storage.said if "Waiting" in said] == [line] * server


def test_a_pipeline_announces_a_conversion_before_it_starts(
    tracked: list[Heard], storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(seeds: str) -> list[str]:
        where = ("--storage", str(storage), "--cache", str(tmp_path / "cache"))
        options = read(Options, (*where, "--arms", "nn", "--fractions", "1", "--epochs", "1", "--seeds", seeds))
        assert main(lambda: sweep(options), options) == COMPLETE
        return capsys.readouterr().out.splitlines()

    announced, converting, header, *_ = said("0")
    assert announced == "Preparing digits, which usually takes a few seconds"
    assert converting.startswith(f"converting digits to {tmp_path / 'cache'}")
    assert said("0-1")[0] == header.replace("1 trial", "2 trials, 1 done")


def test_a_data_set_with_a_slow_conversion_is_announced_as_slow() -> None:
    said = {name: preparing(name).partition(", which ")[2] for name in DATASETS}
    assert said["celeba"] == said["faces"] == "can take many minutes the first time"
    assert said["mnist"] == "usually takes a few seconds"
