"""Storage of a simulated world: four kinds, each with the faults that it allows, and a log of every change.

folder     a local disk: locks, atomic renames, listings that are up to date
nfs        locks; listings may lag behind other hosts' changes; a change of a killed process may still arrive later;
           the server frees the locks of a client that is cut off
unlocked   like nfs, but without locks
objects    s3 or gs: no locks, atomic puts, listings that are up to date; a put of a killed process may arrive later;
           a request may fail although it had its effect; times are whole seconds

A write to a disk appears first as a temporary file with half of the content, then under its name, by a rename.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Self

from mvae.storage.place import Keyed, Version
from tests.histories.threads import locked
from tests.histories.world import Green, Process, World

KINDS = ("folder", "nfs", "unlocked", "objects")
PATIENCE = 60.0
"""Seconds after which a request to object storage fails if there is no answer."""
LOCKS_EXPIRE = 90.0
"""Seconds after which an NFS server frees the locks of a client that is cut off."""

Write = Callable[["Change"], None]


@dataclass(frozen=True)
class File:
    data: bytes
    changed: int
    """Time of the last change in ns."""
    host: str
    seen: float
    """Time from which listings on other hosts may show the file."""


@dataclass(frozen=True)
class Change:
    """One change of one file; `data` is None for a deletion."""

    key: str
    before: bytes | None
    data: bytes | None
    process: Process
    damaged: bool
    """Whether the content before was damaged."""


@dataclass(eq=False)
class Disk:
    """All files, and the faults that are in force."""

    world: World
    kind: str
    files: dict[str, File] = field(default_factory=dict)
    lag: float = 0.0
    """Seconds by which listings lag behind changes of other hosts."""
    late: float | None = None
    """Seconds after which the last change that a killed process requested takes effect. None: never."""
    damaged: set[str] = field(default_factory=set)
    """Keys of files whose present content is damaged."""
    ever_damaged: set[str] = field(default_factory=set)
    watchers: list[Write] = field(default_factory=list)
    """Called after every change."""
    holders: dict[str, Process] = field(default_factory=dict)
    waiting: dict[str, list[Green]] = field(default_factory=dict)

    @property
    def has_locks(self) -> bool:
        return self.kind in ("folder", "nfs")

    @property
    def remote(self) -> bool:
        return self.kind == "objects"

    def change(self, key: str, data: bytes | None, process: Process) -> None:
        before = self.files.get(key)
        if data is None:
            self.files.pop(key, None)
        else:
            now = self.world.now
            changed = int(now) * 10**9 if self.remote else int(now * 1e9)
            seen = now if before is None else before.seen
            self.files[key] = File(data, changed, process.host, seen)
        change = Change(key, None if before is None else before.data, data, process, key in self.damaged)
        self.damaged.discard(key)
        for watcher in self.watchers:
            watcher(change)

    def request(self, effect: Callable[[], None] | None = None) -> None:
        """One request of the running process; `effect` changes files. The effect and the reply may be lost or late."""
        world = self.world
        process = world.alive()
        if effect is not None and self.late is not None and self.kind != "folder" and process.about_to_die:
            world.at(self.late, effect)
        world.request(PATIENCE if self.remote else None)
        if effect is None:
            return
        refusal = process.refusals.pop(0) if process.refusals else ""
        if refusal == "full":
            raise OSError(errno.ENOSPC, "No space left on device", process.name)
        effect()
        if refusal == "no reply" and self.remote:
            raise OSError(errno.EIO, "the store's reply was lost", process.name)

    def cut(self, process: Process) -> None:
        """Cuts a process off from the storage."""
        process.cut = True

        def free() -> None:
            if process.cut and not process.dead:
                for key in [key for key, holder in self.holders.items() if holder is process]:
                    process.facts["lost a lock"] = True
                    del self.holders[key]
                    self.world.wake_all(self.waiting.get(key, []))

        if self.kind == "nfs":
            self.world.at(LOCKS_EXPIRE, free)

    def damage(self, key: str, data: bytes) -> None:
        """Changes a file's content without notice, as a bad disk does."""
        self.files[key] = replace(self.files[key], data=data)
        self.damaged.add(key)
        self.ever_damaged.add(key)

    def shown(self, file: File) -> bool:
        """Whether a listing of the running process shows a file."""
        return file.host == self.world.process.host or file.seen <= self.world.now - self.lag


