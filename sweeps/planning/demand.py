"""Computes what a trial needs, what a cluster has, and how many trials run at the same time."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from mvae.limits import free_memory
from mvae.refusal import Refusal
from sweeps.cli.words import counted

SHARE_OF_A_GPU = 0.25
"""Fraction of a GPU that `--gpus-per-trial auto` gives to a trial with one process.

A trial with one process would leave most of a whole GPU idle.
"""

ON_THE_HEAD = 1.3 * 2**30
"""Bytes of memory that a trial with several workers takes on the driver's machine: Tune process, controller, queue."""

PROCESS_BYTES = 1.3e9
"""Bytes of memory per process of a trial, as measured (README, Requirements)."""

DRIVER_BYTES = 1.0e9
"""Bytes of memory reserved for the driver and Ray's own processes, as measured (README, Requirements)."""

MAX_WAITING = 8
"""Number of one-worker trials that may wait for a growing cluster, in addition to the running trials."""

Gpus = float | Literal["auto"]


@dataclass(frozen=True)
class Capacity:
    """The resources of a machine or cluster."""

    cpus: float
    gpus: float
    final: bool = True
    """Whether these resources are the maximum. If not, they are the present resources of a cluster that may grow."""
    together: float = math.inf
    """Number of multi-worker trials that fit in the memory of the driver's machine. Their workers are not counted."""
    head_trains: bool = False
    """Whether the driver's machine also runs workers, so that its memory must hold them too."""
    memory: float = math.inf
    """Bytes of memory free for trials on a single machine. Infinite on a cluster, because the machines may differ."""


@dataclass(frozen=True)
class Demand:
    """The resources that one trial needs. Each process of the trial takes one CPU."""

    workers: int = 1
    gpus: float = 0.0
    """GPUs per process."""
    fewest: int | None = None
    """Minimum number of processes of an elastic trial; None if the trial is not elastic."""

    @property
    def least(self) -> int:
        """Smallest number of processes with which the trial starts."""
        return self.workers if self.fewest is None else self.fewest

    @property
    def memory(self) -> float:
        """Bytes of memory if all processes run on one machine. An elastic trial is assumed to have all its workers."""
        return self.workers * PROCESS_BYTES + (ON_THE_HEAD if self.workers > 1 else 0)

    @property
    def of_each(self) -> dict[str, float]:
        """Resources per process, by Ray's names."""
        return {"CPU": 1.0, "GPU": self.gpus} if self.gpus else {"CPU": 1.0}

    def fits(self, there: Capacity) -> bool:
        return self.least <= there.cpus and self.least * self.gpus <= there.gpus


def demand(workers: int, fewest: int | None, wanted: Gpus, there: Capacity) -> Demand:
    """Returns the resources that a trial with this many processes needs.

    Args:
        fewest: minimum number of processes of an elastic trial.
        wanted: GPUs for the whole trial. "auto" means SHARE_OF_A_GPU for a trial with one process, and one GPU per
            process for a trial with several.
    """
    automatic = SHARE_OF_A_GPU if workers == 1 else 1.0
    each = (automatic if there.gpus else 0.0) if wanted == "auto" else wanted / workers
    return Demand(workers, each, fewest)


def check_fits(needs: Demand, wanted: Gpus, there: Capacity, where: str) -> None:
    """Checks that a trial fits into a cluster.

    Args:
        wanted: value of `--gpus-per-trial`.
        where: words for the place in the message: "here", or a description of the cluster.
    Raises:
        Refusal: the trial does not fit, or several workers would have to share a GPU. The message says what fits.
    """
    if needs.workers > 1 and needs.gpus != int(needs.gpus):
        raise Refusal(
            f"--gpus-per-trial {wanted:g}: several workers cannot share a GPU, so each takes whole GPUs;"
            f" ask for {needs.workers}, 0 or auto"
        )
    gpus = there.gpus
    has = f"are {gpus:g} GPUs" if gpus > 1 else f"is {gpus:g} GPU" if gpus else "is no GPU"
    if wanted != "auto" and needs.least * needs.gpus > gpus:
        right = f"ask for at most {gpus:g}, or auto" if gpus else "write 0 or auto"
        raise Refusal(f"--gpus-per-trial {wanted:g}: there {has} {where}; {right}")
    if needs.least > there.cpus and needs.least > 1:
        most = max(1, int(there.cpus))
        raise Refusal(
            f"{needs.least} workers per trial: there are only {there.cpus:g} CPUs {where}; ask for at most {most}"
        )
    if not needs.fits(there) and needs.gpus:
        raise Refusal(
            f"{needs.least} workers per trial with {needs.gpus:g} GPU each: there {has} {where};"
            f" ask for at most {counted(int(gpus / needs.gpus), 'worker')}, or a smaller --gpus-per-trial"
        )


def free_for_trials() -> float:
    """Returns the bytes of this machine's memory that trials can use. Call it before Ray starts."""
    return max(0.0, free_memory() - DRIVER_BYTES)


def trials_at_once(there: Capacity, needs: Demand, most: int | None, jobs: int | None = None) -> int:
    """Returns the number of trials to start at the same time, if each trial has these needs.

    A cluster grows only while trials wait. So on a cluster that may grow, more trials are started than fit now:
    - if `most` is given: `most` trials
    - with one worker per trial: all `jobs`, because waiting trials hold no resources. If the number of jobs is
      unknown, MAX_WAITING more trials than fit are started.
    - with several workers per trial: one more than fits, because each waiting trial already has a process on the head

    Args:
        most: `--max-concurrent`, which replaces the limit that memory sets, but not the limits that CPUs and GPUs set.
        jobs: number of trials to run, or None if unknown.
    """
    if not there.final and most is not None:
        return most
    if not there.final and needs.workers == 1 and jobs is not None:
        return max(1, jobs)
    fits = int(there.cpus / needs.least)
    if needs.gpus:
        fits = min(fits, int(there.gpus / (needs.least * needs.gpus)))
    if not there.final:
        fits += MAX_WAITING if needs.workers == 1 else 1
    if needs.workers > 1:
        fits = int(min(fits, there.together * (ON_THE_HEAD / needs.memory if there.head_trains else 1.0)))
    if most is None:
        return max(1, int(min(fits, there.memory / needs.memory)))
    return max(1, min(fits, most))


def memory_bound(there: Capacity, needs: Demand, most: int | None, jobs: int) -> str:
    """Returns a line if memory limits the number of trials at a time, or if `--max-concurrent` exceeds that limit.

    Args:
        most: `--max-concurrent`.
        jobs: number of trials to run.
    """
    holds = trials_at_once(there, needs, None)
    unbounded = trials_at_once(replace(there, memory=math.inf), needs, most)
    if min(unbounded, jobs) <= holds:
        return ""
    free, each = there.memory / 1e9, needs.memory / 1e9
    has = f"{free:.1f} GB of memory is free for trials, and a trial takes about {each:.1f} GB"
    if most is None:
        return f"{counted(holds, 'trial')} at a time: {has}. To run more, set --max-concurrent"
    too_many = f"--max-concurrent {most} is more than memory holds ({counted(holds, 'trial')} at a time)"
    return f"{too_many}: {has}. Lower --max-concurrent if trial processes are killed"
