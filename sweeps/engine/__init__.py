"""The engine: the only package that imports Ray.

attach.py        checks that the trials can run, and joins or starts the cluster
machines.py      checks that all machines of the cluster share the storage and run the same package
tune.py          runs the trials of a sweep with Ray Tune
tune_search.py   runs the trials of a search with Ray Tune
train.py         runs a trial of several workers with Ray Train
events.py        passes the events of trials to the driver
watch.py         detects the loss of the cluster's head
quiet.py         keeps Ray from printing, from ending with the terminal, and from ending the process
private.py       all uses of Ray's private names, with the reasons and the CPU time saved
start_worker.py  starts Ray's worker processes
idle_agent.py    replaces the agent process that Ray starts for its dashboard
"""

from sweeps.engine.attach import check, cluster
from sweeps.engine.events import Listener
from sweeps.engine.machines import address, host_now, this_host
from sweeps.engine.tune import alike, run_jobs
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
    "host_now",
    "memory_bound",
    "run_jobs",
    "run_search",
    "this_host",
    "trials_at_once",
]
