"""Storage in memory and a fake clock: code that writes to storage is tested without waiting."""

from __future__ import annotations

import errno
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Self

from mvae.storage.clock import CLOCK, Clock
from mvae.storage.place import Keyed, Version


class FakeClock(Clock):
    """A clock that moves only when somebody waits; `meanwhile` is called after each wait."""

    def __init__(self, now: float = 1.7e9) -> None:
        self.now = now
        self.waits = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.waits += 1
        assert self.waits < 10_000, "somebody waits forever"
        if not event.is_set():
            self.now += seconds
            self.meanwhile()
        return event.is_set()


@dataclass(eq=False)
class Disk:
    """Files shared by all places of one memory. Copy and restore `files` to go back in time."""

    clock: Clock = CLOCK
    """Gives files their modification times."""
    has_locks: bool = True
    """Whether locks exclude others, as on a disk; otherwise they have no effect, as in object storage."""
    locks: defaultdict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))
    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    """Key to content and time of the last change in ns."""


@dataclass(frozen=True)
class Memory(Keyed):
    """A file or folder of a `Disk`."""

    disk: Disk = field(default_factory=Disk, repr=False)

    def __str__(self) -> str:
        return f"memory://{self.key}"

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return self.key in self.disk.files

    def is_dir(self) -> bool:
        return bool(self._below())

    def version(self) -> Version:
        data, changed = self._file()
        return Version(len(data), changed)

    def iterdir(self) -> Iterator[Self]:
        for name in sorted({name.partition("/")[0] for name in self._below()}):
            yield self / name

    def listing(self) -> dict[str, Version]:
        return {name: (self / name).version() for name in self._below()}

    def read_bytes(self) -> bytes:
        return self._file()[0]

    def write_bytes(self, data: bytes | memoryview) -> int:
        self.disk.files[self.key] = bytes(data), int(self.disk.clock.time() * 1e9)
        return len(data)

    def unlink(self, missing_ok: bool = False) -> None:
        if self.is_file() or not missing_ok:
            self._file()
            del self.disk.files[self.key]

    def replace(self, target: Self) -> Self:
        self.disk.files[target.key] = self._file()
        self.unlink()
        return target

    def remove_tree(self) -> None:
        for name in self._below():
            (self / name).unlink()

    def lock(self) -> AbstractContextManager[object]:
        return self.disk.locks[self.key] if self.disk.has_locks else nullcontext()

    def has_locks(self) -> bool:
        return self.disk.has_locks

    def _below(self) -> list[str]:
        start = f"{self.key}/".lstrip("/")
        return sorted(key.removeprefix(start) for key in self.disk.files if key.startswith(start))

    def _file(self) -> tuple[bytes, int]:
        try:
            return self.disk.files[self.key]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(self)) from None
