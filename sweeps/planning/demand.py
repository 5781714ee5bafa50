"""What a trial takes of a cluster, what a cluster has, and how many trials fit into it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from mvae.limits import free_memory
from mvae.refusal import Refusal
from sweeps.cli.words import counted

SHARE_OF_A_GPU = 0.25
"""`--gpus-per-trial auto` of a trial in one process, where there are GPUs: the networks here leave most of one idle."""

ON_THE_HEAD = 1.3 * 2**30
"""Bytes of the driver's machine for a trial of several workers: its Tune process, Train's controller, a queue."""

OF_A_PROCESS = 1.3e9
"""Bytes of memory per process of a trial, as measured (README, Requirements)."""

OF_THE_DRIVER = 1.0e9
"""Bytes of memory kept for the driver and Ray's own processes, as measured (README, Requirements)."""

WAITING = 8
"""Trials that may wait for machines beside those that run; of those with several workers, whose own process waits
somewhere, one."""

Gpus = float | Literal["auto"]


@dataclass(frozen=True)
class Capacity:
    """What a cluster has at most."""

    cpus: float
    gpus: float
    final: bool = True
    """Nothing can be added to it, as far as is known; else these are the machines of this moment."""
    together: float = math.inf
    """Trials of several workers whose own processes the driver's machine has memory for."""
    memory: float = math.inf
    """Bytes of memory free for trials on a sweep's own machine; infinite on a cluster, whose machines may differ."""


@dataclass(frozen=True)
class Demand:
    """What one trial takes: processes of one CPU each."""

    workers: int = 1
    gpus: float = 0.0
    """Of each process."""
    fewest: int | None = None
    """Processes that will do, of an elastic trial."""

    @property
    def least(self) -> int:
        """Processes without which it does not start."""
        return self.workers if self.fewest is None else self.fewest

    @property
    def memory(self) -> float:
        """Bytes that all processes of a trial take on one machine; of an elastic trial, after it has grown."""
        return self.workers * OF_A_PROCESS + (ON_THE_HEAD if self.workers > 1 else 0)

    @property
    def of_each(self) -> dict[str, float]:
        """What each process holds, by Ray's names."""
        return {"CPU": 1.0, "GPU": self.gpus} if self.gpus else {"CPU": 1.0}

    def fits(self, there: Capacity) -> bool:
        return self.least <= there.cpus and self.least * self.gpus <= there.gpus


def demand(workers: int, fewest: int | None, wanted: Gpus, there: Capacity) -> Demand:
    """What a trial of so many processes takes.

    Args:
        wanted: GPUs of the whole trial; auto: a share of one for a single process, one for each of several.
    """
    alone = SHARE_OF_A_GPU if workers == 1 else 1.0
    each = (alone if there.gpus else 0.0) if wanted == "auto" else wanted / workers
    return Demand(workers, each, fewest)


def check_fits(needs: Demand, wanted: Gpus, there: Capacity, where: str) -> None:
    """Refuses what a cluster can never have.

    Args:
        wanted: what was asked for as GPUs of a trial.
        where: "here", or what the cluster is called.
    Raises:
        Refusal: one line that says what would be right.
    """
    if needs.workers > 1 and needs.gpus != int(needs.gpus):
        raise Refusal(
            f"--gpus-per-trial {wanted:g}: each of several workers takes whole GPUs, which no two of them can share;"
            f" ask for {needs.workers}, 0 or auto"
        )
    if wanted != "auto" and needs.least * needs.gpus > there.gpus:
        gpus = there.gpus
        has = f"are {gpus:g} GPUs" if gpus > 1 else f"is {gpus:g} GPU" if gpus else "is no GPU"
        right = f"ask for at most {gpus:g}, or auto" if gpus else "write 0 or auto"
        raise Refusal(f"--gpus-per-trial {wanted:g}: there {has} {where}; {right}")
    if needs.least > there.cpus and needs.least > 1:
        most = max(1, int(there.cpus))
        raise Refusal(
            f"{needs.least} workers a trial: there are {there.cpus:g} CPUs for them {where}; ask for at most {most}"
        )
    if not needs.fits(there) and needs.gpus:
        raise Refusal(
            f"{needs.least} workers a trial with {needs.gpus:g} GPU each: there are {there.gpus:g} GPUs {where};"
            f" ask for at most {int(there.gpus / needs.gpus)} workers, or a smaller --gpus-per-trial"
        )


def free_for_trials() -> float:
    """Bytes of this machine's memory that trials can take; call it before Ray starts."""
    return max(0.0, free_memory() - OF_THE_DRIVER)


def trials_at_once(there: Capacity, needs: Demand, most: int | None, jobs: int | None = None) -> int:
    """How many such trials run at a time.

    Where a cluster may grow, which it does for those that wait, that is more than fit now: of one worker all, since
    those that wait hold nothing; of several one more, since each has a process on the head from its start, or as many
    as the user says.

    Args:
        most: `--max-concurrent`. It overrides the bound by memory, which is an estimate; those by CPUs and GPUs remain.
        jobs: how many there are to run; None where nobody knows yet.
    """
    if not there.final and most is not None:
        return most
    if not there.final and needs.workers == 1 and jobs is not None:
        return max(1, jobs)
    fits = int(there.cpus / needs.least)
    if needs.gpus:
        fits = min(fits, int(there.gpus / (needs.least * needs.gpus)))
    if not there.final:
        fits += WAITING if needs.workers == 1 else 1
    if needs.workers > 1:
        fits = int(min(fits, there.together))
    if most is None:
        return max(1, int(min(fits, there.memory / needs.memory)))
    return max(1, min(fits, most))


def memory_bound(there: Capacity, needs: Demand, most: int | None, jobs: int) -> str:
    """Returns one line if memory bounds how many trials run at a time, or if `--max-concurrent` exceeds that bound.

    Args:
        most: `--max-concurrent`.
        jobs: how many there are to run.
    """
    holds = trials_at_once(there, needs, None)
    unbounded = trials_at_once(replace(there, memory=math.inf), needs, most)
    if min(unbounded, jobs) <= holds:
        return ""
    free, each = there.memory / 1e9, needs.memory / 1e9
    has = f"{free:.1f} GB of memory are free for trials, and a trial takes about {each:.1f} GB"
    if most is None:
        return f"{counted(holds, 'trial')} at a time: {has}. To run more, give --max-concurrent"
    too_many = f"--max-concurrent {most} is more than memory holds ({counted(holds, 'trial')} at a time)"
    return f"{too_many}: {has}. Lower it if their processes die"
