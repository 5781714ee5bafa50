"""Adds new results of a storage to docs/results/. Committed numbers are never overwritten.

The reports in the storage say which results belong to a sweep. Results of elastic trials are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from docs.report import numbers as kept
from docs.report.numbers import CURVES, Committed, Curves, lines_of
from mvae.refusal import Refusal
from mvae.storage.files import write_atomically
from mvae.trial import Trial
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.table.files import MARK


def refresh(folder: Path, store: Store, sweeps: Iterable[str] = ()) -> list[str]:
    """Adds the results in a storage to the CSV files in a folder.

    Args:
        folder: docs/results.
        sweeps: names of sweeps, with or without a CSV file. If empty, all sweeps that have a CSV file.
    Returns:
        One line per file that changed.
    Raises:
        Refusal: a sweep has no report in the storage; a number differs from the committed number; a result's key is not
        the key of its trial and data.
    """
    reported: dict[str, set[tuple[str, str]]] = {}
    for report in store.reports.iterdir() if store.reports.is_dir() else ():
        if lines := lines_of(report / "runs.csv"):
            reported.setdefault(file_of(report.name), set()).update((line["key"], line["measure"]) for line in lines)
    wanted = {file_of(sweep) for sweep in sweeps} or {name for name in reported if (folder / name).exists()}
    if missing := sorted(wanted - reported.keys()) or ["any sweep"] * (not reported):
        known = ", ".join(sorted(reported)) or "none"
        raise Refusal(f"{store.reports} has no report of {missing[0]} (found: {known}): run the sweep with --report")
    changed = []
    for name in sorted(wanted):
        results = (store.results.read(*place) for place in sorted(reported[name]))
        own = [result for result in results if result is not None and not result.provenance.get("elastic")]
        committed, new = kept.read(folder / name), [committable(result) for result in own]
        check_equal(_numbers(committed), _numbers(new), name)
        more = [result for result in new if committed.read(result.key, result.measure) is None]
        if more:
            write_atomically(folder / name, kept.written(Committed([*committed, *more])).encode())
            changed.append(f"{name}: {len(_numbers(more))} new numbers")
        drawn = folder / CURVES / name
        if drawn.exists():
            old_curves, new_curves = kept.read_curves(drawn), curves(own)
            check_equal(old_curves, new_curves, name)
            write_atomically(drawn, kept.written_curves(old_curves | new_curves).encode())
    return changed


def committable(result: Result) -> Result:
    """Converts a storage's result to the form of docs/results/. Leaves out metrics of the training split.

    Raises:
        Refusal: the result's key is not the key of its trial and data.
    """
    kept.know_examples()
    trial, made = Trial.create(**result.trial), result.provenance
    if trial.key(made.get("data", "")) != result.key:
        raise Refusal(f"cannot add {result.key}: its trial and data give another key")
    metrics = {name: value for name, value in sorted(result.metrics.items()) if not name.startswith("train/")}
    about = {
        "git": made.get("git") or "",
        "torch": made.get("versions", {}).get("torch", ""),
        "device": made.get("device", ""),
        "training_seconds": f"{made['seconds']:.1f}" if "seconds" in made else "",
        "measured_in_seconds": f"{made['measured_in_seconds']:.1f}" if "measured_in_seconds" in made else "",
    }
    return replace(result, trial=trial.model_dump(), metrics=metrics, provenance=about)


def curves(results: Iterable[Result]) -> Curves:
    """Returns the results' metrics per epoch, limited to the metrics in BY_EPOCH."""
    histories = {result.key: [record["metrics"] for record in result.history] for result in results}
    return {
        (key, metric): tuple(metrics[metric] for metrics in history)
        for key, history in histories.items()
        for metric in kept.BY_EPOCH
        if history and all(metric in metrics for metrics in history)
    }


def check_equal(committed: Mapping[Any, object], new: Mapping[Any, object], where: str) -> None:
    """Checks that new values equal the committed values with the same keys, bit for bit.

    Raises:
        Refusal: a value differs.
    """
    for place, value in new.items():
        known = committed.get(place, value)
        if repr(known) != repr(value):
            raise Refusal(
                f"{where}: {' '.join(place)} is {known!r} in docs/results and {value!r} in the storage."
                " Numbers are equal bit for bit only on processors of the same type: commit only the numbers of one"
                " machine, or choose other --sweeps"
            )


def file_of(sweep: str) -> str:
    """Returns the name of the CSV file for a sweep's numbers.

    Reports of one sweep share a file, even if their cells or their numbers of importance samples differ. Each search
    has its own file.
    """
    if not sweep.startswith("search-"):
        sweep = re.sub(r"-[0-9a-f]{8}$", "", sweep.partition(MARK)[0])
    return re.sub(r"-s\d+$", "", sweep) + ".csv"


def _numbers(results: Iterable[Result]) -> dict[tuple[str, str, str], float]:
    """Returns the values of all metrics, by key, measure and metric."""
    return {
        (result.key, result.measure, metric): value for result in results for metric, value in result.metrics.items()
    }
