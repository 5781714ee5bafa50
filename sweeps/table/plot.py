"""Plots reports: the metric by column, with our spread as a band and the published curve dashed.

`picture` plots a whole report. `figure` plots selected rows in several panels. `heat_map` draws the means. `forms`
saves a figure as PNG, PDF and SVG. Equal figures give identical files.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby, zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from sweeps.table.comparison import Entry, Report
from sweeps.table.findings import seeds_in_words
from sweeps.table.metric_names import axis_words, capitalised, dataset_words, metric_words
from sweeps.table.published import column_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
"""Palette of Okabe and Ito, which colour-blind readers can distinguish; darkest first."""

COLOURS = (*OKABE_ITO, "#882255", "#999933", "#332288", "#661100")
"""One colour per row; the last four, from the palettes of Tol, are for tables of more than eight rows."""

DOTS_PER_INCH = 150

FORMS = ("png", "pdf", "svg")
"""File formats of a figure: PNG for viewing, PDF for LaTeX, SVG for the web and for editing."""

SETTINGS: dict[Any, Any] = {"pdf.fonttype": 42, "svg.hashsalt": "mvae"}
"""TrueType fonts are embedded, because many venues refuse Type 3 fonts. The parts of an SVG get reproducible names."""

METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
}
"""Metadata to omit (date, version), so that equal figures give identical files."""


@dataclass(frozen=True)
class Line:
    """A row of a report, drawn as one line of a plot."""

    report: Report
    row: str
    label: str = ""
    """Name in the legend; empty: not in the legend."""
    faint: bool = False
    """Whether to draw only the means, in grey, behind the other lines."""


def picture(report: Report) -> Figure:
    """Plots each row: a line through its means, a band of one standard deviation, and a point per seed.

    - The band is drawn between columns with at least two seeds.
    - The horizontal axis is logarithmic if columns are shares; other columns are evenly spaced.
    - An arm's published curve covers the whole published table. The curve is dashed, in the colour of the arm's first
      row.
    - If columns are different quantities, each quantity gets a panel with one point per row.
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
    return figure


def figure(plots: Mapping[str, Sequence[Line]], about: Report) -> Figure:
    """Draws panels side by side: lines through means, with a band of one standard deviation and a point per seed.

    Args:
        plots: lines of each panel, by the panel's title.
        about: the report whose data set and number of seeds appear in the figure's title.
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(4.6 * len(plots), 4.2))
    for axes, (title, lines) in zip(drawn.subplots(1, len(plots), squeeze=False).flat, plots.items(), strict=True):
        coloured = [line for line in lines if not line.faint]
        for line in sorted(lines, key=lambda line: not line.faint):
            colour = "0.75" if line.faint else COLOURS[coloured.index(line) % len(COLOURS)]
            entries = [entry for entry in line.report.in_order() if entry.row == line.row]
            draw_line(axes, entries, line.report, colour, label=line.label, faint=line.faint)
        draw_axis(axes, lines[0].report, lines[0].report.columns, size=8, grid="0.93")
        axes.set_title(title, loc="left", fontsize=10)
        if any(line.label for line in lines):
            axes.legend(frameon=False, fontsize=8)
    drawn.suptitle(_title(about), x=0.01, ha="left", fontsize=11)
    return drawn


def heat_map(report: Report, rows: dict[str, str], title: str, low: float, high: float) -> Figure:
    """Draws a heat map of our means: the given rows by all columns. Cells without a result stay empty.

    Args:
        rows: the rows to draw; maps a row's name in the report to its label in the figure.
        low, high: limits of the colour scale.
    """
    import numpy as np
    from matplotlib.figure import Figure

    means = np.array([[report.mean(row, column) for column in report.columns] for row in rows], dtype=float)
    drawn = Figure(layout="constrained", figsize=(2.4 + 0.62 * len(report.columns), 1.5 + 0.27 * len(rows)))
    axes = drawn.add_subplot()
    image = axes.imshow(means, aspect="auto", cmap="viridis", vmin=low, vmax=high)
    for (line, column), mean in np.ndenumerate(means):
        if np.isfinite(mean):
            colour = "white" if mean < (low + high) / 2 else "black"
            axes.text(column, line, f"{mean:.2f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(report.columns)), [column_label(column) for column in report.columns], fontsize=8)
    axes.set_yticks(range(len(rows)), list(rows.values()), fontsize=8)
    axes.set_xlabel(axis_words(report.axis))
    drawn.colorbar(image, ax=axes)
    axes.set_title(f"{title}\n{_title(report, 'mean')}", loc="left", fontsize=10)
    return drawn


def forms(name: str, draw: Callable[[], Figure]) -> dict[str, Callable[[], bytes]]:
    """Maps NAME.png, NAME.pdf and NAME.svg to functions that return the file's content. Draws the figure only once."""
    once = cache(lambda: _laid_out(draw()))
    return {f"{name}.{form}": partial(saved, once, form) for form in FORMS}


