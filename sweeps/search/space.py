"""What a search is: the settings that vary and their ranges, what is wanted of them, and when a trial is given up.

A plain value, made by pipelines/search.py. sweeps/search/study.py chooses the settings and decides which trials
to prune; sweeps/search/driver.py drives the search. Neither Optuna nor Ray is needed here.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mvae.data import source
from mvae.measure import Measure
from mvae.models import arm
from mvae.refusal import Refusal
from mvae.sampling import TARGETS
from mvae.training.records import Record
from mvae.trial import Trial, canonical_json
from sweeps.planning.plan import Cell
from sweeps.search.tried import TriedTrial

DIGITS = 3
"""Significant digits of a setting that is chosen from a range: a command line that shows it names the very same key."""

REDUCTION = 3
"""Of the trials that come to a rung, the best one in so many goes on; each rung is so many times higher."""

FIRST_RUNG = 0.1
"""Share of a trial's epochs that it trains in any case."""


@dataclass(frozen=True)
class Span:
    """A range of numbers, both ends in it."""

    low: float
    high: float
    log: bool = False
    """Chosen by its logarithm."""
    whole: bool = False

    def rounded(self, value: float) -> float:
        """The number as it is used: whole, or to DIGITS significant digits."""
        return int(value) if self.whole else float(f"{value:.{DIGITS}g}")

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high and self.rounded(value) == value


Choice = tuple[Any, ...]
Range = Span | Choice

RANGES: dict[str, Range] = {
    "learning_rate": Span(1e-4, 1e-2, log=True),
    "latents": Span(8, 256, log=True, whole=True),
    "label_weight": Span(0.1, 100.0, log=True),
    "text_weight": Span(0.1, 100.0, log=True),
    "attribute_weight": Span(0.1, 100.0, log=True),
    "annealing_share": Span(0.05, 1.0),
    "pairing": ("reserved", "proportional"),
    "targets": TARGETS,
    "image_network": (),
    "decoder_hidden": (1, 2, 3),
}
"""What a search may vary, and within which bounds. An image network is chosen among the data set's own. Pairing
`resampled` is left out: it shows every pair sooner or later, whatever the paired fraction, and would win for that."""


def ranges(default: Trial, given: Sequence[str], wanted: Sequence[str] | None) -> dict[str, Range]:
    """What is varied of a trial: what its arm reads, less what the user has set.

    Args:
        default: where the search begins; its other fields stay as they are.
        given: fields that the user has set.
        wanted: names of the fields to vary; None: all that can be.
    Raises:
        Refusal: one line: nothing is left to vary, or a wanted field cannot be.
    """
    read = default.hashed_fields()
    fixed = {*given, *(("annealing_share",) if default.annealing_epochs is not None else ())}
    networks = source(default.dataset).defaults.image_networks
    own = {name: networks if name == "image_network" else span for name, span in RANGES.items() if name in read}
    able = {name: span for name, span in own.items() if isinstance(span, Span) or len(span) > 1}
    what = f"arm {default.model} on {default.dataset}"
    if not able:
        raise Refusal(f"nothing to search for: {what} reads none of {', '.join(RANGES)}; choose another arm")
    for name in wanted or ():
        if name not in able:
            raise Refusal(f"--vary {name}: {what} has a choice of {', '.join(able)} alone")
        if name in fixed:
            raise Refusal(f"--vary {name}: it is given as an option too, which fixes it; leave one of them out")
    free = {name: span for name, span in able.items() if name not in fixed and (wanted is None or name in wanted)}
    if not free:
        raise Refusal(f"nothing to search for: all of {', '.join(able)} are given; leave one of them out")
    for name, span in free.items():
        value = getattr(default, name)
        if value not in span:
            option = f"--{name.replace('_', '-')}"
            raise Refusal(
                f"{name} is varied among {words(span)}, to three digits, and {what} begins with {value}: give {option},"
                " which fixes it, or choose with --vary what is varied"
            )
    return free


