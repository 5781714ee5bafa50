"""The committed results: docs/results/*.csv, one line a number, with the trial that it comes from.

    key, measure, metric, value     the number, as the result file <key>.<measure>.json has it
    dataset, model, seed, ...       the fields that the key hashes: the key follows from them and the data's fingerprint
    git, torch, device, ...         where it was made; empty where it is not known

A field is empty where the arm does not read it. A measure of several tokens: MLflow, from which the line was taken,
does not say which of them gave the number.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvae import plugins
from mvae.models import arm
from mvae.refusal import Refusal
from mvae.trial import ADDED_AS, Trial, canonical_json
from sweeps.store.results import Result, Results

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
HEAD = ("key", "measure", "metric", "value")
ABOUT = ("git", "torch", "device", "training_seconds", "measured_in_seconds")


@dataclass(frozen=True)
class Number:
    """One metric of one result."""

    key: str
    measure: str
    """The measure's token."""
    metric: str
    value: float
    trial: Trial
    about: Mapping[str, str]
    """By the names in ABOUT."""

    @property
    def place(self) -> tuple[str, str, str]:
        """What there is one number of."""
        return self.key, self.measure, self.metric


class Committed(Results):
    """Numbers, and what a table asks of results: those of a key and measure."""

    def __init__(self, numbers: Iterable[Number]) -> None:
        super().__init__(Path())
        self.numbers = tuple(sorted(numbers, key=_order))
        self._keys = {identity(number.trial): number.key for number in self.numbers}
        self._metrics: dict[tuple[str, str], dict[str, float]] = {}
        for number in self.numbers:
            self._metrics.setdefault((number.key, number.measure), {})[number.metric] = number.value

    def read(self, key: str, measure: str) -> Result | None:
        """The result of a key and measure, None where there is none."""
        metrics = self._metrics.get((key, measure))
        return None if metrics is None else Result(key, measure, {}, metrics, {}, [])

    @property
    def identities(self) -> Set[str]:
        """Identity of every trial that has numbers here."""
        return self._keys.keys()

    def key_of(self, trial: Trial) -> str | None:
        """The key of a trial that has numbers here, None for any other."""
        return self._keys.get(identity(trial))

    def where(self, **fields: Any) -> Committed:  # type: ignore[override]
        """The numbers whose trials have these values, in the fields that their arms read; `measure` is a token."""
        token = fields.pop("measure", None)
        return Committed(
            number
            for number in self.numbers
            if token in (None, number.measure) and all(_is(number.trial, *item) for item in fields.items())
        )

    def among(self, keys: Iterable[str]) -> Committed:
        """The numbers of these keys: of those that a table shows, whatever else the file has come to hold."""
        wanted = set(keys)
        return Committed(number for number in self.numbers if number.key in wanted)

    def values(self, metric: str) -> list[float]:
        """A metric of every trial, by seed.

        Raises:
            Refusal: there is none, or trials differ in more than their seeds.
        """
        found = sorted((number for number in self.numbers if number.metric == metric), key=lambda one: one.trial.seed)
        alike = {identity(number.trial.with_(seed=0)) for number in found}
        if len(alike) != 1 or len({number.measure for number in found}) != 1:
            kinds = len({(identity(number.trial.with_(seed=0)), number.measure) for number in found})
            raise Refusal(f"{metric}: the committed results have it of {kinds} kinds of trial where one is meant")
        return [number.value for number in found]

    def mean(self, metric: str) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values(metric))

    def spread(self, metric: str) -> float:
        """Standard deviation over seeds (n - 1); 0 for one."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else 0.0


def know_examples() -> None:
    """Adds the arms of docs/examples/mvae_inverted.py to this process: some committed numbers are theirs."""
    plugins.load(plugins.read([EXAMPLES / "mvae_inverted.py"]))


def identity(trial: Trial) -> str:
    """What the key hashes of a trial itself: equal for two trials that are the same."""
    return canonical_json(trial.hashed_fields())


def read(path: Path) -> Committed:
    """The numbers of a file.

    Raises:
        Refusal: a line that is no number of a trial; the message names file and line.
    """
    know_examples()
    numbers: list[Number] = []
    trials: dict[str, Trial] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
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
    """The text of a file."""
    numbers = Committed(numbers).numbers
    texts = {number.key: _fields(number.trial) for number in numbers}
    kept = [name for name in Trial.model_fields if any(_says_something(name, fields) for fields in texts.values())]
    buffer = io.StringIO()
    lines = csv.DictWriter(buffer, (*HEAD, *kept, *ABOUT), extrasaction="ignore", lineterminator="\n")
    lines.writeheader()
    for number in numbers:
        own = dict(zip(HEAD, (*number.place, repr(number.value)), strict=True))
        lines.writerow({**texts[number.key], **number.about, **own})
    return buffer.getvalue()


def _fields(trial: Trial) -> dict[str, str]:
    """The fields that a trial reads, as text; those left out of the hash at their value of old too."""
    reads = arm(trial.model).reads
    added = {name: getattr(trial, name) for name in ADDED_AS if name in reads}
    return {name: str(value) for name, value in {**added, **trial.hashed_fields()}.items() if value is not None}


def _says_something(name: str, fields: Mapping[str, str]) -> bool:
    return name in fields and not (name in ADDED_AS and fields[name] == str(ADDED_AS[name]))


def _is(trial: Trial, name: str, value: Any) -> bool:
    read = name in ("dataset", "model", "seed") or name in arm(trial.model).reads
    return not read or getattr(trial, name) == value


def _order(number: Number) -> tuple[Any, ...]:
    trial = number.trial
    shown = (trial.dataset, trial.model, trial.paired_fraction, trial.keep_probability, trial.k, trial.fixed_noise)
    return (*shown, trial.pairing, trial.targets, trial.epochs, trial.seed, *number.place)


def each_file(folder: Path) -> Iterator[Path]:
    """The files of numbers in a folder: those that begin with a key."""
    for path in sorted(folder.glob("*.csv")):
        if path.read_text(encoding="utf-8").startswith("key,"):
            yield path
