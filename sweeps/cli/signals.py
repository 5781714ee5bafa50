"""SIGINT, SIGTERM and SIGHUP (a closed terminal): all end a sweep the same way, once, and cannot get lost on the way.

A handler raises in whatever code happens to run, and libraries swallow exceptions: Ray's waiting calls turn every
KeyboardInterrupt into a plain one, code that runs while an object is destroyed drops it. So what was heard is also
kept, and the driver asks for it whenever a trial says something.

Ending the trials takes seconds, and the handler itself may have to wait until a library returns to Python. Therefore a
thread acknowledges the signal: Python's C code writes its number into a pipe at the moment when it comes.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal came: what is committed stays, the rest goes on with the next command.

    Ray's waiting calls let no other exception of a signal handler through, and even of this one only a plain
    KeyboardInterrupt is left; Tune wraps those that are an `Exception`.
    """


class Interruption:
    """Hears SIGNALS while its block lasts; the first raises `Interrupted`, later ones are not heard.

    A SIGHUP that is ignored when the block begins stays ignored: `nohup` asks for that.
    """

    def __init__(self, acknowledge: Callable[[str], None] = lambda _: None) -> None:
        """
        Args:
            acknowledge: called at once with the first signal's name, in a thread of its own.
        """
        self.acknowledge = acknowledge
        self.heard = ""
        """Name of the signal that came, as SIGINT; empty as long as there was none."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        read, self._written = os.pipe()
        os.set_blocking(self._written, False)
        self._wakeup_before = signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._acknowledge_first, args=(read,), name="signals", daemon=True)
        self._thread.start()
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._written)
        self._thread.join(1.0)

    def check(self) -> None:
        """Raises `Interrupted` if a signal was heard, should its own exception have been swallowed."""
        if self.heard:
            raise Interrupted(self.heard)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.heard:
            self.heard = signal.Signals(number).name
            raise Interrupted(self.heard)

    def _acknowledge_first(self, read: int) -> None:
        """Acknowledges the first signal that is heard here; reads the others until the end of the block."""
        acknowledged = False
        with os.fdopen(read, "rb", buffering=0) as numbers:
            while number := numbers.read(1):
                if number[0] in self._before and not acknowledged:
                    acknowledged = True
                    self.acknowledge(signal.Signals(number[0]).name)
