"""The picture of a report: the metric against the column, ours with its spread, the published curve dashed."""

from __future__ import annotations

import io
import math
from itertools import zip_longest
from typing import TYPE_CHECKING

from sweeps.comparison import Entry, Report
from sweeps.tables import column_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
"""Okabe and Ito's, told apart by colour-blind readers too, darkest first."""

DOTS_AN_INCH = 150


def picture(report: Report) -> bytes:
    """A PNG: a line through the means with a band of one standard deviation, a point for every seed.

    Where columns are shares the axis is logarithmic; other columns stand at equal distances. An arm's published curve
    is shown over the whole published table, dashed, in the colour of the first of our rows of that arm. Where columns
    are quantities of their own, each has a panel with a point a row.
    """
    from matplotlib.figure import Figure

    columns = len(report.columns)
    across = min(columns, 6)
    figure = Figure(figsize=(8, 4.8) if report.metric else (2.6 * across, 3.2 * -(-columns // across)))
    colours = {row: COLOURS[number % len(COLOURS)] for number, row in enumerate(report.rows)}
    if report.metric:
        _draw_curves(figure, report, colours)
    else:
        _draw_panels(figure, report, colours, across)
    return png(figure)


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_AN_INCH, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _draw_panels(figure: Figure, report: Report, colours: dict[str, str], across: int) -> None:
    """One panel a quantity: each row's seeds, mean and spread, and a dash where the paper stands."""
    grid = figure.subplots(-(-len(report.columns) // across), across, squeeze=False)
    for axes, column in zip_longest(grid.flat, report.columns):
        if column is None:
            axes.remove()
            continue
        shown = [entry for entry in report.in_order() if entry.column == column]
        for place, entry in enumerate(shown):
            colour = colours[entry.row]
            if entry.mean is not None:
                axes.errorbar(place, entry.mean, entry.spread or 0.0, color=colour, marker="o", capsize=3)
                axes.plot([place] * entry.n, entry.values, color=colour, linestyle="", marker="o", ms=3, alpha=0.45)
            if entry.published is not None:
                axes.plot([place - 0.3, place + 0.3], [entry.published] * 2, color="0.35", linestyle=(0, (5, 3)))
        axes.set_xticks(range(len(shown)), [entry.row for entry in shown], rotation=45, ha="right")
        axes.set_title(column_label(column), fontsize=9)
        axes.margins(x=0.2)
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{_title(report)} (dashed: paper)", x=0.01, ha="left", fontsize=11)


def _draw_curves(figure: Figure, report: Report, colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    axes = figure.add_subplot()
    for row in report.rows:
        draw_line(axes, [entry for entry in report.in_order() if entry.row == row], report, colours[row])
    drawn = _draw_published(axes, report, colours)
    _draw_axis(axes, report, drawn)
    handles = [
        Line2D([], [], color=colours[row], linewidth=2, marker="o", markersize=4, label=row) for row in report.rows
    ]
    if drawn:
        handles.append(Line2D([], [], color="0.35", linestyle=(0, (5, 3)), label="paper"))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.set_title(_title(report), loc="left", fontsize=11)


def draw_line(
    axes: Axes, entries: list[Entry], report: Report, colour: str, *, label: str = "", faint: bool = False
) -> None:
    """A row of the report: means with a band of one standard deviation and a point a seed; `faint` is the means."""
    known = [(place_of(entry.column, report), entry) for entry in entries if entry.mean is not None]
    places = [place for place, _ in known]
    means = [entry.mean or 0.0 for _, entry in known]
    spreads = [entry.spread or 0.0 for _, entry in known]
    if faint:
        axes.plot(places, means, color=colour, linewidth=1, label=label or None)
        return
    low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
    high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
    axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(places, means, color=colour, linewidth=2, marker="o", markersize=4.5, zorder=3, label=label or None)
    for place, entry in known:
        axes.plot([place] * entry.n, entry.values, color=colour, linestyle="", marker="o", markersize=3, alpha=0.45)


def _draw_published(axes: Axes, report: Report, colours: dict[str, str]) -> list[float | str]:
    """Draw the published curve of every arm once; returns the columns at which it has values."""
    columns: dict[float | str, None] = {}
    seen: set[str] = set()
    for entry in report.in_order():
        if entry.arm in seen:
            continue
        seen.add(entry.arm)
        points: list[tuple[float | str, float]]
        if report.table is not None and entry.arm in report.table.rows:
            points = list(zip(report.table.columns, report.table.rows[entry.arm], strict=True))
        else:
            of_arm = [other for other in report.in_order() if other.row == entry.row]
            points = [(other.column, other.published) for other in of_arm if other.published is not None]
        if not points:
            continue
        columns.update(dict.fromkeys(column for column, _ in points))
        places = [place_of(column, report) for column, _ in points]
        values = [value for _, value in points]
        axes.plot(places, values, color=colours[entry.row], linestyle=(0, (5, 3)), linewidth=1.4, alpha=0.9, zorder=2)
    return list(columns)


def _draw_axis(axes: Axes, report: Report, published: list[float | str]) -> None:
    columns = list(dict.fromkeys([*report.columns, *published]))
    places = {column: place_of(column, report) for column in columns}
    axes.set_xticks(list(places.values()), [column_label(column) for column in places])
    axes.minorticks_off()
    axes.set_xlabel(report.axis)
    axes.set_ylabel(report.metric)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.04)


def place_of(column: float | str, report: Report) -> float:
    """Where a column stands: log10 of a share, else its number in the row of columns."""
    if isinstance(column, str) or any(isinstance(other, str) or other <= 0 for other in report.columns):
        return float(report.columns.index(column))
    return math.log10(column)


def _title(report: Report) -> str:
    return f"{report.dataset}: {seeds_in_words(report)}"


def seeds_in_words(report: Report, shown: str = "mean and spread") -> str:
    """One seed, or what is shown over so many."""
    seeds = sorted({entry.of for entry in report.entries.values()})
    if seeds == [1]:
        return "one seed"
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"{shown} over {count} seeds"
