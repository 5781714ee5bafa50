"""Tests of label accuracy given an image, and that every arm really learns."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mvae.data import Dataset, Split, load
from mvae.evaluation.accuracy import label_accuracy
from mvae.evaluation.measures import compute
from mvae.measure import ACCURACY
from mvae.models import arm
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import Trained, train
from mvae.trial import Trial


@pytest.fixture(scope="module")
def digits(cache: Path) -> Dataset:
    return load("digits", cache=cache)


class Oracle(nn.Module):
    """Predicts the true label for a chosen share of a split's images."""

    def __init__(self, data: Dataset, right: int) -> None:
        super().__init__()
        images, labels = data.test.take(0, torch.arange(250)), data.test.take(1, torch.arange(250))
        told = torch.where(torch.arange(250) < right, labels, (labels + 1) % 10)
        self.known = {image.numpy().tobytes(): int(label) for image, label in zip(images, told, strict=True)}
        self.modes: set[bool] = set()

    def forward(self, image: Tensor) -> Tensor:
        self.modes.add(self.training)
        assert image.dtype == torch.float32
        assert not torch.is_grad_enabled()
        told = torch.tensor([self.known[each.numpy().tobytes()] for each in image])
        return nn.functional.one_hot(told, 10).float()


@pytest.mark.parametrize("right", [0, 1, 100, 250])
@pytest.mark.parametrize("rows", [1, 7, 125, 250, 1000])
def test_accuracy_is_the_share_of_right_labels_for_any_batch_size(
    rows: int, right: int, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Split, "passes", partialmethod(Split.passes, rows))
    assert label_accuracy(Oracle(digits, right), digits.modalities, digits.test) == right / 250


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_measured_in_evaluation_mode_which_is_then_restored(training: bool, digits: Dataset) -> None:
    oracle = Oracle(digits, 10).train(training)
    label_accuracy(oracle, digits.modalities, digits.test)
    assert oracle.modes == {False}
    assert oracle.training is training


def test_the_accuracy_measure_is_taken_on_the_test_split(digits: Dataset) -> None:
    trial = Trial.create(dataset="digits", model="nn")
    model = arm("nn").build(trial, digits.modalities)
    image, label = digits.test.take(0, torch.arange(250)), digits.test.take(1, torch.arange(250))
    expected = float((model(image).argmax(-1) == label).double().mean())
    assert compute(ACCURACY, model, trial, digits) == {"test/accuracy": pytest.approx(expected)}


def trained(digits: Dataset, folder: Path, model: str, **fields: Any) -> Trained:
    return train(Trial.create(dataset="digits", model=model, **fields), digits, Checkpoints(folder / "key", "one"))


def accuracy(digits: Dataset, folder: Path, model: str, **fields: Any) -> float:
    return label_accuracy(trained(digits, folder, model, **fields).model, digits.modalities, digits.test)


@pytest.mark.parametrize(
    ("model", "fields", "at_least"),
    [
        ("nn", {"epochs": 15, "learning_rate": 3e-3}, 0.9),
        ("logreg", {}, 0.9),
        ("mvae", {"epochs": 25, "learning_rate": 3e-3}, 0.6),
        ("mvae", {"epochs": 15, "learning_rate": 3e-3, "targets": "all", "label_weight": 10}, 0.88),
        ("jmvae", {"epochs": 25, "learning_rate": 3e-3}, 0.6),
        ("mvae_q", {"epochs": 15, "learning_rate": 3e-3}, 0.6),
    ],
    ids=["nn", "logreg", "mvae", "mvae, all targets", "jmvae", "mvae_q"],
)
def test_every_arm_learns_the_digits_from_all_pairs(
    model: str, fields: dict[str, Any], at_least: float, digits: Dataset, tmp_path: Path
) -> None:
    assert accuracy(digits, tmp_path, model, **fields) >= at_least


def test_five_percent_of_the_pairs_give_a_lower_accuracy_than_all(digits: Dataset, tmp_path: Path) -> None:
    few, every = (accuracy(digits, tmp_path / str(f), "logreg", paired_fraction=f) for f in (0.05, 1.0))
    assert 0.5 < few < every


def test_training_raises_the_elbo_and_improves_reconstructions(digits: Dataset, tmp_path: Path) -> None:
    history = trained(
        digits, tmp_path, "mvae", epochs=15, learning_rate=3e-3, annealing_epochs=0, label_weight=10
    ).history
    first, last = history[0]["metrics"], history[-1]["metrics"]
    assert last["train/loss"] < 0.8 * first["train/loss"]
    assert last["train/log_likelihood_image"] > first["train/log_likelihood_image"] + 20
    assert last["train/kl"] > 1, "the latents carry nothing: the posterior collapsed onto the prior"
