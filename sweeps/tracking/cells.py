"""The numbers of a table over seeds, for MLflow: a CellView of each cell, and the metrics of the sweep's run.

MLflow computes group means but no standard deviations. So each cell gets a run with these metrics, which a chart draws
as a band:

    test/accuracy/mean, std, mean_minus_std, mean_plus_std   over the seeds of the cell
    test/accuracy/seeds, published, difference               number of seeds, the paper's value, our mean minus it
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
"""Last parts of the names of the three metrics that form a band."""

AGREEING = (Verdict.REPRODUCED, Verdict.AGREES)


def band(metric: str) -> tuple[str, str, str]:
    """Returns the three metrics that a chart draws as the band of a metric over seeds."""
    return f"{metric}/{MEAN}", f"{metric}/{LOW}", f"{metric}/{HIGH}"


def watched(views: Iterable[RunView]) -> tuple[str, ...]:
    """Returns the metrics whose mean over seeds is shown by epoch, one per kind of trial."""
    last = (view.history[-1:] for view in views)
    return tuple(dict.fromkeys(_watched(record) for records in last for record in records))


def sweep_numbers(report: Report) -> dict[str, float]:
    """Returns the metrics of the sweep's run.

    `agreement/<row>` is the share of the row's judged cells that agree with the paper. It is nan if no cell is judged,
    and absent if the row has no published value.
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
    """Returns the cells that have a result, in the table's order.

    Args:
        view: returns the view of a key.
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
    """Returns the band of the watched metric at each epoch that all histories have."""
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
    """Returns the mean; with two or more seeds also the standard deviation (n - 1) and the edges of the band."""
    mean = statistics.fmean(values)
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return {MEAN: mean}
    std = statistics.stdev(values)
    return {MEAN: mean, "std": std, LOW: mean - std, HIGH: mean + std}


def _allowed(name: str) -> str:
    """Returns a name without the characters that MLflow does not allow in names of metrics."""
    return " ".join(re.sub(r"[^/\w.\- ]", " ", name).split())


def _first(history: Sequence[Record]) -> float:
    return history[0]["time"] if history else 0.0


def _last(history: Sequence[Record]) -> float:
    return history[-1]["time"] if history else 0.0
