"""Downloads files and checks their digests. Shows the progress and the seconds left (mvae/data/progress.py)."""

import hashlib
import logging
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mvae.data.progress import progress

log = logging.getLogger(__name__)

TIMEOUT_S = 20.0
"""Seconds without data after which a download fails."""
CHUNK = 1 << 16
"""Bytes read at a time."""


def fetch(urls: Sequence[str], target: Path, md5: str) -> None:
    """Downloads a file from the first address that serves it with the right content.

    Args:
        urls: addresses of copies of the file.
        target: path to write.
        md5: hex digest of the content.
    Raises:
        OSError: no address served the file. The message gives the reason for each address.
    """
    failed = []
    for url in urls:
        try:
            _fetch(url, target)
        except OSError as error:
            failed.append(f"{url}: {error}")
            continue
        with target.open("rb") as file:
            if hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest() == md5:
                return
        failed.append(f"{url}: incomplete or changed on the server")
    raise OSError("; ".join(failed))


def _fetch(url: str, target: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "mvae-suite"})  # noqa: S310  no address from a user
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer, target.open("wb") as file:  # noqa: S310
        size = answer.headers.get("Content-Length")
        what = f"downloading {target.name}"
        log.info("%s%s", what, f" ({int(size) / 1e6:.1f} MB)" if size else "")
        with progress(what, int(size) if size else None, 0, in_bytes=True) as advance:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                advance(len(chunk))
