"""A sweep ends by signals, without a reader of its output, or after losing Ray's head. Runs without Ray."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import pytest

from mvae.refusal import Refusal
from sweeps import engine
from sweeps.cli.console import Console
from sweeps.cli.output import outliving_readers
from sweeps.cli.programs import COMPLETE, INCOMPLETE, INTERRUPTED
from sweeps.cli.signals import Interrupted, Interruption
from sweeps.engine import Capacity, attach
from sweeps.engine import watch as watching
from sweeps.engine.machines import PRIVATE
from sweeps.engine.watch import GIVES_UP_AFTER, patience, watch, watched
from sweeps.planning.state import TrialState
from tests.processes import raylet
from tests.test_sweep import Heard, command, tracked

__all__ = ["command", "tracked"]

GONE = "Standard output was closed; the sweep continues without it\n"


# Signals


def signals(*numbers: signal.Signals) -> Callable[..., None]:
    """Replaces the engine's run_jobs. The first signal comes while trials run, the others while the trials are stopped.

    Between two signals all threads have time to react, as between two key presses of a person.
    """

    def run_jobs(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), numbers[0])
            time.sleep(5)
        finally:
            for number in numbers[1:]:
                time.sleep(0.5)
                os.kill(os.getpid(), number)
            time.sleep(0.2)

    return run_jobs


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_for_each_signal_the_sweep_ends_by_saying_how_to_resume(
    command: Callable[[], int],
    tracked: list[Heard],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    monkeypatch.setattr(engine, "run_jobs", signals(number))
    before = signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    try:
        assert command() == INTERRUPTED
    finally:
        signal.signal(number, before)
    assert f"Stopped by {number.name}; finished trials are kept. To resume: " in capsys.readouterr().out
    assert tracked[-1].sweep.state is TrialState.INTERRUPTED


def test_three_sigints_end_a_sweep_once_cleanly_and_with_an_empty_standard_error(
    command: Callable[[], int],
    tracked: list[Heard],
    storage: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)  # the default hook prints; pytest's collects
    monkeypatch.setattr(engine, "run_jobs", signals(signal.SIGINT, signal.SIGINT, signal.SIGINT))
    assert command() == INTERRUPTED
    printed = capfd.readouterr()
    assert printed.err == ""
    assert printed.out.count("Stopping after SIGINT") == 1
    assert printed.out.count("Stopped by SIGINT; finished trials are kept. To resume: ") == 1
    assert printed.out.index("Stopping after SIGINT") < printed.out.index("Stopped by SIGINT")
    assert tracked[-1].sweep.state is TrialState.INTERRUPTED
    assert not (storage / "main" / "lease.json").exists()


def test_a_signal_is_acknowledged_at_once_and_the_countdown_ends_even_if_trials_end_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    console = Console(out, live=True)
    shown = list[str]()

    def stop() -> None:
        with Interruption(console.stopping), console.progress({"a": 1.0}) as progress:
            progress.started("a", "first")
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            finally:
                for _ in range(2):
                    time.sleep(0.5)  # long enough to redraw a progress line twice
                    shown.append(out.getvalue())

    with pytest.raises(Interrupted):
        stop()
    assert "Stopping after SIGINT" in shown[0]
    assert shown[1] == shown[0], "the progress line was redrawn"


def test_a_signal_is_acknowledged_while_the_main_thread_is_blocked() -> None:
    """For example during a call of Ray that does not return to Python for a while."""
    acknowledged = list[tuple[str, str]]()
    interruption = Interruption(lambda name: acknowledged.append((name, interruption.heard)))

    def stop() -> None:
        with interruption:
            threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000)

    with pytest.raises(Interrupted):
        stop()
    assert acknowledged == [("SIGTERM", "")], "the handler ran too early"


def test_a_closed_terminal_does_not_end_what_nohup_started() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            interruption.check()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# Outputs without a reader


def test_a_command_with_closed_output_ends_like_any_other() -> None:
    script = "from sweeps.cli.output import outliving_readers\n"
    script += "with outliving_readers('gone'):\n print('a line', flush=True)\n"
    closed = f'exec "{sys.executable}" -c "$0" >&-'
    ran = subprocess.run(["sh", "-c", closed, script], stderr=subprocess.PIPE, encoding="utf-8", check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def closed_pipe() -> TextIO:
    """Opens a stream into a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w", encoding="utf-8")


def closed_terminal() -> TextIO:
    """Opens a stream to a terminal that was closed."""
    terminal, stream = pty.openpty()
    os.close(terminal)
    return os.fdopen(stream, "w", encoding="utf-8")


