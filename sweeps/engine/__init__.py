"""The engine: the only package that imports Ray.

attach.py     the cluster: attached to, or started for the sweep alone; what must hold before anything starts
machines.py   its machines: shared storage, the same package
here.py       the machine that the command runs on
demand.py     what a trial takes, and how many fit
trials.py     Tune: the trials of a sweep
search.py     Tune: the trials of a search, with OptunaSearch and ASHA
together.py   Train: a trial of several workers
watch.py      notices that the cluster's head is lost
quiet.py      Ray's chatter, its signal handlers, its way of ending
"""

from __future__ import annotations

from sweeps.engine.attach import address, check, cluster
from sweeps.engine.demand import Capacity, Demand, demand, memory_bound, trials_at_once
from sweeps.engine.here import this_machine
from sweeps.engine.search import SearchListener, run_search
from sweeps.engine.trials import Listener, alike, run_jobs

__all__ = [
    "Capacity",
    "Demand",
    "Listener",
    "SearchListener",
    "address",
    "alike",
    "check",
    "cluster",
    "demand",
    "memory_bound",
    "run_jobs",
    "run_search",
    "this_machine",
    "trials_at_once",
]