def words(span: Range) -> str:
    """8 to 256; reserved, proportional."""
    return f"{span.low:g} to {span.high:g}" if isinstance(span, Span) else ", ".join(map(str, span))


@dataclass(frozen=True)
class Search:
    """What is searched for, and among what."""

    default: Trial
    """Where the search begins: the data set's and the arm's own settings, and those that the user has fixed."""
    varied: Mapping[str, Range]
    metric: str
    """The validation metric that decides, at a trial's last epoch."""
    maximize: bool
    total: int
    """Distinct settings in all, those of earlier commands among them."""
    prune: bool
    """Give up trials that lag behind."""
    fingerprint: str
    """Of the data set."""
    measure: Measure
    """What is computed of a trial that comes to its end."""
    command: Callable[[Trial], str]
    """The command line that trains a trial again, with more seeds."""

    def __post_init__(self) -> None:
        every = self.countable
        if every and len(every) < self.total:
            raise Refusal(
                f"--trials {self.total}: there are only {len(every)} settings of {', '.join(self.varied)}: ask for at"
                f" most {len(every)}, or fix fewer options"
            )

    @property
    def countable(self) -> dict[str, dict[str, Any]]:
        """Key to settings of all trials that there can be; empty if a range makes them too many."""
        choices = [span for span in self.varied.values() if not isinstance(span, Span)]
        if len(choices) < len(self.varied):
            return {}
        found: dict[str, dict[str, Any]] = {}
        for values in itertools.product(*choices):
            settings = dict(zip(self.varied, values, strict=True))
            with suppress(Refusal):
                found.setdefault(self.key(self.trial(settings)), settings)
        return found

    @property
    def name(self) -> str:
        """Of the study and of the report: equal for the commands that go on with one search, whatever their total."""
        spans = {name: repr(span) for name, span in self.varied.items()}
        identity = canonical_json({"default": self.key(self.default), "spans": spans, "metric": self.metric})
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        return f"search-{self.default.dataset}-{self.default.model}-{digest}"

    @property
    def milestones(self) -> tuple[int, ...]:
        """Epochs at which a trial may be given up: none in its second half, where little would be saved."""
        if not self.prune or arm(self.default.model).fit is not None:
            return ()
        found, rung = [], math.ceil(FIRST_RUNG * self.default.epochs)
        while 2 * rung <= self.default.epochs:
            found.append(rung)
            rung *= REDUCTION
        return tuple(found)

    def left(self, known: Iterable[TriedTrial]) -> int:
        """How many trials are still to be run, those begun among them."""
        return max(0, self.total - sum(one.ended for one in known))

    def trial(self, chosen: Mapping[str, Any]) -> Trial:
        """The trial with these settings, rounded.

        Raises:
            Refusal: they mean nothing together.
        """
        spans = ((name, value, self.varied[name]) for name, value in chosen.items())
        fields = {name: span.rounded(value) if isinstance(span, Span) else value for name, value, span in spans}
        return self.default.with_(**fields)

    def key(self, trial: Trial) -> str:
        return trial.key(self.fingerprint)

    def settings(self, trial: Trial) -> dict[str, Any]:
        return {name: getattr(trial, name) for name in self.varied}

    def settings_of(self, fields: Mapping[str, Any], key: str) -> dict[str, Any] | None:
        """The settings of a trial that any sweep of this name has run; None where it is none of this search's.

        Args:
            fields: of the trial, as a result has them.
        """
        found = {name: fields.get(name) for name in self.varied}
        inside = all(found[name] in span for name, span in self.varied.items())
        try:
            return found if inside and self.key(self.trial(found)) == key else None
        except Refusal:
            return None

    def value(self, history: Sequence[Record]) -> float:
        """What a trained trial is worth: the metric at its last epoch; nan where it has none."""
        return history[-1]["metrics"].get(self.metric, math.nan) if history else math.nan

    def cell(self, number: int, trial: Trial) -> Cell:
        return Cell(arm(trial.model).title, f"trial {number}", trial, self.measure, None, trial.model)
