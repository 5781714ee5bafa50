"""Standard output and standard error that stop no sweep: by a closed pipe or terminal, or by a locale without UTF-8."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast


@contextmanager
def outliving_readers(notice: str) -> Iterator[None]:
    """Within the block, what nobody can read any more is dropped; else it would raise in whatever code prints.

    Args:
        notice: printed on standard error when standard output loses its reader; empty for none.
    """
    before = sys.stdout, sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:  # Python's streams are None if `>&-` closed them
        sys.stdout = cast(TextIO, _Outliving(sys.stdout or nowhere, notice))
        sys.stderr = cast(TextIO, _Outliving(sys.stderr or nowhere))
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before


def print_every_character(stream: TextIO) -> None:
    """Let a stream print ? for characters that its encoding lacks, where it would raise UnicodeEncodeError."""
    reconfigure = getattr(stream, "reconfigure", None)  # _Outliving has it too
    if reconfigure is not None and not stream.encoding.lower().startswith("utf"):
        reconfigure(errors="replace")


class _Outliving:
    """A text stream. When its reader is gone, its file descriptor is turned to /dev/null."""

    def __init__(self, stream: TextIO, notice: str = "") -> None:
        self._stream, self._notice = stream, notice

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # a pipe without a reader, a terminal that was closed
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # also for what is still buffered, and for libraries that print
            os.close(nowhere)
            if self._notice:
                print(self._notice, file=sys.stderr, flush=True)
