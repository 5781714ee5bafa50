"""VAE: its loss is one term of the objective, and its posterior has no universal expert."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mvae.data import Dataset, load, source
from mvae.evaluation.samples import sample_grids
from mvae.models import arm
from mvae.models.elbo import negative_elbo
from mvae.models.gaussian import Gaussian, product
from mvae.models.layout import layout
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import MVAE
from mvae.models.vae import VAE, vae_loss, watch_elbo
from mvae.trial import Trial
from tests.small_models import IMAGE, LATENTS, small_model

ROWS = 6


class WithoutPriorExpert(Multimodal):
    """A product of experts without the prior."""

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        return product(mean, spread, members, prior=False)


def same_networks(rule: type[Multimodal]) -> tuple[VAE, Multimodal]:
    """A VAE, and a model of two modalities with the same image networks."""
    both = small_model(2, rule, normalised=False)
    return VAE((IMAGE,), [both.encoders[0]], [both.decoders[0]], LATENTS), both


def single_image_term(model: Multimodal, image: Tensor, noise: Tensor) -> Tensor:
    """Only the image-only term of the objective."""
    alone = layout(np.tile([True, False], (ROWS, 1)), np.array([[True, False]]), np.ones((1, ROWS), bool))
    labels = torch.zeros(0, dtype=torch.int64)
    return negative_elbo(model, alone, [image, labels], noise[None], beta=0.3, weights=(1.5, 7.0), batch_size=8).total


def test_the_loss_is_the_objectives_single_image_term_without_prior_expert() -> None:
    vae, both = same_networks(WithoutPriorExpert)
    image, noise = torch.rand(ROWS, *IMAGE.shape).double(), torch.randn(ROWS, LATENTS).double()
    results = []
    for total in (
        vae_loss(vae, image, noise, beta=0.3, weight=1.5, batch_size=8).total,
        single_image_term(both, image, noise),
    ):
        both.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        shared = [p.grad.clone() for p in vae.parameters() if p.grad is not None]
        assert len(shared) == len(list(vae.parameters()))
        results.append([total.detach(), *shared])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_with_a_prior_expert_the_loss_would_differ() -> None:
    vae, both = same_networks(MVAE)
    image, noise = torch.rand(ROWS, *IMAGE.shape).double(), torch.randn(ROWS, LATENTS).double()
    ours = vae_loss(vae, image, noise, beta=0.3, weight=1.5, batch_size=8).total
    assert abs((ours - single_image_term(both, image, noise)).item()) > 1e-3


@pytest.mark.parametrize(
    ("dataset", "network", "golden"), [("mnist", "mlp", 730_240), ("fashion_mnist", "dcgan", 3_409_536)]
)
def test_the_vae_encoder_has_as_many_parameters_as_the_mvaes(dataset: str, network: str, golden: int) -> None:
    trial = Trial.create(dataset=dataset, model="vae", image_network=network)
    model = arm("vae").build(trial, source(dataset).modalities)
    assert isinstance(model, VAE)
    assert sum(p.numel() for p in model.encoders.parameters()) == golden


def test_the_vae_infers_only_from_the_image() -> None:
    vae, _ = same_networks(MVAE)
    image = torch.rand(ROWS, *IMAGE.shape).double()
    mean, log_var = vae.encoders[0](image).chunk(2, -1)
    q = vae.infer_at({0: image})
    assert torch.equal(q.mean, mean) and torch.equal(q.log_var, log_var) and torch.equal(vae(image), mean)
    for other in ({}, {1: image}, {0: image, 1: image}):
        with pytest.raises(ValueError, match="VAE infers z from modality 0 alone: got"):
            vae.infer_at(other)


@pytest.fixture(scope="module")
def digits(cache: Path) -> Dataset:
    return load("digits", cache=cache)


def test_the_validation_bound_uses_the_validation_images_and_is_deterministic(digits: Dataset) -> None:
    trial = Trial.create(dataset="digits", model="vae", image_weight=3.0)
    model = arm("vae").build(trial, digits.modalities)
    first = watch_elbo(model, trial, digits)
    assert watch_elbo(model, trial, digits) == first
    assert isinstance(model, VAE)
    image = digits.validation.take(0, torch.arange(250))
    q = model.infer_at({0: image})
    noise = torch.randn(20, *q.mean.shape)
    with torch.no_grad():
        draws = [model.log_prob(0, q.rsample(each), image) - q.kl_to_prior() for each in noise]
    assert first["validation/elbo"] == pytest.approx(float(torch.stack(draws).mean()), abs=0.2)


def test_the_vaes_pictures_are_reconstructions_and_samples_from_the_prior(digits: Dataset) -> None:
    model = arm("vae").build(Trial.create(dataset="digits", model="vae"), digits.modalities)
    assert isinstance(model, VAE)
    assert sample_grids(model, digits.test, seed=0).keys() == {"reconstructions", "prior"}
