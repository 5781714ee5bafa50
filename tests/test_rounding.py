"""Printed numbers: our digits depend on the uncertainty, published numbers stay unchanged."""

from __future__ import annotations

import math
import pickle

import pytest

from sweeps.table.rounding import Printed, as_printed, shown_p, shown_spread, shown_value


@pytest.mark.parametrize(
    ("value", "spread", "text"),
    [
        (0.75921, 0.01234, "0.759 ±0.012"),
        (0.75921, 0.00996, "0.759 ±0.010"),
        (0.75921, 0.0994, "0.759 ±0.099"),
        (0.75921, 0.0996, "0.76 ±0.10"),
        (0.75921, 0.1234, "0.76 ±0.12"),
        (0.880433, 0.000252, "0.8804 ±0.0003"),
        (0.9, 1e-9, "0.9000 ±0.0000"),
        (0.948, 0.0, "0.948 ±0.000"),
        (-86.27849, 0.0312, "-86.278 ±0.031"),
        (335.046, 12.34, "335 ±12"),
        (-6237.104, 123.4, "-6237 ±123"),
        (0.75921, None, "0.759"),
        (-86.0514, None, "-86.051"),
        (-232.5391, None, "-232.54"),
        (-6237.104, None, "-6237.1"),
        (123456.7, None, "123457"),
        (0.0, None, "0.000"),
        (-0.0002, None, "0.000"),
        (math.nan, None, "nan"),
        (0.75, math.nan, "0.750 ±nan"),
        (math.inf, None, "inf"),
        (None, None, ""),
    ],
)
def test_a_number_shows_as_many_digits_as_its_spread_to_two_digits(
    value: float | None, spread: float | None, text: str
) -> None:
    assert f"{shown_value(value, spread)} {shown_spread(value, spread)}".strip() == text
    assert f"{shown_value(value, spread)} {shown_spread(value, spread)}".strip() == text


def test_differences_are_printed_with_a_sign() -> None:
    assert shown_value(0.01234, 0.0031, signed=True) == "+0.0123"
    assert shown_value(-0.01234, 0.031, signed=True) == "-0.012"
    assert shown_value(-0.0001, 0.031, signed=True) == "+0.000"
    assert shown_value(0.02, 0.01, signed=True) + shown_spread(0.02, 0.01, "+-") == "+0.020+-0.010"


def test_a_published_number_keeps_its_digits() -> None:
    assert [as_printed(Printed(text)) for text in ("0.701", "0.7690", "-83.820")] == ["0.701", "0.7690", "-83.820"]
    assert as_printed(0.8) == "0.8"
    assert as_printed(None) == ""


def test_a_published_number_is_a_float_that_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(Printed("0.7690")))
    assert copy == 0.769 and as_printed(copy) == "0.7690"


def test_a_p_value_has_two_digits_and_a_lower_limit() -> None:
    assert [shown_p(p) for p in (0.0321, 0.214, 1.0, 0.00099)] == ["0.032", "0.21", "1", "<0.001"]
