"""Builds the report that compares our table with the published table, from stored results only.

Each cell keeps its runs, so every number can be traced to keys and MLflow runs. sweeps/table/entries.py defines cells,
and sweeps/table/judgement.py defines the rules for verdicts.
"""

from collections.abc import Collection, Iterable, Mapping
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
    """Our table with the published table, if there is one for this data set and metric."""

    dataset: str
    metric: str
    """The metric that all cells show; empty if each column is a different quantity."""
    axis: str
    table: Table | None
    rows: tuple[str, ...]
    columns: tuple[float | str, ...]
    """Column values or names. Numbers are in ascending order."""
    entries: Mapping[tuple[str, float | str], Entry]
    """Entries by (row, column). Pairs without cells are absent."""
    caption: tuple[str, ...]
    """Lines that compare our protocol with the paper's, computed from the trials."""
    heading: str = ""
    """Title of a table that has no published counterpart. Empty: the title is made from data set, metric and axis."""
    statements: tuple[str, ...] = ()
    """Lines that state what the numbers show."""

    @property
    def title(self) -> str:
        if self.table is not None:
            paper = " and the paper's" if self.published else "; the paper has none of these cells"
            return f"{self.table.name}, {self.table.title}: our results{paper}"
        axis = axis_words(self.axis)
        shown = f"{metric_words(self.metric)} by {axis}" if self.metric else axis
        return self.heading or f"{self.dataset}: {shown} (no published table for this data set)"

    @property
    def published(self) -> bool:
        """Whether any cell has a published value."""
        return any(entry.published is not None for entry in self.entries.values())

    @property
    def runs(self) -> list[Run]:
        """All runs, one per (row, column, seed), in table order."""
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
        """Whether two rows show different quantities in the same column."""
        by_column = ({entry.quantity for entry in self.in_order() if entry.column == c} for c in self.columns)
        return any(len(quantities) > 1 for quantities in by_column)

    @property
    def contrast_title(self) -> str:
        baselines = list(dict.fromkeys(self._baselines().values()))
        baseline = baselines[0] if len(baselines) == 1 else "its first row"
        return f"{metric_words(self.metric) or 'each quantity'}: difference from {baseline}, seed by seed"

    def mean(self, row: str, column: float | str) -> float | None:
        """Returns our mean in a cell; None if the cell is absent or has no result."""
        entry = self.entries.get((row, column))
        return None if entry is None else entry.mean

    def without_comparing(self, rows: Collection[str]) -> "Report":
        """Returns a copy of the report in which the given rows get no verdict and are left out of all comparisons."""
        entries = {
            place: replace(entry, compared=False) if entry.row in rows else entry
            for place, entry in self.entries.items()
        }
        return replace(self, entries=entries)

    def notes(self) -> list[str]:
        """Returns a line per trial that failed, or that used several device types, torch or plug-in versions."""
        failed = {run.key: f"failed: {run.where}: {run.error}" for run in self.failed}
        mixed = {
            run.key: f"mixed: {run.where} ran on several device types, torch versions or versions of a plug-in"
            for run in self.runs
            if run.mixed
        }
        return [*failed.values(), *mixed.values()]

    @property
    def judged(self) -> list[Entry]:
        """Cells with a verdict: complete, published, and with at least 3 seeds. In table order."""
        return [entry for entry in self.in_order() if entry.verdict.judged]

    @cached_property
    def order(self) -> Order:
        return order_of(self.in_order())

    def in_order(self) -> list[Entry]:
        """Returns the entries row by row."""
        places = ((row, column) for row in self.rows for column in self.columns)
        return [self.entries[place] for place in places if place in self.entries]

    @cached_property
    def contrasts(self) -> dict[tuple[str, float | str], Contrast]:
        """Difference between each row and its baseline, seed by seed; the keys are (row, column).

        A row's baseline is the first row that shows at least one of the row's quantities. Rows that are excluded from
        comparison have no differences and are never a baseline.
        """
        baselines = self._baselines()
        compared = [entry for entry in self.in_order() if entry.compared]
        pairs = [(entry, self.entries.get((baselines[entry.row], entry.column))) for entry in compared]
        return {
            (entry.row, entry.column): contrast(entry, baseline)
            for entry, baseline in pairs
            if baseline is not None and baseline is not entry
        }

    def _baselines(self) -> dict[str, str]:
        quantities: dict[str, set[str]] = {}
        for entry in self.in_order():
            if entry.compared:
                quantities.setdefault(entry.row, set()).add(entry.quantity)
        return {row: next(first for first in quantities if quantities[first] & own) for row, own in quantities.items()}


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
    """Builds the report from the stored results.

    Args:
        plan: the cells and their keys. The plan's states are ignored, because results are read again.
        results: the stored results.
        table: the published table.
        failures: error message of each trial that failed in this command, by key.
        links: MLflow run of each trial, by key.
        axis: name of the column axis. If empty, the published table's axis, or "paired fraction" without such a table.
        heading: title of a table that has no published counterpart.
    Raises:
        Refusal: the plan has no cells.
    """
    if not plan.cells:
        raise Refusal("a table needs at least one arm, one column and one seed")
    groups: dict[tuple[str, float | str], list[tuple[Cell, Run]]] = {}
    for cell, key in zip(plan.cells, plan.keys, strict=True):
        place = groups.setdefault((cell.row, cell.column), [])
        if all(run.key != key for _, run in place):
            place.append((cell, _run(cell, key, results, failures or {}, links or {})))
    rows = grouped(plan.cells, lambda cell: cell.row)
    single = [_entry(members, rows[row], table) for (row, _), members in groups.items()]
    entries = {(entry.row, entry.column): entry for entry in _with_pooled_spread(single, table)}
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
    """Adds the pooled spread to each entry. A row's columns in the same range (`Table.ranges`) are pooled."""
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
