"""When trials will be through: arithmetic only, without a clock of its own.

A trial cannot be divided: one trial on two free slots takes as long as on one.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping


def makespan(seconds: Iterable[float], slots: int) -> float:
    """Seconds until the last trial ends, if each one starts as soon as a slot is free.

    Args:
        seconds: what each trial takes, in the order in which trials start.
        slots: trials that run at the same time, at least 1.
    """
    ends = [0.0] * max(1, slots)
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


TELLING = 0.02
"""Share of a trial whose time, with its start, says something about the rest."""


class Work:
    """How far a sweep is and when it will be through: arithmetic only, the clock is the caller's.

    Work has any one unit (expected seconds, or epochs) for all trials of a kind. How long a unit takes is measured a
    kind, on this run's trials, starts included; kinds of which nothing is known yet are taken to be as slow as the
    slowest known one. A trial that has told of its progress twice goes on at its own speed between these.
    """

    def __init__(
        self, work: Mapping[str, float], before: Mapping[str, float], kinds: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            work: what each whole trial takes, by key.
            before: share of a trial, 0 to 1, that was done before this run; it tells nothing about this run's speed.
            kinds: which trials take equally long a unit, by key; None where all do.
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
        """A trial starts, or starts again from where it is."""
        self._since[key] = now
        self._before[key] = self._now[key]
        self._first.pop(key, None)
        self._at_once = max(self._at_once, len(self._since))

    def reached(self, key: str, share: float, now: float) -> None:
        """A trial is done to this share, 0 to 1."""
        self._now[key] = min(1.0, share)
        self._first.setdefault(key, (now, self._now[key]))
        self._spent[key] = now - self._since.get(key, now)

    def ended(self, key: str) -> None:
        self._since.pop(key, None)

    def drop(self, key: str) -> None:
        """Nothing more is to be done for a trial, and what was done of it tells nothing about the speed."""
        self._before[key] = self._now[key] = 1.0
        self.ended(key)

    @property
    def fraction(self) -> float:
        """Share of all work that is done, 0 to 1; 1 where there is none."""
        whole = sum(self.work.values())
        return sum(self.work[key] * share for key, share in self._now.items()) / whole if whole else 1.0

    def seconds_left(self) -> float | None:
        """Time to the end, at the speed of this run so far; None as long as too little is done to tell."""
        spent, done, own = dict[str, float](), dict[str, float](), dict[str, float]()
        for key, kind in self._kinds.items():
            speed = self._own_speed(key)
            if speed is not None:
                own[key] = (1 - self._now[key]) / speed
            if self._now[key] - self._before[key] >= TELLING or speed is not None:
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
        """Share a second of a running trial since it first told of progress, which leaves its start out."""
        if key not in self._since or key not in self._first:
            return None
        when, share = self._first[key]
        seconds, done = self._since[key] + self._spent[key] - when, self._now[key] - share
        return done / seconds if done > 0 and seconds > 0 else None
