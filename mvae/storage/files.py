"""Shared files on a disk: atomic writes, locks of the operating system, digests.

Trials, drivers and machines share folders, and each process can be killed at any time. So no file is rewritten in
place: a new file gets its name only when it is complete and flushed to disk. (If a memory-mapped file shrank, its
readers would crash without an exception.) `Folder` is the `Place` that uses these functions.
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
"""Errors of flock on file systems without locks, for example some versions of NFS, Lustre and FUSE."""
FULL = {
    errno.ENOSPC: "free up space on this disk",
    errno.EDQUOT: "delete your own files on this disk, or ask for a larger quota",
}
"""Errors of a full disk or a used-up quota, each with its remedy. A shared disk often has a quota per user."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")

Moved = TypeVar("Moved", Path, Place)


def remedy(error: OSError) -> str:
    """Returns "; " followed by what to do if the disk is full or the quota is used up. Returns "" for other errors."""
    return f"; {FULL[error.errno]}" if error.errno in FULL else ""


class Damaged(Exception):
    """Raised if a file written by this package is damaged. The message names the file and the damage."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`, and renames it to `path` when the block ends without an error.

    The file is flushed to disk before it is renamed. Missing parent folders are created. After an error or an
    interrupt, the temporary file is deleted and the old file at `path` is unchanged. A process killed inside the block
    leaves a file `.<name>.<unique>.tmp`, which is never read.

    Raises:
        OSError: the disk or the user's quota is full, the folder is not writable, or the block wrote no file.
    """
    new_folders = list(itertools.takewhile(lambda folder: not folder.exists(), path.parents))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
        for folder in (path.parent, *(folder.parent for folder in new_folders)):
            flush_to_disk(folder)
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Flushes a file's content, or the names in a folder, so that they survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Writes `data` to `path`, or leaves the old file unchanged. Raises the same errors as `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open("xb") as file:
        file.write(data)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Holds the exclusive lock of `target` during the block. Waits for the lock without a timeout.

    The operating system holds the lock (flock on `<target>.lock`) and releases it when the process ends for any reason.
    The lock also excludes other threads of the same process, and is not re-entrant. The lock file is never deleted:
    after a deletion, two processes could hold the lock at the same time. On file systems without locks, the block runs
    without a lock (`Folder.has_locks`).
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
    """Acquires the lock. Returns False if the file system has no locks."""
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def set_aside(path: Moved) -> Moved:
    """Renames a damaged file to `<name>.bad` and returns the new path. If that name is taken, tries `.bad-2` and so on.

    Processes that have mapped the old file into memory can still read it. If another process has already moved the
    file, nothing happens. Call this function while holding the lock that guards the recreation of the file: two callers
    without a lock could choose the same new name. In object storage, the file is copied and deleted. Without a lock,
    the deletion may hit a file that another process has just recreated. The next process then recreates the file again.
    """
    bad, number = path.parent / f"{path.name}.bad", 1
    while bad.exists():
        number += 1
        bad = path.parent / f"{path.name}.bad-{number}"
    with suppress(FileNotFoundError):
        path.replace(bad)
    return bad


def sha256_cached(path: Path) -> str:
    """Returns the hex sha256 of a file. Each process computes the hash once per path, size and modification time."""
    return _sha256_of_version(path.absolute(), file_version(path))


def file_version(path: Path) -> Version:
    """Returns a file's size and modification time. For files of this package, equal versions mean equal content."""
    status = path.stat()
    return Version(status.st_size, status.st_mtime_ns)


@functools.cache
def _sha256_of_version(path: Path, _version: Version) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Folder(PosixPath, Place):
    """A file or folder on a mounted disk: a pathlib path with the operations of `Place`."""

    looks = 3

    def is_link(self) -> bool:
        return self.is_symlink()

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
        except BlockingIOError:  # another process holds the lock
            return True
        finally:
            os.close(descriptor)

    def nearest(self) -> Self:
        return next(path for path in (self, *self.parents) if path.exists())

    def why_unusable(self) -> str:
        nearest = self.nearest()
        return "" if nearest.is_dir() else f"is not a folder: {nearest} is a file; choose a folder"

    def prove_writable(self) -> None:
        with tempfile.TemporaryFile(dir=self) as probe:  # has no name, and disappears with the process
            probe.write(b"probe")

    def digest(self) -> str:
        return sha256_cached(self)

    def content_mark(self, version: Version) -> str:
        return self.digest()

    def fetched(self, folder: Path) -> Path:
        return self
