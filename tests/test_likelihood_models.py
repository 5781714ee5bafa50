"""Likelihood estimates of untrained VAE and CVAE, recomputed by hand; and texts, whose probabilities sum to 1."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mvae.data import source
from mvae.data.dataset import Kind, Modality
from mvae.data.examples import Split
from mvae.evaluation.importance import Noise
from mvae.evaluation.likelihood_estimates import split_likelihoods
from mvae.evaluation.measures import estimates
from mvae.models import arm
from mvae.models.cvae import CVAE
from mvae.models.gaussian import Gaussian, standard_log_prob
from mvae.models.mvae import MVAE
from mvae.models.vae import VAE
from mvae.networks.text import TextDecoder, TextEncoder
from mvae.trial import Trial

F64 = torch.float64
CPU = torch.device("cpu")
SAMPLES, SEED = 12, 3


@pytest.fixture(scope="module")
def split() -> Split:
    """Four examples with the shapes of the digits."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4, 1, 8, 8), generator=draw, dtype=torch.uint8)
    return Split((images, torch.tensor([3, 0, 9, 3], dtype=torch.uint8)))


def built(token: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return (
            arm(token).build(Trial.create(dataset="digits", model=token), source("digits").modalities).double().eval()
        )


def samples_of(q: Gaussian, example: int) -> tuple[Tensor, Tensor]:
    """Samples that the estimator draws from one example's q, and their log q."""
    noise = Noise(SEED, "likelihood", [example], q.mean.shape[-1], CPU).next(SAMPLES)[0]
    z = q.mean + torch.exp(0.5 * q.log_var) * noise
    return z, q.log_prob(z)


@torch.no_grad()
def test_a_vaes_marginal_likelihood_is_the_mean_weight_of_its_samples(split: Split) -> None:
    model = built("vae")
    assert isinstance(model, VAE)
    found = split_likelihoods(model, split, samples=SAMPLES, seed=SEED, dtype=F64)
    for example in range(len(split)):
        image = split.take(0, torch.tensor([example])).double()
        z, log_r = samples_of(model.infer_at({0: image}), example)
        log_w = model.log_prob(0, z, image.expand(SAMPLES, -1, -1, -1)) + standard_log_prob(z) - log_r
        expected = torch.logsumexp(log_w, 0) - math.log(SAMPLES)
        assert_close(found["log_marginal-x1"][example], expected, atol=1e-8, rtol=0)


@torch.no_grad()
def test_a_cvaes_conditional_likelihood_is_the_mean_weight_of_its_samples(split: Split) -> None:
    model = built("cvae")
    assert isinstance(model, CVAE)
    found = split_likelihoods(model, split, samples=SAMPLES, seed=SEED, dtype=F64)
    for example in range(len(split)):
        image, label = (split.take(m, torch.tensor([example])) for m in (0, 1))
        z, log_r = samples_of(model.infer_at({0: image.double(), 1: label}), example)
        images, labels = image.double().expand(SAMPLES, -1, -1, -1), label.expand(SAMPLES)
        log_w = model.image_log_prob(z, labels, images) + standard_log_prob(z) - log_r
        expected = torch.logsumexp(log_w, 0) - math.log(SAMPLES)
        assert_close(found["log_conditional"][example], expected, atol=1e-8, rtol=0)


def test_under_either_proposal_the_probabilities_of_all_texts_add_up_to_one() -> None:
    texts = [[*word, *[3] * (3 - len(word))] for size in range(3) for word in product(range(3), repeat=size)]
    modalities = (Modality("image", Kind.IMAGE, (1, 2, 2)), Modality("text", Kind.TEXT, (3,), classes=5))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MVAE(
            modalities,
            [nn.Sequential(nn.Flatten(), nn.Linear(4, 4)), TextEncoder(5, 4, hidden=6)],
            [nn.Sequential(nn.Linear(2, 4), nn.Unflatten(1, (1, 2, 2))), TextDecoder(5, 3, 2, hidden=6)],
            latents=2,
        ).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.7)
    images = torch.zeros(len(texts), 1, 2, 2, dtype=torch.uint8)
    of_all = Split((images, torch.tensor(texts, dtype=torch.uint8)))
    found = split_likelihoods(model, of_all, samples=4000, seed=0, proposals=["x1x2"], dtype=F64)
    assert len(texts) == 13
    for name in ("log_x2", "log_x2_prior"):
        assert float(found[name].exp().sum()) == pytest.approx(1, abs=0.02), name
    assert (found["log_x2"] - found["log_x2_prior"]).abs().max() < 0.1
    assert found["log_x2"].max() - found["log_x2"].min() > 0.5, "all texts have the same probability"


@pytest.mark.parametrize("token", ["jmvae", "mvae", "mvae_q", "vae", "cvae"])
def test_the_columns_declared_for_an_arm_are_those_its_model_gives(token: str, split: Split) -> None:
    found = split_likelihoods(built(token), split, samples=2, seed=0, prior_samples=10)
    promised = {name.removeprefix("test/") for name in estimates(Trial.create(dataset="digits", model=token))}
    assert promised - {"log_x2"} == set(found) - {"log_x2", "se_x2"}
    assert ("log_x2" in promised) == ("log_x2" in found)
