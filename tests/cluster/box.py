"""Outer namespaces on a Linux box, in which a lab's machines run (lab.py, slurm.py)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self

NAMESPACES = ("--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--propagation", "private")
BOOT_SECONDS = 60.0


class Bootable(Protocol):
    """A machine that can be switched on."""

    @property
    def outside(self) -> subprocess.Popen[bytes] | None:
        """Handle, on the box, of the machine's namespaces; None while the machine is off."""

    def boot(self) -> None:
        """Switches the machine on."""


class Box:
    """Machines in outer namespaces, which end with the block or when this process dies."""

    folder: ClassVar[str]
    """Folder of the box below which the lab's temporary folder is made."""
    prefix: ClassVar[str]
    """Beginning of the temporary folder's name."""

    def __init__(self) -> None:
        self._outside: subprocess.Popen[bytes] | None = None
        self._init = 0

    @property
    def machines(self) -> Sequence[Bootable]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.state = Path(tempfile.mkdtemp(prefix=self.prefix, dir=self.folder))
        try:
            self._prepare()
            self._open()
            for machine in self.machines:
                machine.boot()
            self._booted()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._outside is not None:
            self._outside.kill()  # its child, the first process of the namespaces, is killed too
            self._outside.wait()
            for machine in self.machines:
                if machine.outside is not None:
                    machine.outside.wait()
        shutil.rmtree(self.state, ignore_errors=True)

    def within(self, namespaces: str = "--all") -> list[str]:
        """First words of a command line that runs in the outer namespaces."""
        return ["nsenter", "-t", str(self._init), namespaces, "--"]

    def _prepare(self) -> None:
        """Writes the files that the machines need."""

    def _open(self) -> None:
        """Opens the outer namespaces, by `_run_outside`."""
        raise NotImplementedError

    def _booted(self) -> None:
        """Waits until the machines are ready."""

    def _run_outside(self, script: str, log: Path) -> None:
        """Runs a script as first process of the outer namespaces, and waits until the script makes the file `open`."""
        with log.open("wb") as said:
            self._outside = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "--mount-proc", "bash", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self._init = child_of(self._outside.pid, self._outside)
        deadline = time.monotonic() + BOOT_SECONDS
        while not (self.state / "open").exists():
            on = self._outside.poll() is None and time.monotonic() < deadline
            assert on, f"the lab does not start: {log.read_text(errors='replace', encoding='utf-8')}"
            time.sleep(0.02)


def child_of(pid: int, started: subprocess.Popen[bytes]) -> int:
    """Waits for the child of a process; `started`, which creates it, must stay alive."""
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        except OSError:
            children = []
        if children:
            return int(children[0])
        assert started.poll() is None and time.monotonic() < deadline, "a process of the lab ended at its start"
        time.sleep(0.01)
