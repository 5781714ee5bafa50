"""One driver per name: a live lease is refused, a dead lease gets one new owner, and the old owner notices."""

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sweeps.store.lease
from mvae.refusal import Refusal
from mvae.storage.files import FULL, Folder
from sweeps.store.lease import Lease
from sweeps.store.processes import machine, this_process
from tests.crashes import killed_at_any_line

RENEW = 0.1
DEAD = 0.8
"""Seconds until a lease counts as dead, in tests that wait for it."""
NEVER = 60.0
"""Seconds until a lease counts as dead, in tests that must end earlier, even on a slow machine."""
SOON = 20.0
"""Seconds, far below NEVER. If a test is faster, nothing waited for a lease to die."""


class Said(list[str]):
    """Collects the lines that a lease prints."""

    def __call__(self, line: str) -> None:
        self.append(line)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[[], int]]:
    """Starts drivers: forked processes that hold the lease until killed; returns their process ids."""
    children = []

    def start() -> int:
        receive, send = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                with lease(tmp_path, Said()) as mine:
                    os.write(send, b"held")
                    mine.lost.wait()
                    os._exit(3)
            finally:
                os._exit(1)
        os.close(send)
        children.append(pid)
        assert os.read(receive, 4) == b"held"
        os.close(receive)
        return pid

    yield start
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


def lease(folder: Path, say: Callable[[str], None], dead_after: float = NEVER) -> Lease:
    return Lease(folder, say, renew_every=RENEW, dead_after=dead_after)


def from_another_host(folder: Path, counter: int = 5, **changes: object) -> None:
    """Writes a lease file like a driver on another host."""
    content = {
        "owner": "somebody",
        "counter": counter,
        "host": "far-away",
        "machine": "another boot",
        "pid": 1,
        "pid_started": 1,
        "user": "ada",
        "since": 1.7e9,
        **changes,
    }
    (folder / "lease.json").write_text(json.dumps(content), encoding="utf-8")


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def hold_for_a_moment(folder: Path, say: Callable[[str], None], dead_after: float = NEVER) -> None:
    with lease(folder, say, dead_after):
        pass


def test_a_lease_is_held_renewed_and_removed_silently(tmp_path: Path, said: Said) -> None:
    with lease(tmp_path, said) as mine:
        first = json.loads(mine.path.read_bytes())
        time.sleep(3.5 * RENEW)
        later = json.loads(mine.path.read_bytes())
        assert first["owner"] == later["owner"]
        assert later["counter"] > first["counter"] == 0
        assert not mine.lost.is_set()
    assert not mine.path.exists()
    assert said == []


def test_a_lease_is_released_after_an_error(tmp_path: Path, said: Said) -> None:
    with pytest.raises(KeyboardInterrupt), lease(tmp_path, said):
        raise KeyboardInterrupt
    assert not (tmp_path / "lease.json").exists()


def test_a_second_driver_of_a_running_name_is_refused_in_one_line(
    tmp_path: Path, said: Said, drive: Callable[[], int]
) -> None:
    pid = drive()
    with pytest.raises(Refusal, match=f"process {pid} of .* on .*, since .* another --name") as error:
        hold_for_a_moment(tmp_path, said)
    assert "\n" not in str(error.value)
    assert "is in use by" in said[0]
    assert json.loads((tmp_path / "lease.json").read_text(encoding="utf-8"))["pid"] == pid


