"""Reads and writes docs/results/*.csv, the committed numbers.

NAME.csv          key, measure, metric, value     as in the result file <key>.<measure>.json
                  dataset, model, seed, ...       fields that are part of the key; empty if the arm ignores them
                  own                             the arm's own hyper-parameters, as JSON
                  git, torch, device, ...         how the number was made; empty if not known
curves/NAME.csv   key, metric, values             metrics per epoch of trials in NAME.csv, from the first epoch
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mvae import plugins
from mvae.models import arm
from mvae.refusal import Refusal
from mvae.storage.place import AnyPlace
from mvae.trial import ADDED_AS, Trial, canonical_json
from sweeps.planning.plan import Cell
from sweeps.store.results import Result, Results
from sweeps.table.rounding import shown_spread, shown_value

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "mvae_inverted.py"
HEAD = ("key", "measure", "metric", "value")
ABOUT = ("git", "torch", "device", "training_seconds", "measured_in_seconds")
"""Columns that describe how a number was made. All values are text."""
CURVES, CURVES_HEAD = "curves", ("key", "metric", "values")
VALIDATION, DIAGNOSTIC, PAIRED_BATCHES = "validation/accuracy", "diagnostic/test_accuracy", "train/paired_batches"
BY_EPOCH = (VALIDATION, DIAGNOSTIC, PAIRED_BATCHES)
"""Metrics that curves/NAME.csv contains for each epoch. Trials without --test-curve have no DIAGNOSTIC."""

Curves = dict[tuple[str, str], tuple[float, ...]]
"""Values per epoch, by key and metric."""


class Committed(Results):
    """Committed results, in the order of their file. `tabulate` reads them like the results of a storage."""

    def __init__(self, results: Iterable[Result] = ()) -> None:
        super().__init__(Path())
        self._results = {(result.key, result.measure): result for result in results}
        self.trials = {result.key: Trial.create(**result.trial) for result in self}
        self._keys = {identity(trial): key for key, trial in self.trials.items()}

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results.values())

    def read(self, key: str, measure: str) -> Result | None:
        """Returns the result of a key and measure; None if it is not committed."""
        return self._results.get((key, measure))

    def having(self, cells: Iterable[Cell]) -> list[tuple[Cell, str]]:
        """Returns the cells whose number is committed, each with its trial's key."""
        keys = ((cell, self._keys.get(identity(cell.trial), "")) for cell in cells)
        results = ((cell, key, self.read(key, cell.measure.token)) for cell, key in keys)
        return [(cell, key) for cell, key, result in results if result is not None and cell.metric in result.metrics]


def know_examples() -> None:
    """Registers the arms of docs/examples/mvae_inverted.py in this process. Some committed numbers need them."""
    plugins.load(plugins.read([EXAMPLE]))


def identity(trial: Trial) -> str:
    """Returns the fields that are part of a trial's key, as text. Equal texts mean equal trials."""
    return canonical_json(trial.hashed_fields())


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns mean and standard deviation (n - 1) over seeds; the deviation of one seed is None."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def shown(value: float | None, spread: float | None = None) -> str:
    """Returns a number and its spread as text, for example "0.759 ±0.012"."""
    return f"{shown_value(value, spread)} {shown_spread(value, spread)}".strip()


def each_file(folder: Path) -> list[Path]:
    """Returns the files PIPELINE-DATASET.csv in a folder, sorted."""
    return sorted(folder.glob("*-*.csv"))


def lines_of(path: AnyPlace) -> list[dict[str, str]]:
    """Returns the lines of a CSV file; empty if the file does not exist."""
    text = path.read_bytes().decode() if path.is_file() else ""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def read(path: Path) -> Committed:
    """Returns the numbers in a file; empty if the file does not exist.

    Raises:
        Refusal: a line is not a valid number of a trial; the message names file and line.
    """
    know_examples()
    results: dict[tuple[str, str], Result] = {}
    for line, row in enumerate(lines_of(path), start=2):
        try:
            place = row["key"], row["measure"]
            if not all(place):
                raise ValueError("the line has no key or no measure")
            if place not in results:
                fields: dict[str, Any] = {
                    name: text for name, text in row.items() if text and name not in (*HEAD, *ABOUT)
                }
                fields |= {"own": json.loads(fields["own"])} if "own" in fields else {}
                made = {name: row[name] for name in ABOUT}
                results[place] = Result(*place, Trial.create(**fields).model_dump(), {}, made, [])
            results[place].metrics[row["metric"]] = float(row["value"])
        except (KeyError, ValueError, TypeError) as error:
            raise Refusal(f"{path.name}:{line}: this line is not a valid number of a trial ({error})") from None
    return Committed(results.values())


def written(committed: Committed) -> str:
    """Returns the numbers as CSV. A trial field has a column if the field is part of at least one trial's key."""
    lines, columns = [], set[str]()
    for result in committed:
        trial = committed.trials[result.key]
        hashed, reads = trial.hashed_fields(), arm(trial.model).reads
        unhashed = {name: getattr(trial, name) for name in ADDED_AS if name in reads}
        texts = {name: str(value) for name, value in {**unhashed, **hashed}.items() if value is not None}
        if trial.own:
            texts["own"] = canonical_json(dict(trial.own))
        columns |= {*hashed, "own"} & texts.keys()
        for metric, value in result.metrics.items():
            number = dict(zip(HEAD, (result.key, result.measure, metric, repr(value)), strict=True))
            lines.append({**texts, **result.provenance, **number})
    return _text((*HEAD, *(name for name in Trial.model_fields if name in columns), *ABOUT), lines)


def read_curves(path: Path) -> Curves:
    """Returns the curves in a file; empty if the file does not exist."""
    return {(line["key"], line["metric"]): tuple(map(float, line["values"].split())) for line in lines_of(path)}


def written_curves(curves: Curves) -> str:
    """Returns the curves as CSV, sorted by key."""
    lines = ((key, metric, " ".join(map(repr, values))) for (key, metric), values in sorted(curves.items()))
    return _text(CURVES_HEAD, (dict(zip(CURVES_HEAD, line, strict=True)) for line in lines))


def _text(head: Iterable[str], lines: Iterable[Mapping[str, str]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(head), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()
