"""Committed numbers, each with the trial that it comes from: reads and writes docs/results/*.csv.

    NAME.csv          key, measure, metric, value     as the result file <key>.<measure>.json has it
                      dataset, model, seed, ...       the fields that the key hashes; empty if the arm does not read it
                      git, torch, device, ...         where it was made; empty if not known
    curves/NAME.csv   key, metric, values             metrics by epoch of the trials of NAME.csv, from the first epoch

A key follows from the fields and the data's fingerprint. Numbers are taken from MLflow, which does not always say which
of a trial's measures gave one: then `measure` holds the tokens of all.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvae import plugins
from mvae.models import arm
from mvae.refusal import Refusal
from mvae.trial import ADDED_AS, Trial, canonical_json
from sweeps.store.results import Result, Results

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "mvae_inverted.py"
HEAD = ("key", "measure", "metric", "value")
ABOUT = ("git", "torch", "device", "training_seconds", "measured_in_seconds")
CURVES, CURVES_HEAD = "curves", ("key", "metric", "values")
VALIDATION, DIAGNOSTIC, PAIRED_BATCHES = "validation/accuracy", "diagnostic/test_accuracy", "train/paired_batches"
BY_EPOCH = (VALIDATION, DIAGNOSTIC, PAIRED_BATCHES)
"""Metrics kept by epoch; trials without --test-curve have no DIAGNOSTIC."""

Curves = dict[tuple[str, str], tuple[float, ...]]
"""Key of a trial and metric, to its values."""


@dataclass(frozen=True)
class Number:
    """One metric of one result."""

    key: str
    measure: str  # the measure's token
    metric: str
    value: float
    trial: Trial
    about: Mapping[str, str]  # by the names in ABOUT

    @property
    def place(self) -> tuple[str, str, str]:
        """Key, measure and metric: a file has one number of each."""
        return self.key, self.measure, self.metric

    @property
    def order(self) -> tuple[Any, ...]:
        """Place in a file."""
        trial = self.trial
        shown = (trial.dataset, trial.model, trial.paired_fraction, trial.keep_probability, trial.k, trial.fixed_noise)
        return (*shown, trial.pairing, trial.targets, trial.epochs, trial.seed, *self.place)


class Committed(Results):
    """Numbers, read as a table reads results: by key and measure."""

    def __init__(self, numbers: Iterable[Number]) -> None:
        super().__init__(Path())
        self.numbers = tuple(sorted(numbers, key=lambda number: number.order))
        self._keys = {identity(number.trial): number.key for number in self.numbers}
        self._metrics: dict[tuple[str, str], dict[str, float]] = {}
        for number in self.numbers:
            self._metrics.setdefault((number.key, number.measure), {})[number.metric] = number.value

    def read(self, key: str, measure: str) -> Result | None:
        """The result of a key and measure, None if there is none."""
        metrics = self._metrics.get((key, measure))
        return None if metrics is None else Result(key, measure, {}, metrics, {}, [])

    def key_of(self, trial: Trial) -> str | None:
        """The key of a trial that has numbers here, None for any other."""
        return self._keys.get(identity(trial))

    def among(self, keys: Iterable[str]) -> Committed:
        """The numbers of these keys."""
        wanted = set(keys)
        return Committed(number for number in self.numbers if number.key in wanted)


def know_examples() -> None:
    """Adds the arms of docs/examples/mvae_inverted.py to this process: some committed numbers are theirs."""
    plugins.load(plugins.read([EXAMPLE]))


def identity(trial: Trial) -> str:
    """Fields of a trial that its key hashes: equal for two trials that are the same."""
    return canonical_json(trial.hashed_fields())


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (n - 1) over seeds; None for the deviation of one seed."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def each_file(folder: Path) -> Iterator[Path]:
    """The files of numbers in a folder: those that begin with a key."""
    for path in sorted(folder.glob("*.csv")):
        if path.read_text(encoding="utf-8").startswith("key,"):
            yield path


def lines_of(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file, by the names in its head."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read(path: Path) -> Committed:
    """The numbers of a file.

    Raises:
        Refusal: a line that is no number of a trial; the message names file and line.
    """
    know_examples()
    numbers: list[Number] = []
    trials: dict[str, Trial] = {}
    for line, row in enumerate(lines_of(path), start=2):
        try:
            fields = {name: text for name, text in row.items() if text and name not in (*HEAD, *ABOUT)}
            trial = trials.setdefault(row["key"], Trial.create(**fields)) if row["key"] else None
            assert trial is not None
            about = {name: row[name] or "" for name in ABOUT}
            numbers.append(Number(row["key"], row["measure"], row["metric"], float(row["value"]), trial, about))
        except (KeyError, ValueError, TypeError, AssertionError) as error:
            raise Refusal(f"{path.name}:{line}: no number of a trial: {error}") from None
    return Committed(numbers)


def written(numbers: Iterable[Number]) -> str:
    """The text of a file of numbers: its columns are the fields that differ from their value before they existed."""
    lines = []
    for number in Committed(numbers).numbers:
        reads = arm(number.trial.model).reads
        added = {name: getattr(number.trial, name) for name in ADDED_AS if name in reads}
        fields = {**added, **number.trial.hashed_fields()}
        texts = {name: str(value) for name, value in fields.items() if value is not None}
        lines.append({**texts, **number.about, **dict(zip(HEAD, (*number.place, repr(number.value)), strict=True))})
    usual = {name: str(ADDED_AS.get(name)) for name in Trial.model_fields}
    kept = [name for name, old in usual.items() if any(line.get(name, old) != old for line in lines)]
    return _text((*HEAD, *kept, *ABOUT), lines)


def read_curves(path: Path) -> Curves:
    """The curves of a file; none if there is no file."""
    lines = lines_of(path) if path.exists() else []
    return {(line["key"], line["metric"]): tuple(map(float, line["values"].split())) for line in lines}


def written_curves(curves: Curves) -> str:
    """The text of a file of curves, by key."""
    lines = ((key, metric, " ".join(map(repr, values))) for (key, metric), values in sorted(curves.items()))
    return _text(CURVES_HEAD, (dict(zip(CURVES_HEAD, line, strict=True)) for line in lines))


def _text(head: Iterable[str], lines: Iterable[Mapping[str, str]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(head), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()
