"""How the finished table and the plan look in a terminal, with colour or without.

A row of the table is a block of lines (ours, spread, paper, difference, half-width, seeds with verdict), so that nine
fractions fit 100 columns. Where they do not fit, the remaining columns follow below instead of breaking numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from sweeps.planning.plan import Plan
from sweeps.planning.state import TrialState
from sweeps.table.comparison import Contrast, Entry, Report, Verdict
from sweeps.table.findings import contrast_legend, contrast_lines, findings, shown_half_width
from sweeps.table.metric_names import axis_words
from sweeps.table.published import column_label, ordered_columns
from sweeps.table.rounding import as_printed, shown_spread, shown_value
from sweeps.table.signs import STATE_STYLES, STYLES, UNICODE, Marks, marks_of
from sweeps.table.turned import differences_by_quantity, table_by_quantity, turnable

PLAIN_WIDTH = 120
"""Columns of output that no terminal reads."""

Column = TypeVar("Column", bound=float | str)

NAME_WIDTH = 12
"""Columns of output that a named column takes at most; its heading goes on below."""


def show(report: Report, console: Console) -> None:
    """Print the table, what it says about the protocol, the differences between arms, and what failed."""
    marks = marks_of(console)
    with _wide_enough(console):
        console.print(Text(report.title, style="bold"))
        turned = turnable(report) and not _fits(console, _table_grid(report, report.columns, marks))
        if turned:
            _print_bands(console, report.rows, lambda part: table_by_quantity(report, part, marks))
        else:
            _print_bands(console, report.columns, lambda part: _table_grid(report, part, marks))
        for line in report.statements:
            console.print(Text(line))
        for line in [*_legend(report, marks), *findings(report), *report.caption]:
            console.print(Text(line, style="dim"))
        contrasts = report.contrasts()
        if any(contrast.n for contrast in contrasts):
            console.print()
            console.print(Text(report.contrast_title, style="bold"))
            if turned:
                compared = tuple(dict.fromkeys(contrast.row for contrast in contrasts))
                grid = differences_by_quantity(report, contrasts, compared, marks)
                if fits := _fits(console, grid):
                    console.print(grid)
                more = "p values and seeds of each difference" if fits else "Too wide for this terminal"
                console.print(Text(f"{more}: see table.md of the report", style="dim"))
            else:
                _print_bands(console, report.columns, lambda part: _contrast_grid(report, contrasts, part, marks))
                for line in contrast_legend(contrasts):
                    console.print(Text(line, style="dim"))
        for line in report.notes():
            console.print(Text(line, style="red" if line.startswith("failed") else "yellow"))


def show_plan(plan: Plan, console: Console, at_once: int | None = None, costs: Sequence[str] = ()) -> None:
    """Print the cells with the state of every seed, what is half done, what is superseded, and the estimate.

    Args:
        at_once: how many trials will run at a time, where that is known.
        costs: lines on what the estimate costs (sweeps/planning/price.py).
    """
    marks = marks_of(console)
    rows = list(dict.fromkeys(cell.row for cell in plan.cells))
    shown_in = _columns_of(plan)
    columns = tuple(dict.fromkeys(shown_in.values()))
    places = dict(zip(reversed(plan.keys), reversed(plan.cells), strict=True))
    with _wide_enough(console):
        for line in plan.summary:
            console.print(Text(line))
        _print_bands(console, columns, lambda part: _plan_grid(plan, rows, part, shown_in, marks))
        signs = "   ".join(f"{sign} {state.word}" for sign, state in zip(marks.states, STATE_STYLES, strict=True))
        console.print(Text(f"one sign a seed:   {signs}", style="dim"))
        for planned in plan.trials.values():
            if planned.state is TrialState.INTERRUPTED:
                cell = places[planned.key]
                where = f"{cell.trained} {column_label(cell.column)} seed {cell.trial.seed}"
                console.print(
                    Text(f"partial: {where}: epoch {planned.epoch} of {planned.trial.epochs} (key {planned.key})")
                )
        for line in [*plan.estimate.lines(at_once), *costs]:
            console.print(Text(line))


def _fits(console: Console, grid: Grid) -> bool:
    """Whether the whole grid is as narrow as the console."""
    unbounded = console.options.update(max_width=10_000)
    return console.measure(grid, options=unbounded).maximum <= console.width


def _print_bands(console: Console, columns: Sequence[Column], make: Callable[[Sequence[Column]], Grid]) -> None:
    """Print a grid in as many bands of columns as the width asks for."""
    fitting = len(columns)
    while fitting > 1 and not _fits(console, make(columns[:fitting])):
        fitting -= 1
    bands = math.ceil(len(columns) / fitting)
    size = math.ceil(len(columns) / bands)
    for start in range(0, len(columns), size):
        console.print(make(columns[start : start + size]))


def _table_grid(report: Report, columns: Sequence[float | str], marks: Marks) -> Grid:
    grid = _grid(report.rows, report.axis, columns, marks, labels=True)
    for row in report.rows:
        entries = [report.entries.get((row, column)) for column in columns]
        if not any(entries):
            continue
        lines = _lines(report, row)
        texts = [_entry_text(entry, lines, marks) for entry in entries]
        labels = Text("\n".join(label for label, _ in lines), style="dim")
        grid.add_row(Text(row, style="bold"), labels, *texts, end_section=True)
    return grid


def _lines(report: Report, row: str) -> list[tuple[str, Callable[[Entry, Marks], str]]]:
    """Label and content of the lines of a row's block: those that would be empty throughout are left out."""
    of_row = [entry for entry in report.in_order() if entry.row == row]
    lines: list[tuple[str, Callable[[Entry, Marks], str]]] = [
        ("ours", lambda entry, _: shown_value(entry.mean, entry.spread) or "-")
    ]
    if any(entry.spread is not None for entry in report.entries.values()):
        lines.append(("spread", lambda entry, marks: shown_spread(entry.mean, entry.spread, marks.spread)))
    if report.published:
        lines.append(("paper", lambda entry, _: as_printed(entry.published) or "-"))
    if any(entry.published is not None for entry in of_row):
        lines.append(("diff", lambda entry, _: shown_value(entry.difference, entry.spread, signed=True)))
    if any(entry.verdict.judged for entry in of_row):
        lines.append(("95%", lambda entry, marks: shown_half_width(entry, marks.spread)))
    lines.append(("seeds", lambda entry, marks: f"{marks.verdict(entry)} {entry.n}/{entry.of}".strip()))
    return lines


