"""Files shared between processes: complete or absent, one writer at a time, digests that detect changes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from mvae.storage.files import (
    NO_LOCKS,
    Folder,
    atomic_path,
    locked,
    set_aside,
    sha256_cached,
    write_atomically,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_appears_complete_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "a.json", b"new")
    write_atomically(tmp_path / "deep" / "a.json", b"newer")
    assert (tmp_path / "deep" / "a.json").read_bytes() == b"newer"
    assert names(tmp_path / "deep") == ["a.json"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_while_writing_keeps_the_old_file_and_leaves_no_temporary_file(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.json"]


def test_a_reader_keeps_the_old_content_when_the_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, b"old and long")
    with path.open("rb") as reader:
        write_atomically(path, b"new")
        assert reader.read() == b"old and long"


def test_a_new_file_has_the_permissions_allowed_by_the_umask(tmp_path: Path) -> None:
    write_atomically(tmp_path / "ours", b"")
    (tmp_path / "plain").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_unfinished_and_just_deleted_files_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "a" / "there", b"12")
    (tmp_path / "a" / "going").touch()
    real = Path.is_file

    def goes_after_the_look(path: Path) -> bool:
        found = real(path)
        if path.name == "going":
            path.unlink()
        return found

    monkeypatch.setattr(Path, "is_file", goes_after_the_look)
    with atomic_path(tmp_path / "a" / "new.png") as temporary:
        temporary.write_bytes(b"half")
        found = Folder(tmp_path).listing()
    assert {name: size for name, (size, _) in found.items()} == {"a/there": 2}
    assert list(Folder(tmp_path).listing()) == ["a/new.png", "a/there"]


def test_a_lock_excludes_other_threads_of_the_same_process(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path / "target"):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(tmp_path / "target"):
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def hold_for_ever(target: Path, held: Event) -> None:
    with locked(target):
        held.set()
        time.sleep(600)


def test_a_killed_process_releases_its_lock_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    holder = context.Process(target=hold_for_ever, args=(tmp_path / "target", held))
    holder.start()
    assert held.wait(60)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    started = time.monotonic()
    with locked(tmp_path / "target"):
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("number", sorted(NO_LOCKS), ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_detected_and_still_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    target = Folder(tmp_path) / "folder" / "target"
    assert target.has_locks()
    with locked(target):
        assert target.has_locks(), "a lock that is held must not count as missing support"

    def without(_descriptor: int, _how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without)
    assert not target.has_locks()
    with locked(target), pytest.raises(KeyboardInterrupt):
        raise KeyboardInterrupt


def test_any_other_failure_to_lock_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int, _how: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output"), locked(tmp_path / "target"):
        raise AssertionError("it was taken for held")


def test_files_set_aside_never_overwrite_each_other(tmp_path: Path) -> None:
    for content in (b"one", b"two", b"three"):
        (tmp_path / "a").write_bytes(content)
        set_aside(tmp_path / "a")
    assert [(tmp_path / name).read_bytes() for name in ("a.bad", "a.bad-2", "a.bad-3")] == [b"one", b"two", b"three"]
    assert not (tmp_path / "a").exists()


def test_setting_aside_a_file_that_another_process_moved_is_no_error(tmp_path: Path) -> None:
    set_aside(tmp_path / "gone")
    assert names(tmp_path) == []


def test_digests_hash_the_bytes_and_detect_a_replaced_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"", b"x" * 3_000_001, b"y" * 3_000_001):
        write_atomically(path, content)
        assert sha256_cached(path) == hashlib.sha256(content).hexdigest()


def test_a_digest_is_computed_once_per_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content")
    reads: list[Path] = []

    real = Path.open

    def count(read: Path, *arguments: Any) -> Any:
        reads.append(read)
        return real(read, *arguments)

    monkeypatch.setattr(Path, "open", count)
    assert [sha256_cached(path) for _ in range(3)] == [hashlib.sha256(b"content").hexdigest()] * 3
    assert len(reads) == 1
