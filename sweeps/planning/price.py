"""Converts an estimate into the time and the price of a command on this machine."""

import math
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sweeps.cli.options import CommonOptions
from sweeps.cli.words import between, counted, span
from sweeps.planning.demand import Capacity, Gpus, demand, memory_bound, trials_at_once
from sweeps.planning.estimate import Estimate, Shape
from sweeps.planning.load import IDLE, Load

LOADED = 1.2
"""Slowdown above which a plan mentions the other programs."""


@dataclass(frozen=True)
class Host:
    """The machine that trials run on."""

    capacity: Capacity
    kind: str
    """Kind of the device that trains: cpu or cuda."""
    device: str | None
    """Name of the device, as in results. None if trials run on a cluster, because this process does not know the
    cluster's machines."""
    load: Callable[[], Load] = lambda: IDLE
    """Measures the load of the machine by other programs."""

    def share(self, shape: Shape, wanted: Gpus, most: int | None) -> float:
        """Returns the fraction of the machine that a trial takes. It is above 1 if the trial needs several machines.

        Args:
            wanted: value of `--gpus-per-trial`.
            most: value of `--max-concurrent`, or None if not given.
        """
        needs = demand(*shape, wanted, self.capacity)
        if needs.fits(self.capacity):
            return 1 / trials_at_once(self.capacity, needs, most)
        gpus = self.capacity.gpus
        by_gpus = needs.least * needs.gpus / gpus if needs.gpus and gpus else 0.0
        return float(math.ceil(max(needs.least / self.capacity.cpus, by_gpus)))

    def slots(self, shapes: Iterable[Shape], options: CommonOptions) -> dict[Shape, int]:
        """Returns how many trials of each shape run at the same time on this machine, at least 1."""
        shares = {shape: self.share(shape, options.gpus_per_trial, options.max_concurrent) for shape in shapes}
        return {shape: max(1, round(1 / share)) for shape, share in shares.items()}

    @property
    def words(self) -> str:
        """The machine in words, for example "2 CPUs and 1 GPU"."""
        cpus, gpus = int(self.capacity.cpus), int(self.capacity.gpus)
        return counted(cpus, "CPU") + f" and {counted(gpus, 'GPU')}" * bool(gpus)


def costs(estimate: Estimate, machine: Host, options: CommonOptions) -> list[str]:
    """Returns lines with the time of a command, its sources, and the price if the user gave a price per hour.

    The time includes start-up and the load of the machine. If no trial's time is known, returns only the lines about
    unknown times.
    """
    unknown = estimate.unknown_lines(_prepare(options))
    if not estimate.known:
        return unknown
    here, gpus, at_most = machine.capacity, options.gpus_per_trial, options.max_concurrent
    machines = max(1.0, *(machine.share(shape, gpus, at_most) for shape in estimate.shapes))
    slots = machine.slots(estimate.shapes, options)
    load = machine.load()
    low, high = estimate.ends(slots, load)
    most = max(min(slots[shape], len(times)) for shape, times in estimate.shapes.items())
    at_once = f", {most} trials at a time" if most > 1 else ""
    where = "one machine like this" if machines == 1 else f"{machines:.0f} machines like this"
    line = f"{span(low, high)} for {counted(estimate.known, 'trial')} on {where} ({machine.words}{at_once})"
    line += ", start-up included"
    if machine.device is None:
        line += "; this assumes that the workers are like the head: on other machines, times and prices differ"
    lines = [line, *(f"  {basis}" for basis in estimate.bases)]
    if load.slowdown(most) >= LOADED:
        alone = span(*estimate.ends(slots, IDLE))
        lines.append(
            f"other programs use this machine now, and the time assumes that they continue; without them {alone}"
        )
    if options.price_per_hour is not None:
        ends = (f"{seconds / 3600 * machines * options.price_per_hour:.2f}" for seconds in (low, high))
        lines.append(f"{between(*ends)} at {options.price_per_hour:g} per machine-hour")
    bounds = (
        memory_bound(here, demand(*shape, gpus, here), at_most, len(each)) for shape, each in estimate.shapes.items()
    )
    return [*lines, *dict.fromkeys(filter(None, bounds)), *unknown]


def left(estimate: Estimate, half_done: int, machine: Host, options: CommonOptions) -> str:
    """Returns a line about unfinished trials, such as "Left: 12 trials, 2 half done; 1.5 to 2 h on this machine"."""
    trials = estimate.known + estimate.unknown
    line = f"Left: {counted(trials, 'trial')}" + f", {half_done} half done" * bool(half_done)
    if not estimate.known:
        unknown = "; how long they take is unknown, because no similar trial has finished: --plan times a few steps"
        return line + unknown * bool(trials)
    slots = machine.slots(estimate.shapes, options)
    where = "this machine" if machine.device is not None else "this cluster"
    without = f", without {counted(estimate.unknown, 'trial')} of unknown time" * bool(estimate.unknown)
    return f"{line}; {span(*estimate.ends(slots, machine.load()))} on {where}{without}"


def _prepare(options: CommonOptions) -> str:
    """Returns the command that converts a data set, with `{}` for the data set's name and with the user's folders."""
    folders = {"data-root": options.data_root, "cache": options.cache}
    given = options.model_fields_set
    typed = (
        f" --{name} {shlex.quote(str(value))}" for name, value in folders.items() if name.replace("-", "_") in given
    )
    return "mvae prepare {}" + "".join(typed)
