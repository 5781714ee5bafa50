"""Defines a search: the settings that vary, their ranges, the metric to optimise, and the epochs at which to prune.

`Search` is a plain value, created by pipelines/search.py. sweeps/search/study.py chooses the settings and decides which
trials to prune. sweeps/search/driver.py runs the search. This module imports neither Optuna nor Ray.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, get_args

from mvae.data import source
from mvae.hyperparameters import Hyperparameter
from mvae.measure import Measure
from mvae.models import arm
from mvae.refusal import Refusal
from mvae.settings import Targets
from mvae.training.records import Record
from mvae.trial import Trial, canonical_json
from sweeps.planning.plan import Cell
from sweeps.search.tried import TriedTrial

DIGITS = 3
"""Significant digits to which numbers from a range are rounded, so that a printed command gives the same key."""

REDUCTION = 3
"""At each rung the best third of the trials continues; each rung trains three times as long as the last."""

FIRST_RUNG = 0.1
"""Fraction of the epochs that every trial trains before it can be pruned."""


@dataclass(frozen=True)
class Span:
    """A range of numbers, including both ends."""

    low: float
    high: float
    log: bool = False
    """Whether to sample the logarithm uniformly."""
    whole: bool = False

    def rounded(self, value: float) -> float:
        """Returns the number as an integer if `whole` is set, else rounded to DIGITS significant digits."""
        return int(value) if self.whole else float(f"{value:.{DIGITS}g}")

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high and self.rounded(value) == value


Range = Span | tuple[Any, ...]

LATENTS = Span(8, 256, log=True, whole=True)
"""Range of the number of latents. If a data set's default is outside the range, the range is extended to include it."""

RANGES: dict[str, Range] = {
    "learning_rate": Span(1e-4, 1e-2, log=True),
    "latents": LATENTS,
    "label_weight": Span(0.1, 100.0, log=True),
    "text_weight": Span(0.1, 100.0, log=True),
    "attribute_weight": Span(0.1, 100.0, log=True),
    "annealing_share": Span(0.05, 1.0),
    "pairing": ("reserved", "proportional"),
    "targets": get_args(Targets),
    "image_network": (),
    "decoder_hidden": (1, 2, 3),
}
"""Settings that a search may vary, with their ranges. The image networks come from the data set.

Pairing `resampled` is left out, because it would always win: whatever the paired fraction, it shows every pair sooner
or later."""


def ranges(default: Trial, given: Sequence[str], wanted: Sequence[str] | None) -> dict[str, Range]:
    """Returns the settings to vary, each with its range: those that the arm reads, except those that the user set.

    Args:
        default: the trial at which the search starts.
        given: fields that the user has set.
        wanted: fields to vary. If None, all fields that can vary.
    Raises:
        Refusal: nothing is left to vary, a wanted field cannot vary, or the default is outside a range.
    """
    read = default.hashed_fields()
    fixed = {*given, *(("annealing_share",) if default.annealing_epochs is not None else ())}
    networks = source(default.dataset).defaults.image_networks
    own = {name: networks if name == "image_network" else span for name, span in RANGES.items() if name in read}
    if "latents" in own:
        usual = source(default.dataset).defaults.latents
        own["latents"] = replace(LATENTS, low=min(LATENTS.low, usual), high=max(LATENTS.high, usual))
    own |= {each.name: span for each in arm(default.model).hyperparameters if (span := range_of(each))}
    able = {name: span for name, span in own.items() if isinstance(span, Span) or len(span) > 1}
    what = f"arm {default.model} on {default.dataset}"
    if not able:
        raise Refusal(f"nothing to search for: {what} reads none of {', '.join(RANGES)}; choose another arm")
    for name in wanted or ():
        if name not in able:
            raise Refusal(f"--vary {name}: {what} can vary only {', '.join(able)}")
        if name in fixed:
            raise Refusal(f"--vary {name}: another option fixes this setting; remove one of the two options")
    free = {name: span for name, span in able.items() if name not in fixed and (wanted is None or name in wanted)}
    if not free:
        raise Refusal(f"nothing to search for: options fix all of {', '.join(able)}; remove one of them")
    for name, span in free.items():
        value = default.value(name)
        if value not in span:
            raise Refusal(
                f"{name} = {value} of {what} is not in the search range {words(span)} ({DIGITS} significant digits):"
                f" fix it with {flag(name, default)}, or exclude it with --vary"
            )
    return free


