"""Ours beside the published one, cell by cell: means, spreads, verdicts and differences, made from results alone.

Every cell keeps the runs it came from, so that a number can be followed to its key and its MLflow run.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sweeps.metric_names import axis_words, metric_words
from sweeps.plan import Cell, Plan
from sweeps.protocol import protocol_lines
from sweeps.results import Results
from sweeps.tables import Table, column_label, ordered_columns


class Verdict(StrEnum):
    """How a cell compares with the published one."""

    REPRODUCED = "reproduced"
    """The mean is within the table's tolerance."""
    BETTER = "better"
    """Ours is better by more."""
    OFF = "off"
    """Ours is worse by more."""
    INCOMPLETE = "incomplete"
    """Not every seed has a result."""
    UNPUBLISHED = "-"
    """Complete, with nothing to compare with."""


@dataclass(frozen=True)
class Run:
    """One seed of one cell."""

    row: str
    column: float | str
    seed: int
    key: str
    measure: str
    """The measure's token."""
    value: float | None
    """The metric, None without a result."""
    epochs: int | None
    """Epochs trained, None for an arm that has none."""
    link: str | None
    """MLflow run (id or address) of the key."""
    error: str | None
    """Why the trial failed, None where it did not."""
    mixed: bool
    """Attempts of the trial ran on different device types, torch versions or states of a plug-in."""

    @property
    def state(self) -> str:
        """done, failed or missing."""
        if self.value is not None:
            return "done"
        return "missing" if self.error is None else "failed"

    @property
    def where(self) -> str:
        """The run in words: row, column, seed and key."""
        return f"{self.row} {column_label(self.column)} seed {self.seed} (key {self.key})"


@dataclass(frozen=True)
class Entry:
    """One cell of the table: a row and a column over its seeds."""

    row: str
    column: float | str
    arm: str
    published: float | None
    tolerance: float
    """How far from the published value still counts as reproduced."""
    runs: tuple[Run, ...]
    """By seed, those without a result included."""
    metric: str = ""
    lower_is_better: bool = False
    quantity: str = ""
    """What is comparable with it: the metric without parameters."""

    @property
    def values(self) -> list[float]:
        """The metric of every seed that has one."""
        return [run.value for run in self.runs if run.value is not None]

    @property
    def mean(self) -> float | None:
        """Mean over the seeds that are there, None without any."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds (n - 1 in the denominator), None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def n(self) -> int:
        """Seeds with a result."""
        return len(self.values)

    @property
    def of(self) -> int:
        """Seeds asked for."""
        return len(self.runs)

    @property
    def failed(self) -> int:
        """Seeds whose trial failed."""
        return sum(run.state == "failed" for run in self.runs)

    @property
    def difference(self) -> float | None:
        """Ours minus published."""
        return None if self.mean is None or self.published is None else self.mean - self.published

    @property
    def verdict(self) -> Verdict:
        """Incomplete first; then by the difference and the table's tolerance."""
        if self.n < self.of:
            return Verdict.INCOMPLETE
        if self.difference is None:
            return Verdict.UNPUBLISHED
        if abs(self.difference) <= self.tolerance + 1e-9:
            return Verdict.REPRODUCED
        return Verdict.BETTER if (self.difference < 0) is self.lower_is_better else Verdict.OFF


