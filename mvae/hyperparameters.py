"""Hyper-parameters that an arm declares for itself.

They are part of the trial's key, set with `--set NAME=VALUE`, logged to MLflow as parameters, and can be searched.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mvae.refusal import Refusal

Value = bool | int | float | str
"""Type of a hyper-parameter: that of its default."""

TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Hyperparameter:
    """A setting of one arm, in addition to the fields of `mvae.settings.Settings`."""

    name: str
    """Name of the hyper-parameter. No field of `Settings` may have this name."""
    default: Value
    """Its type is the type of every value."""
    about: str
    """One line: meaning, unit, source."""
    least: float | None = None
    """Smallest value of a number."""
    most: float | None = None
    """Largest value of a number."""
    choices: tuple[str, ...] = ()
    """Every value of a text; empty if any text is allowed."""
    searched: tuple[float, float] | None = None
    """Range that a search draws numbers from; None: searched only over its choices, if there are any."""
    log: bool = False
    """Whether a search draws from the range on a logarithmic scale."""

    def check_declared(self) -> None:
        """Checks the declaration itself.

        Raises:
            Refusal: the default or the range of a search does not fit.
        """
        if type(self.default) not in TYPES:
            raise Refusal(f"{self.name} has the default {self.default!r}: give True, False, a number or a text")
        self.checked(self.default)
        if self.searched is None:
            return
        if type(self.default) not in (int, float):
            raise Refusal(f"{self.name} is {TYPES[type(self.default)]}: leave out `searched`")
        low, high = self.searched
        if not -math.inf < low < high < math.inf or (self.log and low <= 0):
            ends = "two positive numbers" if self.log else "two numbers"
            raise Refusal(f"{self.name} has searched = {self.searched}: give {ends}, the smaller one first")
        for end in (low, high):
            self.checked(type(self.default)(end))

    def checked(self, value: Value) -> Value:
        """Returns the value with the type of the default: 1 becomes 1.0 for a float.

        Raises:
            Refusal: wrong type, or outside the range or the choices.
        """
        kind = type(self.default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
            raise Refusal(f"{self.name} = {value!r}: give {TYPES[kind]}")
        if self.choices and value not in self.choices:
            raise Refusal(f"{self.name} = {value!r}: choose one of {', '.join(self.choices)}")
        if isinstance(value, str):
            return value
        if self.least is not None and value < self.least:
            raise Refusal(f"{self.name} = {value:g}: give at least {self.least:g}")
        if self.most is not None and value > self.most:
            raise Refusal(f"{self.name} = {value:g}: give at most {self.most:g}")
        return value

    def read(self, text: str) -> Value:
        """Returns the value that a text on the command line means.

        Raises:
            Refusal: as `checked`.
        """
        kind = type(self.default)
        try:
            value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise Refusal(f"{self.name} = {text!r}: give {TYPES[kind]}") from None
        return self.checked(value)


def completed(
    declared: Iterable[Hyperparameter], given: Mapping[str, Value], arm: str
) -> tuple[tuple[str, Value], ...]:
    """Returns every declared hyper-parameter with the given value or its default, sorted by name.

    Raises:
        Refusal: a name that the arm does not declare, or a bad value.
    """
    known = {each.name: each for each in declared}
    if unknown := sorted(given.keys() - known.keys()):
        has = f"it has {', '.join(known)}" if known else "it has none of its own"
        raise Refusal(f"arm {arm} has no hyper-parameter {unknown[0]!r}: {has}")
    return tuple((name, known[name].checked(given.get(name, known[name].default))) for name in sorted(known))