@pytest.mark.parametrize("opened", [closed_pipe, closed_terminal])
def test_a_sweep_with_a_closed_output_pipe_stores_its_result_and_succeeds(
    command: Callable[[], int],
    tracked: list[Heard],
    storage: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    opened: Callable[[], TextIO],
) -> None:
    with opened() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert command() == COMPLETE
        monkeypatch.undo()
    assert tracked[-1].sweep.state is TrialState.DONE
    assert len(list((storage / "main" / "results").glob("*.json"))) == 1
    assert capsys.readouterr().err == GONE


def test_printing_an_error_to_a_closed_pipe_raises_nothing() -> None:
    with pytest.MonkeyPatch.context() as patched, closed_pipe() as out, closed_pipe() as err:
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        with outliving_readers(GONE):
            print("a")
            print("b", file=sys.stderr, flush=True)
            sys.stdout.flush()
        assert (sys.stdout, sys.stderr) == (out, err)
        print("after the block", flush=True)


def test_a_full_disk_behind_standard_output_is_still_an_error() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdout", Full())
        with pytest.raises(OSError, match="No space left"), outliving_readers(""):
            print("a")


# Clusters


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_address_of_a_private_cluster_is_refused(host: str) -> None:
    with raylet("127.0.0.1:1", PRIVATE), raylet("127.0.0.1:2", "another/label"):
        attach.check_joinable(f"{host}:2")
        with pytest.raises(Refusal, match=rf"^RAY_ADDRESS {host}:1: this cluster is private to another sweep"):
            attach.check_joinable(f"{host}:1")


def listening() -> tuple[socket.socket, str]:
    server = socket.create_server(("127.0.0.1", 0))
    return server, f"127.0.0.1:{server.getsockname()[1]}"


def test_a_head_that_does_not_answer_for_too_long_is_lost() -> None:
    server, address = listening()
    raylet, there = listening()
    lost, ended = list[str](), threading.Event()
    thread = threading.Thread(target=watch, args=(address, there, lost.append, ended, 0.3, 0.01))
    with raylet:
        thread.start()
        time.sleep(0.2)
        assert lost == []
        server.close()
        thread.join(5)
    assert lost == [f"the head of the Ray cluster at {address} is lost"]


def test_a_head_restarted_within_the_time_limit_is_not_lost() -> None:
    server, address = listening()
    raylet, there = listening()
    lost, ended = list[str](), threading.Event()
    thread = threading.Thread(target=watch, args=(address, there, lost.append, ended, 1.0, 0.01))
    thread.start()
    server.close()
    time.sleep(0.3)
    with raylet, socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        time.sleep(1.2)
        ended.set()
        thread.join(5)
    assert lost == []


def test_a_dead_raylet_is_lost_at_once_even_if_the_head_answers() -> None:
    server, address = listening()
    raylet, gone = listening()
    raylet.close()
    lost = list[str]()
    with server:
        watch(address, gone, lost.append, threading.Event(), 60.0, 0.01)
    assert lost == [f"Ray's process on this machine (raylet, {gone}) is lost"]


def test_a_machine_that_ray_does_not_list_is_no_error_and_the_head_is_still_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, address = listening()
    context = SimpleNamespace(gcs_address=address, get_node_id=lambda: "a")
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    monkeypatch.setattr(watching, "alive", lambda: [{"NodeID": "b"}])
    monkeypatch.setattr(watching, "LOOK_EVERY", 0.01)
    monkeypatch.setenv(GIVES_UP_AFTER, "0.2")
    lost, said = list[str](), threading.Event()

    def hear(what: str) -> None:
        lost.append(what)
        said.set()

    with watched(hear):
        assert not said.wait(0.3)
        server.close()
        assert said.wait(5)
    assert lost == [f"the head of the Ray cluster at {address} is lost"]


def test_a_lost_head_is_detected_before_ray_kills_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GIVES_UP_AFTER, raising=False)
    assert patience() == 30
    monkeypatch.setenv(GIVES_UP_AFTER, "200")
    assert patience() == 100


def test_a_lost_head_ends_a_sweep_with_one_line_on_how_to_resume(
    command: Callable[[], int],
    tracked: list[Heard],
    storage: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exits = list[int]()
    monkeypatch.setattr(os, "_exit", exits.append)

    @contextmanager
    def loses(lost: Callable[[str], None], _say: object) -> Iterator[Capacity]:
        lost("the head of the Ray cluster at 10.0.0.1:6379 is lost")
        assert exits == [INCOMPLETE]
        assert tracked[-1].sweep.state is TrialState.FAILED
        assert not (storage / "main" / "lease.json").exists()
        yield Capacity(1, 0)

    with monkeypatch.context() as once:
        once.setattr(engine, "cluster", loses)
        command()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "stopped: the head of the Ray cluster at 10.0.0.1:6379 is lost; finished trials are kept. To"
    )
    assert command() == COMPLETE
