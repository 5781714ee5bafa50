"""The engine: the only room that imports Ray.

attach.py        the cluster: joined or started, and what must hold before anything starts
machines.py      its machines: do they share the storage and the package; the machine that the command runs on
tune.py          Tune: the trials of a sweep
tune_search.py   Tune: the trials of a search
train.py         Train: a trial of several workers
watch.py         notices that the cluster's head is lost
quiet.py         keeps Ray from printing, from dying with the terminal, and from exiting the process
private.py       every private name of Ray, why it is used, and what it saves
start_worker.py  starts Ray's worker processes
"""

from __future__ import annotations

from sweeps.engine.attach import check, cluster
from sweeps.engine.machines import address, this_host
from sweeps.engine.tune import Listener, alike, run_jobs
from sweeps.engine.tune_search import Question, SearchListener, run_search
from sweeps.planning.demand import Capacity, Demand, demand, memory_bound, trials_at_once

__all__ = [
    "Capacity",
    "Demand",
    "Listener",
    "Question",
    "SearchListener",
    "address",
    "alike",
    "check",
    "cluster",
    "demand",
    "memory_bound",
    "run_jobs",
    "run_search",
    "this_host",
    "trials_at_once",
]
