"""Files that others read: written whole or not at all, locked by the operating system, told apart by digest.

Several trials, drivers and machines share our folders and any of them may be killed at any moment. So a file is never
rewritten in place: it appears under its name complete and on disk, or not at all (a memory map of a file that shrinks
is a crash, not an exception). Everything durable in this project goes through the functions here. Those that take a
`Place` do the same for objects of a store (mvae/storage/objects.py), which knows no locks: there, callers say what does
for one.
"""

import errno
import fcntl
import functools
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mvae.storage.objects import Place, RemotePath

CHUNK_BYTES = 1 << 20
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of flock on file systems without locks: some of NFS, Lustre and FUSE."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


class Damaged(Exception):
    """A file that we once wrote does not verify. The message names the file and what is wrong with it."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path`, on disk, when the block ends without an error.

    The folder is made where it is missing. After an error, an interrupt included, the temporary file is gone and
    whatever was at `path` is untouched. A process killed inside the block leaves a `.<name>.<unique>.tmp` file that
    nobody reads.

    Raises:
        OSError: the disk is full, the folder cannot be written, the block wrote no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Place) -> None:
    """Return once a file's content, or the names in a folder, would survive a power cut; an object does at once."""
    if isinstance(path, RemotePath):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Place, data: bytes) -> None:
    """Make `path` hold `data`, or leave everything as it was. Errors as in `atomic_path`."""
    if isinstance(path, RemotePath):
        path.write_bytes(data)
        return
    with atomic_path(path) as temporary, temporary.open("xb") as file:
        file.write(data)


@contextmanager
def locked(target: Place) -> Iterator[None]:
    """Hold the exclusive lock of `target`, waiting for it as long as it takes.

    The lock is the operating system's (flock on `<target>.lock`), so it ends with the process that holds it, however
    that ends. It also excludes threads of one process, and is not re-entrant. The lock file stays: removing it would
    let two owners in. An object store has no locks, nor have some file systems: nothing is held there (`has_locks`).
    """
    if isinstance(target, RemotePath):
        yield
        return
    descriptor = _open_lock(target)
    try:
        _flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def has_locks(target: Place) -> bool:
    """Whether `locked` excludes others there."""
    if isinstance(target, RemotePath):
        return False
    descriptor = _open_lock(target)
    try:
        return _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # somebody holds it
        return True
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


def set_aside(path: Place) -> Place:
    """Rename a damaged file to `<name>.bad` (`.bad-2`, ... where that exists) and return the new path.

    A process that still maps the old file keeps it. A file that someone else has already moved is not an error. Call it
    under the lock of whoever makes the file again: two callers at once could choose the same new name. An object is
    copied and deleted; without a lock, one that was meanwhile made again may go with it, and is made once more.
    """
    bad, number = path.with_name(f"{path.name}.bad"), 1
    while bad.exists():
        number += 1
        bad = path.with_name(f"{path.name}.bad-{number}")
    with suppress(FileNotFoundError):
        if isinstance(path, RemotePath):
            path.copy_to(path.with_name(bad.name))
            path.unlink()
        else:
            os.replace(path, path.with_name(bad.name))
    return bad


def remove_tree(folder: Place) -> None:
    """Delete a folder with all that is in it, as far as that is allowed; there need be none.

    Raises:
        OSError: an object store refuses.
    """
    if isinstance(folder, RemotePath):
        folder.remove_tree()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def listing(folder: Place) -> dict[str, tuple[int, int]]:
    """Every file at any depth below a folder: its relative path, sorted, to `file_version`; one request to a store.

    Others may write there meanwhile: what `atomic_path` has not finished is not listed, nor what has just gone.
    """
    if isinstance(folder, RemotePath):
        there = folder.listing()
        return {str(path.relative_to(folder)): (status.st_size, status.st_mtime_ns) for path, status in there.items()}
    found = {}
    for path in sorted(Path(below, name) for below, _, names in os.walk(folder) for name in names):
        with suppress(FileNotFoundError):
            if path.is_file() and not _TEMPORARY.fullmatch(path.name):
                found[str(path.relative_to(folder))] = file_version(path)
    return found


def sha256(path: Place) -> str:
    """Hex digest of a file's bytes, read in chunks."""
    if isinstance(path, RemotePath):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_cached(path: Place) -> str:
    """As `sha256`, computed once a process for a given path, size and time of change; of an object anew each time."""
    if isinstance(path, RemotePath):  # its time of change is too coarse to tell two versions apart
        return sha256(path)
    return _sha256_of_version(path.absolute(), file_version(path))


def file_version(path: Place) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns: a file of ours with the same pair has the same content."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@functools.cache
def _sha256_of_version(path: Path, _version: tuple[int, int]) -> str:
    return sha256(path)
