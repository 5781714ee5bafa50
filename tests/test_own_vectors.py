"""A plug-in with real-valued views, its own loss, hyper-parameter and measure works everywhere (docs/examples)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mvae import plugins
from mvae.data import Dataset, load
from mvae.evaluation.likelihood_estimates import likelihood_metrics
from mvae.evaluation.measures import compute
from mvae.measure import OWN, Measure
from mvae.refusal import Refusal
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train
from mvae.trial import Trial
from sweeps.search.space import Span, ranges
from tests.sweeping import ROOT

FILE = ROOT / "docs" / "examples" / "my_vectors.py"


@pytest.fixture(autouse=True)
def loaded() -> Iterator[None]:
    plugins.load(plugins.read([FILE]))
    yield
    plugins.forget()


def trial(model: str = "closer", **own: float) -> Trial:
    return Trial.create(dataset="my_vectors", model=model, epochs=3, own=own)


@pytest.fixture
def vectors(tmp_path: Path) -> Dataset:
    return load("my_vectors", cache=tmp_path)


def test_the_example_is_shorter_than_120_lines() -> None:
    assert len(FILE.read_text(encoding="utf-8").splitlines()) < 120


def test_vectors_come_back_as_they_were_stored(vectors: Dataset) -> None:
    first = vectors.train.take(0, torch.arange(5))
    assert first.dtype == torch.float32 and first.shape == (5, 10)
    assert first.min() < 0 < first.max()


@pytest.mark.parametrize("model", ["closer", "mvae", "mopoe", "mvtcae", "mmvae", "mmvae_plus", "jmvae"])
def test_every_multimodal_arm_trains_on_vectors_and_has_a_likelihood(
    model: str, vectors: Dataset, tmp_path: Path
) -> None:
    done = train(trial(model), vectors, Checkpoints(tmp_path / "run", "one"))
    losses = [record["metrics"]["train/loss"] for record in done.history]
    assert losses[-1] < losses[0]
    few = Dataset(vectors.name, vectors.modalities, vectors.fingerprint, *[vectors.test.first(20)] * 3)
    found = likelihood_metrics(done.model, few, samples=50, seed=0)
    assert -60 < found["test/log_joint"] < 60


def test_the_own_hyperparameter_changes_the_loss_the_key_and_the_search(vectors: Dataset, tmp_path: Path) -> None:
    distances = []
    for pull in (0.0, 10.0):
        done = train(trial(pull=pull), vectors, Checkpoints(tmp_path / str(pull), "one"))
        metrics = compute(Measure("distance", 1, "test/distance"), done.model, trial(pull=pull), vectors)
        distances.append(metrics["test/distance"])
    assert distances[1] < 0.5 * distances[0]
    assert trial(pull=0.0).key("f" * 64) != trial(pull=10.0).key("f" * 64)
    assert ranges(trial(), [], ["pull"]) == {"pull": Span(0.01, 10, log=True)}


def test_the_own_measure_is_refused_for_another_arm(vectors: Dataset) -> None:
    with pytest.raises(Refusal, match="arm mvae has no distance: choose among closer, mvtcae"):
        compute(Measure("distance", 1, "test/distance"), torch.nn.Identity(), trial("mvae"), vectors)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({}, "measure distance: `compute` returned dict; it must return a dict with 'test/distance'"),
        (
            {"distance": 1.0},
            "measure distance: `compute` returned distance; it must return a dict with 'test/distance'",
        ),
        (3.0, "measure distance: `compute` returned float; it must return a dict with 'test/distance'"),
        (
            {"test/distance": "far"},
            "measure distance: `compute` returned {'test/distance': 'far'}; it must return one number",
        ),
        ({"test/distance": torch.zeros(2)}, "measure distance: `compute` returned {'test/distance': tensor"),
    ],
)
def test_an_own_measure_that_returns_no_number_of_its_own_is_refused(
    returned: object, message: str, vectors: Dataset
) -> None:
    added = replace(OWN["distance", 1], compute=lambda *_: returned)  # type: ignore[arg-type]
    with pytest.raises(Refusal) as refusal:
        added.metrics_of(torch.nn.Identity(), trial(), vectors)
    assert str(refusal.value).startswith(message)


def test_an_error_in_an_own_measure_names_its_line() -> None:
    failing = OWN["distance", 1].compute
    with pytest.raises(Refusal, match=r"my_vectors\.py, line \d+: AttributeError: "):
        failing(torch.nn.Identity(), trial(), None)
