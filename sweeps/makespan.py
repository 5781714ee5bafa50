"""How long trials take together when only so many run at a time.

A trial cannot be divided: one trial on two free slots takes as long as on one.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable


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
