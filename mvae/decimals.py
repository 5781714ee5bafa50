"""Writes numbers as plain decimals: 0.0001, never 1e-04."""

from decimal import Decimal


def plain(value: float) -> str:
    """Returns the shortest decimal text equal to `value`, without exponent or trailing zeros: 0.00001, 1, 0.25."""
    return f"{Decimal(repr(float(value))).normalize():f}"
