"""Accuracy on the validation split epoch by epoch, docs/results/curves/*.csv, one line a trial; and Table 4's picture.

key, metric, values     the key of a trial in the file of numbers of the same name; a value an epoch, from the first
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping
from pathlib import Path

from docs.report.sources import Sources
from sweeps.plots import COLOURS, png

METRIC = "validation/accuracy"
HEAD = ("key", "metric", "values")
FOLDER = "curves"
FILE = "weak_supervision-fashion_mnist"
PAIRS = 50_000
"""Training examples of FashionMNIST."""

Curves = dict[tuple[str, str], tuple[float, ...]]
"""Key of a trial and metric, to its values."""

USUAL = ("mvae", 10, 50.0)
"""Model, epochs and label weight of the trials that Table 4's page compares."""

STYLES = {"own": ":", "all": "-"}


def read(path: Path) -> Curves:
    """The curves of a file; none where there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["key"], row["metric"]): tuple(map(float, row["values"].split())) for row in rows}


def written(curves: Curves) -> str:
    """The text of a file, by key."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(HEAD)
    lines.writerows((key, metric, " ".join(map(repr, values))) for (key, metric), values in sorted(curves.items()))
    return out.getvalue()


def merged(before: Curves, new: Mapping[tuple[str, str], tuple[float, ...]], where: str) -> Curves:
    """Committed curves and new ones.

    Raises:
        ValueError: one that differs.
    """
    for place, values in new.items():
        if before.setdefault(place, values) != values:
            raise ValueError(f"{where}: {place[1]} of {place[0]} was another after some epoch there than in the store")
    return before


def table_4(sources: Sources) -> dict[tuple[str, str, float], list[tuple[float, ...]]]:
    """Of the MVAE's trials of 10 epochs and the usual label weight, the curve of each seed, by pairing, targets, share
    of pairs."""
    trials = {number.key: number.trial for number in sources.numbers(FILE).numbers}
    found: dict[tuple[str, str, float], list[tuple[float, ...]]] = {}
    for (key, metric), values in read(sources.results / FOLDER / f"{FILE}.csv").items():
        trial = trials[key]
        place = (str(trial.pairing), str(trial.targets), trial.paired_fraction)
        if metric == METRIC and (trial.model, trial.epochs, trial.label_weight) == USUAL:
            found.setdefault(place, []).append(values)
    return dict(sorted(found.items()))


def picture(sources: Sources) -> bytes:
    """Mean over seeds against batches of pairs shown, a band from the worst to the best seed."""
    from matplotlib.figure import Figure

    curves = table_4(sources)
    figure = Figure(figsize=(10, 4.8))
    axes = figure.subplots()
    kinds = list(dict.fromkeys((pairing, fraction) for pairing, _, fraction in curves))
    for (pairing, targets, fraction), seeds in curves.items():
        steps = PAIRS // 100 * (1.0 if pairing == "reserved" else fraction)
        x = [steps * epoch for epoch in range(1, 1 + len(seeds[0]))]
        colour = COLOURS[kinds.index((pairing, fraction)) % len(COLOURS)]
        by_epoch = list(zip(*seeds, strict=True))
        label = f"{pairing}, {targets}, {100 * fraction:g} % ({len(seeds)})"
        mean = [statistics.fmean(one) for one in by_epoch]
        axes.plot(x, mean, STYLES[targets], color=colour, label=label, marker="o", ms=3)
        axes.fill_between(x, [min(one) for one in by_epoch], [max(one) for one in by_epoch], color=colour, alpha=0.15)
    axes.set_xscale("log")
    axes.set_xlabel("batches of 100 pairs shown")
    axes.set_ylabel("accuracy, validation split")
    axes.set_title("MVAE on FashionMNIST: pairing, targets, share of pairs (seeds)", loc="left", fontsize=11)
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return png(figure)
