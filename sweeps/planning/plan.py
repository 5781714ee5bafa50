"""Turns cells into trials, finds which trials are done, partial or missing in storage, and estimates the time left.

A cell of a table is a trial and a measure. Cells that need the same trained model share a key, so the plan counts
unique keys. This module trains nothing. `--plan` prints the plan and stops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mvae.measure import Measure
from mvae.models import arm
from mvae.storage.place import each
from mvae.trial import Trial
from sweeps.cli.words import counted
from sweeps.planning.estimate import Estimate, Shape, TrialTime
from sweeps.planning.state import TrialState
from sweeps.planning.times import Cost, Group, Probe, Timed, costs, kind_of, timed
from sweeps.store.store import Store

Fingerprints = str | Mapping[str, str]
"""Fingerprint of each data set by name, or a single fingerprint if there is only one data set."""


@dataclass(frozen=True)
class Cell:
    """One entry of a table for one seed."""

    row: str
    """Row heading: the arm, or the arm and the varied setting."""
    column: float | str
    """Column: a fraction (printed in percent) or a name."""
    trial: Trial
    measure: Measure
    published: float | None
    """The published value of this row and column; None if the paper has no value."""
    arm: str
    """Token of the arm. The token also names the row of the published table."""
    quantity: str = ""
    """The metric shown in the cell, if the measure has several. Empty means the measure's main metric."""
    variant: str = ""
    """Description of the trained model, if the row heading also describes something else. Empty means the row
    heading."""

    @property
    def metric(self) -> str:
        return self.quantity or self.measure.metric

    @property
    def trained(self) -> str:
        """Description of the trained model. Rows that differ in their trials also differ in this text."""
        return self.variant or self.row


@dataclass(frozen=True)
class PlannedTrial:
    """One unique trial of the plan."""

    key: str
    trial: Trial
    measures: tuple[Measure, ...]
    """All measures that the plan's cells need from this trial."""
    missing: tuple[Measure, ...]
    """Measures without a result."""
    epoch: int
    """Number of epochs in the newest valid checkpoint; `trial.epochs` if no result is missing."""

    @property
    def state(self) -> TrialState:
        """DONE if no measure is missing. A fully trained trial with a missing measure is INTERRUPTED."""
        if not self.missing:
            return TrialState.DONE
        return TrialState.INTERRUPTED if self.epoch > 0 else TrialState.PENDING


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep, their trials, and which results and checkpoints are in storage."""

    cells: tuple[Cell, ...]
    keys: tuple[str, ...]
    """The key of each cell's trial, in the order of the cells."""
    trials: Mapping[str, PlannedTrial]
    """The unique trials by key, in the order of the cells."""
    superseded: tuple[str, ...]
    """Names of result files that another version of a measure wrote for the plan's trials. These files are not read."""
    former: tuple[str, ...]
    """Names of result files under the keys that earlier releases gave the plan's trials. These files are not read."""
    estimate: Estimate
    """Estimated time left. For a partial trial, only the remaining epochs count."""

    def over(self, cells: Sequence[Cell]) -> Plan:
        """Returns this plan for another table that needs the same trials and measures."""
        keys = {planned.trial: key for key, planned in self.trials.items()}
        return replace(self, cells=tuple(cells), keys=tuple(keys[cell.trial] for cell in cells))

    def state(self, index: int) -> TrialState:
        """Returns the state of a cell, which is DONE as soon as the cell's measure has a result."""
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
        """The plan as a few lines of text, without the estimate."""
        seeds = len({cell.trial.seed for cell in self.cells})
        entries = len({(cell.row, cell.column) for cell in self.cells})
        lines = [
            f"{counted(entries, 'cell')}, {counted(seeds, 'seed')}, {counted(len(self.trials), 'trial')}: "
            f"{self.count(TrialState.DONE)} done, {self.count(TrialState.INTERRUPTED)} partial, "
            f"{self.count(TrialState.PENDING)} missing"
        ]
        if self.superseded:
            count = counted(len(self.superseded), "result")
            lines.append(f"{count} of another measure version, superseded and not read: {_shortened(self.superseded)}")
        return [*lines, *self.former_line]

    @property
    def former_line(self) -> list[str]:
        """One line about results that earlier releases stored under other keys, or an empty list if there are none."""
        if not self.former:
            return []
        return [
            f"{counted(len(self.former), 'result')} of an earlier release, superseded and not read, because that"
            f" release did not check the contents of the data set's files: {_shortened(self.former)}"
        ]