def saved(draw: Callable[[], Figure], form: str) -> bytes:
    """Draws a figure and returns the content of its file in one of the formats `FORMS`."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context(SETTINGS):
        _laid_out(draw()).savefig(buffer, format=form, dpi=DOTS_PER_INCH, facecolor="white", metadata=METADATA[form])
    return buffer.getvalue()


def _laid_out(figure: Figure) -> Figure:
    """Fixes the layout of a figure, because each later drawing would otherwise move its parts slightly."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.layout_engine import PlaceHolderLayoutEngine

    if not isinstance(figure.get_layout_engine(), PlaceHolderLayoutEngine):
        FigureCanvasAgg(figure)
        figure.dpi = DOTS_PER_INCH
        figure.set_layout_engine("constrained")
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def _draw_panels(figure: Figure, report: Report, colours: dict[str, str], across: int) -> None:
    dashed = " (dashed: paper)" if report.published else ""
    grid = figure.subplots(-(-len(report.columns) // across), across, squeeze=False)
    for axes, column in zip_longest(grid.flat, report.columns):
        if column is None:
            axes.remove()
            continue
        shown = [entry for entry in report.in_order() if entry.column == column]
        for place, entry in enumerate(shown):
            colour = colours[entry.row]
            if entry.mean is not None:
                axes.errorbar(place, entry.mean, entry.spread, color=colour, marker="o", capsize=3)
                axes.plot([place] * entry.n, entry.values, color=colour, linestyle="", marker="o", ms=3, alpha=0.45)
            if entry.published is not None:
                axes.plot([place - 0.3, place + 0.3], [entry.published] * 2, color="0.35", linestyle=(0, (5, 3)))
        axes.set_xticks(range(len(shown)), [entry.row for entry in shown], rotation=45, ha="right")
        axes.set_title("\n".join(wrap(column_label(column), 24)), fontsize=9)
        axes.margins(x=0.2)
        _lighten(axes)
    figure.suptitle(f"{_title(report)}{dashed}", x=0.01, ha="left", fontsize=11)


def _draw_curves(figure: Figure, report: Report, colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    axes = figure.add_subplot()
    for row in report.rows:
        draw_line(axes, [entry for entry in report.in_order() if entry.row == row], report, colours[row])
    drawn = _draw_published(axes, report, colours)
    draw_axis(axes, report, dict.fromkeys([*report.columns, *drawn]))
    axes.set_ylabel(metric_words(report.metric))
    axes.margins(x=0.04)
    labels = _legend_labels(report)
    handles = [
        Line2D([], [], color=colours[row], linewidth=2, marker="o", markersize=4, label=labels[row])
        for row in report.rows
    ]
    if drawn:
        handles.append(Line2D([], [], color="0.35", linestyle=(0, (5, 3)), label="paper"))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.set_title(_title(report), loc="left", fontsize=11)


def draw_line(
    axes: Axes, entries: list[Entry], report: Report, colour: str, *, label: str = "", faint: bool = False
) -> None:
    """Draws a row: its means, a band of one standard deviation, and a point per seed. `faint` draws only the means.

    The band is drawn between neighbouring columns that have at least two seeds each.
    """
    known = [(place_of(entry.column, report), entry) for entry in entries if entry.mean is not None]
    places = [place for place, _ in known]
    means = [entry.mean or 0.0 for _, entry in known]
    if faint:
        axes.plot(places, means, color=colour, linewidth=1, label=label or None)
        return
    bounds = [(place, entry.mean or 0.0, entry.spread) for place, entry in known]
    for _, run in groupby(bounds, lambda point: point[2] is None):
        points = [(place, mean - spread, mean + spread) for place, mean, spread in run if spread is not None]
        if len(points) > 1:
            at, low, high = zip(*points, strict=True)
            axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(places, means, color=colour, linewidth=2, marker="o", markersize=4.5, zorder=3, label=label or None)
    for place, entry in known:
        axes.plot([place] * entry.n, entry.values, color=colour, linestyle="", marker="o", markersize=3, alpha=0.45)


def _draw_published(axes: Axes, report: Report, colours: dict[str, str]) -> list[float | str]:
    columns: dict[float | str, None] = {}
    rows: dict[str, str] = {}
    for entry in report.in_order():
        rows.setdefault(entry.arm, entry.row)
    for arm, row in rows.items():
        if report.table is not None and arm in report.table.rows:
            points = dict(zip(report.table.columns, report.table.rows[arm], strict=True))
        else:
            of_row = (entry for entry in report.in_order() if entry.row == row)
            points = {entry.column: entry.published for entry in of_row if entry.published is not None}
        if points:
            columns |= dict.fromkeys(points)
            axes.plot(
                [place_of(column, report) for column in points],
                list(points.values()),
                color=colours[row],
                linestyle=(0, (5, 3)),
                linewidth=1.4,
                alpha=0.9,
                zorder=2,
            )
    return list(columns)


def _legend_labels(report: Report) -> dict[str, str]:
    seeds = {row: {entry.n for entry in report.in_order() if entry.row == row and entry.n} for row in report.rows}
    if len({frozenset(counts) for counts in seeds.values()}) == 1:
        return {row: row for row in report.rows}
    words = {row: "-".join(map(str, sorted({min(counts), max(counts)}))) for row, counts in seeds.items() if counts}
    return {row: f"{row} ({words.get(row, '0')} seed{'s' * (words.get(row) != '1')})" for row in report.rows}


def draw_axis(
    axes: Axes, report: Report, columns: Iterable[float | str], *, size: float | None = None, grid: str = "0.9"
) -> None:
    """Labels the horizontal axis with the columns, and draws horizontal grid lines.

    Args:
        size: font size of the column labels, in points.
        grid: colour of the grid lines.
    """
    places = {column: place_of(column, report) for column in columns}
    axes.set_xticks(list(places.values()), [column_label(column) for column in places], fontsize=size)
    axes.minorticks_off()
    axes.set_xlabel(axis_words(report.axis))
    _lighten(axes, grid)


def _lighten(axes: Axes, grid: str = "0.9") -> None:
    axes.grid(axis="y", color=grid)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def place_of(column: float | str, report: Report) -> float:
    """Returns a column's horizontal position: its log10 if all columns are positive numbers, else its index."""
    if isinstance(column, str) or any(isinstance(other, str) or other <= 0 for other in report.columns):
        return float(report.columns.index(column))
    return math.log10(column)


def _title(report: Report, shown: str = "mean and standard deviation") -> str:
    return f"{capitalised(dataset_words(report.dataset))}: {seeds_in_words(report, shown)}"
