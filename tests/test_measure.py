"""Measures: tokens, metrics and equality."""

from __future__ import annotations

import pytest

from mvae.measure import ACCURACY, Measure, readout


@pytest.mark.parametrize(
    ("fraction", "written"), [(0.01, "0.01"), (1, "1"), (1.0, "1"), (0.001, "0.001"), (1e-5, "0.00001")]
)
def test_a_read_outs_token_and_metric_contain_its_fraction(fraction: float, written: str) -> None:
    measure = readout(fraction)
    assert (measure.token, measure.metric) == (f"readout-f{written}-v1", f"test/accuracy-f{written}")
    assert measure.quantity == ACCURACY.quantity == ACCURACY.metric == "test/accuracy"
    assert measure.parameter("f") == fraction


def test_different_fractions_have_different_read_outs() -> None:
    assert readout(1) == readout(1.0)
    assert len({readout(fraction).token for fraction in (1 / 3, 0.333333, 0.3333333)}) == 3


def test_measures_are_equal_regardless_of_the_metric_shown() -> None:
    joint, marginal = (Measure("likelihood", 1, f"test/log_{of}", (("s", 1000),)) for of in ("joint", "marginal"))
    assert joint == marginal and joint.token == "likelihood-s1000-v1"
    assert joint != Measure("likelihood", 2, "test/log_joint", (("s", 1000),))
    assert joint != Measure("likelihood", 1, "test/log_joint", (("s", 2000),))
    assert joint.quantity == "test/log_joint"


def test_a_measures_token_carries_its_version() -> None:
    assert ACCURACY.token == "accuracy-v1"
    assert Measure("likelihood-s1000", 2, "test/log_marginal").token == "likelihood-s1000-v2"
