"""What a plan costs: hours of machines like this one, and their price."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvae.limits import cores
from sweeps.console import counted, duration
from sweeps.engine.attach import address
from sweeps.engine.demand import Capacity, Gpus, demand, trials_at_once
from sweeps.provenance import device_name

if TYPE_CHECKING:
    from sweeps.options import CommonOptions
    from sweeps.plan import Estimate, Shape


@dataclass(frozen=True)
class Machine:
    """A machine that trials run on, and what they run on there."""

    cpus: int
    gpus: int
    kind: str
    """Of the device: cpu or cuda."""
    device: str | None
    """Its name, as results record it; None where trials run on a cluster's machines, of which nothing is known here."""

    def share(self, shape: Shape, wanted: Gpus, most: int | None) -> float:
        """How much of a machine a trial takes; above 1 for one that needs several.

        Args:
            wanted: GPUs of a trial, as asked for.
            most: trials at a time, where that is limited.
        """
        here = Capacity(self.cpus, self.gpus)
        needs = demand(*shape, wanted, here)
        if needs.fits(here):
            return 1 / trials_at_once(here, needs, most)
        by_gpus = needs.least * needs.gpus / self.gpus if needs.gpus and self.gpus else 0.0
        return float(math.ceil(max(needs.least / self.cpus, by_gpus)))


def this_machine(wanted: Gpus) -> Machine:
    """The machine that this process runs on.

    Args:
        wanted: GPUs of a trial, as asked for.
    """
    import torch

    gpus = torch.cuda.device_count()
    kind = "cuda" if gpus and wanted != 0 else "cpu"
    return Machine(cores(), gpus, kind, None if address() else device_name(kind))


def costs(estimate: Estimate, machine: Machine, options: CommonOptions) -> list[str]:
    """Machine-hours of an estimate, and their price where an hour has one; nothing where no time is known."""
    if not estimate.known:
        return []
    shares = {shape: machine.share(shape, options.gpus_per_trial, options.max_concurrent) for shape in estimate.shapes}
    seconds = sum(estimate.shapes[shape] * share for shape, share in shares.items())
    least = min(shares.values())
    at_once = f", {round(1 / least)} trials at a time" if least < 1 else ""
    has = counted(machine.cpus, "CPU") + f" and {counted(machine.gpus, 'GPU')}" * bool(machine.gpus)
    lines = [f"about {_hours(seconds)} machine-hours ({duration(seconds)} of one like this, {has}{at_once})"]
    if address():
        lines[-1] += "; like this one, the head: workers of another kind take other times, at another price"
    if options.price_per_hour is not None:
        price = seconds / 3600 * options.price_per_hour
        lines.append(f"about {price:.2f} at {options.price_per_hour:g} a machine-hour")
    if estimate.unknown:
        lines[-1] += f", without {counted(estimate.unknown, 'trial')} of which no time is known"
    return lines


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"
