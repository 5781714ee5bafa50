"""Computes digests of many files. Each file is read once: the cache remembers the digests of unchanged files.

    <cache>/contents/<16 digits>.json     one per folder, zip or single list; maps each file's name to size,
                                          times, inode and digest

A file counts as unchanged if its size, mtime, ctime and inode are unchanged. A ctime cannot be set back, so a file
rewritten with its old size and mtime still counts as changed.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from mvae.data.progress import progress
from mvae.storage.files import locked, write_atomically

VERSION = 1
"""Version of the digests. Increase this number if the same content gets a different digest."""
SETTLED_S = 2.0
"""Seconds that must pass after a file's last change before its digest is remembered.

Clocks of file systems are coarse: a file changed twice in quick succession may keep its times.
"""
SAVE_EVERY_S = 10.0
"""Seconds between saves of the digests. If the process is killed, the next run resumes from the last save."""
BATCH = 256
"""Number of files per batch. Digests are saved only between batches, and at the end."""

Stamp = tuple[int, int, int, int]
"""Size, mtime in ns, ctime in ns and inode of a file."""


def stamp(path: Path) -> Stamp:
    """Returns size, mtime in ns, ctime in ns and inode of a file.

    Raises:
        OSError: the file does not exist.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def digests(
    place: Path, files: Mapping[str, Stamp], read: Callable[[str], bytes], cache: Path | None, what: str
) -> list[str]:
    """Returns the BLAKE2 digest of each file's content, in the order of `files`. Reads only new or changed files.

    One process reads, and the others wait for its results. If the cache is not writable, no digests are added to it.

    Args:
        place: folder or zip that holds the files, or the only file. Its path identifies the remembered digests.
        files: maps each file's name to the file's stamp, taken before this call. A file in a zip has the zip's stamp.
        read: returns the bytes of a file, given its name. Errors raised by `read` are not caught.
        cache: the cache folder. If None, no digests are remembered, and all files are read.
        what: description of the files for the progress bar.
    """
    name = hashlib.sha256(str(place.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    memory = cache and cache / "contents" / f"{name}.json"
    known = _remembered(memory, files)
    if len(known) < len(files):
        with ExitStack() as stack:
            if memory is not None:
                with suppress(OSError):  # a read-only folder cannot be locked
                    stack.enter_context(locked(memory))
            known = _remembered(memory, files)
            _read_changed(files, known, read, memory, what)
    return [known[name] for name in files]


def _read_changed(
    files: Mapping[str, Stamp], known: dict[str, str], read: Callable[[str], bytes], memory: Path | None, what: str
) -> None:
    now = time.time_ns()
    settled = now - int(SETTLED_S * 1e9)  # an mtime in the future was set by hand and says nothing about changes
    fresh = {name for name, (_, mtime, ctime, _) in files.items() if ctime > settled or settled < mtime <= now}
    changed = [name for name in files if name not in known]
    saved = time.monotonic()
    try:
        with ThreadPoolExecutor(8) as pool, progress(what, len(files), len(known)) as advance:
            for start in range(0, len(changed), BATCH):
                batch = changed[start : start + BATCH]
                known.update(zip(batch, pool.map(lambda name: _digest(read(name)), batch), strict=True))
                advance(len(batch))
                if time.monotonic() - saved >= SAVE_EVERY_S:
                    _save(memory, files, known, fresh)
                    saved = time.monotonic()
    finally:
        _save(memory, files, known, fresh)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def _remembered(memory: Path | None, files: Mapping[str, Stamp]) -> dict[str, str]:
    if memory is None:
        return {}
    try:
        stored = json.loads(memory.read_bytes())
        remembered = stored["files"] if stored["version"] == VERSION else {}
        found = {name: remembered[name] for name in files if name in remembered}
        return {name: str(digest) for name, (*kept, digest) in found.items() if tuple(kept) == files[name]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _save(memory: Path | None, files: Mapping[str, Stamp], known: Mapping[str, str], fresh: set[str]) -> None:
    if memory is None:
        return
    kept = {name: [*files[name], known[name]] for name in files if name in known and name not in fresh}
    with suppress(OSError):
        write_atomically(memory, json.dumps({"version": VERSION, "files": kept}).encode())
