"""Transposes a wide table of quantities for the terminal: one line per quantity, one column per row of the table.

For example, seventeen quantities of seven models fit in one block instead of five bands of columns.
"""

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
"""Separates a quantity from its estimator in a column's name. Neighbouring columns with the same estimator share a
heading."""


def turnable(report: Report) -> bool:
    """Returns whether each column holds a different quantity."""
    named = all(isinstance(column, str) for column in report.columns)
    return named and not report.metric and not report.rows_are_quantities


def table_by_quantity(report: Report, rows: Sequence[str], marks: Marks) -> Grid:
    """Returns a grid with one column for each of the given rows of the report.

    Each quantity has up to four lines: ours, spread, paper, verdict. Empty lines are left out.
    """
    lines: list[tuple[str, Callable[[Entry], Text]]] = [
        ("ours", lambda entry: Text(shown_value(entry.mean, entry.spread) or "-", style="bold")),
        ("spread", lambda entry: Text(shown_spread(entry.mean, entry.spread, marks.spread), style="dim")),
        ("paper", lambda entry: Text(as_printed(entry.published))),
        ("verdict", lambda entry: Text(marks.verdict(entry) * entry.verdict.judged, STYLES.get(entry.verdict, ""))),
    ]
    entries = [entry for entry in report.in_order() if entry.row in rows]
    used = [(label, words) for label, words in lines if any(words(entry).plain.strip() for entry in entries)]
    labels = not {label for label, _ in used} <= {"ours", "spread"}  # the ± sign distinguishes these two
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
    """Returns the grid of mean differences from the baselines, each with half the width of its 95 % interval.

    If no difference has an interval, the grid has the spreads of the differences instead.
    """
    contrasts = report.contrasts.values()
    baselines = {contrast.row: contrast.baseline for contrast in contrasts}
    certain = any(contrast.interval is not None for contrast in contrasts)
    several = certain or any(contrast.spread is not None for contrast in contrasts)

    def spread(one: Contrast) -> str:
        return half_interval(one, marks.spread) if certain else shown_spread(one.mean, one.spread, marks.spread)

    heads = [[*row.split(), f"- {baseline}"] for row, baseline in baselines.items()]
    grid = _grid(report, heads, marks, labels=several)
    for column, name in _with_headings(grid, report):
        across = [report.contrasts.get((row, column)) for row in baselines]
        means = [Text("" if one is None else shown_value(one.mean, one.spread, signed=True)) for one in across]
        _add(grid, Text(name), "mean", means)
        spreads = [Text("" if one is None else spread(one), style="dim") for one in across]
        if any(text.plain for text in spreads):
            _add(grid, Text(""), "95%" if certain else "spread", spreads)
    return grid


def _grid(report: Report, heads: Sequence[Sequence[str]], marks: Marks, *, labels: bool) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD if marks is UNICODE else box.ASCII_DOUBLE_HEAD, pad_edge=False, padding=0)
    longest = max(len(name) for _, names in _groups(report) for _, name in names)
    grid.add_column(Text(axis_words(report.axis), style="dim"), width=min(longest, 24), overflow="fold")
    if labels:
        grid.add_column("", no_wrap=True)
    for words in heads:
        grid.add_column("\n".join(words), justify="right", vertical="bottom", no_wrap=True, min_width=7)
    return grid


def _add(grid: Grid, name: Text, label: str, texts: Sequence[Text]) -> None:
    labelled = len(grid.columns) > len(texts) + 1
    grid.add_row(name, *([Text(label, style="dim")] if labelled else []), *texts)


def _with_headings(grid: Grid, report: Report) -> Iterator[tuple[float | str, str]]:
    """Yields (column, label) pairs. Adds a heading to the grid before each group of columns with the same estimator."""
    for heading, names in _groups(report):
        if heading:
            grid.add_row(Text(heading, style="dim"), *[""] * (len(grid.columns) - 1))
        yield from names


def _groups(report: Report) -> Iterator[tuple[str, list[tuple[float | str, str]]]]:
    """Groups neighbouring columns by estimator. Yields each group's heading, if any, and its (column, label) pairs."""
    for estimator, columns in groupby(report.columns, lambda column: column_label(column).partition(BY)[2]):
        labels = {column: column_label(column) for column in columns}
        if estimator and len(labels) > 1:
            yield f"by {estimator}", [(one, f"  {label.removesuffix(BY + estimator)}") for one, label in labels.items()]
        else:
            yield "", list(labels.items())


def _seeds(report: Report, row: str, marks: Marks) -> Text:
    """Returns a row's number of seeds, such as "3/5". All cells have the same number: one measure fills the row."""
    entry = next(entry for entry in report.in_order() if entry.row == row)
    shown = entry.failed or entry.n < entry.of or not entry.compared
    sign = marks.verdict(entry) if shown else ""
    return Text(f"{sign} {entry.n}/{entry.of}".strip(), style="red" if entry.failed else "dim")
