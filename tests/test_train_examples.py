"""Trials on the first few training examples: no arm and no measure sees the other examples."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from mvae.data import Dataset, Split, load
from mvae.evaluation.measures import compute
from mvae.measure import ACCURACY, Measure, likelihood, readout
from mvae.refusal import Refusal
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train
from mvae.trial import Trial
from sweeps.planning.probe import probed

FIRST = 300
"""Number of training examples in these trials, of 1,297."""


@pytest.fixture(scope="module")
def data(cache: Path) -> Dataset:
    return load("digits", cache=cache)


@pytest.fixture(scope="module")
def spoilt(data: Dataset) -> Dataset:
    """The data set with other values after the first training examples."""
    values = tuple(torch.cat([value[:FIRST], torch.ones_like(value[FIRST:])]) for value in data.train.values)
    return replace(data, train=Split(values))


@pytest.mark.parametrize(
    ("model", "measure"),
    [
        ("mvae", ACCURACY),
        ("jmvae", likelihood(2)),
        ("cvae", likelihood(2)),
        ("nn", ACCURACY),
        ("logreg", ACCURACY),
        ("vae", readout(0.1)),
        ("rbm", readout(0.1)),
    ],
)
def test_examples_after_the_first_ones_change_no_number(
    model: str, measure: Measure, data: Dataset, spoilt: Dataset, tmp_path: Path
) -> None:
    trial = Trial.create(dataset="digits", model=model, epochs=1, train_examples=FIRST)
    numbers = []
    for name, which in (("whole", data), ("spoilt", spoilt)):
        trained = train(trial, which, Checkpoints(tmp_path / name, "a"))
        history = [record["metrics"] for record in trained.history]
        numbers.append((history, compute(measure, trained.model, trial, which)))
    assert numbers[0] == numbers[1]


def test_an_epoch_is_a_pass_over_the_first_examples(data: Dataset, tmp_path: Path) -> None:
    few, every = (Trial.create(dataset="digits", model="vae", epochs=1, train_examples=n) for n in (FIRST, None))
    of_few = train(few, data, Checkpoints(tmp_path / "few", "a")).history
    alone = replace(data, train=data.train.first(FIRST))
    assert of_few[0]["metrics"] == train(every, alone, Checkpoints(tmp_path / "alone", "a")).history[0]["metrics"]


def test_more_examples_than_exist_are_refused(data: Dataset, tmp_path: Path) -> None:
    trial = Trial.create(dataset="digits", model="nn", epochs=1, train_examples=1298)
    with pytest.raises(
        Refusal, match=r"^digits has only 1,297 training examples, not 1,298: give a smaller --train-examples$"
    ):
        train(trial, data, Checkpoints(tmp_path, "a"))


def test_a_probe_estimates_less_time_for_fewer_examples(data: Dataset, cache: Path) -> None:
    probe = partial(probed, measures=(), fingerprints=data.fingerprint, data_root=None, cache=cache)
    every, few = (Trial.create(dataset="digits", model="mvae", epochs=40, train_examples=n) for n in (None, 10))
    probe(every)
    of_few, of_every = probe(few), probe(every)
    assert of_few and of_every and of_few.seconds < of_every.seconds
