"""Ends a sweep on SIGINT, SIGTERM and SIGHUP (a closed terminal), and when the hours of `--max-hours` are over.

A signal handler raises an exception in whatever code is running, and libraries may swallow this exception. For example,
Ray's waiting calls raise a plain KeyboardInterrupt instead, and Python drops exceptions raised in destructors. So the
handler also stores the signal. The driver checks for a stored signal at each message of a trial, and ends the sweep.

Ending the trials takes seconds, and the handler may have to wait until a library returns to Python. So a separate
thread acknowledges the signal at once. The thread reads the pipe into which Python's C code writes the signal's number.

When the hours of `--max-hours` are over, a timer sends SIGTERM to this process.

A batch system announces the time of its signal in the environment variable MVAE_STOPS_AT (cluster/slurm.sh). Shortly
before that time, and before the end of `--max-hours`, the trials save checkpoints more often.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from mvae.refusal import Refusal

STOPS_AT = "MVAE_STOPS_AT"
"""Environment variable: Unix time in seconds from which a batch system may end this process by a signal."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """Raised when a signal arrives. Results in storage are kept, and the same command resumes the other trials.

    The class derives from KeyboardInterrupt, because Ray's waiting calls drop any other exception of a signal handler,
    and Tune wraps every `Exception`. Even so, Ray raises a plain KeyboardInterrupt instead of this class.
    """


class Interruption:
    """Context manager that raises `Interrupted` at the first of SIGNALS, or at the end of `--max-hours`.

    Later signals are ignored. If SIGHUP is ignored at the start, as under `nohup`, it stays ignored.
    """

    def __init__(self, acknowledge: Callable[[str], None] = lambda _: None, hours: float | None = None) -> None:
        """
        Args:
            acknowledge: called at once, in another thread, with the name of the signal or option that ends the sweep.
            hours: value of `--max-hours`, counted from now, or None if not given.
        """
        self.acknowledge = acknowledge
        self.heard = ""
        """Name of the signal or option that ended the sweep: SIGINT, "--max-hours 1". Empty while the sweep runs."""
        self.until = None if hours is None else time.time() + 3600 * hours
        """Unix time in seconds at which the hours are over; None without `--max-hours`."""
        self.stops_at = self.until
        """Earliest Unix time in seconds at which the sweep will be stopped: `until` or MVAE_STOPS_AT."""
        self._budget = "" if hours is None else f"--max-hours {hours:g}"
        self._over = False
        self._timer: threading.Timer | None = None
        self._before: dict[int, Any] = {}

    @property
    def out_of_hours(self) -> bool:
        """Whether `--max-hours`, and not a signal, ended the sweep."""
        return bool(self.heard) and self.heard == self._budget

    def __enter__(self) -> Self:
        """
        Raises:
            Refusal: MVAE_STOPS_AT is not a time.
        """
        self.stops_at = min((time for time in (self.until, announced_stop()) if time is not None), default=None)
        read, self._written = os.pipe()
        os.set_blocking(self._written, False)
        self._wakeup_before = signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._acknowledge_first, args=(read,), name="signals", daemon=True)
        self._thread.start()
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._hear)
        if self.until is not None:
            left = min(max(0.0, self.until - time.time()), threading.TIMEOUT_MAX)
            self._timer = threading.Timer(left, self._expire)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.without_limit()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._written)
        self._thread.join(1.0)

    def check(self) -> None:
        """Raises `Interrupted` if a signal has arrived, in case a library swallowed the handler's exception."""
        if self.heard:
            raise Interrupted(self.heard)

    def without_limit(self) -> None:
        """Cancels the time limit of `--max-hours`. Called when no training is left."""
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self._over = True
        os.kill(os.getpid(), signal.SIGTERM)

    def _name(self, number: int) -> str:
        return self._budget if self._over and number == signal.SIGTERM else signal.Signals(number).name

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.heard:
            self.heard = self._name(number)
            raise Interrupted(self.heard)

    def _acknowledge_first(self, read: int) -> None:
        acknowledged = False
        with os.fdopen(read, "rb", buffering=0) as numbers:
            while number := numbers.read(1):
                if number[0] in self._before and not acknowledged:
                    acknowledged = True
                    self.acknowledge(self._name(number[0]))


def announced_stop() -> float | None:
    """Returns the time in the environment variable MVAE_STOPS_AT, or None if it is not set.

    Raises:
        Refusal: the variable is not a time.
    """
    text = os.environ.get(STOPS_AT, "")
    if text and not text.isdecimal():
        raise Refusal(f"{STOPS_AT} {text!r} is not a time: give Unix time in seconds (date +%s), or unset the variable")
    return float(text) if text else None
