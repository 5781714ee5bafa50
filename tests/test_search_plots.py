"""Plots of a search: marks and names are right, and drawing changes no global state."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest

from pipelines.search import Options, search
from sweeps.cli.options import read
from sweeps.planning.state import TrialState
from sweeps.search.plots import history, importances, parallel
from sweeps.search.space import Search
from sweeps.search.tried import TriedTrial

OF = replace(search(read(Options, ["--vary", "learning_rate,latents"])), maximize=True)
RATES = (0.001, 0.002, 0.004, 0.0005)
ORANGE = "#d55e00"


def tried(of: Search) -> list[TriedTrial]:
    """Three finished trials, of which the first is the default, and a pruned trial; the sampler repeated number 2."""
    trials = [of.default, *(of.default.with_(learning_rate=rate) for rate in RATES[1:])]
    ends = [(TrialState.DONE, 0.7), (TrialState.DONE, 0.9), (TrialState.DONE, 0.8), (TrialState.PRUNED, 0.3)]
    numbers = (0, 1, 3, 4)
    return [
        TriedTrial(number, of.key(trial), trial, standing, value)
        for number, trial, (standing, value) in zip(numbers, trials, ends, strict=True)
    ]


def test_the_history_plot_shows_every_trial_by_number_and_marks_the_default_and_pruned_ones() -> None:
    (axes,) = history(OF, tried(OF)).axes
    points: dict[Any, Any] = {made.get_label(): made for made in [*axes.collections, *axes.lines]}
    assert points["validation accuracy"].get_offsets().tolist() == [[0, 0.7], [1, 0.9], [3, 0.8]]
    assert points["pruned"].get_offsets().tolist() == [[4, 0.3]]
    assert points["Best Value"].get_ydata().tolist() == [0.7, 0.9, 0.9, 0.9, 0.9]
    assert set(points["default"].get_ydata()) == {0.7}
    assert axes.get_ylabel() == "validation accuracy"


@pytest.mark.parametrize(("maximize", "best"), [(True, 0.9), (False, 0.7)])
def test_the_parallel_coordinates_have_readable_names_and_the_best_trial_in_orange(maximize: bool, best: float) -> None:
    of = replace(OF, maximize=maximize)
    axes = parallel(of, tried(of)).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["validation accuracy", "latents", "learning rate"]
    (line,) = axes.lines
    assert (line.get_color(), line.get_ydata()[0]) == (ORANGE, best)  # type: ignore[index]


def test_the_importance_plot_shows_the_reports_numbers() -> None:
    (axes,) = importances(OF, tried(OF), {"learning_rate": 0.75, "latents": 0.25}).axes
    widths: list[Any] = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
    shown = dict(zip([label.get_text() for label in axes.get_yticklabels()], widths, strict=True))
    assert shown == {"learning rate": 0.75, "latents": 0.25}
    assert axes.get_xlabel() == "share of the variance of validation accuracy"


def test_a_search_without_finished_trials_has_a_history_plot() -> None:
    assert history(OF, tried(OF)[-1:]).axes


def test_drawing_gives_no_warning_changes_no_style_and_leaves_no_figure_open() -> None:
    from matplotlib import pyplot

    before = dict(pyplot.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history(OF, tried(OF))
        parallel(OF, tried(OF))
        importances(OF, tried(OF), {"learning_rate": 0.75, "latents": 0.25})
    assert dict(pyplot.rcParams) == before
    assert pyplot.get_fignums() == []