def _entry_text(entry: Entry | None, lines: Sequence[tuple[str, Callable[[Entry, Marks], str]]], marks: Marks) -> Text:
    if entry is None:
        return Text("")
    verdict = "red" if entry.failed else STYLES.get(entry.verdict, "")
    styles = {"ours": "bold", "spread": "dim", "paper": "", "diff": verdict, "95%": "dim", "seeds": verdict}
    return Text("\n").join(Text(content(entry, marks), style=styles[label]) for label, content in lines)


def _contrast_grid(report: Report, contrasts: Sequence[Contrast], columns: Sequence[float | str], marks: Marks) -> Grid:
    baselines = {contrast.row: f"- {contrast.baseline}" for contrast in contrasts}
    grid = _grid([*report.rows, *baselines.values()], report.axis, columns, marks, labels=True)
    by_place = {(contrast.row, contrast.column): contrast for contrast in contrasts}
    lines = contrast_lines(contrasts, marks.spread)

    def texts(contrast: Contrast | None) -> Text:
        if contrast is None:
            return Text("")
        return Text("\n").join(
            Text(text(contrast), style="bold" if label == "mean" else "dim") for label, text in lines
        )

    for row in report.rows[1:]:
        if not any((row, column) in by_place for column in columns):
            continue
        labels = Text("\n".join(label for label, _ in lines), style="dim")
        name = Text(f"{row}\n{baselines[row]}", style="bold")
        grid.add_row(name, labels, *(texts(by_place.get((row, column))) for column in columns), end_section=True)
    return grid


