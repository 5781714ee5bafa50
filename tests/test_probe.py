"""The probe behind `--plan`: estimates a trial's seconds from a few of its steps."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from mvae.data import fingerprint, load
from mvae.trial import Trial
from sweeps.planning.plan import Probe
from sweeps.planning.probe import probed_seconds


@pytest.fixture
def probe(cache: Path) -> Probe:
    return partial(probed_seconds, fingerprints=load("digits", cache=cache).fingerprint, cache=cache)


def seconds(probe: Probe, trial: Trial) -> float:
    taken = probe(trial)
    assert taken is not None
    return taken


@pytest.mark.parametrize("model", ["mvae", "nn"])
def test_the_estimate_is_proportional_to_the_number_of_epochs(model: str, probe: Probe) -> None:
    short = Trial.create(dataset="digits", model=model, epochs=2)
    probe(short)
    ratio = seconds(probe, short.with_(epochs=20)) / seconds(probe, short)
    assert 2 < ratio < 50


def test_a_closed_form_arm_is_estimated_by_fitting_it(probe: Probe) -> None:
    assert seconds(probe, Trial.create(dataset="digits", model="logreg", paired_fraction=0.05)) > 0


def test_a_trial_with_fewer_steps_than_the_warm_up_is_estimated(probe: Probe) -> None:
    assert seconds(probe, Trial.create(dataset="digits", model="nn", batch_size=1297, epochs=1)) > 0


def test_without_converted_data_the_probe_gives_no_estimate_and_writes_nothing(tmp_path: Path) -> None:
    trial = Trial.create(dataset="digits", model="nn")
    assert probed_seconds(trial, fingerprint("digits"), tmp_path / "cache") is None
    assert not list(tmp_path.iterdir())
