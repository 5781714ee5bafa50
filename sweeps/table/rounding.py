"""How numbers are printed: as many places as their uncertainty leaves meaning to.

`shown_value` and `shown_spread` are used by the terminal, Markdown and every other form; files for programs keep full
precision.
"""

from __future__ import annotations

import math

PLACES = 3
"""Decimal places of a number whose uncertainty is unknown (one seed)."""

FIGURES = 5
"""Significant digits that such a number has at most: -86.051, but -6237.1."""

MOST_PLACES = 4
"""Decimal places at most: a test set of 10,000 examples has no finer accuracy."""

SMALLEST_P = 0.001


class Printed(float):
    """A published number with the text that the paper prints: 0.701 stays 0.701, and 0.7690 stays 0.7690."""

    text: str

    def __new__(cls, text: str | float) -> Printed:
        value = super().__new__(cls, text)
        value.text = str(text)
        return value


def printed(texts: str) -> tuple[Printed, ...]:
    """Published numbers from a line of the paper."""
    return tuple(map(Printed, texts.split()))


def places(value: float, spread: float | None = None) -> int:
    """Decimal places to print: two significant digits of the spread; without a spread, three places or fewer.

    A spread of 0 (a deterministic arm) says nothing about the places.
    """
    if spread is not None and spread > 0 and math.isfinite(spread):
        exponent = int(f"{spread:.1e}".partition("e")[2])
        return min(max(1 - exponent, 0), MOST_PLACES)
    if value == 0 or not math.isfinite(value):
        return PLACES
    return min(max(FIGURES - 1 - math.floor(math.log10(abs(value))), 0), PLACES)


def shown_value(value: float | None, spread: float | None = None, *, signed: bool = False) -> str:
    """A number to the places that its spread leaves, "" for None.

    Args:
        spread: standard deviation over seeds; None for one seed.
        signed: print + too (differences).
    """
    if value is None:
        return ""
    text = f"{value:.{places(value, spread)}f}"
    if text.startswith("-") and not text.strip("-0."):
        text = text.removeprefix("-")
    return f"+{text}" if signed and not text.startswith("-") else text


def shown_spread(value: float | None, spread: float | None, mark: str = "±") -> str:
    """The spread of a number with its sign in front, to the same places as the number; "" for None."""
    return "" if value is None or spread is None else f"{mark}{spread:.{places(value, spread)}f}"


def shown(value: float | None, spread: float | None = None, mark: str = "±", *, signed: bool = False) -> str:
    """Number and spread together: 0.759 ±0.012."""
    return f"{shown_value(value, spread, signed=signed)} {shown_spread(value, spread, mark)}".strip()


def as_printed(value: float | None) -> str:
    """A published number as the paper prints it, "" for None."""
    if value is None:
        return ""
    return value.text if isinstance(value, Printed) else f"{value:.15g}"


def shown_p(p: float | None) -> str:
    """A p value to two significant digits: 0.032, 0.21, <0.001; "" for None."""
    if p is None:
        return ""
    return f"<{SMALLEST_P:g}" if p < SMALLEST_P else f"{p:.2g}"
