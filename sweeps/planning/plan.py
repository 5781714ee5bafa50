"""Cells to trials: which of them are done, half done or missing in a storage folder, and what the rest will cost.

A cell of a table is a trial and a measure of it. Cells that need the same trained model share its key, so the plan
counts unique keys. Nothing is started or trained here; `--plan` shows this and stops.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mvae.data.dataset import NO_IMAGES
from mvae.measure import Measure
from mvae.models import arm
from mvae.storage.place import each
from mvae.trial import ADDED_AS, Trial
from sweeps.cli.words import counted, timing
from sweeps.planning.estimate import Estimate, Shape
from sweeps.planning.state import TrialState
from sweeps.store.results import Result
from sweeps.store.store import Store

Probe = Callable[[Trial], float | None]
"""Measures how many seconds a whole trial takes, by running a little of it; None where it cannot."""

Fingerprints = str | Mapping[str, str]
"""Of the data sets that trials are on, by their names; one alone where there is one data set."""

Group = tuple[str, str, str]
"""Trials that cost the same an epoch: data set, model, image network ("" where the arm reads none) with what else
decides it (SIZES)."""

SIZES = {"k": 0, "keep_probability": 1.0, "train_examples": None, "vocabulary": None}
"""Fields that decide how much an epoch holds, with the value that goes without saying."""


@dataclass(frozen=True)
class Cell:
    """One seed's contribution to one entry of a table."""

    row: str
    """Row heading: the arm, or the arm and what is varied."""
    column: float | str
    """Column: a share (printed in percent) or a name."""
    trial: Trial
    measure: Measure
    published: float | None
    """The published value of this row and column, None where there is none."""
    arm: str
    """Token of the arm, also the row of the published table that this row is compared with."""
    quantity: str = ""
    """The metric that stands in the cell, where the measure has several; empty: the measure's own."""
    variant: str = ""
    """What is trained, where the row's heading says more: the arm, without the quantity. Empty: the heading."""

    @property
    def metric(self) -> str:
        return self.quantity or self.measure.metric

    @property
    def trained(self) -> str:
        """What is trained, in words that tell it from the other rows' trials."""
        return self.variant or self.row


@dataclass(frozen=True)
class PlannedTrial:
    """One unique trial of the plan."""

    key: str
    trial: Trial
    measures: tuple[Measure, ...]
    """All measures that cells ask of it."""
    missing: tuple[Measure, ...]
    """Those without a result."""
    epoch: int
    """Finished epochs that a valid checkpoint covers; `trial.epochs` where every result is there."""

    @property
    def state(self) -> TrialState:
        """DONE when no measure is missing; a fully trained trial that lacks a measure is INTERRUPTED."""
        if not self.missing:
            return TrialState.DONE
        return TrialState.INTERRUPTED if self.epoch > 0 else TrialState.PENDING


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep with their keys, and what storage holds of each."""

    cells: tuple[Cell, ...]
    keys: tuple[str, ...]
    """The key of each cell, in the cells' order."""
    trials: Mapping[str, PlannedTrial]
    """Key to unique trial, in the order in which cells first name them."""
    superseded: tuple[str, ...]
    """Result files of these trials, of another version of a measure: never read."""
    former: tuple[str, ...]
    """Result files under the keys that earlier releases gave these trials: never read."""
    estimate: Estimate
    """Seconds left: what is done costs nothing, a partial trial only its remaining epochs."""

    def over(self, cells: Sequence[Cell]) -> Plan:
        """Other cells of the same trials and measures: what a second table shows of them."""
        keys = {planned.trial: key for key, planned in self.trials.items()}
        return replace(self, cells=tuple(cells), keys=tuple(keys[cell.trial] for cell in cells))

    def state(self, index: int) -> TrialState:
        """State of a cell: done as soon as its own measure is there."""
        planned = self.trials[self.keys[index]]
        if self.cells[index].measure not in planned.missing:
            return TrialState.DONE
        return planned.state

    @property
    def todo(self) -> list[PlannedTrial]:
        return [planned for planned in self.trials.values() if planned.missing]

    def count(self, state: TrialState) -> int:
        return sum(planned.state is state for planned in self.trials.values())

    @property
    def summary(self) -> list[str]:
        """The plan in a few lines of plain text, without the estimate."""
        seeds = len({cell.trial.seed for cell in self.cells})
        entries = len({(cell.row, cell.column) for cell in self.cells})
        lines = [
            f"{counted(entries, 'cell')}, {counted(seeds, 'seed')}, {counted(len(self.trials), 'trial')}: "
            f"{self.count(TrialState.DONE)} done, {self.count(TrialState.INTERRUPTED)} partial, "
            f"{self.count(TrialState.PENDING)} missing"
        ]
        if self.superseded:
            count = counted(len(self.superseded), "result")
            lines.append(f"{count} of another measure version, superseded and not read: {_first(self.superseded)}")
        return [*lines, *self.former_line]

    @property
    def former_line(self) -> list[str]:
        """One line on results that earlier releases stored under other keys; none if there are none."""
        if not self.former:
            return []
        return [
            f"{counted(len(self.former), 'result')} under keys of an earlier release, which did not look into the data"
            f" set's files, superseded and not read: {_first(self.former)}"
        ]


