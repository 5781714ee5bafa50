"""Place: the interface of a stored file or folder, with three implementations.

    Folder       mvae/storage/files.py     on a mounted disk
    RemotePath   mvae/storage/objects.py   in object storage
    Memory       tests/memory.py           in this process, for tests

Methods have the same names and meanings as in pathlib, except that `write_bytes` is atomic and creates the parent
folder. Errors are OSErrors with `strerror` and `filename`. `tests/test_place.py` tests the behaviour that all three
share.
"""

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
    """Size in bytes and modification time, Unix time in ns. Object storage rounds times to seconds or milliseconds.

    On a disk, equal versions mean equal content, if this package wrote the file.
    """

    size: int
    changed: int


class Place(ABC):
    """A file or a folder."""

    is_remote = False
    """Whether each operation is a network request.

    If so, `each` makes several requests at a time. Result files, which never change, are read only once. No file is
    read just to check its content.
    """
    looks = 1
    """Number of consecutive empty listings before a folder counts as empty. A disk's listing can miss new files."""

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def parent(self) -> Self: ...

    @property
    def uri(self) -> str:
        """The path, or the URI without credentials. `mvae.storage.objects.place` turns either back into a Place."""
        return str(self)

    @property
    def impatient(self) -> Self:
        """This place with short timeouts, for the first requests of a command, for which a user waits."""
        return self

    @abstractmethod
    def __truediv__(self, other: str) -> Self: ...

    @abstractmethod
    def exists(self) -> bool: ...

    @abstractmethod
    def is_file(self) -> bool: ...

    @abstractmethod
    def is_dir(self) -> bool: ...

    def is_link(self) -> bool:
        """Whether this is a symbolic link. Only a disk has links."""
        return False

    @abstractmethod
    def version(self) -> Version:
        """Returns size and modification time of a file.

        Raises:
            FileNotFoundError: the file does not exist.
        """

    @abstractmethod
    def iterdir(self) -> Iterator[Self]:
        """Yields the files and folders directly below. A missing folder is an error on a disk, but empty elsewhere."""

    @abstractmethod
    def listing(self) -> dict[str, Version]:
        """Returns all files below, at any depth, by sorted relative path. Omits files that are still being written."""

    @abstractmethod
    def read_bytes(self) -> bytes:
        """Returns the content of a single version of the file, even if the file is replaced during the call."""

    @abstractmethod
    def write_bytes(self, data: bytes | memoryview) -> int:
        """Writes `data`, or leaves the old file unchanged. After the return, the data survives a power failure."""

    @abstractmethod
    def unlink(self, missing_ok: bool = False) -> None: ...

    @abstractmethod
    def replace(self, target: Self) -> Self:
        """Moves the file to `target` and returns `target`."""

    @abstractmethod
    def remove_tree(self) -> None:
        """Deletes a folder with its content, as far as permissions allow. The folder may be missing."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[object]:
        """Returns a context manager that holds this place's exclusive lock, or does nothing if `has_locks` is False.

        Waits for the lock without a timeout.
        """

    @abstractmethod
    def has_locks(self) -> bool:
        """Whether `lock` excludes other processes here. Object storage and some file systems have no locks."""

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:  # noqa: B027
        """Does nothing, except on a disk."""

    def rmdir(self) -> None:  # noqa: B027
        """Does nothing, except on a disk. Other places have no empty folders."""

    def nearest(self) -> Self:
        """Returns this folder, if it exists, or its nearest parent that exists.

        In object storage, always returns the parent, so that a write test does not create this folder.
        """
        return self.parent

    def why_unusable(self) -> str:
        """Returns why this place cannot be used for storage and what to do, as the end of a sentence; "" if it can.

        Raises:
            OSError: the store does not respond.
        """
        return ""

    def prove_writable(self) -> None:
        """Writes a file to this folder and deletes it, because permissions do not show whether writing works.

        Raises:
            OSError: the folder is not writable.
        """
        probe = self / f".mvae-probe-{uuid.uuid4().hex}"
        probe.write_bytes(b"probe")
        probe.unlink()

    def create(self, data: bytes) -> bool:
        """Writes the file unless it exists. Returns whether this call wrote the file.

        With locks, only one of several writers succeeds. Without locks, the last writer overwrites the other writers'
        files, because pyarrow has no operation that writes an object only if the object does not exist.
        """
        if self.exists():
            return False
        with self.lock():
            if self.exists():
                return False
            self.write_bytes(data)
            return True

    def digest(self) -> str:
        """Returns the hex sha256 of the file's bytes."""
        return hashlib.sha256(self.read_bytes()).hexdigest()

    def content_mark(self, version: Version) -> str:
        """Returns a string that changes with the content. For an object, returns the version, to avoid a download."""
        return f"{version.size} {version.changed}"

    def fetched(self, folder: Path) -> Path:
        """Returns a path on this machine's disk, for programs that cannot read a Place.

        The path is this file itself, or a copy in `folder`.
        """
        copy = folder / self.name
        copy.write_bytes(self.read_bytes())
        return copy


AnyPlace = Path | Place
"""A Place, or a pathlib path, which `place` turns into a `Folder`."""


@dataclass(frozen=True)
class Keyed(Place):
    """A place named by a key. A key consists of parts separated by single slashes.

    Folders are common prefixes of keys. A folder exists only if it contains files.
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
    """Returns the key without empty parts and "." parts."""
    return "/".join(part for part in key.split("/") if part not in ("", "."))


def each(function: Callable[[Item], Found], items: Iterable[Item], where: Place | None) -> list[Found]:
    """Returns the function's results for all items, in order. If `where` is remote, makes several calls at a time."""
    todo = list(items)
    if where is None or not where.is_remote or len(todo) < 2:
        return [function(item) for item in todo]
    with ThreadPoolExecutor(16, thread_name_prefix="requests") as threads:
        return list(threads.map(function, todo))
