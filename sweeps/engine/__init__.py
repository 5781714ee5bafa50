"""The engine: the only package that imports Ray.

attach.py        joins or starts the cluster, after checking that the trials can run there
machines.py      machines of the cluster: do they share the storage and run the same package?
tune.py          runs the trials of a sweep with Ray Tune
tune_search.py   runs the trials of a search with Ray Tune
train.py         runs a trial of several workers with Ray Train
events.py        passes the events of trials to the driver
watch.py         notices that the head of the cluster is lost
quiet.py         keeps Ray from printing, from dying with the terminal, and from ending the process
private.py       every private name of Ray that we use, the reason, and the time saved
start_worker.py  starts Ray's worker processes
idle_agent.py    stands in for a process that Ray starts for its dashboard
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
