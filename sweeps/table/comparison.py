"""Ours beside the published one, cell by cell: means, spreads, verdicts and differences, made from results alone.

Every cell keeps the runs it came from, so that a number can be followed to its key and its MLflow run. A cell is
sweeps/table/entries.py, the rules of its verdict are sweeps/table/judgement.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from mvae.refusal import Refusal
from sweeps.planning.plan import Cell, Plan
from sweeps.planning.state import TrialState
from sweeps.store.results import Results
from sweeps.table.entries import Contrast, Entry, Order, Run, contrast, grouped, order_of
from sweeps.table.judgement import Verdict, pooled_spread
from sweeps.table.metric_names import axis_words, metric_words
from sweeps.table.protocol import departures, protocol_lines
from sweeps.table.published import Table, ordered_columns

__all__ = ["Contrast", "Entry", "Order", "Report", "Run", "Verdict", "tabulate"]


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
        if self.table is None and self.heading:
            return self.heading
        if self.table is None:
            axis = axis_words(self.axis)
            shown = f"{metric_words(self.metric)} by {axis}" if self.metric else axis
            return f"{self.dataset}: {shown} (no table is published for this data set)"
        beside = "beside the published one" if self.published else "alone, since the paper has none of these cells"
        return f"{self.table.name}, {self.table.title}: ours {beside}"

    @property
    def published(self) -> bool:
        """Whether any cell stands beside a published value."""
        return any(entry.published is not None for entry in self.entries.values())

    @property
    def runs(self) -> list[Run]:
        """Every (row, column, seed), in table order."""
        return [run for entry in self.in_order() for run in entry.runs]

    @property
    def failed(self) -> list[Run]:
        return [run for run in self.runs if run.state is TrialState.FAILED]

    @property
    def complete(self) -> bool:
        return all(entry.n == entry.of for entry in self.entries.values())

    @property
    def tolerance(self) -> str:
        """Largest difference from the published value that counts as agreement, in words."""
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
        baseline = "its first row" if len(set(self._baselines().values())) > 1 else self.rows[0]
        return f"{metric_words(self.metric) or 'each quantity'} minus that of {baseline}, seed by seed"

    def mean(self, row: str, column: float | str) -> float | None:
        """Our mean in a cell; None without a result, and where no cell asks for one."""
        entry = self.entries.get((row, column))
        return None if entry is None else entry.mean

    def notes(self) -> list[str]:
        """One line a failed or mixed run, each key once."""
        failed = {run.key: f"failed: {run.where}: {run.error}" for run in self.failed}
        mixed = {
            run.key: f"mixed: {run.where} ran on several kinds of device, torch versions or states of a plug-in"
            for run in self.runs
            if run.mixed
        }
        return [*failed.values(), *mixed.values()]

    @property
    def judged(self) -> list[Entry]:
        """Cells that were compared with the published value: complete, with at least 3 seeds."""
        return [entry for entry in self.in_order() if entry.verdict.judged]

    @cached_property
    def order(self) -> Order:
        return order_of(self.in_order())

    def in_order(self) -> list[Entry]:
        """Entries row by row."""
        asked = ((row, column) for row in self.rows for column in self.columns)
        return [self.entries[place] for place in asked if place in self.entries]

    @cached_property
    def contrasts(self) -> dict[tuple[str, float | str], Contrast]:
        """By (row, column): each row minus the first one that shows a quantity of its own, seed by seed.

        What the arms' order puts first is the baseline.
        """
        baselines = self._baselines()
        pairs = [(entry, self.entries.get((baselines[entry.row], entry.column))) for entry in self.in_order()]
        return {
            (entry.row, entry.column): contrast(entry, baseline)
            for entry, baseline in pairs
            if baseline is not None and baseline is not entry
        }

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
        Refusal: no cells.
    """
    if not plan.cells:
        raise Refusal("a table needs at least one arm, one column and one seed")
    groups: dict[tuple[str, float | str], list[tuple[Cell, Run]]] = {}
    for cell, key in zip(plan.cells, plan.keys, strict=True):
        place = groups.setdefault((cell.row, cell.column), [])
        if all(run.key != key for _, run in place):
            place.append((cell, _run(cell, key, results, failures or {}, links or {})))
    rows = grouped(plan.cells, lambda cell: cell.row)
    made = [_entry(members, rows[row], table) for (row, _), members in groups.items()]
    entries = {(entry.row, entry.column): entry for entry in _with_pooled_spread(made, table)}
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


def _entry(members: list[tuple[Cell, Run]], of_row: list[Cell], table: Table | None) -> Entry:
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
        quantity=cell.quantity or cell.measure.quantity,
        runs=tuple(sorted((run for _, run in members), key=lambda run: run.seed)),
        test_examples=None if table is None or quantity is not None else table.test_examples,
        departures=() if table is None else departures([member for member, _ in members], of_row, table),
    )


def _with_pooled_spread(entries: Iterable[Entry], table: Table | None) -> list[Entry]:
    """Entries, each with the spread of its row's columns in its range."""
    found = []
    by_range = grouped(entries, lambda one: (one.row, one.column if table is None else table.range_of(one.column)))
    for members in by_range.values():
        models = [frozenset(run.key for run in entry.runs if run.value is not None) for entry in members]
        pooled = pooled_spread(zip((entry.values for entry in members), models, strict=True))
        found += [replace(entry, pooled=pooled) for entry in members]
    return found


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
