"""Metrics by epoch, docs/results/curves/*.csv, one line per trial and metric.

key, metric, values     the key of a trial in the file of numbers of the same name; one value per epoch, from the first
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from mvae.refusal import Refusal

METRIC = "validation/accuracy"
DIAGNOSTIC, PAIRED_BATCHES = "diagnostic/test_accuracy", "train/paired_batches"
METRICS = (METRIC, DIAGNOSTIC, PAIRED_BATCHES)
"""Metrics kept by epoch; trials without --test-curve have no DIAGNOSTIC."""
HEAD = ("key", "metric", "values")
FOLDER = "curves"

Curves = dict[tuple[str, str], tuple[float, ...]]
"""Key of a trial and metric, to its values."""


def read(path: Path) -> Curves:
    """The curves of a file; none where there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
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
        Refusal: one that differs.
    """
    for place, values in new.items():
        if before.setdefault(place, values) != values:
            raise Refusal(f"{where}: {place[1]} of {place[0]} was another after some epoch there than in the store")
    return before
