"""Finds the time of each kind of trial: from finished and half-done trials, else from a probe."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvae.data.dataset import NO_IMAGES
from mvae.measure import Measure
from mvae.models import arm
from mvae.trial import ADDED_AS, Trial
from sweeps.cli.words import counted, timing
from sweeps.planning.estimate import ELSEWHERE, MEASURED, PROBED, TrialTime
from sweeps.store.results import Result

Group = tuple[str, str, str]
"""Identifies trials that take the same time per epoch: data set, arm, and image network followed by the SIZES fields.

The network is empty if the arm has no image network."""

SIZES = {"k": 0, "keep_probability": 1.0, "train_examples": None, "vocabulary": None}
"""Fields that change the time per epoch, and their defaults. Defaults are not shown."""


@dataclass(frozen=True)
class Probed:
    """Times of a trial, measured from a few of its steps."""

    seconds: float
    """Seconds of the whole trial: processor time on a CPU, elapsed time on a GPU."""
    measuring: Mapping[str, float]
    """Seconds of a measure by the measure's name. For a measure that draws samples: seconds per sample."""
    of_processor: bool = True


Probe = Callable[[Trial, Sequence[Measure]], Probed | None]
"""Estimates the times of a trial and its measures from a few steps; returns None if no estimate is possible."""


@dataclass(frozen=True)
class Timed:
    """The time of a finished trial, or of the part of a trial that a checkpoint holds."""

    group: Group
    device: str
    epochs: int
    seconds: float
    cpu_seconds: float | None
    """Processor time; None if it was not recorded, or if the trial ran on a GPU or in several processes."""
    half_done: bool = False

    @property
    def load(self) -> float:
        """Elapsed time divided by processor time, or 1 if unknown."""
        return self.seconds / self.cpu_seconds if self.cpu_seconds else 1.0


@dataclass(frozen=True)
class Cost:
    """The time of one kind of trial."""

    each: float
    """Seconds per epoch; per trial if the arm has no epochs."""
    ends: tuple[float, float]
    of_processor: bool
    basis: str
    measuring: Mapping[str, float]
    """Seconds of each measure, as in `Probed`."""

    def of(self, trial: Trial, epoch: int, missing: Iterable[Measure]) -> TrialTime:
        """Returns the remaining time of a trial.

        Args:
            epoch: number of epochs that are already trained.
            missing: measures to compute.
        """
        left = max(0, trial.epochs - epoch)
        drawn = [(one.name, dict(one.parameters).get("s", 1.0)) for one in missing]
        own = sum(samples * self.measuring.get(name, 0.0) for name, samples in drawn)
        own += self.each * (left if by_epoch(trial) else left > 0)
        return TrialTime(own, self.ends, self.of_processor)


def by_epoch(trial: Trial) -> bool:
    """Whether the time of a trial depends on its epochs. An arm that is fitted in closed form has no epochs."""
    return "epochs" in arm(trial.model).reads


def kind_of(fields: Mapping[str, Any]) -> Group | None:
    """Returns the kind of a trial from its fields, or None if this version does not know the trial's arm or fields."""
    try:
        reads = arm(str(fields["model"])).reads
        network = str(fields["image_network"]).replace(NO_IMAGES, "") if "image_network" in reads else ""
        sizes = {name: fields.get(name, ADDED_AS.get(name)) for name in SIZES if name in reads}
        shown = [f"{name} {value:g}" for name, value in sizes.items() if value != SIZES[name]]
        return str(fields["dataset"]), str(fields["model"]), " ".join([network, *shown]).strip()
    except (KeyError, ValueError):
        return None


def timed(fields: Mapping[str, Any], attempts: Sequence[Mapping[str, Any]], epochs: int) -> Timed | None:
    """Returns the time of a half-done trial, from its newest checkpoint, or None if no time was recorded.

    Args:
        fields: fields of the trial.
        attempts: the attempts in the checkpoint's provenance.
        epochs: number of epochs in the checkpoint.
    """
    group, seconds = kind_of(fields), sum(float(one.get("seconds") or 0) for one in attempts)
    if group is None or seconds <= 0 or epochs <= 0:
        return None
    device = str(attempts[-1].get("device_name") or "")
    return Timed(group, device, epochs, seconds, _cpu_seconds(attempts), half_done=True)


