"""A place in this process's memory: for tests that kill, interleave or fake the time of what writes to storage."""

from __future__ import annotations

import errno
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from mvae.storage.clock import CLOCK, Clock
from mvae.storage.place import Keyed, Version


class Disk:
    """What all places of one memory share.

    Args:
        clock: dates what is written.
        locks: whether locks exclude others, as on a disk; else they do nothing, as in object storage.
    """

    def __init__(self, clock: Clock = CLOCK, *, locks: bool = True) -> None:
        self.clock = clock
        self.has_locks = locks
        self.locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self.files: dict[str, tuple[bytes, int]] = {}
        """Key to content and time of the last change in ns."""


@dataclass(frozen=True)
class Memory(Keyed):
    """A file or folder of a `Disk`."""

    disk: Disk = field(default_factory=Disk, repr=False)

    @property
    def uri(self) -> str:
        return f"memory://{self.key}"

    def __str__(self) -> str:
        return self.uri

    def as_uri(self) -> str:
        return self.uri

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
        if not (missing_ok and not self.is_file()):
            self._file()
            del self.disk.files[self.key]

    def replace(self, target: Self) -> Self:
        self.disk.files[target.key] = self._file()
        self.unlink()
        return target

    def remove_tree(self) -> None:
        for name in self._below():
            (self / name).unlink()

    @contextmanager
    def lock(self) -> Iterator[None]:
        if not self.disk.has_locks:
            yield
            return
        with self.disk.locks[self.key]:
            yield

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
