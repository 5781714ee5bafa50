"""Lines printed while data sets are downloaded, converted or loaded, before the first trial starts."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mvae.data import DATASETS


def preparing(name: str) -> str:
    """Returns the line to print before a data set is loaded, and before the slow import of torch."""
    slow = DATASETS[name].prepare is not None
    usually = "can take many minutes the first time" if slow else "usually takes a few seconds"
    return f"Preparing {name}, which {usually}"


@contextmanager
def shown(say: Callable[[str], None]) -> Iterator[None]:
    """In the `with` block, passes to `say` the messages of `mvae.data` about downloads and conversions.

    Prints warnings to stderr.
    """
    log, handler = logging.getLogger("mvae.data"), _Saying(say)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


class _Saying(logging.Handler):
    """Passes each message to a function, but prints warnings to stderr."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            print(record.getMessage(), file=sys.stderr)
        else:
            self._say(record.getMessage())
