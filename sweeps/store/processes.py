"""Which process made something, and whether it is gone: told apart by host, boot, PID namespace, id and start.

A process id alone says little: it is used again, it means another process in another container, and a folder may be
shared with other machines.
"""

from __future__ import annotations

import getpass
import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process, never to be taken for another."""

    host: str
    machine: str
    """Boot and PID namespace in which `pid` means something; empty where the system does not tell."""
    pid: int
    pid_started: int
    """When the process started, in clock ticks since boot: a process id used again is another process."""

    def is_dead(self) -> bool:
        """Whether it ran where this process runs and is gone. False where that cannot be known."""
        if not self.machine or (self.host, self.machine) != (platform.node(), machine()):
            return False
        return process_start(self.pid) != self.pid_started


def this_process() -> Process:
    """The process that asks."""
    pid = os.getpid()
    return Process(host=platform.node(), machine=machine(), pid=pid, pid_started=process_start(pid) or 0)


def machine() -> str:
    """Boot id and PID namespace: containers on one machine share the first, and have processes of their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def process_start(pid: int) -> int | None:
    """Start of a process in clock ticks since boot; None if there is none, or it is a zombie (proc(5), stat)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
