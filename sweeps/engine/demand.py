"""What a trial takes of a cluster, what a cluster has, and how many trials fit into it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mvae.refusal import Refusal

SHARE_OF_A_GPU = 0.25
"""`--gpus-per-trial auto` of a trial in one process, where there are GPUs: the networks here leave most of one idle."""

ON_THE_HEAD = 1.3 * 2**30
"""Bytes of the driver's machine for a trial of several workers: its Tune process, Train's controller, a queue."""

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
    def of_each(self) -> dict[str, float]:
        """What each process holds, by Ray's names."""
        return {"CPU": 1.0, "GPU": self.gpus} if self.gpus else {"CPU": 1.0}

    def fits(self, there: Capacity) -> bool:
        """Whether one such trial can start."""
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


def trials_at_once(there: Capacity, needs: Demand, most: int | None, jobs: int | None = None) -> int:
    """How many such trials run at a time.

    Where a cluster may grow, which it does for those that wait, that is more than fit now: of one worker all, since
    those that wait hold nothing; of several one more, since each has a process on the head from its start, or as many
    as the user says.

    Args:
        most: `--max-concurrent`.
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
    return max(1, fits if most is None else min(fits, most))
