"""The probe behind `--plan`: estimates a trial's seconds from a few of its steps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mvae import data as data_sets
from mvae.data import fingerprint, load
from mvae.measure import ACCURACY, likelihood
from mvae.models import arm
from mvae.trial import Trial
from sweeps.planning import probe as probing
from sweeps.planning.probe import BLOCK_SECONDS, BLOCK_STEPS, BLOCKS, WARM_UP, probed, timed_steps
from sweeps.planning.times import Probe


@pytest.fixture
def probe(cache: Path) -> Probe:
    mark = load("digits", cache=cache).fingerprint
    return partial(probed, fingerprints=mark, data_root=None, cache=cache)


def seconds(probe: Probe, trial: Trial) -> float:
    taken = probe(trial, (ACCURACY,))
    assert taken is not None
    return taken.seconds


@pytest.mark.parametrize("model", ["mvae", "nn"])
def test_the_estimate_is_proportional_to_the_number_of_epochs(model: str, probe: Probe) -> None:
    short = Trial.create(dataset="digits", model=model, epochs=2)
    seconds(probe, short)
    ratio = seconds(probe, short.with_(epochs=20)) / seconds(probe, short)
    assert 2 < ratio < 50


def test_a_closed_form_arm_is_estimated_by_fitting_it(probe: Probe) -> None:
    assert seconds(probe, Trial.create(dataset="digits", model="logreg", paired_fraction=0.05)) > 0


def test_a_trial_with_fewer_steps_than_the_warm_up_is_estimated(probe: Probe) -> None:
    assert seconds(probe, Trial.create(dataset="digits", model="nn", batch_size=1297, epochs=1)) > 0


def test_the_median_of_the_blocks_ignores_a_block_that_was_disturbed(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial.create(dataset="digits", model="nn", epochs=1)
    digits = load("digits", cache=cache)
    disturbed = [1000 * BLOCK_SECONDS]  # milliseconds: a block of a single step
    taken = iter([1.0] * (WARM_UP + BLOCK_STEPS) + disturbed + [1.0] * BLOCK_STEPS * BLOCKS)
    now = [0.0]

    class Steps:
        def running(self) -> Steps:
            return self

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

        def __call__(self, *_: object) -> None:
            now[0] += next(taken) / 1000

    class Clock:
        perf_counter = process_time = staticmethod(lambda: now[0])

    monkeypatch.setattr(probing, "steps_of", lambda *_: Steps())
    monkeypatch.setattr(probing, "time", Clock)
    times = timed_steps(arm("nn").build(trial, digits.modalities), trial, digits)
    assert times.cpu == pytest.approx(0.001)


def test_the_likelihood_is_timed_on_a_few_examples_and_scaled_to_all(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def computed(_measure: object, _model: object, _trial: object, data: data_sets.Dataset) -> None:
        asked.append(len(data.test))

    ticks: Iterator[float] = iter(range(1000))
    monkeypatch.setattr(probing, "compute", computed)
    monkeypatch.setattr(probing, "_seconds", lambda work, _clock: (work(), float(next(ticks) > 0))[1])
    found = probe(Trial.create(dataset="digits", model="mvae", epochs=1), (likelihood(50),))
    assert found is not None
    assert asked == [2, 12]
    assert found.measuring == {"likelihood": pytest.approx(250 / 12 / 50)}


def test_data_whose_conversion_takes_long_are_not_converted_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial.create(dataset="faces", model="mvae")
    assert probed(trial, (), fingerprint("faces"), None, tmp_path / "cache") is None
    assert not list(tmp_path.iterdir())