def finished(results: Iterable[Result]) -> list[Timed]:
    """Returns the times of the finished trials, one per key."""
    found = []
    for result in {one.key: one for one in results}.values():
        group, seconds = kind_of(result.trial), result.provenance.get("seconds")
        if group is not None and isinstance(seconds, int | float) and seconds > 0:
            epochs = int(result.provenance.get("epochs") or 0)
            attempts = result.provenance.get("attempts") or ()
            found.append(Timed(group, device_of(result), epochs, seconds, _cpu_seconds(attempts)))
    return found


def device_of(result: Result) -> str:
    """Returns the name of the device that trained, or "" if it was not recorded."""
    return str(result.provenance.get("device_name") or "")


def _cpu_seconds(attempts: Sequence[Mapping[str, Any]]) -> float | None:
    if any(one.get("device") != "cpu" or one.get("workers", 1) != 1 for one in attempts):
        return None
    found = [float(one.get("cpu_seconds") or 0) for one in attempts]
    return sum(found) if found and all(found) else None


def costs(
    todo: Iterable[tuple[Trial, Sequence[Measure]]],
    results: Sequence[Result],
    half_done: Iterable[Timed],
    probe: Probe | None,
    device: str | None,
) -> dict[Group, Cost]:
    """Returns the time of each kind of trial. A kind without a source has no entry.

    The source is the first of these that exists:
    - the median of finished trials on the device
    - the median of half-done trials on the device
    - a probe
    - the median of finished or half-done trials on other devices

    Args:
        todo: trials to run, with their missing measures.
        device: name of the device that trains. If None, finished trials on all devices count.
    """
    known: dict[Group, list[Timed]] = {}
    for one in (*finished(results), *half_done):
        known.setdefault(one.group, []).append(one)
    found: dict[Group, Cost] = {}
    for trial, measures in todo:
        group = kind_of(trial.model_dump())
        assert group is not None
        if group in found:
            continue
        samples = [one for one in known.get(group, []) if one.epochs > 0 or not by_epoch(trial)]
        here = [one for one in samples if device is None or one.device == device]
        best = [one for one in here if not one.half_done] or here
        probed = probe(trial, measures) if not best and probe is not None else None
        kind = " ".join(part for part in group[1:] if part)
        if probed is not None:
            each = probed.seconds / (trial.epochs if by_epoch(trial) else 1)
            basis = "measured by a probe" + f" on {device}" * bool(device)
            cost = Cost(each, PROBED, probed.of_processor, basis, probed.measuring)
        elif best or samples:
            cost = _median(best or samples, by_epoch(trial), _measuring(group, results, device))
        else:
            continue
        per = "epoch" if by_epoch(trial) else "trial"
        basis = f"{kind}: {timing(cost.each)} per {per}, {cost.basis}"
        found[group] = Cost(cost.each, cost.ends, cost.of_processor, basis, cost.measuring)
    return found


def _median(samples: Sequence[Timed], by_epoch: bool, measuring: Mapping[str, float]) -> Cost:
    of_processor = all(one.cpu_seconds for one in samples)
    each = statistics.median(
        (one.cpu_seconds if of_processor and one.cpu_seconds else one.seconds) / (one.epochs if by_epoch else 1)
        for one in samples
    )
    devices = ", ".join(sorted({one.device for one in samples} - {""}))
    what = "half-done trial" if samples[0].half_done else "finished trial"
    basis = f"from {counted(len(samples), what)}" + f" on {devices}" * bool(devices)
    return Cost(each, MEASURED if of_processor else ELSEWHERE, of_processor, basis, measuring)


def _measuring(group: Group, results: Iterable[Result], device: str | None) -> dict[str, float]:
    """Returns the median seconds of each measure, from results on this device, or from all results if there are none.

    Results record only a measure's elapsed seconds. These are divided by the ratio of elapsed time to processor time in
    the training of the same trial.
    """
    everywhere: dict[str, list[float]] = {}
    here: dict[str, list[float]] = {}
    for result in results:
        seconds = result.provenance.get("measured_in_seconds")
        if isinstance(seconds, int | float) and kind_of(result.trial) == group:
            load = next((one.load for one in finished([result])), 1.0)
            name, each = result.measure.partition("-")[0], seconds / load / (result.samples or 1)
            everywhere.setdefault(name, []).append(each)
            if device_of(result) == device:
                here.setdefault(name, []).append(each)
    return {name: statistics.median(each) for name, each in (everywhere | here).items()}