def _plan_grid(
    plan: Plan,
    rows: Sequence[str],
    columns: Sequence[float | str],
    shown_in: Mapping[float | str, float | str],
    marks: Marks,
) -> Grid:
    grid = _grid(rows, "", columns, marks, labels=False)
    states: dict[tuple[str, float | str], list[TrialState]] = {}
    seen: set[tuple[str, float | str, str]] = set()
    for index, (cell, key) in enumerate(zip(plan.cells, plan.keys, strict=True)):
        column = shown_in[cell.column]
        if (cell.row, column, key) not in seen:
            seen.add((cell.row, column, key))
            states.setdefault((cell.row, column), []).append(plan.state(index))
    for row in rows:
        texts = [
            Text("").join(
                Text(marks.states[list(STATE_STYLES).index(state)], style=STATE_STYLES[state])
                for state in states.get((row, column), [])
            )
            for column in columns
        ]
        grid.add_row(Text(row, style="bold"), *texts)
    return grid


def _columns_of(plan: Plan) -> dict[float | str, float | str]:
    """Where each column of the table is shown in the plan: all in one if every row has the same trials in all of its
    columns, as rows of quantities that one measure gives."""
    columns = ordered_columns(cell.column for cell in plan.cells)
    asked: dict[str, dict[float | str, list[tuple[str, str]]]] = {}
    for cell, key in zip(plan.cells, plan.keys, strict=True):
        asked.setdefault(cell.row, {}).setdefault(cell.column, []).append((key, cell.measure.token))
    alike = all(len(set(map(tuple, of_row.values()))) == 1 for of_row in asked.values())
    if alike and len(columns) > 1:
        return dict.fromkeys(columns, f"all {len(columns)} columns")
    return {column: column for column in columns}


def _grid(rows: Sequence[str], axis: str, columns: Sequence[float | str], marks: Marks, *, labels: bool) -> Grid:
    """An empty grid: the rows' names (the axis heads them, folded), the lines' labels, one column a cell."""
    grid = Grid(
        box=box.SIMPLE_HEAD if marks is UNICODE else box.ASCII_DOUBLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    axis = axis_words(axis)
    width = min(max(map(len, [*rows, *axis.split()])), 20)
    grid.add_column(Text(axis, style="dim"), width=width, overflow="fold")
    if labels:
        grid.add_column("", no_wrap=True, vertical="bottom")
    for column in columns:
        narrow = NAME_WIDTH if isinstance(column, str) else None
        label = column_label(column)
        grid.add_column(label, justify="right", vertical="bottom", overflow="fold", min_width=7, max_width=narrow)
    return grid


def _legend(report: Report, marks: Marks) -> list[str]:
    """What the lines and the signs mean: only the signs that the table has."""
    signs = dict(zip(Verdict, marks.verdicts, strict=True))
    verdicts = {entry.verdict for entry in report.entries.values() if not entry.failed}
    words = {
        Verdict.REPRODUCED: f"reproduced within {report.tolerance}",
        Verdict.AGREES: f"agrees within {report.tolerance}, by another protocol",
        Verdict.UNRESOLVED: "unresolved",
        Verdict.SLIGHTLY_ABOVE: f"above by less than {report.tolerance}",
        Verdict.SLIGHTLY_BELOW: f"below by less than {report.tolerance}",
        Verdict.ABOVE: "above",
        Verdict.BELOW: "below",
        Verdict.INCOMPLETE: "incomplete",
    }
    said = [f"{signs[verdict]} {text}" for verdict, text in words.items() if verdict in verdicts]
    if report.failed:
        said.append(f"{marks.failed} failed, see below")
    several = any(entry.spread is not None for entry in report.entries.values())
    lines = ["ours: mean over seeds; spread: their standard deviation" if several else "", "   ".join(said)]
    return [line for line in lines if line]


@contextmanager
def _wide_enough(console: Console) -> Iterator[None]:
    """A console that is no terminal gets a fixed width: 80 columns would cut a file's or a log's table for nothing."""
    if console.is_terminal:
        yield
        return
    before = console.width
    console.width = max(before, PLAIN_WIDTH)
    try:
        yield
    finally:
        console.width = before
