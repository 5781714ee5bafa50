"""Kill -9 at every line: run a piece of code in forked processes, the n-th of which kills itself at the n-th line."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from mvae.remote import Place


def killed_at_every_line(
    action: Callable[[], object], in_files: tuple[str, ...], before_each: Callable[[], None]
) -> Iterator[int]:
    """Yield after each death of a process that ran `action` up to the n-th line of these source files, n = 1, 2, ...

    Ends when a run gets through alive, after yielding once more. An error in the child is an error here.

    Args:
        action: what is killed.
        in_files: ends of the paths of the files whose lines count.
        before_each: arranges the state that `action` starts from.
    """
    number = 0
    while True:
        number += 1
        before_each()
        pid = os.fork()
        if pid == 0:
            _run_and_die(action, in_files, number)
        _, status = os.waitpid(pid, 0)
        yield number
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, f"the action itself failed when it was to die at line {number}"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL


def _run_and_die(action: Callable[[], object], in_files: tuple[str, ...], number: int) -> None:
    left = number

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(in_files):
            return None
        if event == "line":
            left -= 1
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


def fails_when_full(limit: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """A stand-in for `os.fsync` on a disk that is full after `limit` calls: later ones raise OSError(ENOSPC)."""
    calls = 0

    def fsync(descriptor: int) -> Any:
        nonlocal calls
        calls += 1
        if calls > limit:
            raise OSError(28, "No space left on device")
        return real(descriptor)

    return fsync


def on_disk(place: Place) -> Path:
    """A place of the tests' own, which is a folder or file of this machine."""
    assert isinstance(place, Path), place
    return place


def files_below(place: Place) -> set[str]:
    """Paths of all files below a folder, relative to it, without lock files."""
    folder = on_disk(place)
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}