@dataclass(frozen=True)
class SimulatedPlace(Keyed):
    """A file or folder of a `Disk`, as the running process sees it."""

    disk: Disk = field(repr=False, compare=False)

    @property
    def is_remote(self) -> bool:  # type: ignore[override]
        return self.disk.remote

    @property
    def looks(self) -> int:  # type: ignore[override]
        return 1 if self.disk.remote else 3

    def __str__(self) -> str:
        return f"{self.disk.kind}://{self.key}"

    def exists(self) -> bool:
        self.disk.request()
        return self.key in self.disk.files or self._has_files()

    def is_file(self) -> bool:
        self.disk.request()
        return self.key in self.disk.files

    def is_dir(self) -> bool:
        self.disk.request()
        return self._has_files()

    def version(self) -> Version:
        self.disk.request()
        file = self._file()
        return Version(len(file.data), file.changed)

    def iterdir(self) -> Iterator[Self]:
        self.disk.request()
        names = {name.partition("/")[0]: None for name in self._below(shown=True)}
        if not names and not self.disk.remote and not self._has_files():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))
        yield from [self / name for name in names]

    def listing(self) -> dict[str, Version]:
        self.disk.request()
        found = self._below(shown=True)
        if not self.disk.remote:
            self.disk.request()  # a disk gives the names first, then the times of those that still exist
        files = {name: self.disk.files.get(self._key(name)) for name in found if not name.endswith(".tmp")}
        return {name: Version(len(file.data), file.changed) for name, file in files.items() if file is not None}

    def read_bytes(self) -> bytes:
        self.disk.request()
        return self._file().data

    def write_bytes(self, data: bytes | memoryview) -> int:
        disk, process, whole = self.disk, self.disk.world.process, bytes(data)
        if disk.remote:
            disk.request(lambda: disk.change(self.key, whole, process))
            return len(whole)
        temporary = self._key_of(f".{self.name}.{disk.world.new_id():032x}.tmp")
        disk.request(lambda: disk.change(temporary, whole[: len(whole) // 2], process))
        try:
            disk.request(lambda: self._renamed(temporary, whole, process))
        except OSError:
            disk.change(temporary, None, process)
            raise
        return len(whole)

    def unlink(self, missing_ok: bool = False) -> None:
        disk, process = self.disk, self.disk.world.process
        existed: list[bool] = []

        def effect() -> None:
            existed.append(self.key in disk.files)
            if existed[0]:
                disk.change(self.key, None, process)

        disk.request(effect)
        if not existed[0] and not missing_ok:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))

    def replace(self, target: Self) -> Self:
        disk, process = self.disk, self.disk.world.process
        if disk.remote:
            target.write_bytes(self.read_bytes())
            self.unlink()
            return target

        def effect() -> None:
            if self.key in disk.files:
                disk.change(target.key, disk.files[self.key].data, process)
                disk.change(self.key, None, process)

        self._file()
        disk.request(effect)
        return target

    def remove_tree(self) -> None:
        self.disk.request()
        for name in self._below(shown=True):
            (self / name).unlink(missing_ok=True)

    def lock(self) -> AbstractContextManager[object]:
        return self._locked() if self.disk.has_locks else nullcontext()

    def has_locks(self) -> bool:
        return self.disk.has_locks

    @contextmanager
    def _locked(self) -> Iterator[None]:
        disk = self.disk
        disk.request()
        with locked(disk.world, disk.holders, disk.waiting, self.key):
            yield

    def _renamed(self, temporary: str, whole: bytes, process: Process) -> None:
        self.disk.files.pop(temporary, None)
        self.disk.change(self.key, whole, process)

    def _key(self, name: str) -> str:
        return f"{self.key}/{name}".lstrip("/")

    def _key_of(self, name: str) -> str:
        return f"{self.key.rpartition('/')[0]}/{name}".lstrip("/")

    def _has_files(self) -> bool:
        start = f"{self.key}/".lstrip("/")
        return any(key.startswith(start) for key in self.disk.files)

    def _below(self, *, shown: bool) -> list[str]:
        start = f"{self.key}/".lstrip("/")
        files = self.disk.files
        return sorted(
            key.removeprefix(start)
            for key, file in files.items()
            if key.startswith(start) and (not shown or not self.disk.lag or self.disk.shown(file))
        )

    def _file(self) -> File:
        try:
            return self.disk.files[self.key]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self)) from None
