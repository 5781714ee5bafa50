"""Every pipeline's demo stays small: no larger than a demo that took 5 minutes on 2 cores."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from docs.report.sources import option_classes
from mvae.data import training_examples
from mvae.data.faces import vision
from mvae.trial import Trial
from sweeps.cli.options import read
from sweeps.search.driver import Searching
from sweeps.sweep import Sweep

MNIST_EXAMPLES = 50_000


@dataclass(frozen=True)
class Size:
    """Work of a demo, summed over its trials."""

    trials: int
    examples: int
    """Training examples: epochs times examples per epoch."""
    samples: int = 0
    """Importance samples per test example."""


MOST = {
    "coherence": Size(trials=8, examples=706_000),
    "k_sweep": Size(trials=6, examples=300_000, samples=120),
    "likelihoods": Size(trials=7, examples=910_000, samples=7_000),
    "missing_modalities": Size(trials=3, examples=750_000, samples=60),
    "search": Size(trials=20, examples=600_000),
    "train": Size(trials=1, examples=30_000),
    "translation": Size(trials=2, examples=32_000, samples=40),
    "vision": Size(trials=1, examples=6_000),
    "weak_supervision": Size(trials=40, examples=5_000_000),
}
"""Measured limits. An example of one data set may take hundreds of times as long as an example of another."""


def size(whole: Sweep) -> Size:
    """Counts the work of a sweep. An epoch of mnist19 has as many examples as the real data set."""
    measures = {(cell.trial, cell.measure) for cell in whole.cells}
    trials = list({trial for trial, _ in measures})
    if isinstance(whole.search, Searching):
        trials = [whole.search.search.default] * whole.search.search.total
    samples = [measure.parameter("s") for _, measure in measures if measure.name == "likelihood"]
    return Size(len(trials), sum(trial.epochs * examples(trial) for trial in trials), int(sum(samples)))


def examples(trial: Trial) -> int:
    there = MNIST_EXAMPLES if trial.dataset == "mnist19" else training_examples(trial.dataset)
    return min(there, trial.train_examples or there)


@pytest.mark.parametrize("pipeline", option_classes())
def test_each_demo_is_no_larger_than_one_that_took_five_minutes_on_two_cores(pipeline: str, tiny_root: Path) -> None:
    module = importlib.import_module(f"pipelines.{pipeline}")
    demo, most = size(module.sweep(read(module.Options, ("--data-root", str(tiny_root))))), MOST[pipeline]
    assert 0 < demo.trials <= most.trials
    assert 0 < demo.examples <= most.examples
    assert demo.samples <= most.samples


def test_the_vision_demo_draws_few_faces() -> None:
    assert vision.VISION_FACES_SMALL.examples(Path()) == 1_500
