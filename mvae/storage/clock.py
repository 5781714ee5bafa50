"""The clock that leases, checkpoints and the mirror go by. A test gives them another one, and waits for nothing."""

from __future__ import annotations

import threading
import time


class Clock:
    """This machine's clock."""

    def time(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; never set back."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Sleep until the event is set, at most for so long; returns whether it is set."""
        return event.wait(seconds)


CLOCK = Clock()
