"""Digests of what many files hold, each file read once: the cache remembers the digest of a file that has not changed.

    <cache>/contents/<16 digits>.json     one for each folder or zip: name to size, times, inode and digest

A file counts as unchanged while its size, both its times (mtime and ctime) and its inode stay the same. Nobody can set
a ctime back, so a file that is rewritten with its old size and mtime is noticed.
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
"""Version of the digests. Raise it if the digest of the same content changes."""
SETTLED_S = 2.0
"""Seconds that a file must have been left alone before its digest is remembered: clocks of file systems are coarse, so
that a file changed twice in a moment may keep its times."""
SAVE_EVERY_S = 10.0
"""Seconds between two savings of a first pass: a killed one resumes from the last."""
BATCH = 256
"""Files between two looks at the clock."""

Stamp = tuple[int, int, int, int]
"""Size, mtime in ns, ctime in ns and inode of a file."""


def stamp(path: Path) -> Stamp:
    """The stamp of a file.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def digests(
    place: Path, files: Mapping[str, Stamp], read: Callable[[str], bytes], cache: Path | None, what: str
) -> list[str]:
    """BLAKE2 digest of each file's content, in the order of `files`; only a file that has changed is read.

    One process reads, the others wait for what it remembers. A cache that cannot be written costs time only.

    Args:
        place: the folder or zip that the files are in; what is remembered is kept by its path.
        files: name to stamp, taken before now; a file in a zip has the stamp of the zip.
        read: gives a file's bytes by its name. Its errors pass through.
        cache: the cache folder; None: nothing is remembered.
        what: name of the files for the progress bar.
    """
    name = hashlib.sha256(str(place.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    memory = cache and cache / "contents" / f"{name}.json"
    known = _known(memory, files)
    if len(known) < len(files):
        with ExitStack() as alone:
            if memory is not None:
                with suppress(OSError):  # a folder that cannot be written has no lock
                    alone.enter_context(locked(memory))
            known = _known(memory, files)
            _read_others(files, known, read, memory, what)
    return [known[name] for name in files]


def _read_others(
    files: Mapping[str, Stamp], known: dict[str, str], read: Callable[[str], bytes], memory: Path | None, what: str
) -> None:
    """Fill in the digests that are not known, and save them now and then."""
    now = time.time_ns()
    settled = now - int(SETTLED_S * 1e9)  # an mtime in the future was set by hand and does not tell of a change
    fresh = {name for name, (_, mtime, ctime, _) in files.items() if ctime > settled or settled < mtime <= now}
    others = [name for name in files if name not in known]
    saved = time.monotonic()
    try:
        with ThreadPoolExecutor(8) as pool, progress(what, len(files), len(known)) as advance:
            for start in range(0, len(others), BATCH):
                batch = others[start : start + BATCH]
                known.update(zip(batch, pool.map(lambda name: _digest(read(name)), batch), strict=True))
                advance(len(batch))
                if time.monotonic() - saved >= SAVE_EVERY_S:
                    _save(memory, files, known, fresh)
                    saved = time.monotonic()
    finally:
        _save(memory, files, known, fresh)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def _known(memory: Path | None, files: Mapping[str, Stamp]) -> dict[str, str]:
    """The remembered digests of those files that have not changed since."""
    if memory is None:
        return {}
    try:
        stored = json.loads(memory.read_bytes())
        remembered = stored["files"] if stored["version"] == VERSION else {}
        there = {name: remembered[name] for name in files if name in remembered}
        return {name: str(digest) for name, (*kept, digest) in there.items() if tuple(kept) == files[name]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _save(memory: Path | None, files: Mapping[str, Stamp], known: Mapping[str, str], fresh: set[str]) -> None:
    if memory is None:
        return
    kept = {name: [*files[name], known[name]] for name in files if name in known and name not in fresh}
    with suppress(OSError):
        write_atomically(memory, json.dumps({"version": VERSION, "files": kept}).encode())
