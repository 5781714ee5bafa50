"""Identifies a process by host, boot, PID namespace, process id and start time. Checks whether the process has ended.

A process id is not unique: ids are reused, containers have their own ids, and several machines may share a folder.
"""

import getpass
import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """Identity of one process, unique over hosts, boots and containers."""

    host: str
    machine: str
    """Boot id and PID namespace that `pid` belongs to; empty if the system does not provide them."""
    pid: int
    pid_started: int
    """Start time of the process in clock ticks since boot, to distinguish processes with the same id."""

    def is_dead(self) -> bool:
        """Whether the process is known to have ended. False for processes of another host, boot or PID namespace."""
        if not self.machine or (self.host, self.machine) != (platform.node(), machine()):
            return False
        return process_start(self.pid) != self.pid_started


def this_process() -> Process:
    """Returns the identity of the process that calls this function."""
    pid = os.getpid()
    return Process(host=platform.node(), machine=machine(), pid=pid, pid_started=process_start(pid) or 0)


def machine() -> str:
    """Returns boot id and PID namespace, or "" if the system does not provide them.

    The boot id is not enough: containers on one machine have the same boot id, but separate process ids.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def process_start(pid: int) -> int | None:
    """Returns the start time of a process in clock ticks since boot, or None if the process has ended or is a zombie.

    Source: proc(5), stat.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def user() -> str:
    """Returns the name of the user who runs this process; "user <number>" if the user has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
