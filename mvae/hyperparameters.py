"""Hyper-parameters that an arm declares for itself.

Users set a hyper-parameter with `--set NAME=VALUE`, and a search can vary it. The value is part of the trial's key
and is logged to MLflow as a parameter.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mvae.refusal import Refusal

Value = bool | int | float | str
"""Type of a hyper-parameter's value. Every value has the type of the default."""

TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Hyperparameter:
    """A setting of one arm, in addition to the fields of `mvae.settings.Settings`."""

    name: str
    """Name of the hyper-parameter. No field of `Settings` may have this name."""
    default: Value
    """Default value. All other values must have the same type."""
    about: str
    """One line: meaning, unit, source."""
    least: float | None = None
    """Smallest value of a number."""
    most: float | None = None
    """Largest value of a number."""
    choices: tuple[str, ...] = ()
    """Allowed values, if the value is a text; empty if any text is allowed."""
    searched: tuple[float, float] | None = None
    """Range from which a search draws numbers. If None, a search varies only `choices`, if any."""
    log: bool = False
    """Whether a search draws from the range on a logarithmic scale."""

    def check_declared(self) -> None:
        """Checks that the fields of this declaration fit together.

        Raises:
            Refusal: the default, or the range for a search, is invalid.
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
            Refusal: the value has the wrong type, is out of range, or is not one of the choices.
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
        """Converts a value from the command line to the type of the default.

        Raises:
            Refusal: the text cannot be parsed, or `checked` refuses the value.
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
    """Returns pairs of name and value for all declared hyper-parameters, sorted by name. Fills in defaults.

    Raises:
        Refusal: the arm does not declare a given name, or a value is invalid.
    """
    known = {each.name: each for each in declared}
    if unknown := sorted(given.keys() - known.keys()):
        has = f"it has {', '.join(known)}" if known else "it has none of its own"
        raise Refusal(f"arm {arm} has no hyper-parameter {unknown[0]!r}: {has}")
    return tuple((name, known[name].checked(given.get(name, known[name].default))) for name in sorted(known))
