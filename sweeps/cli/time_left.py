"""Estimates when a sweep will be finished. Callers pass the current time; no function reads a clock.

A trial cannot be divided: one trial on two free slots takes as long as on one slot.
"""

import heapq
from collections.abc import Iterable, Mapping


def makespan(seconds: Iterable[float], slots: int) -> float:
    """Returns the seconds until the last trial ends, if each trial starts as soon as a slot is free.

    Args:
        seconds: seconds of each trial, in the order in which they start.
        slots: number of trials that run at the same time, at least 1.
    """
    ends = [0.0] * max(1, slots)
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


MIN_PROGRESS = 0.02
"""Fraction of a trial that must be done before its speed, which includes start-up time, is used for the estimate."""


class Work:
    """Progress of a sweep, and the estimate of the time left.

    - All trials of a kind have the same unit of work (expected seconds, or epochs).
    - Seconds per unit of work are measured per kind, on this run's trials, including their start-up time.
    - A kind without measurements is assumed to be as slow as the slowest measured kind.
    - A trial that has reported progress twice is extrapolated from its own speed between the reports.
    """

    def __init__(
        self, work: Mapping[str, float], before: Mapping[str, float], kinds: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            work: amount of work of each whole trial, by key.
            before: fraction of each trial, 0 to 1, that was done before this run, by key. This part does not count for
                the speed.
            kinds: kind of each trial, by key. If None, all trials are of one kind.
        """
        self.work = dict(work)
        self._before = {key: before.get(key, 0.0) for key in work}
        self._now = dict(self._before)
        self._kinds = dict.fromkeys(work, "") if kinds is None else dict(kinds)
        self._since: dict[str, float] = {}
        self._spent: dict[str, float] = {}
        self._first: dict[str, tuple[float, float]] = {}
        self._at_once = 1

    def name(self, placeholder: str, key: str) -> None:
        for values in (self.work, self._before, self._now):
            values[key] = values.pop(placeholder)
        self._kinds[key] = self._kinds.pop(placeholder)

    def begun(self, key: str, now: float) -> None:
        self._since[key] = now
        self._before[key] = self._now[key]
        self._first.pop(key, None)
        self._at_once = max(self._at_once, len(self._since))

    def reached(self, key: str, fraction: float, now: float) -> None:
        self._now[key] = min(1.0, fraction)
        self._first.setdefault(key, (now, self._now[key]))
        self._spent[key] = now - self._since.get(key, now)

    def ended(self, key: str) -> None:
        self._since.pop(key, None)

    def drop(self, key: str) -> None:
        """Counts a trial as done, but ignores the trial when measuring the speed."""
        self._before[key] = self._now[key] = 1.0
        self.ended(key)

    @property
    def fraction(self) -> float:
        """Fraction of all work that is done, 0 to 1. It is 1 if there is no work."""
        whole = sum(self.work.values())
        return sum(self.work[key] * share for key, share in self._now.items()) / whole if whole else 1.0

    def seconds_left(self) -> float | None:
        """Returns the estimated seconds to the end at this run's speed, or None if too little is done to estimate."""
        spent, done, own = dict[str, float](), dict[str, float](), dict[str, float]()
        for key, kind in self._kinds.items():
            speed = self._own_speed(key)
            if speed is not None:
                own[key] = (1 - self._now[key]) / speed
            if self._now[key] - self._before[key] >= MIN_PROGRESS or speed is not None:
                spent[kind] = spent.get(kind, 0.0) + self._spent.get(key, 0.0)
                done[kind] = done.get(kind, 0.0) + self.work[key] * (self._now[key] - self._before[key])
        rates = {kind: spent[kind] / done[kind] for kind in done if done[kind] > 0}
        if not rates:
            return None
        slowest = max(rates.values())
        running_first = sorted(self._kinds, key=lambda key: key not in self._since)
        by_kind = {
            key: self.work[key] * (1 - self._now[key]) * rates.get(kind, slowest) for key, kind in self._kinds.items()
        }
        return makespan([own.get(key, by_kind[key]) for key in running_first], self._at_once)

    def _own_speed(self, key: str) -> float | None:
        """Returns a running trial's speed since its first report, as the fraction of the trial per second."""
        if key not in self._since or key not in self._first:
            return None
        when, share = self._first[key]
        seconds, done = self._since[key] + self._spent[key] - when, self._now[key] - share
        return done / seconds if done > 0 and seconds > 0 else None