def test_without_locks_a_second_driver_is_refused_and_one_of_two_simultaneous_ones_stops(
    tmp_path: Path, said: Said, drive: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(_descriptor: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    with Lease(tmp_path, said, RENEW, NEVER, settle=0.0) as mine:
        threading.Timer(
            0.3, from_another_host, (tmp_path,)
        ).start()  # the rival checked the lease earlier, and writes its own now
        assert mine.lost.wait(SOON)
    (tmp_path / "lease.json").unlink()
    threading.Timer(0.1, from_another_host, (tmp_path,)).start()
    with pytest.raises(Refusal, match="far-away"), Lease(tmp_path, said, RENEW, NEVER, settle=1.0):
        raise AssertionError("both hold it")
    (tmp_path / "lease.json").unlink()
    monkeypatch.undo()
    pid = drive()
    monkeypatch.setattr(fcntl, "flock", without)
    with pytest.raises(Refusal, match=f"process {pid} of .* another --name"):
        hold_for_a_moment(tmp_path, said)


def test_a_driver_killed_on_this_host_is_replaced_at_once_even_as_a_zombie(
    tmp_path: Path, said: Said, drive: Callable[[], int]
) -> None:
    for reaped in (False, True):
        pid = drive()
        os.kill(pid, signal.SIGKILL)
        if reaped:
            os.waitpid(pid, 0)
        else:
            time.sleep(0.1)
        assert seconds(lambda: hold_for_a_moment(tmp_path, said)) < SOON
        assert "died; taking over" in said[-1]
        assert str(pid) in said[-1]


def test_a_driver_killed_while_the_next_one_waits_is_replaced_at_once(
    tmp_path: Path, said: Said, drive: Callable[[], int]
) -> None:
    pid = drive()
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    assert 0.15 < seconds(lambda: hold_for_a_moment(tmp_path, said)) < SOON


def test_a_reused_process_id_is_not_mistaken_for_the_driver(tmp_path: Path, said: Said) -> None:
    here = this_process()
    from_another_host(tmp_path, host=here.host, machine=here.machine, pid=here.pid, pid_started=here.pid_started - 1)
    assert seconds(lambda: hold_for_a_moment(tmp_path, said)) < SOON


def test_another_hosts_lease_that_is_not_renewed_is_taken_over_after_the_wait(tmp_path: Path, said: Said) -> None:
    from_another_host(tmp_path)
    assert DEAD <= seconds(lambda: hold_for_a_moment(tmp_path, said, DEAD)) < SOON
    assert "process 1 of ada on far-away" in said[0]
    assert "waiting up to" in said[0]
    assert "died; taking over" in said[1]


def test_the_same_host_in_another_pid_namespace_is_watched_and_not_presumed_dead(tmp_path: Path, said: Said) -> None:
    boot = machine().split()[0]
    from_another_host(tmp_path, host=platform.node(), machine=f"{boot} pid:[1]", pid=2**22 + 1)
    assert seconds(lambda: hold_for_a_moment(tmp_path, said, DEAD)) >= DEAD


def test_another_hosts_lease_that_is_renewed_is_refused(tmp_path: Path, said: Said) -> None:
    from_another_host(tmp_path)
    threading.Timer(0.4, from_another_host, (tmp_path, 6)).start()
    with pytest.raises(Refusal, match="far-away"):
        hold_for_a_moment(tmp_path, said)
    assert json.loads((tmp_path / "lease.json").read_text(encoding="utf-8"))["owner"] == "somebody"


def test_a_lease_released_while_the_next_driver_waits_is_taken(tmp_path: Path, said: Said) -> None:
    from_another_host(tmp_path)
    threading.Timer(0.2, (tmp_path / "lease.json").unlink).start()
    assert seconds(lambda: hold_for_a_moment(tmp_path, said)) < SOON


def test_a_lease_file_that_cannot_be_read_is_watched_and_taken_over(tmp_path: Path, said: Said) -> None:
    (tmp_path / "lease.json").write_bytes(b'{"owner": 1')
    assert seconds(lambda: hold_for_a_moment(tmp_path, said, DEAD)) >= DEAD
    assert "unreadable lease" in said[0]


def test_exactly_one_of_the_waiting_drivers_wins_and_the_others_name_it(tmp_path: Path) -> None:
    from_another_host(tmp_path)
    code = (
        "import sys; from pathlib import Path; from mvae.refusal import Refusal; from sweeps.store.lease import Lease\n"
        "try:\n"
        f"    with Lease(Path(sys.argv[1]), lambda line: None, {RENEW}, {2 * DEAD}):\n"
        "        print('won', flush=True); sys.stdin.read()\n"
        "except Refusal as error:\n"
        "    print('refused', error)\n"
    )
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            cwd=Path(sweeps.store.lease.__file__).parents[1],
        )
        for _ in range(3)
    ]
    end = time.monotonic() + 60
    while sum(driver.poll() is not None for driver in drivers) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    answers = sorted(driver.communicate(timeout=60)[0] for driver in drivers)
    assert [answer.split()[0] for answer in answers] == ["refused", "refused", "won"]
    assert {driver.returncode for driver in drivers} == {0}
    assert all(any(f"process {driver.pid} " in answer for driver in drivers) for answer in answers[:2])


def test_a_stopped_driver_that_wakes_up_notices_its_lost_lease_and_keeps_the_new_owners(
    tmp_path: Path, said: Said, drive: Callable[[], int]
) -> None:
    pid = drive()
    time.sleep(0.02)
    os.kill(pid, signal.SIGSTOP)
    with lease(tmp_path, said, DEAD) as heir:
        os.kill(pid, signal.SIGCONT)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 3
        time.sleep(2 * RENEW)
        assert json.loads(heir.path.read_bytes())["pid"] == os.getpid()
        assert not heir.lost.is_set()


def test_a_driver_whose_lease_was_taken_over_and_released_has_lost_it_too(tmp_path: Path, said: Said) -> None:
    with lease(tmp_path, said) as mine:
        mine.path.unlink()
        assert mine.lost.wait(10 * RENEW)
    assert "lost" in said[-1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_temporarily_full_disk_or_quota_is_reported_once_and_does_not_lose_the_lease(
    number: int, tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(number, os.strerror(number))

    with lease(tmp_path, said) as mine:
        with monkeypatch.context() as disk:
            disk.setattr(Folder, "write_bytes", full)
            time.sleep(4 * RENEW)
        counter = json.loads(mine.path.read_bytes())["counter"]
        time.sleep(4 * RENEW)
        assert json.loads(mine.path.read_bytes())["counter"] > counter
        assert not mine.lost.is_set()
    assert len(said) == 1
    assert f"({os.strerror(number)}): {mine.path}; {FULL[number]}; will keep trying" in said[0]


def test_time_that_this_machine_slept_does_not_make_a_lease_look_dead(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_another_host(tmp_path)
    real, start = time.monotonic, time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: real() + (3600 if real() > start + 0.1 else 0))
    assert seconds(lambda: hold_for_a_moment(tmp_path, said, DEAD)) > DEAD / 2


def test_a_forked_child_that_ends_does_not_release_its_parents_lease(tmp_path: Path, said: Said) -> None:
    with lease(tmp_path, said) as mine:
        pid = os.fork()
        if pid == 0:
            mine.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(pid, 0)
        assert mine.path.exists()


def test_after_a_kill_at_any_line_the_next_driver_starts_at_once(tmp_path: Path, said: Said) -> None:
    for _ in killed_at_any_line(
        lambda: hold_for_a_moment(tmp_path, said),
        ("sweeps/store/lease.py", "mvae/storage/files.py"),
        lambda: None,
        tmp_path,
    ):
        assert seconds(lambda: hold_for_a_moment(tmp_path, said)) < SOON
        assert not (tmp_path / "lease.json").exists()
