"""Converts an estimate into machine-hours and their price."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sweeps.cli.options import CommonOptions
from sweeps.cli.time_left import makespan
from sweeps.cli.words import counted, duration, figures
from sweeps.planning.demand import Capacity, Gpus, demand, memory_bound, trials_at_once
from sweeps.planning.estimate import Estimate, Shape


@dataclass(frozen=True)
class Host:
    """The machine that trials run on."""

    capacity: Capacity
    kind: str
    """Kind of the device that trains: cpu or cuda."""
    device: str | None
    """Name of the device, as in results. None if trials run on a cluster, because this process does not know the
    cluster's machines."""

    def share(self, shape: Shape, wanted: Gpus, most: int | None) -> float:
        """Returns the share of the machine that a trial takes; above 1 if the trial needs several machines.

        Args:
            wanted: value of `--gpus-per-trial`.
            most: value of `--max-concurrent`; None if not given.
        """
        needs = demand(*shape, wanted, self.capacity)
        if needs.fits(self.capacity):
            return 1 / trials_at_once(self.capacity, needs, most)
        gpus = self.capacity.gpus
        by_gpus = needs.least * needs.gpus / gpus if needs.gpus and gpus else 0.0
        return float(math.ceil(max(needs.least / self.capacity.cpus, by_gpus)))


def costs(estimate: Estimate, machine: Host, options: CommonOptions) -> list[str]:
    """Returns lines with an estimate's machine-hours, and with the price if the user gave a price per hour.

    Returns no lines if no trial's time is known.
    """
    if not estimate.known:
        return []
    here, gpus, at_most = machine.capacity, options.gpus_per_trial, options.max_concurrent
    shares = {shape: machine.share(shape, gpus, at_most) for shape in estimate.shapes}
    seconds = sum(
        makespan(estimate.shapes[shape], round(1 / share)) if share < 1 else sum(estimate.shapes[shape]) * share
        for shape, share in shares.items()
    )
    most = max(min(round(1 / share), len(estimate.shapes[shape])) for shape, share in shares.items())
    at_once = f", {most} trials at a time" if most > 1 else ""
    has = counted(int(here.cpus), "CPU") + f" and {counted(int(here.gpus), 'GPU')}" * bool(here.gpus)
    bounds = (
        memory_bound(here, demand(*shape, gpus, here), at_most, len(each)) for shape, each in estimate.shapes.items()
    )
    lines = [f"{_hours(seconds)} machine-hours ({duration(seconds)} on one machine like this: {has}{at_once})"]
    if machine.device is None:
        lines[-1] += "; this assumes workers like the head: on other machines, times and prices differ"
    if options.price_per_hour is not None:
        price = seconds / 3600 * options.price_per_hour
        lines.append(f"about {price:.2f} at {options.price_per_hour:g} per machine-hour")
    if estimate.unknown:
        lines[-1] += f", without {counted(estimate.unknown, 'trial')} whose time is unknown"
    return [*lines, *dict.fromkeys(filter(None, bounds))]


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    if hours < 0.01:
        return "under 0.01"
    return f"about {hours:,.0f}" if hours >= 10 else f"about {figures(hours, 2)}"
