"""Processes of a test: which ones descend from another, whether they still run, and how to kill exactly one."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

Process = tuple[int, int]
"""Process id and start in clock ticks since boot: together they never mean another process."""


def alive(processes: list[Process]) -> list[str]:
    """Command lines of those that still run, zombies not counted."""
    return [command_line(process) or str(process) for process in processes if started(process[0]) == process[1]]


def kill(process: Process) -> None:
    """Kill -9 of that very process, if it is still there."""
    if started(process[0]) == process[1]:
        with suppress(ProcessLookupError):
            os.kill(process[0], signal.SIGKILL)


def started(pid: int) -> int | None:
    """When a process started; None if there is none, or a zombie."""
    found = _stat(pid)
    return None if found is None or found[0] in "ZX" else found[2]


def descendants(pid: int) -> list[Process]:
    """A process and all below it that live."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := _stat(int(entry.name))) is not None:
            children.setdefault(found[1], []).append(int(entry.name))
    todo, tree = [pid], []
    while todo:
        one = todo.pop()
        todo += children.get(one, [])
        if (since := started(one)) is not None:
            tree.append((one, since))
    return tree


def command_line(process: Process) -> str:
    """The command line of a process as /proc shows it."""
    try:
        return Path(f"/proc/{process[0]}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _stat(pid: int) -> tuple[str, int, int] | None:
    """State, parent and start of a process (proc(5), stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), int(fields[19])
