"""SIGINT and SIGTERM: both end a sweep the same way, once, and cannot get lost on the way.

A handler raises in whatever code happens to run, and libraries swallow exceptions: Ray's waiting calls turn every
KeyboardInterrupt into a plain one, code that runs while an object is destroyed drops it. So what was heard is also
kept, and the driver asks for it whenever a trial says something.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came: what is committed stays, the rest goes on with the next command.

    Ray's waiting calls let no other exception of a signal handler through, and even of this one only a plain
    KeyboardInterrupt is left; Tune wraps those that are an `Exception`.
    """


class Interruption:
    """Hears SIGINT and SIGTERM while its block lasts; the first raises `Interrupted`, later ones are not heard."""

    def __init__(self) -> None:
        self.heard = ""
        """Name of the signal that came, SIGINT or SIGTERM; empty as long as there was none."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises `Interrupted` if a signal was heard, should its own exception have been swallowed."""
        if self.heard:
            raise Interrupted(self.heard)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.heard:
            self.heard = signal.Signals(number).name
            raise Interrupted(self.heard)