def flag(name: str, default: Trial) -> str:
    """Returns the option that sets a setting: --learning-rate, or --set beta for a hyper-parameter of the arm."""
    return f"--set {name}" if name in dict(default.own) else f"--{name.replace('_', '-')}"


def range_of(each: Hyperparameter) -> Range | None:
    """Returns the range that an arm declares for a hyper-parameter, or None if a search cannot vary it."""
    if each.searched is not None:
        return Span(*each.searched, log=each.log, whole=isinstance(each.default, int))
    return (False, True) if isinstance(each.default, bool) else each.choices or None


def words(span: Range) -> str:
    """Returns the range as text, for example "8 to 256" or "reserved, proportional"."""
    return f"{span.low:g} to {span.high:g}" if isinstance(span, Span) else ", ".join(map(str, span))


@dataclass(frozen=True)
class Search:
    """A search: its default trial, the settings to vary, and the metric to optimise."""

    default: Trial
    """The trial at which the search starts. This trial has the default settings, except for settings that the user has
    fixed."""
    varied: Mapping[str, Range]
    metric: str
    """The validation metric to optimise. Its value at a trial's last epoch counts."""
    maximize: bool
    total: int
    """Total number of distinct settings to try, including settings that earlier commands tried."""
    prune: bool
    """Whether to stop trials that lag behind."""
    fingerprint: str
    """Fingerprint of the data set."""
    measure: Measure
    """The measure that is computed for each finished trial."""
    command: Callable[[Trial], str]
    """Returns the command line that trains a trial with more seeds."""

    def __post_init__(self) -> None:
        every = self.countable
        if every and len(every) < self.total:
            raise Refusal(
                f"--trials {self.total}: there are only {len(every)} combinations of {', '.join(self.varied)}: ask"
                f" for at most {len(every)}, or fix fewer options"
            )

    @property
    def countable(self) -> dict[str, dict[str, Any]]:
        """Settings of all possible trials, by key. Empty if any setting varies in a numeric range."""
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
        """Name of the study and of the report. It does not depend on `total`, so all commands of a search share it."""
        spans = {name: repr(span) for name, span in self.varied.items()}
        identity = canonical_json({"default": self.key(self.default), "spans": spans, "metric": self.metric})
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        return f"search-{self.default.dataset}-{self.default.model}-{digest}"

    @property
    def milestones(self) -> tuple[int, ...]:
        """Epochs at which a trial may be pruned. All are in the first half, because later pruning would save little."""
        if not self.prune or arm(self.default.model).fit is not None:
            return ()
        found, rung = [], math.ceil(FIRST_RUNG * self.default.epochs)
        while 2 * rung <= self.default.epochs:
            found.append(rung)
            rung *= REDUCTION
        return tuple(found)

    def left(self, known: Iterable[TriedTrial]) -> int:
        """Returns the number of trials that are still to be run, including partial trials."""
        return max(0, self.total - sum(one.ended for one in known))

    def trial(self, chosen: Mapping[str, Any]) -> Trial:
        """Returns the trial with these settings, rounded.

        Raises:
            Refusal: the settings contradict each other.
        """
        spans = ((name, value, self.varied[name]) for name, value in chosen.items())
        fields = {name: span.rounded(value) if isinstance(span, Span) else value for name, value, span in spans}
        return self.default.with_(**fields)

    def key(self, trial: Trial) -> str:
        return trial.key(self.fingerprint)

    def settings(self, trial: Trial) -> dict[str, Any]:
        return {name: trial.value(name) for name in self.varied}

    def settings_of(self, fields: Mapping[str, Any], key: str) -> dict[str, Any] | None:
        """Returns the settings of a trial from any sweep, or None if the trial does not belong to this search.

        Args:
            fields: the trial's fields, as in its result.
        """
        known = {**fields, **dict(fields.get("own") or ())}
        found = {name: known.get(name) for name in self.varied}
        inside = all(found[name] in span for name, span in self.varied.items())
        try:
            return found if inside and self.key(self.trial(found)) == key else None
        except Refusal:
            return None

    def value(self, history: Sequence[Record]) -> float:
        """Returns the metric at the last epoch, or nan if this epoch has no value."""
        return history[-1]["metrics"].get(self.metric, math.nan) if history else math.nan

    def cell(self, number: int, trial: Trial) -> Cell:
        return Cell(arm(trial.model).title, f"trial {number}", trial, self.measure, None, trial.model)
