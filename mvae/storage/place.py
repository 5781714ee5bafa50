"""Place: one file or folder of durable state. Its readers and writers do not know where it lies.

    Folder       mvae/storage/files.py     on a disk that this machine mounts
    RemotePath   mvae/storage/objects.py   in object storage
    Memory       tests/memory.py           in this process, for tests

Names and meanings are pathlib's, except that `write_bytes` writes the whole file or nothing, and makes its folder.
Errors are OSErrors with `strerror` and `filename`. `tests/test_place.py` holds what is the same for all three.
"""

from __future__ import annotations

import hashlib
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Self, TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


class Version(NamedTuple):
    """Size in bytes and time of the last change, Unix time in ns; object storage knows whole seconds or milliseconds.

    Two files of ours on a disk have the same content if path and version are equal.
    """

    size: int
    changed: int


class Place(ABC):
    """A file or a folder."""

    is_remote = False
    """Whether each operation is a request over a network: then `each` makes many at a time, results, which never
    change, are read once, and nothing is read only to be checked."""
    looks = 1
    """Empty listings in a row before a folder counts as empty: a disk's listing misses files added meanwhile."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part."""

    @property
    @abstractmethod
    def parent(self) -> Self:
        """The folder that it lies in."""

    @property
    def impatient(self) -> Self:
        """This place for a first look: a store that does not answer fails within seconds, because a user is waiting."""
        return self

    @abstractmethod
    def __truediv__(self, other: str) -> Self: ...

    @abstractmethod
    def exists(self) -> bool: ...

    @abstractmethod
    def is_file(self) -> bool: ...

    @abstractmethod
    def is_dir(self) -> bool: ...

    @abstractmethod
    def version(self) -> Version:
        """Size and time of a file.

        Raises:
            FileNotFoundError: there is none.
        """

    @abstractmethod
    def iterdir(self) -> Iterator[Self]:
        """Files and folders directly below. Without the folder: an error on a disk, nothing in object storage."""

    @abstractmethod
    def listing(self) -> dict[str, Version]:
        """Every file at any depth below, by its relative path, in order; files that are half written are not listed."""

    @abstractmethod
    def read_bytes(self) -> bytes:
        """The content, of one version of the file even if it is replaced meanwhile."""

    @abstractmethod
    def write_bytes(self, data: bytes | memoryview) -> int:
        """Make the file hold `data`, or leave it as it was. When this returns, it survives a power cut."""

    @abstractmethod
    def unlink(self, missing_ok: bool = False) -> None: ...

    @abstractmethod
    def replace(self, target: Self) -> Self:
        """Move the file to `target`, and return that."""

    @abstractmethod
    def remove_tree(self) -> None:
        """Delete a folder with all that is in it, as far as that is allowed; it need not exist."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[object]:
        """Hold this place's exclusive lock, waiting for it as long as it takes. Without `has_locks`, do nothing."""

    @abstractmethod
    def has_locks(self) -> bool:
        """Whether `lock` excludes others here. Object storage and some file systems have no locks."""

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:  # noqa: B027
        """Only a disk has folders to make."""

    def rmdir(self) -> None:  # noqa: B027
        """Only a disk has folders that are empty."""

    def nearest(self) -> Self:
        """The nearest of this folder and its parents that exists.

        In a store its parent: an object that is made and deleted in a folder would leave the folder behind.
        """
        return self.parent

    def why_unusable(self) -> str:
        """Why no storage can lie here, and what to do, as the end of a sentence; empty if it can.

        Raises:
            OSError: a store does not answer.
        """
        return ""

    def prove_writable(self) -> None:
        """Write into this folder, and delete what was written. Permissions alone say little.

        Raises:
            OSError: it cannot be written.
        """
        probe = self / f".mvae-probe-{uuid.uuid4().hex}"
        probe.write_bytes(b"probe")
        probe.unlink()

    def create(self, data: bytes) -> bool:
        """Write the file unless it exists; returns whether it was written.

        Of several writers one writes, if the place has locks. Without locks the last one's data stays: pyarrow cannot
        ask a store to write an object only if there is none.
        """
        if self.exists():
            return False
        with self.lock():
            if self.exists():
                return False
            self.write_bytes(data)
            return True

    def digest(self) -> str:
        """Hex sha256 of the file's bytes."""
        return hashlib.sha256(self.read_bytes()).hexdigest()

    def content_mark(self, version: Version) -> str:
        """A text that changes with the content; of an object its version, so that it need not be fetched."""
        return f"{version.size} {version.changed}"

    def fetched(self, folder: Path) -> Path:
        """The file on this machine's disk, for programs that read only that: itself, or a copy in `folder`."""
        copy = folder / self.name
        copy.write_bytes(self.read_bytes())
        return copy


AnyPlace = Path | Place
"""A place, or a plain path, which `place` makes a `Folder`."""


@dataclass(frozen=True)
class Keyed(Place):
    """A place that is named by a key, parts with single slashes between them.

    Its folders are common beginnings of keys, and exist with what is in them.
    """

    key: str

    def __truediv__(self, other: str) -> Self:
        return replace(self, key=normal(f"{self.key}/{other}"))

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name

    @property
    def parent(self) -> Self:
        return replace(self, key=self.key.rpartition("/")[0])

    def lock(self) -> AbstractContextManager[object]:
        return nullcontext()

    def has_locks(self) -> bool:
        return False


def normal(key: str) -> str:
    """A key without empty parts and without dots."""
    return "/".join(part for part in key.split("/") if part not in ("", "."))


def each(function: Callable[[Item], Found], items: Iterable[Item], where: Place | None) -> list[Found]:
    """The function's value for every item, in order: several at a time if they ask a remote place."""
    todo = list(items)
    if where is None or not where.is_remote or len(todo) < 2:
        return [function(item) for item in todo]
    with ThreadPoolExecutor(16, thread_name_prefix="requests") as threads:
        return list(threads.map(function, todo))
