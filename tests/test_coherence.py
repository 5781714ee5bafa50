"""Coherence counts generated images with the given class; classifiers train before the models that need them."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality
from mvae.data.examples import Dataset, Split
from mvae.evaluation.coherence import coherence_metrics, drawn, frechet_distance
from mvae.evaluation.judges import judge_trials, needed
from mvae.evaluation.measurable import check_measurable
from mvae.measure import ACCURACY, COHERENCE, REAL
from mvae.models import arm
from mvae.models.gaussian import Gaussian
from mvae.models.multimodal import Multimodal
from mvae.models.posteriors import Mixture
from mvae.refusal import Refusal
from mvae.trial import Trial
from pipelines import coherence
from sweeps.cli.options import read
from sweeps.trials.messages import Job, waves

CLASSES, N = 4, 400
MODALITIES = tuple(Modality(f"m{m}", Kind.IMAGE, (1, 2, 2), likelihood="gaussian") for m in range(3))


def one_hot(labels: Tensor) -> Tensor:
    """Images of 4 pixels, of which the pixel of the class is white: uint8 [n, 1, 2, 2]."""
    return (nn.functional.one_hot(labels, CLASSES) * 255).to(torch.uint8).view(-1, 1, 2, 2)


class Copying(Multimodal):
    """Infers the class of the first given modality without noise, and generates an image of z + `shift`."""

    def __init__(self, shift: int) -> None:
        super().__init__(MODALITIES, [nn.Identity()] * 3, [nn.Identity()] * 3, CLASSES)
        self.shift = shift

    def infer_at(self, values: dict[int, Tensor]) -> Gaussian:
        value = values[min(values)].flatten(1) * 30
        return Gaussian(value, torch.full_like(value, -20.0))

    def decode(self, m: int, z: Tensor) -> Tensor:
        return z.roll(self.shift * m, dims=1).view(-1, 1, 2, 2)


class Exact(nn.Module):
    """A classifier that returns the pixels as logits."""

    def features(self, image: Tensor) -> Tensor:
        return image.flatten(1)

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1)


def labelled() -> Dataset:
    labels = torch.arange(N) % CLASSES
    split = Split((one_hot(labels),) * 3, hidden=(labels.to(torch.uint8),))
    return Dataset("made up", MODALITIES, "0" * 64, split, split, split)


def metrics(shift: int) -> dict[str, float]:
    judges: Any = [Exact().eval()] * 3
    return coherence_metrics(Copying(shift), labelled(), judges, seed=0)


def test_a_model_that_copies_the_class_is_fully_coherent() -> None:
    found = metrics(0)
    for name in ("coherence-1", "coherence-2", "reconstruction", "real", "probe-1", "probe-2", "probe-3"):
        assert found[f"test/{name}"] == 1, name
    assert found["test/joint_coherence"] == 1, "all images are of one z"
    assert found["test/shuffled"] == pytest.approx(1 / CLASSES, abs=0.06)
    assert len([name for name in found if "frechet" in name]) == 3


def test_a_model_whose_modalities_disagree_is_coherent_for_one_modality_only() -> None:
    found = metrics(1)
    outside = {
        (s, m) for size in (1, 2) for s in itertools.combinations(range(3), size) for m in range(3) if m not in s
    }
    for size in (1, 2):
        share = np.mean([m == 0 for s, m in outside if len(s) == size])
        assert found[f"test/coherence-{size}"] == pytest.approx(share)
    assert found["test/reconstruction"] == pytest.approx(1 / 3)
    assert found["test/joint_coherence"] == 0


def test_the_measure_gives_the_same_numbers_again() -> None:
    assert metrics(1) == metrics(1)


def test_samples_of_a_mixture_come_from_all_its_components() -> None:
    mean = torch.tensor([[[-5.0], [5.0]]]).expand(2000, 2, 1)
    z = drawn(Mixture(Gaussian(mean, torch.full_like(mean, -10.0))), torch.Generator().manual_seed(0))
    assert (z > 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_the_frechet_distance_of_normal_features_is_the_closed_form() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(200_000, 2)), draw.normal(size=(200_000, 2)) * [1.0, 2.0] + [3.0, 0.0]
    assert frechet_distance(one, other) == pytest.approx(9 + (2 - 1) ** 2, rel=0.02)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_coherence_needs_one_classifier_per_modality() -> None:
    trials = judge_trials("polymnist_digits")
    assert [trial.own_value("modality") for trial in trials] == ["m0", "m1", "m2", "m3", "m4"]
    assert needed([ACCURACY], "digits") == () and needed([COHERENCE], "polymnist_digits") == trials


def test_coherence_and_its_classifiers_are_refused_without_a_hidden_label() -> None:
    message = "digits has no hidden label to judge generated images by: choose among polymnist"
    with pytest.raises(Refusal, match=message):
        check_measurable(COHERENCE, "mvae", dataclasses.replace(labelled(), name="digits"))
    trial = Trial.create(dataset="digits", model="judge", own={"modality": "image"})
    with pytest.raises(Refusal, match="arm judge needs a data set with a hidden label"):
        arm("judge").build(trial, MODALITIES)


def job(trial: Trial, measure: Any) -> Job:
    store: Any = None
    return Job(trial.key("f" * 64), trial, (measure,), store=store, data_root=None, cache=None)


def test_classifiers_run_before_the_models_that_they_judge() -> None:
    models = [Trial.create(dataset="polymnist_digits", model=name) for name in ("mopoe", "mvae")]
    jobs = [*(job(trial, COHERENCE) for trial in models), *(job(t, REAL) for t in judge_trials("polymnist_digits"))]
    first, second = waves(jobs)
    assert {one.trial.model for one in first} == {"judge"} and [one.trial for one in second] == models
    assert waves(jobs[:2]) == [jobs[:2]]


def test_the_pipeline_asks_for_classifiers_and_names_published_values_on_polymnist_only(tmp_path: Path) -> None:
    demo = tuple(coherence.cells(read(coherence.Options, ["--arms", "mopoe,jmvae", "--storage", str(tmp_path)])))
    assert {cell.arm for cell in demo} == {"judge", "mopoe", "jmvae"}
    assert all(cell.published is None for cell in demo)
    paper = ["--dataset", "polymnist", "--preset", "paper", "--arms", "mopoe", "--seeds", "0"]
    for study, value in (("mvtcae", 0.635), ("multivae", 0.615)):
        cells = coherence.cells(read(coherence.Options, [*paper, "--study", study]))
        (one,) = [cell for cell in cells if cell.column == "1 input"]
        assert one.published == value and one.trial.own_value("beta") == 2.5


def test_set_changes_the_arms_that_declare_the_hyperparameter() -> None:
    cells = coherence.cells(read(coherence.Options, ["--arms", "mopoe,mvae", "--set", "beta=1.5"]))
    trials = {cell.trial.model: cell.trial for cell in cells}
    assert trials["mopoe"].own_value("beta") == 1.5 and trials["mvae"].own == ()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("beta", "--set beta: beta is not NAME=VALUE"),
        ("gamma=1", "--set gamma: none of the arms (mopoe) has this hyper-parameter: choose among beta"),
        ("beta=-1", "beta = -1: give at least 0"),
        ("beta=much", "beta = 'much': give a number"),
    ],
)
def test_a_bad_assignment_is_refused(typed: str, message: str) -> None:
    with pytest.raises(Refusal) as refusal:
        list(coherence.cells(read(coherence.Options, ["--arms", "mopoe", "--set", typed])))
    assert str(refusal.value).startswith(message)


def test_an_unknown_assignment_is_answered_with_the_hyperparameters_of_the_typed_arms() -> None:
    with pytest.raises(Refusal) as refusal:
        list(coherence.cells(read(coherence.Options, ["--arms", "mvae,mvtcae", "--set", "gamma=1"])))
    assert str(refusal.value).endswith("hyper-parameter: choose among beta (mvtcae), a (mvtcae)")
