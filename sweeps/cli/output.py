"""Keeps a sweep running if its output fails: the pipe or terminal is closed, or the locale has no UTF-8."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast


@contextmanager
def outliving_readers(notice: str) -> Iterator[None]:
    """In the `with` block, drops output to a closed pipe or terminal. Otherwise, printing would raise an error.

    Args:
        notice: printed to stderr when stdout loses its reader. If empty, nothing is printed.
    """
    before = sys.stdout, sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:  # streams are None after `>&-`
        sys.stdout = cast(TextIO, _Outliving(sys.stdout or nowhere, notice))
        sys.stderr = cast(TextIO, _Outliving(sys.stderr or nowhere))
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before


def print_every_character(stream: TextIO) -> None:
    """Makes a stream print `?` for characters that its encoding lacks, instead of raising UnicodeEncodeError."""
    reconfigure = getattr(stream, "reconfigure", None)  # also works for an _Outliving
    if reconfigure is not None and not stream.encoding.lower().startswith("utf"):
        reconfigure(errors="replace")


class _Outliving:
    """A text stream that redirects its file descriptor to /dev/null when its reader is gone."""

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
            if error.errno not in (errno.EPIPE, errno.EIO):  # pipe without a reader, closed terminal
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # also drops output of libraries and buffered text
            os.close(nowhere)
            if self._notice:
                print(self._notice, file=sys.stderr, flush=True)
