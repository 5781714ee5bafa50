"""The pictures of a search: its history, its settings as parallel coordinates, and what matters of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from sweeps.planning.state import TrialState
from sweeps.search.space import Search, Span
from sweeps.search.tried import TriedTrial
from sweeps.table.metric_names import metric_words
from sweeps.table.plot import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = {
    TrialState.DONE: ("o", COLOURS[0]),
    TrialState.PRUNED: ("x", COLOURS[4]),
    TrialState.DIVERGED: ("v", COLOURS[1]),
    TrialState.RUNNING: (".", COLOURS[7]),
}


def history(search: Search, known: Sequence[TriedTrial]) -> Figure:
    """The metric by trial number, with the best so far as a line; pruned trials at their last epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2))
    axes = figure.add_subplot()
    for state, (mark, colour) in MARKS.items():
        shown = [one for one in known if one.state is state and one.value is not None]
        if shown:
            numbers, values = [one.number for one in shown], [one.value or 0.0 for one in shown]
            axes.plot(numbers, values, mark, color=colour, label=state.word)
    done = [one for one in known if one.state is TrialState.DONE and one.value is not None]
    if done:
        best = list(accumulate((one.value or 0.0 for one in done), max if search.maximize else min))
        numbers = [*(one.number for one in done), max(one.number for one in known)]
        axes.step(numbers, [*best, best[-1]], where="post", color=COLOURS[2], label="best so far")
    default = next((one for one in done if one.trial == search.default), None)
    if default is not None and default.value is not None:
        axes.axhline(default.value, color="0.35", linestyle=(0, (5, 3)), label="default")
    axes.set_xlabel("trial")
    axes.set_ylabel(metric_words(search.metric))
    if known:
        axes.legend(frameon=False, fontsize=8)
    _dress(axes, f"{search.default.dataset}, {search.default.model}: {metric_words(search.metric)} by trial")
    return figure


def parallel(search: Search, known: Sequence[TriedTrial]) -> Figure:
    """A line for each finished trial through its settings to its metric, darker where the metric is better."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    done = [one for one in known if one.state is TrialState.DONE and one.value is not None]
    values = [one.value or 0.0 for one in done]
    low, high = min(values), max(values)
    share = [0.5 if high == low else (value - low) / (high - low) for value in values]
    heights = {name: _height(span) for name, span in search.varied.items()}
    names = [*heights, search.metric]
    figure = Figure(figsize=(max(6.0, 1.5 * len(names)), 4.2))
    axes = figure.add_subplot()
    order = sorted(range(len(done)), key=lambda place: share[place] if search.maximize else -share[place])
    for place in order:
        settings = search.settings(done[place].trial)
        line = [*(height(settings[name]) for name, height in heights.items()), share[place]]
        good = share[place] if search.maximize else 1 - share[place]
        best = place == order[-1]
        colour = COLOURS[1] if best else colormaps["Blues"](0.25 + 0.7 * good)
        axes.plot(range(len(names)), line, color=colour, linewidth=2.4 if best else 1.2)
    for place, name in enumerate(names):
        axes.axvline(place, color="0.6", linewidth=0.8)
        marks = _ticks(search.varied[name]) if name in search.varied else [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")]
        for height, text in marks:
            axes.annotate(text, (place, height), xytext=(3, 0), textcoords="offset points", fontsize=7, va="center")
    axes.set_xticks(range(len(names)), [*heights, metric_words(search.metric).replace(" ", "\n", 1)], fontsize=8)
    axes.set_yticks([])
    axes.set_ylim(-0.05, 1.05)
    axes.set_title("Settings of the finished trials (orange: the best)", loc="left", fontsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def importances(search: Search, shares: Mapping[str, float]) -> Figure:
    """How much of what makes the metric differ each setting explains (fANOVA)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 0.8 + 0.4 * len(shares)))
    axes = figure.add_subplot()
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color=COLOURS[0])
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"share in what makes {metric_words(search.metric)} differ")
    _dress(axes, "Importance of the settings")
    return figure


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(axis="both", color="0.93")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _height(span: Span | tuple[Any, ...]) -> Callable[[Any], float]:
    """Where a value stands on its axis, 0 to 1."""
    if not isinstance(span, Span):
        return lambda value: span.index(value) / max(1, len(span) - 1)
    scale = math.log if span.log else float
    low, high = scale(span.low), scale(span.high)
    return lambda value: (scale(value) - low) / (high - low)


def _ticks(span: Span | tuple[Any, ...]) -> list[tuple[float, str]]:
    if isinstance(span, Span):
        return [(0.0, f"{span.low:g}"), (1.0, f"{span.high:g}")]
    return [(_height(span)(value), str(value)) for value in span]