def fingerprint_of(dataset: str, fingerprints: Fingerprints) -> str:
    """That of one data set."""
    return fingerprints if isinstance(fingerprints, str) else fingerprints[dataset]


def shape_of(trial: Trial) -> Shape:
    """Processes that a trial runs in, and the fewest of an elastic one; an arm in closed form is fitted in one."""
    return (trial.workers, trial.fewest_workers) if arm(trial.model).fit is None else (1, None)


def plan(
    cells: Sequence[Cell],
    store: Store,
    fingerprints: Fingerprints,
    probe: Probe | None = None,
    device: str | None = None,
    former: Mapping[str, str] | None = None,
) -> Plan:
    """Look every cell up in storage.

    Args:
        cells: the table's cells.
        store: where results and checkpoints lie; an empty one makes everything missing.
        fingerprints: of the cells' data sets, part of every key.
        probe: asked once a kind of trial that has no finished trial to estimate from; None leaves the time unknown.
        device: name of the device that trials will run on: the time of those that ran on others is used where nothing
            better is known. None: that of all of them.
        former: fingerprints that earlier releases gave to the data sets, of those whose fingerprint has changed.
    """
    keys = tuple(cell.trial.key(fingerprint_of(cell.trial.dataset, fingerprints)) for cell in cells)
    asked: dict[str, tuple[Trial, dict[Measure, None]]] = {}
    for key, cell in zip(keys, cells, strict=True):
        asked.setdefault(key, (cell.trial, {}))[1][cell.measure] = None
    results = store.results
    wanted = {(key, measure.token) for key, (_, of_key) in asked.items() for measure in of_key}
    done = {(one.key, one.measure) for one in results.where(lambda key, measure: (key, measure) in wanted)}
    begun = store.begun()

    def planned(key: str) -> PlannedTrial:
        trial, measures = asked[key][0], tuple(asked[key][1])
        missing = tuple(measure for measure in measures if (key, measure.token) not in done)
        if not missing:
            return PlannedTrial(key, trial, measures, (), trial.epochs)
        digests = not store.root.is_remote  # a store of objects would send the files whole
        checkpoint = store.checkpoints(key).latest(digests=digests) if key in begun else None
        return PlannedTrial(key, trial, measures, missing, 0 if checkpoint is None else checkpoint.epoch)

    trials = dict(zip(asked, each(planned, asked, store.root), strict=True))
    superseded = tuple(
        name
        for measure in dict.fromkeys(cell.measure for cell in cells)
        for name in results.superseded(measure)
        if name.partition(".")[0] in asked
    )
    known_by = former or {}
    old_keys = {trial.key(known_by[trial.dataset]) for trial, _ in asked.values() if trial.dataset in known_by}
    todo = [one for one in trials.values() if one.missing]
    finished = list(results) if todo else []
    costs = _costs([one.trial for one in todo], finished, probe, device)
    measuring = _measuring(finished) | _measuring(result for result in finished if _device(result) == device)
    old = tuple(results.names(old_keys)) if old_keys else ()
    return Plan(tuple(cells), keys, trials, superseded, old, _estimate(todo, costs, measuring))


