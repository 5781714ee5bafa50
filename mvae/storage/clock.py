"""Defines the clock used by leases, checkpoints and the MLflow mirror. Tests replace it to avoid waiting."""

import threading
import time


class Clock:
    """This machine's clock. All times are in seconds.

    `time` returns Unix time. `monotonic` returns a time that never decreases. `wait` waits for an event with a timeout,
    and returns whether the event is set.
    """

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


CLOCK = Clock()
