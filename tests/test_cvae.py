"""CVAE: inputs of its encoder and decoder, and that its bound is a lower bound."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mvae.data import Dataset, load, source
from mvae.data.dataset import Modality
from mvae.models import arm
from mvae.models.cvae import CVAE, condition_of, condition_size, cvae_loss
from mvae.models.gaussian import standard_log_prob
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train
from mvae.trial import Trial


@pytest.fixture(scope="module")
def digits(cache: Path) -> Dataset:
    return load("digits", cache=cache)


@pytest.fixture(scope="module")
def trained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> CVAE:
    trial = Trial.create(dataset="digits", model="cvae", epochs=10, learning_rate=3e-3)
    model = train(trial, digits, Checkpoints(tmp_path_factory.mktemp("cvae"), "one")).model
    assert isinstance(model, CVAE)
    return model


def built(dataset: str, **fields: str) -> CVAE:
    model = arm("cvae").build(Trial.create(dataset=dataset, model="cvae", **fields), source(dataset).modalities)
    assert isinstance(model, CVAE)
    return model


def pairs(data: Dataset, count: int) -> tuple[Tensor, Tensor]:
    rows = torch.arange(count)
    return data.test.take(0, rows), data.test.take(1, rows)


@torch.no_grad()
def test_the_bound_is_below_the_importance_estimate_on_the_same_samples(trained: CVAE, digits: Dataset) -> None:
    image, label = pairs(digits, 50)
    q = trained.infer_at({0: image, 1: label})
    samples = 500
    log_weights, bounds = [], []
    for noise in torch.randn(samples, *q.mean.shape, generator=torch.Generator().manual_seed(0)):
        z = q.rsample(noise)
        log_weights.append(trained.image_log_prob(z, label, image) + standard_log_prob(z) - q.log_prob(z))
        bounds.append(-float(cvae_loss(trained, image, label, noise, beta=1.0, weight=1.0, batch_size=50).total))
    log_weights_SB = torch.stack(log_weights).double()
    estimate = torch.logsumexp(log_weights_SB, 0) - math.log(samples)
    bound = sum(bounds) / samples
    assert bound == pytest.approx(float(log_weights_SB.mean()), abs=0.1), (
        "the closed-form KL must equal the sampled one"
    )
    assert bound < float(estimate.mean()) - 0.03, "the posterior must be inexact to show a gap"


def test_training_raises_the_bound(trained: CVAE, digits: Dataset) -> None:
    image, label = pairs(digits, 250)
    noise = torch.zeros(250, trained.latents)
    before, after = (
        float(cvae_loss(model, image, label, noise, beta=1.0, weight=1.0, batch_size=250).total.detach())
        for model in (built("digits"), trained)
    )
    assert after < before - 10


def test_encoder_and_decoder_both_see_the_label(trained: CVAE, digits: Dataset) -> None:
    image, label = pairs(digits, 20)
    other = (label + 1) % 10
    assert not torch.allclose(trained.infer_at({0: image, 1: label}).mean, trained.infer_at({0: image, 1: other}).mean)
    z = torch.zeros(20, trained.latents)
    assert (trained.image_log_prob(z, label, image) > trained.image_log_prob(z, other, image)).float().mean() > 0.8


@pytest.mark.parametrize(("dataset", "golden"), [("mnist", 735_360), ("binary_mnist", 735_360)])
def test_the_mlp_encoder_has_the_number_of_parameters_of_the_published_shape(dataset: str, golden: int) -> None:
    assert sum(p.numel() for p in built(dataset).encoder.parameters()) == golden


def test_the_convolutional_encoder_sees_the_label_after_its_convolutions() -> None:
    model = built("fashion_mnist", image_network="dcgan")
    assert sum(p.numel() for p in model.encoder.parameters()) == 3_409_536 + 10 * 512
    image, label = torch.rand(3, 1, 28, 28), torch.tensor([1, 2, 3])
    assert model(image, label).shape == (3, 1, 28, 28)
    assert model.image_log_prob(torch.zeros(3, 64), label, image).shape == (3,)


def test_a_condition_is_one_hot_and_a_text_condition_is_one_hot_per_position() -> None:
    label, text = source("digits").modalities[1], Modality("text", source("digits").modalities[1].kind, (2,), classes=3)
    assert condition_of(label, torch.tensor([3])).nonzero().tolist() == [[0, 3]]
    assert condition_of(text, torch.tensor([[2, 0]])).tolist() == [[0, 0, 1, 1, 0, 0]]
    assert (condition_size(label), condition_size(text)) == (10, 6)


@pytest.mark.parametrize("given", [[], [0], [1], [0, 1, 2]])
def test_cvae_infers_only_from_both_modalities(given: list[int]) -> None:
    with pytest.raises(ValueError, match="CVAE needs both modalities, 0 and 1, for inference: got"):
        built("digits").infer_at({m: torch.zeros(1) for m in given})