def fingerprint_of(dataset: str, fingerprints: Fingerprints) -> str:
    """Returns the fingerprint of one data set."""
    return fingerprints if isinstance(fingerprints, str) else fingerprints[dataset]


def shape_of(trial: Trial) -> Shape:
    """Returns the shape of a trial. An arm that is fitted in closed form always uses one process."""
    return (trial.workers, trial.fewest_workers) if arm(trial.model).fit is None else (1, None)


def plan(
    cells: Sequence[Cell],
    store: Store,
    fingerprints: Fingerprints,
    probe: Probe | None = None,
    device: str | None = None,
    former: Mapping[str, str] | None = None,
) -> Plan:
    """Looks up every cell in storage.

    Args:
        store: storage of results and checkpoints.
        fingerprints: fingerprints of the cells' data sets, which are part of every key.
        probe: called once for each kind of trial that has no finished or half-done trial. It returns None if the data
            set is not converted. Without a probe, the time of these kinds stays unknown.
        device: name of the device that trials will run on. Times on other devices are used only if there is no better
            source. If None, the times on all devices are used.
        former: for each data set whose fingerprint has changed, the fingerprint from an earlier release.
    """
    keys = tuple(cell.trial.key(fingerprint_of(cell.trial.dataset, fingerprints)) for cell in cells)
    asked: dict[str, tuple[Trial, dict[Measure, None]]] = {}
    for key, cell in zip(keys, cells, strict=True):
        asked.setdefault(key, (cell.trial, {}))[1][cell.measure] = None
    results = store.results
    wanted = {(key, measure.token) for key, (_, of_key) in asked.items() for measure in of_key}
    done = {(one.key, one.measure) for one in results.where(lambda key, measure: (key, measure) in wanted)}
    begun = store.begun()
    half_done: list[Timed | None] = []

    def planned(key: str) -> PlannedTrial:
        trial, measures = asked[key][0], tuple(asked[key][1])
        missing = tuple(measure for measure in measures if (key, measure.token) not in done)
        if not missing:
            return PlannedTrial(key, trial, measures, (), trial.epochs)
        digests = not store.root.is_remote  # checking a digest would download the whole file
        checkpoint = store.checkpoints(key).latest(digests=digests) if key in begun else None
        if checkpoint is None:
            return PlannedTrial(key, trial, measures, missing, 0)
        half_done.append(timed(trial.model_dump(), checkpoint.provenance.get("attempts") or (), checkpoint.epoch))
        return PlannedTrial(key, trial, measures, missing, checkpoint.epoch)

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
    known = costs([(one.trial, one.missing) for one in todo], finished, filter(None, half_done), probe, device)
    old = tuple(results.names(old_keys)) if old_keys else ()
    return Plan(tuple(cells), keys, trials, superseded, old, _estimate(todo, known, probed=probe is not None))


def _estimate(todo: Iterable[PlannedTrial], known: Mapping[Group, Cost], *, probed: bool) -> Estimate:
    unknown, bases, shapes = list[str](), dict[str, None](), dict[Shape, list[TrialTime]]()
    for planned in todo:
        group = kind_of(planned.trial.model_dump())
        if group is None or group not in known:
            unknown.append(planned.trial.dataset)
            continue
        cost = known[group]
        bases[cost.basis] = None
        time = cost.of(planned.trial, planned.epoch, planned.missing)
        shapes.setdefault(shape_of(planned.trial), []).append(time)
    unconverted = tuple(dict.fromkeys(unknown)) if probed else ()
    times = {shape: tuple(of_shape) for shape, of_shape in shapes.items()}
    return Estimate(times, len(unknown), tuple(bases), unconverted)


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)
