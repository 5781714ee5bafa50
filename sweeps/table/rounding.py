"""Rounds numbers for printing, to the decimal places that their uncertainty justifies.

All output for people uses `shown_value` and `shown_spread`. Files for programs keep full precision.
"""

from __future__ import annotations

import math

PLACES = 3
"""Decimal places of a number whose uncertainty is unknown (one seed)."""

FIGURES = 5
"""Maximum number of significant digits of a number whose uncertainty is unknown: -86.051, but -6237.1."""

MOST_PLACES = 4
"""Maximum number of decimal places. An accuracy on 10,000 test examples has no more than four."""

SMALLEST_P = 0.001


class Printed(float):
    """A published number that keeps its printed form: 0.7690, not 0.769."""

    text: str

    def __new__(cls, text: str | float) -> Printed:
        value = super().__new__(cls, text)
        value.text = str(text)
        return value


def printed(texts: str) -> tuple[Printed, ...]:
    """Parses numbers that are copied from a line of the paper, separated by spaces."""
    return tuple(map(Printed, texts.split()))


def places(value: float, spread: float | None = None) -> int:
    """Returns the number of decimal places to print.

    With a spread, there are enough places for two significant digits of the spread. Without a spread, there are at most
    three places. A spread of 0, from a deterministic arm, is treated like no spread.
    """
    if spread is not None and spread > 0 and math.isfinite(spread):
        exponent = int(f"{spread:.1e}".partition("e")[2])
        return min(max(1 - exponent, 0), MOST_PLACES)
    if value == 0 or not math.isfinite(value):
        return PLACES
    return min(max(FIGURES - 1 - math.floor(math.log10(abs(value))), 0), PLACES)


def shown_value(value: float | None, spread: float | None = None, *, signed: bool = False) -> str:
    """Returns a number, rounded according to its spread; "" for None.

    Args:
        spread: standard deviation over seeds; None for one seed.
        signed: whether to print a plus sign, for differences.
    """
    if value is None:
        return ""
    text = f"{value:.{places(value, spread)}f}"
    if text.startswith("-") and not text.strip("-0."):
        text = text.removeprefix("-")
    return f"+{text}" if signed and not text.startswith("-") else text


def shown_spread(value: float | None, spread: float | None, mark: str = "±") -> str:
    """Returns `mark` and the spread, with as many decimal places as the value; "" if either number is None."""
    return "" if value is None or spread is None else f"{mark}{spread:.{places(value, spread)}f}"


def as_printed(value: float | None) -> str:
    """Returns a published number as the paper prints it; "" for None."""
    if value is None:
        return ""
    return value.text if isinstance(value, Printed) else f"{value:.15g}"


def shown_p(p: float | None) -> str:
    """Returns a p value with two significant digits: 0.032, 0.21, <0.001; "" for None."""
    if p is None:
        return ""
    return f"<{SMALLEST_P:g}" if p < SMALLEST_P else f"{p:.2g}"
