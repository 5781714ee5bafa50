"""Draws the plots of a search with Optuna: history, parallel coordinates, and importance of the settings.

We add pruned trials and the default to Optuna's history, and highlight the best trial in the parallel coordinates.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeps.planning.state import TrialState
from sweeps.search.space import Search
from sweeps.search.study import distribution
from sweeps.search.tried import TriedTrial
from sweeps.table.metric_names import axis_words, metric_words
from sweeps.table.plot import COLOURS

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure


def history(search: Search, known: Sequence[TriedTrial]) -> Figure:
    """Plots the metric by trial number, with a line for the best value so far. Pruned trials show their last value."""
    words = metric_words(search.metric)
    figure, axes = _drawn("plot_optimization_history", _study(search, known), (8, 4.2), target_name=words)
    pruned = {one.number: one.value for one in known if one.state is TrialState.PRUNED}
    axes.scatter(list(pruned), list(pruned.values()), marker="x", color=COLOURS[4], label="pruned")
    for one in known:
        if one.trial == search.default and one.state is TrialState.DONE:
            axes.axhline(one.value, color="0.35", linestyle=(0, (5, 3)), label="default")
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(f"{search.default.dataset}, {search.default.model}: {words} by trial", loc="left", fontsize=10)
    return figure


def parallel(search: Search, known: Sequence[TriedTrial]) -> Figure:
    """Plots one line per finished trial through its metric and settings. Darker lines have better metrics."""
    size, words = (2.4 + 1.5 * len(search.varied), 4.2), metric_words(search.metric)
    figure, axes = _drawn("plot_parallel_coordinate", _study(search, known), size, target_name=words)
    lines = sorted(axes.collections[0].get_segments(), key=lambda line: line[0, 1])  # by the metric (first axis)
    axes.plot(*lines[-1 if search.maximize else 0].T, color=COLOURS[1], linewidth=2.4)
    axes.tick_params(axis="x", rotation=0, labelsize=8)
    axes.set_title("Settings of the finished trials (orange: the best)", loc="left", fontsize=10)
    return figure


def importances(search: Search, known: Sequence[TriedTrial], shares: Mapping[str, float]) -> Figure:
    """Plots the share of the metric's variance that each setting explains (fANOVA).

    Args:
        shares: the share of the variance that each setting explains, as in the report.
    """
    import optuna

    class GivenShares(optuna.importance.BaseImportanceEvaluator):
        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            return {axis_words(name): share for name, share in shares.items()}

    size = (6.4, 0.8 + 0.4 * len(shares))
    figure, axes = _drawn("plot_param_importances", _study(search, known), size, evaluator=GivenShares())
    axes.set(xlabel=f"share of the variance of {metric_words(search.metric)}", ylabel="")
    axes.get_legend().remove()
    axes.set_title("Importance of the settings", loc="left", fontsize=10)
    return figure


def _study(search: Search, known: Sequence[TriedTrial]) -> optuna.Study:
    """Returns an in-memory study with the finished trials. Trials keep their numbers; settings get readable names."""
    import optuna

    study = optuna.create_study(direction="maximize" if search.maximize else "minimize")
    space = {axis_words(name): distribution(span) for name, span in search.varied.items()}
    finished = {one.number: one for one in known if one.state is TrialState.DONE}
    for number in range(max((one.number for one in known), default=-1) + 1):
        trial = optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL)
        if number in finished:
            settings = search.settings(finished[number].trial)
            params = {axis_words(name): value for name, value in settings.items()}
            trial = optuna.trial.create_trial(value=finished[number].value, params=params, distributions=space)
        study.add_trial(trial)
    return study


def _drawn(plot: str, study: optuna.Study, size: tuple[float, float], **options: Any) -> tuple[Figure, Any]:
    """Draws one of Optuna's plots without its title, and returns the figure and its axes.

    Keeps Optuna from opening a window, changing the style of later figures, and printing warnings.
    """
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    with warnings.catch_warnings(action="ignore"), pyplot.rc_context({"figure.constrained_layout.use": True}):
        pyplot.switch_backend("agg")
        axes = getattr(plots, plot)(study, **options)
        pyplot.close(axes.figure)
    axes.set_title("")
    axes.figure.set_size_inches(size)
    return axes.figure, axes
