"""The probe behind `--plan`: estimates a trial's seconds from a few of its steps."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from mvae import data as data_sets
from mvae.data import fingerprint, load
from mvae.measure import ACCURACY, likelihood
from mvae.models import arm
from mvae.storage.clock import Clock
from mvae.trial import Trial
from pipelines.weak_supervision import Options, sweep
from sweeps.cli.options import read
from sweeps.main import COMPLETE, main
from sweeps.planning import probe as probing
from sweeps.planning.kept import KEEP_SECONDS, kept
from sweeps.planning.load import IDLE
from sweeps.planning.probe import BLOCK_SECONDS, BLOCK_STEPS, BLOCKS, WARM_UP, probed, timed_steps
from sweeps.planning.times import Probe, Probed


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


class Days(Clock):
    """A clock that a test sets."""

    now = 0.0

    def time(self) -> float:
        return self.now


def test_a_plan_typed_again_gives_the_same_hours_however_much_the_times_of_steps_vary(tmp_path: Path) -> None:
    step, days = iter([1.0, 1.9, 0.4]), Days()

    def noisy(*_: object) -> Probed:
        return Probed(next(step), {"likelihood": 0.1}, of_processor=False)

    def planned(trial: Trial, about: str = "laptop", data: str = "0" * 64) -> Probed | None:
        return kept(noisy, tmp_path, data, lambda: {"device": about}, days)(trial, (likelihood(50),))

    trial = Trial.create(dataset="digits", model="mvae", epochs=1)
    first = planned(trial)
    assert planned(trial) == planned(trial.with_(seed=3)) == first == Probed(1.0, {"likelihood": 0.1}, False)
    assert planned(trial, about="server") == replace(first, seconds=1.9), "another processor has other times"
    days.now += KEEP_SECONDS
    assert planned(trial) == replace(first, seconds=0.4), "times are measured anew every day"
    with pytest.raises(StopIteration):
        planned(trial, data="1" * 64)


def test_a_time_that_cannot_be_kept_or_read_is_measured_again(tmp_path: Path) -> None:
    trial = Trial.create(dataset="digits", model="mvae", epochs=1)
    cache = tmp_path / "cache"
    look_up = kept(lambda *_: Probed(2.0, {}), cache, "0" * 64, dict)
    cache.write_bytes(b"a file where the folder should be")
    assert look_up(trial, ()) == Probed(2.0, {})
    cache.unlink()
    assert look_up(trial, ()) == Probed(2.0, {})
    (stored,) = cache.rglob("*.json")
    for damaged in (b"", b"[]", b'{"at": "now"}', stored.read_bytes().replace(b"2.0", b'"two"')):
        stored.write_bytes(damaged)
        assert look_up(trial, ()) == Probed(2.0, {})
    assert kept(lambda *_: None, cache, "1" * 64, dict)(trial, ()) is None


def test_plan_typed_twice_prints_the_same_hours(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a machine whose other programs do not change."""
    monkeypatch.setattr("sweeps.engine.machines.LoadWatch", lambda: SimpleNamespace(load=lambda: IDLE))
    own, words = tmp_path / "cache", ("--fractions", "1", "--seeds", "0-3", "--targets", "own", "--epochs", "50")
    shutil.copytree(cache, own)
    where = ("--storage", str(tmp_path / "storage"), "--cache", str(own))
    options = read(Options, (*where, "--arms", "nn,logreg,mvae", *words, "--plan"))
    printed = []
    for _ in range(2):
        assert main(lambda: sweep(options), options) == COMPLETE
        printed.append(capsys.readouterr().out)
    hours = [next(line for line in text.splitlines() if " for 12 trials on " in line) for text in printed]
    assert hours[0] == hours[1]
    assert printed[0].count("measured by a probe") == 3
