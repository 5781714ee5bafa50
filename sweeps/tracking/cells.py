"""Computes numbers over seeds for MLflow: a CellView of each cell of a table, and the metrics of the sweep's run.

MLflow computes means of groups, but no standard deviations. So each cell gets its own run with the metrics below. A
chart draws `mean`, `mean_minus_std` and `mean_plus_std` as a band.

    test/accuracy/mean, std, mean_minus_std, mean_plus_std   over the seeds of the cell
    test/accuracy/seeds, published, difference               number of seeds, paper's value, our mean minus paper's
    validation/accuracy/mean, mean_minus_std, mean_plus_std  by epoch, over the same seeds
"""

import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence

from mvae.training.records import Record
from sweeps.cli.words import counted
from sweeps.table.comparison import Report
from sweeps.table.entries import Entry, grouped
from sweeps.table.judgement import Verdict
from sweeps.table.published import column_label
from sweeps.tracking.view import CellView, RunView

MEAN, LOW, HIGH = "mean", "mean_minus_std", "mean_plus_std"
"""Endings of the names of the three metrics that form a band."""

AGREEING = (Verdict.REPRODUCED, Verdict.AGREES)


def band(metric: str) -> tuple[str, str, str]:
    """Returns the names of the metrics that form a band over seeds: mean, mean minus std, mean plus std."""
    return f"{metric}/{MEAN}", f"{metric}/{LOW}", f"{metric}/{HIGH}"


def watched(views: Iterable[RunView]) -> tuple[str, ...]:
    """Returns the metrics to plot per epoch. Each trial adds one metric.

    A trial's metric is its first `validation/` metric in alphabetical order, or `train/loss` if it has none.
    """
    last = (view.history[-1:] for view in views)
    return tuple(dict.fromkeys(_watched(record) for records in last for record in records))


def sweep_numbers(report: Report) -> dict[str, float]:
    """Returns the metrics of the sweep's run.

    `agreement/<row>` is the fraction of the row's judged cells that agree with the paper. The fraction is nan if no
    cell is judged. The metric is absent if the row has no published value.
    """
    entries = report.in_order()
    numbers = {"cells/done": float(sum(entry.n == entry.of for entry in entries)), "cells/all": float(len(entries))}
    for row, members in grouped(entries, lambda entry: entry.row).items():
        if any(entry.published is not None for entry in members):
            verdicts = [entry.verdict for entry in members if entry.verdict.judged]
            share = sum(verdict in AGREEING for verdict in verdicts) / len(verdicts) if verdicts else math.nan
            numbers[f"agreement/{_allowed(row)}"] = share
    return numbers


def cell_views(report: Report, view: Callable[[str], RunView]) -> tuple[CellView, ...]:
    """Returns the CellViews of all cells that have a result, in the table's order.

    Args:
        view: returns the RunView of a key.
    """
    return tuple(
        _cell(report.dataset, entry, [view(run.key) for run in entry.runs if run.value is not None])
        for entry in report.in_order()
        if entry.n
    )


def _cell(dataset: str, entry: Entry, trials: Sequence[RunView]) -> CellView:
    place = f"{entry.row} {column_label(entry.column)}"
    difference = {"difference": entry.difference}
    numbers = {**_over_seeds(entry.values), "seeds": entry.n, "published": entry.published, **difference}
    histories = [trial.history for trial in trials]
    return CellView(
        name=f"{dataset} {place}: mean of {counted(entry.n, 'seed')}",
        tags={
            "cell": place,
            "row": entry.row,
            "column": column_label(entry.column),
            "verdict": str(entry.verdict),
            "metric": entry.metric,
        },
        numbers={
            f"{_allowed(entry.quantity)}/{name}": float(value)
            for name, value in numbers.items()
            if value is not None and math.isfinite(value)
        },
        epochs=_by_epoch(histories),
        started=min((trial.started or _first(trial.history) for trial in trials), default=0.0),
        ended=max((trial.ended or _last(trial.history) for trial in trials), default=0.0),
    )


def _watched(record: Record) -> str:
    return min((name for name in record["metrics"] if name.startswith("validation/")), default="train/loss")


def _by_epoch(histories: Sequence[Sequence[Record]]) -> tuple[Record, ...]:
    """Returns the band of the plotted metric, at each epoch that all histories include."""
    found = []
    for records in zip(*histories, strict=False):
        metric = _watched(records[0])
        values = [record["metrics"].get(metric, math.nan) for record in records]
        numbers = {name: value for name, value in _over_seeds(values).items() if name != "std"}
        if all(map(math.isfinite, numbers.values())):
            metrics = {f"{metric}/{name}": value for name, value in numbers.items()}
            latest = max(record["time"] for record in records)
            found.append(Record(epoch=records[0]["epoch"], time=latest, metrics=metrics))
    return tuple(found)


def _over_seeds(values: Sequence[float]) -> dict[str, float]:
    """Returns the mean. For two or more values, also returns the standard deviation (n - 1) and the band's edges."""
    mean = statistics.fmean(values)
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return {MEAN: mean}
    std = statistics.stdev(values)
    return {MEAN: mean, "std": std, LOW: mean - std, HIGH: mean + std}


def _allowed(name: str) -> str:
    """Returns a metric's name with spaces instead of the characters that MLflow forbids."""
    return " ".join(re.sub(r"[^/\w.\- ]", " ", name).split())


def _first(history: Sequence[Record]) -> float:
    return history[0]["time"] if history else 0.0


def _last(history: Sequence[Record]) -> float:
    return history[-1]["time"] if history else 0.0
