"""Kill -9 at any line: runs code in forked processes and kills each one a bit later than the previous one.

Only files survive a kill. So if consecutive lines leave the same files, only the first of them is tested.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from mvae.storage.place import AnyPlace


def killed_at_any_line(
    action: Callable[[], object], in_files: tuple[str, ...], before_each: Callable[[], None], below: AnyPlace
) -> Iterator[int]:
    """Kills processes that run `action`, each one file change later than the previous one; yields after each death.

    A process dies before the first line after its last change below the folder. The first process dies before its very
    first line. The last yield follows a run that was not killed. An error in a child process fails the test.

    Args:
        action: the code to be killed.
        in_files: suffixes of the source files whose lines count.
        before_each: prepares the state in which `action` starts.
    """
    number = 0
    while True:
        number += 1
        before_each()
        pid = os.fork()
        if pid == 0:
            _run_and_die(action, in_files, number, on_disk(below))
        _, status = os.waitpid(pid, 0)
        yield number
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, f"the action itself failed before it could be killed at change {number}"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL


def _run_and_die(action: Callable[[], object], in_files: tuple[str, ...], number: int, below: Path) -> None:
    left = number
    last: list[tuple[str, int, int]] | None = None

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left, last
        if not frame.f_code.co_filename.endswith(in_files):
            return None
        if event == "line" and (now := _files(str(below))) != last:
            last, left = now, left - 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    code = 1
    try:
        sys.settrace(trace)
        action()
        code = 0
    finally:
        os._exit(code)


def _files(folder: str) -> list[tuple[str, int, int]]:
    """All files and folders below a folder: path, size and time of the last change in ns."""
    found: list[tuple[str, int, int]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                found.append((entry.path, status.st_size, status.st_mtime_ns))
                if entry.is_dir(follow_symlinks=False):
                    found += _files(entry.path)
    except FileNotFoundError:
        pass
    return found


def fails_when_full(limit: int, real: Callable[..., Any], number: int = errno.ENOSPC) -> Callable[..., Any]:
    """Returns an `os.fsync` for a disk that is full after `limit` calls: later calls raise OSError(number)."""
    calls = 0

    def fsync(descriptor: int) -> Any:
        nonlocal calls
        calls += 1
        if calls > limit:
            raise OSError(number, os.strerror(number))
        return real(descriptor)

    return fsync


def on_disk(place: AnyPlace) -> Path:
    """A test's place as a local path."""
    assert isinstance(place, Path), place
    return place


def files_below(place: AnyPlace) -> set[str]:
    """Paths of all files below a folder, relative to it, without lock files."""
    folder = on_disk(place)
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}
