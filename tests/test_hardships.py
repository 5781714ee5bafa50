"""Sweeps in their own processes under hard conditions: small machine, closed terminal, lost head, foreign cluster."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from sweeps.engine.watch import GIVES_UP_AFTER
from tests.processes import alive, command_line, kill
from tests.sweeping import Driver, Place, place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SHORT = ("--arms", "nn", "--fractions", "1", "--seeds", "0", "--epochs", "2")
ENDLESS = ("--arms", "mvae", "--targets", "own", "--fractions", "1", "--seeds", "0", "--epochs", "100000")

POOR = 'ulimit -n 256; mount -t tmpfs -o size=8m none /dev/shm && exec "$@"'
"""Allows 256 open files and 8 MB of shared memory, in which Ray keeps its objects."""


def begun(here: Place, **environment: str) -> Driver:
    """Starts an endless sweep and waits for its first epoch."""
    driver = here.start(*ENDLESS, **environment)
    driver.until(lambda: sum(here.epochs().values()) >= 1, "its first epoch was done")
    return driver


def test_a_sweep_works_on_a_small_machine_behind_dead_proxies_with_warnings_as_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apart = ["unshare", "--mount", "sh", "-c"]
    if subprocess.run([*apart, "mount -t tmpfs -o size=8m none /dev/shm"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespaces for this user: /dev/shm cannot be made small")
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")  # /dev/shm is hidden
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://[::1]:9")
    with place(begun=True) as here:
        ended = here.launch([*apart, POOR, "sh", *here.command(*SHORT)], **proxies, PYTHONWARNINGS="error").ended()
        assert (ended.code, ended.err) == (0, ""), ended
        assert len(here.results()) == 1
        assert here.running() == []


def test_nobody_can_join_a_sweeps_private_cluster_and_a_lost_head_is_reported() -> None:
    with place(begun=True) as here:
        driver = begun(here, **{GIVES_UP_AFTER: "20"})
        (gcs,) = (one for one in driver.tree() if "gcs_server" in command_line(one).split(" ")[0])
        found = re.search(r"--gcs-address=(\S+)", " ".join(map(command_line, driver.tree())))
        assert found is not None
        # "auto" searches the whole machine, and might find another cluster than this test's
        joining = here.run(*SHORT, "--name", "other", RAY_ADDRESS=found[1])
        assert joining.code == 2, joining
        assert joining.err.startswith(f"RAY_ADDRESS {found[1]}: this cluster is private to another sweep")
        assert joining.err.count("\n") == 1
        kill(gcs)
        ended = driver.ended()
        assert ended.code == 1, ended
        assert ended.err.count("\n") == 1 and re.match(
            r"stopped: the head of the Ray cluster at \S+ is lost; finished trials are kept. To resume: ", ended.err
        )
        assert here.running() == []
        assert not (here.store.folder / "lease.json").exists()


def test_a_lost_raylet_is_reported() -> None:
    with place(begun=True) as here:
        driver = begun(here)
        (raylet,) = (one for one in driver.tree() if command_line(one).split(" ")[0].endswith("/raylet"))
        kill(raylet)
        ended = driver.ended()
        assert ended.code == 1, ended
        assert ended.err.count("\n") == 1 and "; finished trials are kept" in ended.err, ended
        assert here.running() == []


def blocks_hangups(pid: int) -> bool:
    """Whether SIGHUP, which a closed terminal sends to the whole process group, is blocked (proc(5), status)."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    return bool(int(lines["SigBlk"], 16) & 1 << (signal.SIGHUP - 1))


IN_A_TERMINAL = """
import os, pty, signal, sys, time
from pathlib import Path

child, terminal = pty.fork()
if child == 0:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a test run under nohup ignores it, and children inherit that
    os.execv(sys.argv[2], sys.argv[2:])
os.set_blocking(terminal, False)
while not Path(sys.argv[1]).exists():
    try:
        os.read(terminal, 65536)
    except BlockingIOError:
        time.sleep(0.05)
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Runs a command in a terminal and closes the terminal when a file appears; prints the exit code."""


def test_a_sweep_whose_terminal_is_closed_ends_cleanly_and_leaves_no_process() -> None:
    with place(begun=True) as here:
        closing = here.root / "close"
        driver = here.launch([sys.executable, "-c", IN_A_TERMINAL, str(closing), *here.command(*ENDLESS)])
        driver.until(lambda: sum(here.epochs().values()) >= 1, "its first epoch was done")
        processes = driver.tree()
        daemons = [one for one in processes if re.search(r"/(raylet|gcs_server)$", command_line(one).split(" ")[0])]
        assert [blocks_hangups(pid) for pid, _ in daemons] == [True, True], (
            "the processes must still run when the driver ends"
        )
        closing.touch()
        ended = driver.ended()
        assert ended.out == "130\n", ended
        until = time.monotonic() + 10
        while alive(processes) and time.monotonic() < until:
            time.sleep(0.1)
        assert alive(processes) == []
        assert here.running() == []
        assert here.leftovers() == []
