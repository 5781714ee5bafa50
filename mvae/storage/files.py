"""Files that others read: written whole or not at all, locked by the operating system, told apart by digest.

Several trials, drivers and machines share our folders and any of them may be killed at any moment. So a file is never
rewritten in place: it appears under its name complete and on disk, or not at all (a memory map of a file that shrinks
is a crash, not an exception). `Folder` offers the functions below as one kind of `Place`.
"""

import errno
import fcntl
import functools
import hashlib
import itertools
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PosixPath
from typing import Any, Self, TypeVar

from mvae.storage.place import Place, Version

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of flock on file systems without locks: some of NFS, Lustre and FUSE."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")

Moved = TypeVar("Moved", Path, Place)


class Damaged(Exception):
    """A file that we once wrote does not verify. The message names the file and what is wrong with it."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path`, on disk, when the block ends without an error.

    The folder is made if it is missing. After an error, an interrupt included, the temporary file is gone and whatever
    was at `path` is untouched. A process killed inside the block leaves a file `.<name>.<unique>.tmp`, never read.

    Raises:
        OSError: the disk is full, the folder cannot be written, the block wrote no file.
    """
    made = list(itertools.takewhile(lambda folder: not folder.exists(), path.parents))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
        for folder in (path.parent, *(folder.parent for folder in made)):
            flush_to_disk(folder)
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Return once a file's content, or the names in a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Make `path` hold `data`, or leave everything as it was. Errors as in `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open("xb") as file:
        file.write(data)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the exclusive lock of `target`, waiting for it as long as it takes.

    The lock is the operating system's (flock on `<target>.lock`), so it ends with the process that holds it, however
    that ends. It also excludes threads of one process, and is not re-entrant. The lock file stays: removing it would
    let two owners in. Some file systems have no locks: nothing is held there (`Folder.has_locks`).
    """
    descriptor = _open_lock(target)
    try:
        _flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_lock(target: Path) -> int:
    lock = target.with_name(f"{target.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    return os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)


def _flock(descriptor: int, how: int) -> bool:
    """Whether the file system has locks; where it has, this one is held now."""
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def set_aside(path: Moved) -> Moved:
    """Rename a damaged file to `<name>.bad` (`.bad-2`, ... where that exists) and return the new path.

    A process that still maps the old file keeps it. A file that someone else has already moved is not an error. Call it
    under the lock of whoever makes the file again: two callers at once could choose the same new name. An object is
    copied and deleted; without a lock, one that was meanwhile made again may go with it, and is made once more.
    """
    bad, number = path.parent / f"{path.name}.bad", 1
    while bad.exists():
        number += 1
        bad = path.parent / f"{path.name}.bad-{number}"
    with suppress(FileNotFoundError):
        path.replace(bad)
    return bad


def sha256_cached(path: Path) -> str:
    """Hex digest of a file's bytes, computed once a process for a given path, size and time of change."""
    return _sha256_of_version(path.absolute(), file_version(path))


def file_version(path: Path) -> Version:
    """Size and time of the last change: a file of ours with the same pair has the same content."""
    status = path.stat()
    return Version(status.st_size, status.st_mtime_ns)


@functools.cache
def _sha256_of_version(path: Path, _version: Version) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Folder(PosixPath, Place):
    """A file or folder on a disk that this machine mounts: a path of pathlib with what durable state needs."""

    looks = 3

    def version(self) -> Version:
        return file_version(self)

    def write_bytes(self, data: Any) -> int:
        write_atomically(self, data)
        return len(data)

    def listing(self) -> dict[str, Version]:
        found = {}
        for path in sorted(Path(below, name) for below, _, names in os.walk(self) for name in names):
            with suppress(FileNotFoundError):
                if path.is_file() and not _TEMPORARY.fullmatch(path.name):
                    found[str(path.relative_to(self))] = file_version(path)
        return found

    def remove_tree(self) -> None:
        shutil.rmtree(self, ignore_errors=True)

    def lock(self) -> AbstractContextManager[object]:
        return locked(self)

    def has_locks(self) -> bool:
        descriptor = _open_lock(self)
        try:
            return _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody holds it
            return True
        finally:
            os.close(descriptor)

    def nearest(self) -> Self:
        return next(path for path in (self, *self.parents) if path.exists())

    def why_unusable(self) -> str:
        nearest = self.nearest()
        return "" if nearest.is_dir() else f"is no folder: {nearest} is a file; choose a folder"

    def prove_writable(self) -> None:
        with tempfile.TemporaryFile(dir=self) as probe:  # without a name: nobody sees it, and it ends with the process
            probe.write(b"probe")

    def digest(self) -> str:
        return sha256_cached(self)

    def content_mark(self, version: Version) -> str:
        return self.digest()

    def fetched(self, folder: Path) -> Path:
        return self
