"""A wide table of quantities, turned for a terminal: a line for each quantity, a column for each of the table's rows.

Seventeen quantities of seven models make five bands of columns below one another, or one block of seventeen lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from rich import box
from rich.table import Table as Grid
from rich.text import Text

from sweeps.table.comparison import Contrast, Entry, Report
from sweeps.table.findings import half_interval
from sweeps.table.metric_names import axis_words
from sweeps.table.published import column_label
from sweeps.table.rounding import as_printed, shown_spread, shown_value
from sweeps.table.signs import STYLES, UNICODE, Marks

BY = " by "
"""Separates a quantity from the estimate that it comes from; neighbours with the same one share a heading."""


def turnable(report: Report) -> bool:
    """Whether every column is one quantity of its own."""
    named = all(isinstance(column, str) for column in report.columns)
    return named and not report.metric and not report.rows_are_quantities


def table_by_quantity(report: Report, rows: Sequence[str], marks: Marks) -> Grid:
    """Ours of some of the table's rows, with spread, published value and verdict of every quantity that has them."""
    lines: list[tuple[str, Callable[[Entry], Text]]] = [
        ("ours", lambda entry: Text(shown_value(entry.mean, entry.spread) or "-", style="bold")),
        ("spread", lambda entry: Text(shown_spread(entry.mean, entry.spread, marks.spread), style="dim")),
        ("paper", lambda entry: Text(as_printed(entry.published))),
        ("verdict", lambda entry: Text(marks.verdict(entry) * entry.verdict.judged, STYLES.get(entry.verdict, ""))),
    ]
    entries = [entry for entry in report.in_order() if entry.row in rows]
    used = [(label, words) for label, words in lines if any(words(entry).plain.strip() for entry in entries)]
    labels = not {label for label, _ in used} <= {"ours", "spread"}  # those two are told apart by the sign
    grid = _grid(report, [row.split() for row in rows], marks, labels=labels)
    for column, name in _with_headings(grid, report):
        across = [report.entries.get((row, column)) for row in rows]
        for label, words in used:
            texts = [Text("") if entry is None else words(entry) for entry in across]
            if label == "ours" or any(text.plain.strip() for text in texts):
                _add(grid, Text(name if label == "ours" else ""), label, texts)
    grid.add_section()
    _add(grid, Text("seeds", style="dim"), "", [_seeds(report, row, marks) for row in rows])
    return grid


def differences_by_quantity(report: Report, marks: Marks) -> Grid:
    """Differences between the table's rows and their baselines, with half the 95 % interval or the spread."""
    contrasts = report.contrasts.values()
    baselines = {contrast.row: contrast.baseline for contrast in contrasts}
    certain = any(contrast.interval is not None for contrast in contrasts)
    several = certain or any(contrast.spread is not None for contrast in contrasts)
    heads = [[*row.split(), f"- {baseline}"] for row, baseline in baselines.items()]
    grid = _grid(report, heads, marks, labels=several)
    for column, name in _with_headings(grid, report):
        found = [report.contrasts.get((row, column)) for row in baselines]
        means = [Text("" if one is None else shown_value(one.mean, one.spread, signed=True)) for one in found]
        _add(grid, Text(name), "mean", means)
        halves = [Text("" if one is None else _half(one, marks.spread, certain), style="dim") for one in found]
        if any(half.plain for half in halves):
            _add(grid, Text(""), "95%" if certain else "spread", halves)
    return grid


def _grid(report: Report, heads: Sequence[Sequence[str]], marks: Marks, *, labels: bool) -> Grid:
    """An empty grid: names of quantities, labels of their lines if there are several, and a column for each head."""
    grid = Grid(box=box.SIMPLE_HEAD if marks is UNICODE else box.ASCII_DOUBLE_HEAD, pad_edge=False, padding=0)
    longest = max(len(name) for _, names in _groups(report) for _, name in names)
    grid.add_column(Text(axis_words(report.axis), style="dim"), width=min(longest, 24), overflow="fold")
    if labels:
        grid.add_column("", no_wrap=True)
    for words in heads:
        grid.add_column("\n".join(words), justify="right", vertical="bottom", no_wrap=True, min_width=7)
    return grid


def _add(grid: Grid, name: Text, label: str, texts: Sequence[Text]) -> None:
    """A line of the grid, without its label if the grid has no column for labels."""
    labelled = len(grid.columns) > len(texts) + 1
    grid.add_row(name, *([Text(label, style="dim")] if labelled else []), *texts)


def _with_headings(grid: Grid, report: Report) -> Iterator[tuple[float | str, str]]:
    """Each column with what its line is called, after a line for the estimate that several columns share."""
    for heading, names in _groups(report):
        if heading:
            grid.add_row(Text(heading, style="dim"), *[""] * (len(grid.columns) - 1))
        yield from names


def _groups(report: Report) -> Iterator[tuple[str, list[tuple[float | str, str]]]]:
    """Columns that share an estimate, with their names below its heading; the heading of any others is empty."""
    for estimate, columns in groupby(report.columns, lambda column: column_label(column).partition(BY)[2]):
        labels = {column: column_label(column) for column in columns}
        if estimate and len(labels) > 1:
            yield f"by {estimate}", [(one, f"  {label.removesuffix(BY + estimate)}") for one, label in labels.items()]
        else:
            yield "", list(labels.items())


def _seeds(report: Report, row: str, marks: Marks) -> Text:
    """Seeds with a result of those asked for: one measure gives all quantities, so the row's first cell says it."""
    entry = next(entry for entry in report.in_order() if entry.row == row)
    sign = marks.failed if entry.failed else "" if entry.n == entry.of else marks.verdict(entry)
    return Text(f"{sign} {entry.n}/{entry.of}".strip(), style="red" if entry.failed else "dim")


def _half(one: Contrast, mark: str, certain: bool) -> str:
    return half_interval(one, mark) if certain else shown_spread(one.mean, one.spread, mark)
