"""Finds the descendants of a process and their listeners, checks whether processes still run, and kills exactly one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1 and ::ffff:127.0.0.1, in hexadecimal digits as in proc(5)."""

Process = tuple[int, int]
"""Process id and start time in clock ticks since boot, which together identify a process."""


def alive(processes: list[Process]) -> list[str]:
    """Command lines of the processes that still run, without zombies."""
    return [command_line(process) or str(process) for process in processes if started(process[0]) == process[1]]


def kill(process: Process) -> None:
    """Kills exactly this process with signal 9, if it still exists."""
    if started(process[0]) == process[1]:
        with suppress(ProcessLookupError):
            os.kill(process[0], signal.SIGKILL)


def started(pid: int) -> int | None:
    """Start time of a process; None if it does not exist or is a zombie."""
    found = _stat(pid)
    return None if found is None or found[0] in "ZX" else found[2]


def descendants(pid: int) -> list[Process]:
    """A process and all its living descendants."""
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


def listening(processes: list[Process]) -> list[str]:
    """Addresses on which the processes listen, in hexadecimal digits as in proc(5)."""
    own = set[str]()
    for pid, _ in processes:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                own.add(os.readlink(descriptor))
    tables = [Path(f"/proc/{processes[0][0]}/net/{name}").read_text(encoding="utf-8") for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return [row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]


@contextmanager
def raylet(address: str, label: str) -> Iterator[None]:
    """A process that looks like the raylet of a cluster with this address and label, which all searches find."""
    line = ["/usr/bin/raylet", "-c", "read line", f"--gcs-address={address}", f'--labels={{"{label}": "true"}}']
    with subprocess.Popen(line, executable="/bin/sh", stdin=subprocess.PIPE) as process:
        while not command_line((process.pid, 0)).startswith(line[0]):
            time.sleep(0.01)
        yield
        process.kill()


def _stat(pid: int) -> tuple[str, int, int] | None:
    """State, parent and start of a process (proc(5), stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), int(fields[19])
