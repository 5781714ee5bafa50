"""Files that others read: written whole or not at all, locked by the operating system, told apart by digest.

Several trials, drivers and machines share our folders and any of them may be killed at any moment. So a file is never
rewritten in place: it appears under its name complete and on disk, or not at all (a memory map of a file that shrinks
is a crash, not an exception). Everything durable in this project goes through the functions here.
"""

import fcntl
import functools
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK_BYTES = 1 << 20


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


def flush_to_disk(path: Path) -> None:
    """Return once a file's content, or the names in a folder, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Make `path` hold `data`, or leave everything as it was. Errors as in `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open("xb") as file:
        file.write(data)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the exclusive lock of `target`, waiting for it as long as it takes.

    The lock is the operating system's (flock on `<target>.lock`), so it ends with the process that holds it, however
    that ends. It also excludes threads of one process, and is not re-entrant. The lock file stays: removing it would
    let two owners in.
    """
    lock = target.with_name(f"{target.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `<name>.bad` (`.bad-2`, ... where that exists) and return the new path.

    A process that still maps the old file keeps it. A file that someone else has already moved is not an error. Call it
    under the lock of whoever makes the file again: two callers at once could choose the same new name.
    """
    bad, number = path.with_name(f"{path.name}.bad"), 1
    while bad.exists():
        number += 1
        bad = path.with_name(f"{path.name}.bad-{number}")
    with suppress(FileNotFoundError):
        os.replace(path, bad)
    return bad


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_cached(path: Path) -> str:
    """As `sha256`, computed once a process for a given path, size and time of change."""
    return _sha256_of_version(path.absolute(), file_version(path))


def file_version(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns: a file of ours with the same pair has the same content."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@functools.cache
def _sha256_of_version(path: Path, _version: tuple[int, int]) -> str:
    return sha256(path)
