"""The clock of leases, checkpoints and the MLflow mirror. Tests replace this clock, so that they need not wait."""

import threading
import time


class Clock:
    """This machine's clock, in seconds. `time` is Unix time; `monotonic` never goes back.

    `wait` waits for an event with a timeout, and returns whether the event is set.
    """

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


CLOCK = Clock()
