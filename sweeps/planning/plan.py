"""Cells to trials: which of them are done, half done or missing in a storage folder, and what the rest will cost.

A cell of a table is a trial and a measure of it. Cells that need the same trained model share its key, so the plan
counts unique keys. Nothing is started or trained here; `--plan` shows this and stops.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

from mvae.data.dataset import NO_IMAGES
from mvae.measure import Measure
from mvae.models import arm
from mvae.storage.place import each
from mvae.trial import ADDED_AS, Trial
from sweeps.cli.words import counted, timing
from sweeps.planning.estimate import Cost, Estimate, Shape
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


class State(StrEnum):
    """What storage holds of a cell."""

    DONE = "done"
    """The result is there."""
    PARTIAL = "partial"
    """A checkpoint is there: the trial goes on from it."""
    MISSING = "missing"
    """Nothing is there."""


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
        """The metric that stands in the cell."""
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
    stopped: bool = False
    """A search gave it up: it is not to be run on."""

    @property
    def state(self) -> State:
        """DONE when no measure is missing; a fully trained trial that lacks a measure is PARTIAL."""
        if not self.missing:
            return State.DONE
        return State.PARTIAL if self.epoch > 0 else State.MISSING


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
    costs: Mapping[Group, Cost]
    measuring: Mapping[tuple[Group | None, str], float] = field(default_factory=dict)
    """By kind of trial and name of measure: seconds a sample, or seconds in all where a measure has no samples."""
    former: tuple[str, ...] = ()
    """Result files under the keys that earlier releases gave these trials: never read."""

    def over(self, cells: Sequence[Cell]) -> Plan:
        """Other cells of the same trials and measures: what a second table shows of them."""
        keys = {planned.trial: key for key, planned in self.trials.items()}
        return replace(self, cells=tuple(cells), keys=tuple(keys[cell.trial] for cell in cells))

    def state(self, index: int) -> State:
        """State of a cell: done as soon as its own measure is there."""
        planned = self.trials[self.keys[index]]
        if self.cells[index].measure not in planned.missing:
            return State.DONE
        return planned.state

    @property
    def todo(self) -> list[tuple[str, Trial, tuple[Measure, ...]]]:
        """Key, trial and missing measures of every trial that is to be run, in cell order."""
        left = (planned for planned in self.trials.values() if planned.missing and not planned.stopped)
        return [(planned.key, planned.trial, planned.missing) for planned in left]

    def count(self, state: State) -> int:
        """How many unique trials are in a state."""
        return sum(planned.state is state for planned in self.trials.values())

    @cached_property
    def estimate(self) -> Estimate:
        """Seconds left: what is done costs nothing, a partial trial only its remaining epochs."""
        total, known, unknown, bases, shapes = 0.0, 0, 0, dict[str, None](), dict[Shape, list[float]]()
        for planned in self.trials.values():
            if not planned.missing or planned.stopped:
                continue
            group = kind_of(planned.trial.model_dump())
            cost = None if group is None else self.costs.get(group)
            if cost is None:
                unknown += 1
                continue
            trained = planned.epoch >= planned.trial.epochs
            own = sum(_size(measure) * self.measuring.get((group, measure.name), 0.0) for measure in planned.missing)
            own += 0.0 if trained else cost.seconds(planned.trial.epochs - planned.epoch)
            total += own
            known += 1
            bases[cost.basis] = None
            shape = shape_of(planned.trial)
            shapes.setdefault(shape, []).append(own)
        return Estimate(total, known, unknown, tuple(bases), {shape: tuple(each) for shape, each in shapes.items()})

    @property
    def summary(self) -> list[str]:
        """The plan in a few lines of plain text, without the estimate."""
        seeds = len({cell.trial.seed for cell in self.cells})
        entries = len({(cell.row, cell.column) for cell in self.cells})
        lines = [
            f"{counted(entries, 'cell')}, {counted(seeds, 'seed')}, {counted(len(self.trials), 'trial')}: "
            f"{self.count(State.DONE)} done, {self.count(State.PARTIAL)} partial, {self.count(State.MISSING)} missing"
        ]
        if self.superseded:
            names = ", ".join(self.superseded[:3]) + (", ..." if len(self.superseded) > 3 else "")
            count = counted(len(self.superseded), "result")
            lines.append(f"{count} of another measure version, superseded and not read: {names}")
        return [*lines, *self.former_line]

    @property
    def former_line(self) -> list[str]:
        """One line on results that earlier releases stored under other keys; none if there are none."""
        if not self.former:
            return []
        names = ", ".join(self.former[:3]) + (", ..." if len(self.former) > 3 else "")
        return [
            f"{counted(len(self.former), 'result')} under keys of an earlier release, which did not look into the data"
            f" set's files, superseded and not read: {names}"
        ]


def fingerprint_of(dataset: str, fingerprints: Fingerprints) -> str:
    """That of one data set."""
    return fingerprints if isinstance(fingerprints, str) else fingerprints[dataset]


def shape_of(trial: Trial) -> Shape:
    """Processes that a trial runs in, and the fewest of an elastic one; an arm in closed form is fitted in one."""
    return (trial.workers, trial.fewest_workers) if arm(trial.model).fit is None else (1, None)


def plan(
    cells: Sequence[Cell],
    store: Store | None,
    fingerprints: Fingerprints,
    probe: Probe | None = None,
    device: str | None = None,
    former: Mapping[str, str] | None = None,
) -> Plan:
    """Look every cell up in storage.

    Args:
        cells: the table's cells.
        store: where results and checkpoints lie; None or an empty one makes everything missing.
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
    measures = list(dict.fromkeys(cell.measure for cell in cells))
    results = None if store is None else store.results
    wanted = {(key, measure.token) for key, (_, of_key) in asked.items() for measure in of_key}
    there = [] if results is None else results.where(lambda key, measure: (key, measure) in wanted)
    done = {(result.key, result.measure) for result in there}
    begun = set() if store is None else store.begun()

    def planned(key: str) -> PlannedTrial:
        trial, measures = asked[key][0], tuple(asked[key][1])
        return _planned(key, trial, measures, done, store if key in begun else None)

    trials = dict(zip(asked, each(planned, asked, None if store is None else store.root), strict=True))
    other = [] if results is None else [name for measure in measures for name in results.superseded(measure)]
    superseded = [name for name in other if name.partition(".")[0] in asked]
    known_by = former or {}
    old_keys = {trial.key(known_by[trial.dataset]) for trial, _ in asked.values() if trial.dataset in known_by}
    todo = [one.trial for one in trials.values() if one.missing]
    finished = [] if results is None or not todo else list(results)
    costs = _costs(todo, finished, probe, device)
    measuring = _measuring(finished) | _measuring(result for result in finished if _device(result) == device)
    old = () if results is None or not old_keys else tuple(results.names(old_keys))
    return Plan(tuple(cells), keys, trials, tuple(superseded), costs, measuring, old)


