"""Prints the table and the plan to the terminal.

Each row of the table is a block of lines: ours, spread, paper, difference, half-width, seeds with verdict. In this
form, the nine columns of Table 4 fit in 100 characters. In a narrower terminal, the columns that do not fit are printed
below.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from sweeps.planning.plan import Plan
from sweeps.planning.state import TrialState
from sweeps.table.comparison import Entry, Report, Verdict
from sweeps.table.findings import Compared, Line, contrast_legend, contrast_lines, entry_lines, findings
from sweeps.table.metric_names import axis_words
from sweeps.table.published import column_label, ordered_columns
from sweeps.table.rounding import shown_spread, shown_value
from sweeps.table.signs import STATE_STYLES, STYLES, UNICODE, Marks, marks_of
from sweeps.table.turned import differences_by_quantity, table_by_quantity, turnable

Column = TypeVar("Column", bound=float | str)


def show(report: Report, console: Console) -> None:
    """Prints the table, its conclusions, the protocol, the differences between arms, and failed trials."""
    marks = marks_of(console)
    console.print(Text(report.title, style="bold"))
    turned = turnable(report) and not _fits(console, _table_grid(report, report.columns, marks))
    if turned:
        _print_bands(console, report.rows, lambda part: table_by_quantity(report, part, marks))
    else:
        _print_bands(console, report.columns, lambda part: _table_grid(report, part, marks))
    _print_lines(console, report.statements)
    _print_lines(console, [*_legend(report, marks), *findings(report), *report.caption], "dim")
    contrasts = report.contrasts.values()
    if any(contrast.n for contrast in contrasts):
        console.print()
        console.print(Text(report.contrast_title, style="bold"))
        if turned:
            grid = differences_by_quantity(report, marks)
            if fits := _fits(console, grid):
                console.print(grid)
            subject = "p values and seeds per difference" if fits else "Too wide for this terminal"
            console.print(Text(f"{subject}: see table.md in the report folder", style="dim"))
        else:
            _print_bands(console, report.columns, lambda part: _contrast_grid(report, part, marks))
            _print_lines(console, contrast_legend(contrasts), "dim")
    for line in report.notes():
        console.print(Text(line, style="red" if line.startswith("failed") else "yellow"))


def show_plan(plan: Plan, console: Console, costs: Sequence[str] = ()) -> None:
    """Prints the state of every seed, half-done trials, superseded results, and the estimated time and cost.

    Args:
        costs: lines on the estimated time and cost (sweeps/planning/price.py).
    """
    marks = marks_of(console)
    rows = list(dict.fromkeys(cell.row for cell in plan.cells))
    shown_in = _columns_of(plan)
    columns = tuple(dict.fromkeys(shown_in.values()))
    places = dict(zip(reversed(plan.keys), reversed(plan.cells), strict=True))
    _print_lines(console, plan.summary)
    _print_bands(console, columns, lambda part: _plan_grid(plan, rows, part, shown_in, marks))
    signs = "   ".join(f"{sign} {state.word}" for sign, state in zip(marks.states, STATE_STYLES, strict=True))
    console.print(Text(f"one symbol per seed:   {signs}", style="dim"))
    for planned in plan.trials.values():
        if planned.state is TrialState.INTERRUPTED:
            cell = places[planned.key]
            where = f"{cell.trained} {column_label(cell.column)} seed {cell.trial.seed}"
            console.print(
                Text(f"partial: {where}: epoch {planned.epoch} of {planned.trial.epochs} (key {planned.key})")
            )
    _print_lines(console, costs)


def _print_lines(console: Console, lines: Iterable[str], style: str = "") -> None:
    for line in lines:
        console.print(Text(line, style=style))


def _fits(console: Console, grid: Grid) -> bool:
    unbounded = console.options.update(max_width=10_000)
    return console.measure(grid, options=unbounded).maximum <= console.width


def _print_bands(console: Console, columns: Sequence[Column], make: Callable[[Sequence[Column]], Grid]) -> None:
    fitting = len(columns)
    while fitting > 1 and not _fits(console, make(columns[:fitting])):
        fitting -= 1
    bands = math.ceil(len(columns) / fitting)
    size = math.ceil(len(columns) / bands)
    for start in range(0, len(columns), size):
        console.print(make(columns[start : start + size]))


def _table_grid(report: Report, columns: Sequence[float | str], marks: Marks) -> Grid:
    grid = _grid(report.rows, report.axis, columns, marks, labels=True)
    first: list[Line[Entry]] = [("ours", lambda entry: shown_value(entry.mean, entry.spread) or "-")]
    if any(entry.spread is not None for entry in report.entries.values()):
        first.append(("spread", lambda entry: shown_spread(entry.mean, entry.spread, marks.spread)))
    for row in report.rows:
        lines = entry_lines(report, row, first, "diff", marks.seeds, marks.spread)
        _add_block(grid, row, lines, [report.entries.get((row, column)) for column in columns], _entry_style)
    return grid


def _entry_style(label: str, entry: Entry) -> str:
    verdict = "red" if entry.failed else STYLES.get(entry.verdict, "")
    return {"ours": "bold", "spread": "dim", "paper": "", "95%": "dim"}.get(label, verdict)


def _contrast_grid(report: Report, columns: Sequence[float | str], marks: Marks) -> Grid:
    baselines = {contrast.row: f"- {contrast.baseline}" for contrast in report.contrasts.values()}
    grid = _grid([*report.rows, *baselines.values()], report.axis, columns, marks, labels=True)
    lines = contrast_lines(report.contrasts.values(), marks.spread)
    for row, baseline in baselines.items():
        across = [report.contrasts.get((row, column)) for column in columns]
        _add_block(grid, f"{row}\n{baseline}", lines, across, lambda label, _: "bold" if label == "mean" else "dim")
    return grid


def _add_block(
    grid: Grid,
    name: str,
    lines: Sequence[Line[Compared]],
    cells: Sequence[Compared | None],
    style: Callable[[str, Compared], str],
) -> None:
    if any(cells):
        texts = [
            Text("\n").join(Text(text(cell), style=style(label, cell)) for label, text in lines if cell)
            for cell in cells
        ]
        labels = Text("\n".join(label for label, _ in lines), style="dim")
        grid.add_row(Text(name, style="bold"), labels, *texts, end_section=True)


def _plan_grid(
    plan: Plan,
    rows: Sequence[str],
    columns: Sequence[float | str],
    shown_in: Mapping[float | str, float | str],
    marks: Marks,
) -> Grid:
    grid = _grid(rows, "", columns, marks, labels=False)
    states: dict[tuple[str, float | str], dict[str, TrialState]] = {}
    for index, (cell, key) in enumerate(zip(plan.cells, plan.keys, strict=True)):
        states.setdefault((cell.row, shown_in[cell.column]), {})[key] = plan.state(index)
    for row in rows:
        texts = [
            Text("").join(
                Text(marks.states[list(STATE_STYLES).index(state)], style=STATE_STYLES[state])
                for state in states.get((row, column), {}).values()
            )
            for column in columns
        ]
        grid.add_row(Text(row, style="bold"), *texts)
    return grid


def _columns_of(plan: Plan) -> dict[float | str, float | str]:
    """Maps each column of the table to the column of the printed plan.

    The plan has a single column if each row has the same trials in all columns, for example because one measure fills
    all columns.
    """
    columns = ordered_columns(cell.column for cell in plan.cells)
    by_row: dict[str, dict[float | str, list[tuple[str, str]]]] = {}
    for cell, key in zip(plan.cells, plan.keys, strict=True):
        by_row.setdefault(cell.row, {}).setdefault(cell.column, []).append((key, cell.measure.token))
    same_in_all_columns = all(len(set(map(tuple, of_row.values()))) == 1 for of_row in by_row.values())
    if same_in_all_columns and len(columns) > 1:
        return dict.fromkeys(columns, f"all {len(columns)} columns")
    return {column: column for column in columns}


def _grid(rows: Sequence[str], axis: str, columns: Sequence[float | str], marks: Marks, *, labels: bool) -> Grid:
    grid = Grid(
        box=box.SIMPLE_HEAD if marks is UNICODE else box.ASCII_DOUBLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    axis = axis_words(axis)
    width = min(max(map(len, [*rows, *axis.split()])), 20)
    grid.add_column(Text(axis, style="dim"), width=width, overflow="fold")
    if labels:
        grid.add_column("", no_wrap=True, vertical="bottom")
    for column in columns:
        most = 12 if isinstance(column, str) else None  # a long name is folded into several lines
        label = column_label(column)
        grid.add_column(label, justify="right", vertical="bottom", overflow="fold", min_width=7, max_width=most)
    return grid


def _legend(report: Report, marks: Marks) -> list[str]:
    signs = dict(zip(Verdict, marks.verdicts, strict=True))
    verdicts = {entry.verdict for entry in report.entries.values() if not entry.failed}
    words = {
        Verdict.REPRODUCED: f"reproduced within {report.tolerance}",
        Verdict.AGREES: f"agrees within {report.tolerance}, under a different protocol",
        Verdict.UNRESOLVED: "unresolved",
        Verdict.SLIGHTLY_ABOVE: f"above by less than {report.tolerance}",
        Verdict.SLIGHTLY_BELOW: f"below by less than {report.tolerance}",
        Verdict.ABOVE: "above",
        Verdict.BELOW: "below",
        Verdict.INCOMPLETE: "incomplete",
        Verdict.UNDER_TRAINED: "under-trained: not compared",
    }
    symbols = [f"{signs[verdict]} {text}" for verdict, text in words.items() if verdict in verdicts]
    if report.failed:
        symbols.append(f"{marks.failed} failed, see below")
    several = any(entry.spread is not None for entry in report.entries.values())
    lines = ["ours: mean over seeds; spread: standard deviation over seeds" if several else "", "   ".join(symbols)]
    return [line for line in lines if line]
