"""MoPoE, MVTCAE, MMVAE and MMVAE+ reduce to known objectives, and their bounds stay below the exact likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mvae.models.gaussian import Gaussian, product
from mvae.models.mmvae import MMVAE, mmvae_loss
from mvae.models.mopoe import MoPoE, negative_mopoe_elbo
from mvae.models.multimodal import Multimodal
from mvae.models.mvtcae import MVTCAE, mvtcae_loss
from mvae.models.posteriors import softmax_log_scale
from mvae.models.rows import Presence
from tests.linear_gaussian import LATENTS as LINEAR_LATENTS
from tests.linear_gaussian import LinearGaussian
from tests.small_models import LATENTS, small_model

ROWS = 6


def given(model: Multimodal) -> tuple[list[Tensor], Presence]:
    """Complete rows of a small model's modalities."""
    draw = torch.Generator().manual_seed(1)
    values = [torch.rand(ROWS, 2, 2, 3, generator=draw, dtype=torch.float64)]
    values += [torch.randint(m.classes, (ROWS,), generator=draw) for m in model.modalities[1:]]
    return values, Presence.of(np.ones((ROWS, len(model.modalities)), bool))


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def elbo(model: Multimodal, q: Gaussian, values: list[Tensor], drawn: Tensor) -> Tensor:
    """Mean ELBO of rows with the exact KL."""
    z = q.rsample(drawn)
    likelihood = sum((model.log_prob(m, z, value) for m, value in enumerate(values)), torch.zeros(()))
    return (likelihood - q.kl_to_prior()).mean()


def test_mopoe_of_one_modality_is_the_vae() -> None:
    model: Any = small_model(1, MoPoE, normalised=False)
    values, presence = given(model)
    choice = torch.rand(ROWS, dtype=torch.float64)
    found = negative_mopoe_elbo(
        model, presence, values, noise(ROWS, LATENTS), choice, beta=1.0, weights=[1.0], batch_size=ROWS
    )
    vae = elbo(model, Gaussian(*model.encode(0, values[0])), values, noise(ROWS, LATENTS))
    torch.testing.assert_close(found.total, -vae)


def test_mvtcae_with_a_0_is_the_joint_elbo_without_a_universal_expert() -> None:
    model: Any = small_model(3, MVTCAE, normalised=False)
    values, presence = given(model)
    found = mvtcae_loss(
        model, presence, values, noise(ROWS, LATENTS), a=0.0, beta=1.0, weights=[1.0] * 3, batch_size=ROWS
    )
    mean, log_var = (torch.stack(part, 1) for part in zip(*map(model.encode, range(3), values), strict=True))
    q = product(mean, log_var, torch.ones(1, 3, dtype=torch.bool), prior=False)
    joint = elbo(model, Gaussian(q.mean[:, 0], q.log_var[:, 0]), values, noise(ROWS, LATENTS))
    torch.testing.assert_close(found.total, -joint)


@pytest.mark.parametrize("m", range(3))
def test_mvtcae_of_one_present_modality_has_no_kl_to_experts(m: int) -> None:
    model: Any = small_model(3, MVTCAE, normalised=False)
    values, _ = given(model)
    presence = Presence.of(np.arange(3)[None].repeat(ROWS, 0) == m)
    own = [value if n == m else value[:0] for n, value in enumerate(values)]
    found = mvtcae_loss(model, presence, own, noise(ROWS, LATENTS), a=0.7, beta=1.0, weights=[1.0] * 3, batch_size=1)
    assert found.parts["kl_to_experts"].item() == pytest.approx(0, abs=1e-9)


def test_mmvae_of_one_modality_and_sample_is_the_vae_with_a_sampled_kl() -> None:
    model: Any = small_model(1, MMVAE, normalised=False)
    model.family = "normal"
    values, presence = given(model)
    drawn = noise(ROWS, 1, 1, LATENTS)
    found = mmvae_loss(model, presence, values, drawn, weights=[1.0], batch_size=ROWS)
    mean, raw = model.encode(0, values[0])
    q = Gaussian(mean, 2 * softmax_log_scale(raw))
    z = q.rsample(drawn[:, 0, 0])
    bound = model.log_prob(0, z, values[0]) + model.prior_log_prob(z) - q.log_prob(z)
    torch.testing.assert_close(found.total, -bound.mean())


class Linear(LinearGaussian):
    """The linear-Gaussian model as a successor: its encoder gives the exact unimodal posteriors."""

    def encode(self, m: int, value: Tensor) -> tuple[Tensor, Tensor]:
        q = LinearGaussian.infer_at(self, {m: value})
        return q.mean, q.log_var

    def products(self, mean: Tensor, log_var: Tensor) -> Gaussian:
        return MoPoE.products(self, mean, log_var)  # type: ignore[arg-type]

    full_subset_prior = False

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        return product(mean, spread, members, prior=False)

    def prior(self) -> Gaussian:
        return Gaussian(torch.zeros(LINEAR_LATENTS).double(), torch.zeros(LINEAR_LATENTS).double())

    def unimodal(self, mean: Tensor, spread: Tensor) -> Gaussian:
        return Gaussian(mean, spread)


@pytest.mark.parametrize("arm", ["mopoe", "mvtcae", "mmvae", "mmvae of 10 samples"])
def test_the_bound_of_a_successor_stays_below_the_exact_log_likelihood(arm: str) -> None:
    model: Any = Linear().double()
    split = model.examples(20)
    values = [value.repeat(100, 1) for value in split.values]
    rows = len(values[0])
    presence = Presence.of(np.ones((rows, 2), bool))
    common: dict[str, Any] = {"weights": [1.0, 1.0], "batch_size": 1}
    losses = []
    for repeat in range(8):
        draw = torch.Generator().manual_seed(repeat)

        def normal(*shape: int, draw: torch.Generator = draw) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64)

        latents = normal(rows, LINEAR_LATENTS)
        if arm == "mopoe":
            choice = torch.rand(rows, generator=draw, dtype=torch.float64)
            loss = negative_mopoe_elbo(model, presence, values, latents, choice, beta=1.0, **common)
        elif arm == "mvtcae":
            loss = mvtcae_loss(model, presence, values, latents, a=0.0, beta=1.0, **common)
        else:
            samples = 10 if "10" in arm else 1
            loss = mmvae_loss(model, presence, values, normal(rows, samples, 2, LINEAR_LATENTS), **common)
        losses.append(-loss.total.item() / rows)
    exact = model.closed_form(split, 0, 1).mean().item()
    standard_error = float(np.std(losses, ddof=1)) / len(losses) ** 0.5
    assert np.mean(losses) <= exact + 4 * standard_error
    assert np.mean(losses) > exact - 10, "a bound this loose would say nothing"