def _planned(
    key: str, trial: Trial, measures: tuple[Measure, ...], done: Container[tuple[str, str]], store: Store | None
) -> PlannedTrial:
    """
    Args:
        done: keys and measures (tokens) with a result.
        store: where its checkpoints lie; None where it has none.
    """
    missing = tuple(measure for measure in measures if (key, measure.token) not in done)
    if not missing:
        return PlannedTrial(key, trial, measures, (), trial.epochs)
    if store is None:
        return PlannedTrial(key, trial, measures, missing, 0)
    checkpoint = store.checkpoints(key).latest(digests=not store.root.is_remote)
    return PlannedTrial(key, trial, measures, missing, 0 if checkpoint is None else checkpoint.epoch)


def _size(measure: Measure) -> float:
    """Samples that a measure draws; 1 for one that draws none."""
    return dict(measure.parameters).get("s", 1.0)


def _measuring(finished: Iterable[Result]) -> dict[tuple[Group | None, str], float]:
    """Seconds that measures took, by kind of trial and measure, a sample where they draw samples: the median."""
    timed: dict[tuple[Group | None, str], list[float]] = {}
    for result in finished:
        seconds = result.provenance.get("measured_in_seconds")
        label, _, _version = result.measure.rpartition("-v")
        name, _, parameters = label.partition("-")
        samples = float(parameters[1:]) if parameters.startswith("s") else 1.0
        if isinstance(seconds, int | float):
            timed.setdefault((kind_of(result.trial), name), []).append(seconds / samples)
    return {kind: statistics.median(each) for kind, each in timed.items()}


def _device(result: Result) -> str:
    """The name of the device that a trial ran on, empty where it is not recorded."""
    return str(result.provenance.get("device_name") or "")


def _costs(
    todo: Iterable[Trial], finished: Iterable[Result], probe: Probe | None, device: str | None
) -> dict[Group, Cost]:
    """Cost of every kind of trial to run: the median of finished ones on the device, else one probe, else the median
    of those on other devices, else no entry."""
    timed: dict[Group, list[Result]] = {}
    for result in {one.key: one for one in finished}.values():
        group, seconds = kind_of(result.trial), result.provenance.get("seconds")
        if group is not None and isinstance(seconds, int | float) and seconds > 0:
            timed.setdefault(group, []).append(result)
    costs: dict[Group, Cost] = {}
    for trial in todo:
        group = kind_of(trial.model_dump())
        assert group is not None
        if group in costs:
            continue
        by_epoch = "epochs" in arm(trial.model).reads
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
        text = f"{kind}: {timing(each)} {'an epoch' if by_epoch else 'a trial'}, {basis}"
        costs[group] = Cost(0.0, each, text) if by_epoch else Cost(each, 0.0, text)
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
