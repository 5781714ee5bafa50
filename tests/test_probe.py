"""The probe behind `--plan`: seconds of a trial from a few of its steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvae.trial import Trial
from sweeps.probe import Probe


@pytest.mark.parametrize("model", ["mvae", "nn"])
def test_ten_times_the_epochs_are_estimated_at_about_ten_times_the_seconds(model: str, cache: Path) -> None:
    probe = Probe(None, cache)
    short = Trial.create(dataset="digits", model=model, epochs=2)
    probe(short)
    ratio = probe(short.with_(epochs=20)) / probe(short)
    assert 2 < ratio < 50


def test_a_closed_form_arm_is_estimated_by_a_fit(cache: Path) -> None:
    assert Probe(None, cache)(Trial.create(dataset="digits", model="logreg", paired_fraction=0.05)) > 0


def test_a_trial_with_fewer_steps_than_the_warm_up_is_estimated(cache: Path) -> None:
    assert Probe(None, cache)(Trial.create(dataset="digits", model="nn", batch_size=1297, epochs=1)) > 0
