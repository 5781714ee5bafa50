"""Pictures of several plots: what stands in a published figure, drawn from the rows of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweeps.table.comparison import Report
from sweeps.table.findings import seeds_in_words
from sweeps.table.metric_names import axis_words, capitalised, dataset_words
from sweeps.table.plot import COLOURS, draw_axis, draw_line
from sweeps.table.published import column_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAINT = "0.75"


@dataclass(frozen=True)
class Line:
    """A row of a report as one line of a plot."""

    report: Report
    row: str
    label: str = ""
    """What the legend calls it; empty: the legend does not."""
    faint: bool = False
    """Grey and without its seeds, behind the others."""


def figure(plots: Mapping[str, Sequence[Line]], about: Report) -> Figure:
    """The plots side by side: lines through means, with a band of one standard deviation and a point per seed.

    Args:
        plots: title of each to its lines.
        about: names data set and seeds.
    """
    from matplotlib.figure import Figure

    made = Figure(figsize=(4.6 * len(plots), 4.2))
    for axes, (title, lines) in zip(made.subplots(1, len(plots), squeeze=False).flat, plots.items(), strict=True):
        coloured = [line for line in lines if not line.faint]
        for line in sorted(lines, key=lambda line: not line.faint):
            colour = FAINT if line.faint else COLOURS[coloured.index(line) % len(COLOURS)]
            entries = [entry for entry in line.report.in_order() if entry.row == line.row]
            draw_line(axes, entries, line.report, colour, label=line.label, faint=line.faint)
        draw_axis(axes, lines[0].report, lines[0].report.columns, size=8, grid="0.93")
        axes.set_title(title, loc="left", fontsize=10)
        if any(line.label for line in lines):
            axes.legend(frameon=False, fontsize=8)
    dataset = capitalised(dataset_words(about.dataset))
    made.suptitle(f"{dataset}: {seeds_in_words(about)}", x=0.01, ha="left", fontsize=11)
    return made


def heat_map(report: Report, rows: dict[str, str], title: str, low: float, high: float) -> Figure:
    """The means of some rows, by column; a cell without a result is empty.

    Args:
        rows: of the report, to what they are called.
        low, high: ends of the scale of colours.
    """
    import numpy as np
    from matplotlib.figure import Figure

    means = np.array([[report.mean(row, column) for column in report.columns] for row in rows], dtype=float)
    made = Figure(layout="constrained", figsize=(2.4 + 0.62 * len(report.columns), 1.5 + 0.27 * len(rows)))
    axes = made.add_subplot()
    image = axes.imshow(means, aspect="auto", cmap="viridis", vmin=low, vmax=high)
    for (line, column), mean in np.ndenumerate(means):
        if np.isfinite(mean):
            colour = "white" if mean < (low + high) / 2 else "black"
            axes.text(column, line, f"{mean:.2f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(report.columns)), [column_label(column) for column in report.columns], fontsize=8)
    axes.set_yticks(range(len(rows)), list(rows.values()), fontsize=8)
    axes.set_xlabel(axis_words(report.axis))
    made.colorbar(image, ax=axes)
    about = f"{capitalised(dataset_words(report.dataset))}: {seeds_in_words(report, 'mean')}"
    axes.set_title(f"{title}\n{about}", loc="left", fontsize=10)
    return made