def _estimate(
    todo: Iterable[PlannedTrial],
    costs: Mapping[Group, tuple[float, str]],
    measuring: Mapping[tuple[Group, str], float],
) -> Estimate:
    """
    Args:
        costs: as `_costs` gives them.
        measuring: by kind of trial and name of measure: seconds per sample, or in all if a measure has no samples.
    """
    unknown, bases, shapes = 0, dict[str, None](), dict[Shape, list[float]]()
    for planned in todo:
        group = kind_of(planned.trial.model_dump())
        if group is None or group not in costs:
            unknown += 1
            continue
        (each, basis), left = costs[group], max(0, planned.trial.epochs - planned.epoch)
        drawn = [(one.name, dict(one.parameters).get("s", 1.0)) for one in planned.missing]
        own = sum(samples * measuring.get((group, name), 0.0) for name, samples in drawn)
        own += each * (left if _by_epoch(planned.trial) else left > 0)
        bases[basis] = None
        shapes.setdefault(shape_of(planned.trial), []).append(own)
    return Estimate({shape: tuple(seconds) for shape, seconds in shapes.items()}, unknown, tuple(bases))


def _by_epoch(trial: Trial) -> bool:
    """Whether a trial takes longer the more epochs it has, as not where its arm is fitted in closed form."""
    return "epochs" in arm(trial.model).reads


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def _measuring(finished: Iterable[Result]) -> dict[tuple[Group, str], float]:
    """Seconds that measures took, by kind of trial and measure, a sample where they draw samples: the median."""
    timed: dict[tuple[Group, str], list[float]] = {}
    for result in finished:
        group, seconds = kind_of(result.trial), result.provenance.get("measured_in_seconds")
        if group is not None and isinstance(seconds, int | float):
            name = result.measure.partition("-")[0]
            timed.setdefault((group, name), []).append(seconds / (result.samples or 1))
    return {kind: statistics.median(each) for kind, each in timed.items()}


def _device(result: Result) -> str:
    """The name of the device that a trial ran on, empty where it is not recorded."""
    return str(result.provenance.get("device_name") or "")


def _costs(
    todo: Iterable[Trial], finished: Iterable[Result], probe: Probe | None, device: str | None
) -> dict[Group, tuple[float, str]]:
    """Cost of every kind of trial to run: seconds an epoch, or of a trial without epochs, and where they come from.

    That is the median of finished trials on the device, else one probe, else the median of those on other devices, else
    there is no entry.
    """
    timed: dict[Group, list[Result]] = {}
    for result in {one.key: one for one in finished}.values():
        group, seconds = kind_of(result.trial), result.provenance.get("seconds")
        if group is not None and isinstance(seconds, int | float) and seconds > 0:
            timed.setdefault(group, []).append(result)
    costs: dict[Group, tuple[float, str]] = {}
    for trial in todo:
        group = kind_of(trial.model_dump())
        assert group is not None
        if group in costs:
            continue
        by_epoch = _by_epoch(trial)
        samples = [one for one in timed.get(group, []) if not by_epoch or int(one.provenance.get("epochs") or 0) > 0]
        here = [one for one in samples if device is None or _device(one) == device]
        if not here and probe is not None and (whole := probe(trial)) is not None:
            each = whole / (trial.epochs if by_epoch else 1)
            basis = "measured by a probe" + f" on {device}" * bool(device)
        elif here or samples:
            each, basis = _median_of(here or samples, by_epoch)
        else:
            continue
        kind = " ".join(part for part in group[1:] if part)
        costs[group] = each, f"{kind}: {timing(each)} {'an epoch' if by_epoch else 'a trial'}, {basis}"
    return costs


def _median_of(samples: Sequence[Result], by_epoch: bool) -> tuple[float, str]:
    """Seconds of the typical trial, or of one of its epochs, and on what that rests."""
    each = statistics.median(
        float(one.provenance["seconds"]) / (int(one.provenance["epochs"]) if by_epoch else 1) for one in samples
    )
    devices = ", ".join(sorted({_device(one) for one in samples} - {""}))
    return each, f"from {counted(len(samples), 'finished trial')}" + f" on {devices}" * bool(devices)


def kind_of(fields: Mapping[str, Any]) -> Group | None:
    """The kind of a trial by its fields, None for one that this version does not know."""
    try:
        reads = arm(str(fields["model"])).reads
        network = str(fields["image_network"]).replace(NO_IMAGES, "") if "image_network" in reads else ""
        sizes = {name: fields.get(name, ADDED_AS.get(name)) for name in SIZES if name in reads}
        said = [f"{name} {value:g}" for name, value in sizes.items() if value != SIZES[name]]
        return str(fields["dataset"]), str(fields["model"]), " ".join([network, *said]).strip()
    except (KeyError, ValueError):
        return None