@dataclass(frozen=True)
class Contrast:
    """Difference between two rows at one column, taken seed by seed."""

    row: str
    baseline: str
    column: float | str
    differences: tuple[float, ...]
    """Row minus baseline, one for every seed that both have."""

    @property
    def mean(self) -> float | None:
        """Mean difference, None where no seed is in both."""
        return statistics.fmean(self.differences) if self.differences else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of the differences over seeds, None for fewer than two."""
        return statistics.stdev(self.differences) if len(self.differences) > 1 else None

    @property
    def n(self) -> int:
        """Seeds that both rows have."""
        return len(self.differences)


@dataclass(frozen=True)
class Report:
    """A table of ours, with the published one if there is one."""

    dataset: str
    metric: str
    """What every cell shows, whichever measure it takes it from; empty where each column is a quantity of its own."""
    axis: str
    """What the columns are."""
    table: Table | None
    rows: tuple[str, ...]
    columns: tuple[float | str, ...]
    """Ascending where they are numbers."""
    entries: Mapping[tuple[str, float | str], Entry]
    """By (row, column); a pair that no cell asks for is absent."""
    caption: tuple[str, ...]
    """How our protocol compares with the paper's, from the trials themselves."""
    heading: str = ""
    """The title of a table that has no published one beside it; empty: made of the fields above."""
    statements: tuple[str, ...] = ()
    """What the numbers say, one line each."""

    @property
    def title(self) -> str:
        """One line that says what the table is."""
        if self.table is None and self.heading:
            return self.heading
        if self.table is None:
            axis = axis_words(self.axis)
            shown = f"{metric_words(self.metric)} by {axis}" if self.metric else axis
            return f"{self.dataset}: {shown} (no table is published for this data set)"
        return f"{self.table.name}, {self.table.title}: ours beside the published one"

    @property
    def runs(self) -> list[Run]:
        """Every (row, column, seed), in table order."""
        return [run for entry in self.in_order() for run in entry.runs]

    @property
    def failed(self) -> list[Run]:
        """Runs whose trial failed."""
        return [run for run in self.runs if run.state == "failed"]

    @property
    def complete(self) -> bool:
        """Whether every seed of every cell has a result."""
        return all(entry.n == entry.of for entry in self.entries.values())

    @property
    def tolerance(self) -> str:
        """How far from the published value still counts as reproduced, in words."""
        if self.table is None or not self.table.quantities:
            return f"{Table.tolerance if self.table is None else self.table.tolerance:g}"
        shown = (self.table.quantities[str(column)] for column in self.table.columns)
        return " or ".join(f"{share * 100:g}%" for share in dict.fromkeys(quantity.tolerance for quantity in shown))

    @property
    def rows_are_quantities(self) -> bool:
        """Whether rows show other quantities than other rows, in the same column."""
        by_column = ({entry.quantity for entry in self.in_order() if entry.column == c} for c in self.columns)
        return any(len(quantities) > 1 for quantities in by_column)

    @property
    def contrast_title(self) -> str:
        """What the table of differences shows."""
        baseline = "its first row" if len(set(self._baselines().values())) > 1 else self.rows[0]
        return f"{metric_words(self.metric) or 'each quantity'} minus that of {baseline}, seed by seed"

    def notes(self) -> list[str]:
        """One line a failed or mixed run, each key once."""
        failed = {run.key: f"failed: {run.where}: {run.error}" for run in self.failed}
        mixed = {
            run.key: f"mixed: {run.where} ran on several kinds of device, torch versions or states of a plug-in"
            for run in self.runs
            if run.mixed
        }
        return [*failed.values(), *mixed.values()]

    def in_order(self) -> list[Entry]:
        """Entries row by row."""
        asked = ((row, column) for row in self.rows for column in self.columns)
        return [self.entries[place] for place in asked if place in self.entries]

    def contrasts(self) -> list[Contrast]:
        """Every row minus the first one that shows a quantity of its own, by seed: what the arms' order puts first is
        the baseline."""
        baselines, found = self._baselines(), []
        for entry in self.in_order():
            baseline = baselines[entry.row]
            theirs = self.entries.get((baseline, entry.column))
            if baseline != entry.row and theirs is not None:
                found.append(_contrast(entry, theirs))
        return found

    def _baselines(self) -> dict[str, str]:
        """Row to the first row that it shares a quantity with, itself at least."""
        quantities: dict[str, set[str]] = {row: set() for row in self.rows}
        for entry in self.entries.values():
            quantities[entry.row].add(entry.quantity)
        return {row: next(first for first in self.rows if quantities[first] & quantities[row]) for row in self.rows}


def tabulate(
    plan: Plan,
    results: Results,
    *,
    table: Table | None = None,
    failures: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
    axis: str = "",
    heading: str = "",
) -> Report:
    """Make the table from what lies in storage now.

    Args:
        plan: the cells and their keys; its states are not used, results are read afresh.
        results: where they lie.
        table: the published one.
        failures: key to what went wrong in this start of the sweep.
        links: key to MLflow run.
        axis: what the columns are; empty: as the published table says.
        heading: title, where no table is published.
    Raises:
        ValueError: no cells.
    """
    if not plan.cells:
        raise ValueError("a table needs at least one arm, one column and one seed")
    groups: dict[tuple[str, float | str], list[tuple[Cell, Run]]] = {}
    for cell, key in zip(plan.cells, plan.keys, strict=True):
        place = groups.setdefault((cell.row, cell.column), [])
        if all(run.key != key for _, run in place):
            place.append((cell, _run(cell, key, results, failures or {}, links or {})))
    entries = {place: _entry(members, table) for place, members in groups.items()}
    first = plan.cells[0]
    return Report(
        dataset=first.trial.dataset,
        metric="" if first.quantity else first.measure.quantity,
        axis=axis or (table.axis if table else "paired fraction"),
        table=table,
        rows=tuple(dict.fromkeys(cell.row for cell in plan.cells)),
        columns=ordered_columns(cell.column for cell in plan.cells),
        entries=entries,
        caption=tuple(protocol_lines(plan.cells, table)),
        heading=heading,
    )


def _entry(members: list[tuple[Cell, Run]], table: Table | None) -> Entry:
    cell = members[0][0]
    quantity = None if table is None or isinstance(cell.column, float) else table.quantities.get(str(cell.column))
    tolerance = Table.tolerance if table is None else table.tolerance
    if quantity is not None and cell.published is not None:
        tolerance = quantity.tolerance * abs(cell.published)
    return Entry(
        row=cell.row,
        column=cell.column,
        arm=cell.arm,
        metric=cell.metric,
        published=cell.published,
        tolerance=tolerance,
        lower_is_better=quantity is not None and quantity.lower_is_better,
        quantity=cell.quantity or cell.measure.quantity,
        runs=tuple(sorted((run for _, run in members), key=lambda run: run.seed)),
    )


def _run(cell: Cell, key: str, results: Results, failures: Mapping[str, str], links: Mapping[str, str]) -> Run:
    result = results.read(key, cell.measure.token)
    return Run(
        row=cell.row,
        column=cell.column,
        seed=cell.trial.seed,
        key=key,
        measure=cell.measure.token,
        value=None if result is None else result.metrics.get(cell.metric),
        epochs=cell.trial.hashed_fields().get("epochs"),
        link=links.get(key),
        error=failures.get(key),
        mixed=result is not None and bool(result.provenance.get("mixed")),
    )


def _contrast(entry: Entry, baseline: Entry) -> Contrast:
    theirs = {run.seed: run.value for run in baseline.runs if run.value is not None}
    pairs = ((run.value, theirs.get(run.seed)) for run in entry.runs)
    differences = tuple(ours - other for ours, other in pairs if ours is not None and other is not None)
    return Contrast(entry.row, baseline.row, entry.column, differences)
