"""The clock that leases, checkpoints and the mirror go by. A test gives them another one, and waits for nothing."""

from __future__ import annotations

import threading
import time


class Clock:
    """This machine's clock, in seconds: `time` is Unix time, `monotonic` is never set back.

    `wait` sleeps until the event is set, at most for so long, and returns whether it is set.
    """

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


CLOCK = Clock()
