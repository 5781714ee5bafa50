"""Estimates the GPU hours of a plan, from trials and training steps that were measured on a GPU (benchmarks/gpu_runs).

The measured trials ran on one GPU at the same time. If n trials were running during a second, each trial counts 1/n GPU
seconds, so that the GPU hours of all trials add up. For some kinds of trials, only training steps were measured. The
time of these steps is multiplied by IN_A_TRIAL. Trials of other kinds are not counted. A kind is a combination of arm,
network and data set. The data sets in SAME_SHAPES count as the same data set.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from sweeps.cli.words import between, counted, figures, timing
from sweeps.planning.plan import Plan
from sweeps.planning.price import Host
from sweeps.planning.times import Group, by_epoch, kind_of

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "gpu-h200.json"
"""Measured GPU runs. The file exists only in a clone, not in an installed wheel."""


SAME_SHAPES = {"mnist": "fashion_mnist", "binary_mnist": "fashion_mnist"}
"""Maps data sets to the measured data set with the same number of examples and the same shapes."""

EXAMPLES = {"fashion_mnist": 50_000}
"""Training examples per epoch, by measured data set."""

IN_A_TRIAL = 1.0, 2.3
"""Lowest and highest ratio of the time of an epoch in a trial to the time of the epoch's training steps alone.

Measured for FashionMNIST with the DCGAN: 1.1 to 2.3 for the NN, 1.0 to 1.4 for the MVAE."""


def gpu_hours(planned: Plan, machine: Host) -> list[str]:
    """Returns a line with the GPU hours of the missing trials.

    Returns no line if this machine has a GPU, if no trials are missing, or if no missing trial is of a measured kind.

    For half-done trials, only the remaining epochs count.
    """
    if machine.kind != "cpu" or not planned.todo:
        return []
    try:
        measured = json.loads(RESULTS.read_text(encoding="utf-8"))
    except OSError:
        return []
    each = {**of_steps(measured["throughput"]), **seconds_per_epoch(measured["cells"])}
    low = high = 0.0
    kinds, trials = dict[Group, None](), 0
    for one in planned.todo:
        group = _measured_as(kind_of(one.trial.model_dump()))
        if group is not None and group in each and by_epoch(one.trial) and one.trial.workers == 1:
            left = one.trial.epochs - one.epoch
            low, high = low + left * each[group][0], high + left * each[group][1]
            kinds[group], trials = None, trials + 1
    if not trials:
        return []
    ends = between(figures(low / 3600, 2), figures(high / 3600, 2))
    of = f" of {len(planned.todo):,}" * (trials < len(planned.todo))
    shown = ", ".join(f"{' '.join(part for part in kind[1:] if part)} {_ends(each[kind])} per epoch" for kind in kinds)
    of_kinds = f"{counted(trials, 'trial')}{of}"
    return [f"on an {measured['machine']['gpu']}: {ends} GPU hours for {of_kinds} (measured there: {shown})"]


def _ends(ends: tuple[float, float]) -> str:
    low, high = (timing(seconds).removesuffix(" s") for seconds in ends)
    return f"{between(low, high)} s"


def of_steps(throughput: Mapping[str, Mapping[str, float]]) -> dict[Group, tuple[float, float]]:
    """Returns the fewest and most GPU seconds per epoch for each kind of trial whose training steps were measured.

    Args:
        throughput: measured examples per second, by a name of the form "arm dataset network", then by the kind of step.
    """
    found = {}
    for name, speeds in throughput.items():
        model, dataset, network = name.split()
        group = _measured_as((dataset, model, network))
        if group is not None and group[0] in EXAMPLES and "graphed" in speeds:
            alone = EXAMPLES[group[0]] / speeds["graphed"]
            found[group] = IN_A_TRIAL[0] * alone, IN_A_TRIAL[1] * alone
    return found


def _measured_as(group: Group | None) -> Group | None:
    return None if group is None else (SAME_SHAPES.get(group[0], group[0]), *group[1:])


def seconds_per_epoch(cells: Iterable[Mapping[str, Any]]) -> dict[Group, tuple[float, float]]:
    """Returns the fewest and most GPU seconds per epoch for each kind of trial.

    Args:
        cells: results of trials that shared one GPU. Their provenance lists the attempts.
    """
    runs = [
        (cell, float(one["started"]), float(one["started"]) + float(one["seconds"]))
        for cell in cells
        for one in cell["provenance"]["attempts"]
    ]
    spans = [(began, ended) for _, began, ended in runs]
    taken: dict[str, float] = {}
    kinds: dict[str, tuple[Group, int]] = {}
    for cell, began, ended in runs:
        group = kind_of(cell["trial"])
        if group is not None:
            kinds[cell["key"]] = group, int(cell["provenance"]["epochs"])
            taken[cell["key"]] = taken.get(cell["key"], 0.0) + shared_seconds(began, ended, spans)
    found: dict[Group, list[float]] = {}
    for key, (group, epochs) in kinds.items():
        found.setdefault(group, []).append(taken[key] / epochs)
    return {group: (min(each), max(each)) for group, each in found.items()}


def shared_seconds(began: float, ended: float, spans: Sequence[tuple[float, float]]) -> float:
    """Returns the time from `began` to `ended`, where each second is divided by the number of runs in that second.

    Args:
        spans: begin and end of all runs, including this one.
    """
    cuts = sorted({began, ended, *(cut for span in spans for cut in span if began < cut < ended)})
    return sum(
        (last - first) / max(1, sum(start <= first and last <= end for start, end in spans))
        for first, last in pairwise(cuts)
    )
