"""Reports made of committed numbers as a pipeline makes them of results, and the tables that documents show of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from docs.report.committed import Committed
from mvae.refusal import Refusal
from sweeps.planning.estimate import Estimate
from sweeps.planning.plan import Cell, Plan
from sweeps.table.comparison import Entry, Report, tabulate
from sweeps.table.findings import verdict_words
from sweeps.table.markdown import markdown_table
from sweeps.table.published import Table, column_label
from sweeps.table.rounding import as_printed, shown


def report(
    cells: Sequence[Cell],
    committed: Committed,
    *,
    table: Table | None = None,
    axis: str = "",
    heading: str = "",
) -> Report:
    """The table of those cells that have a committed number; a cell's seeds are those that have one.

    Args:
        cells: what a pipeline's command asks for.
    Raises:
        Refusal: no cell has one.
    """
    there = available(cells, committed)
    if not there:
        raise Refusal(f"{heading or axis}: none of {len(cells)} cells has a committed number")
    kept = Plan(tuple(cells[index] for index in there), tuple(there.values()), {}, (), (), Estimate({}, 0, ()))
    return tabulate(kept, committed, table=table, axis=axis, heading=heading)


def available(cells: Sequence[Cell], committed: Committed) -> dict[int, str]:
    """Index of each cell that has a committed number, to its trial's key."""
    keys = {index: committed.key_of(cell.trial) for index, cell in enumerate(cells)}
    return {
        index: key
        for index, key in keys.items()
        if key is not None
        and (found := committed.read(key, cells[index].measure.token)) is not None
        and cells[index].metric in found.metrics
    }


def of_columns(whole: Report, columns: Sequence[float | str]) -> Report:
    """The same with some of its columns."""
    return replace(whole, columns=tuple(columns))


def grid(
    shown: Report,
    *,
    stub: str = "",
    rows: Mapping[str, str] | None = None,
    columns: Callable[[float | str], str] = column_label,
    seeds: bool = True,
) -> str:
    """A Markdown table: of every row ours with its spread, the paper's where it has any, and seeds with the verdict.

    Args:
        stub: what stands in the corner: what is measured.
        rows: the rows to show, and what to call them; None: all.
        seeds: whether to say, of every cell, how many seeds it has.
    """
    names = rows if rows is not None else {row: row for row in shown.rows}
    lines: list[list[str]] = []
    for row, name in names.items():
        entries = [shown.entries.get((row, column)) for column in shown.columns]
        published = any(entry is not None and entry.published is not None for entry in entries)
        kinds: list[tuple[str, Callable[[Entry], str]]] = [("ours", ours)]
        kinds += [("paper", paper)] * published
        kinds += [("seeds", verdict)] * seeds
        lines += [
            [name if number == 0 else "", kind, *("-" if entry is None else words(entry) for entry in entries)]
            for number, (kind, words) in enumerate(kinds)
        ]
    if not any(line[1] != "ours" for line in lines):
        lines = [[line[0], *line[2:]] for line in lines]
        return markdown_table([stub], [columns(column) for column in shown.columns], lines)
    return markdown_table([stub, ""], [columns(column) for column in shown.columns], lines)


def ours(entry: Entry) -> str:
    """Mean, and spread where there are several seeds."""
    return shown(entry.mean, entry.spread) or "-"


def paper(entry: Entry) -> str:
    """The published value, as the paper prints it."""
    return as_printed(entry.published) or "-"


def verdict(entry: Entry) -> str:
    """Number of seeds, and the verdict if there is one."""
    return ", ".join(filter(None, [str(entry.n), verdict_words(entry)]))


def caption(shown: Report) -> str:
    """How our set-up compares with the paper's, as a list."""
    return "\n".join(f"- {line}" for line in shown.caption)
