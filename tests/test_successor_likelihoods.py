"""Likelihoods estimated from mixture and Laplace posteriors agree with closed forms and with quadrature."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality
from mvae.data.examples import Split
from mvae.evaluation.importance import StratifiedWeights
from mvae.evaluation.likelihood_estimates import split_likelihoods
from mvae.models.mmvae import MMVAE
from mvae.models.posteriors import Laplace, Mixture, Posterior, stacked
from tests.linear_gaussian import LinearGaussian

SAMPLES = 4000
EXAMPLES = 40


class MixturePosterior(LinearGaussian):
    """The linear-Gaussian model with the mixture of the exact unimodal posteriors as its joint posterior."""

    def infer_at(self, values: dict[int, Tensor]) -> Posterior:  # type: ignore[override]
        parts = [super(MixturePosterior, self).infer_at({m: value}) for m, value in sorted(values.items())]
        return parts[0] if len(parts) == 1 else Mixture(stacked(parts))


class LaplacePosterior(LinearGaussian):
    """The linear-Gaussian model with Laplace posteriors of about the right width."""

    def infer_at(self, values: dict[int, Tensor]) -> Posterior:  # type: ignore[override]
        parts = [super(LaplacePosterior, self).infer_at({m: value}) for m, value in sorted(values.items())]
        laplace = [Laplace(q.mean, 0.5 * q.log_var) for q in parts]
        return laplace[0] if len(laplace) == 1 else Mixture(stacked(laplace))


@pytest.mark.parametrize("model", [MixturePosterior(), LaplacePosterior()], ids=["gaussian", "laplace"])
def test_estimates_from_mixtures_agree_with_the_closed_forms(model: LinearGaussian) -> None:
    split = model.examples(EXAMPLES)
    found = split_likelihoods(model.double().eval(), split, samples=SAMPLES, seed=0, dtype=torch.float64)
    truth = model.truth(split)
    for name in ("marginal", "joint", "x2"):
        error = (found[f"log_{name}"] - truth[name]).mean()
        standard = found[f"se_{name}"].square().sum().sqrt() / EXAMPLES
        assert standard < 0.02
        assert error.abs() < 3 * standard, name


def test_the_standard_error_of_strata_is_that_of_the_mean_over_strata() -> None:
    draw = torch.Generator().manual_seed(0)
    weights = torch.rand(2000, 3, 50, generator=draw, dtype=torch.float64) + torch.tensor([0.0, 5.0, 50.0])[:, None]
    running = StratifiedWeights(weights[..., :20].flatten(1).log(), 3)
    running.add(weights[..., 20:].flatten(1).log())
    found = running.estimate()
    torch.testing.assert_close(found.log_mean, weights.flatten(1).mean(1).log())
    deviation = found.log_mean.std()
    assert found.standard_error.mean().item() == pytest.approx(deviation.item(), rel=0.1)


class Flat(nn.Module):
    """A linear decoder of one latent to the logits of 4 pixels."""

    def __init__(self, outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.linear, self.outputs = nn.Linear(1, math.prod(outputs)), outputs

    def forward(self, z: Tensor) -> Tensor:
        found: Tensor = self.linear(z).view(len(z), *self.outputs)
        return found


def one_latent(family: str) -> MMVAE:
    """An MMVAE with one latent, an image of 4 pixels and a label of 3 classes."""
    modalities = (Modality("image", Kind.IMAGE, (1, 2, 2)), Modality("label", Kind.LABEL, (), classes=3))
    torch.manual_seed(3)
    encoders: list[Any] = [nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), nn.Embedding(3, 2)]
    decoders: list[Any] = [Flat((1, 2, 2)), Flat((3,))]
    return MMVAE(modalities, encoders, decoders, 1, family=family).double().eval()


@pytest.mark.parametrize("family", ["laplace", "normal"])
def test_estimates_of_an_mmvae_agree_with_quadrature_over_its_own_prior(family: str) -> None:
    model = one_latent(family)
    images = torch.randint(0, 2, (12, 1, 2, 2), generator=torch.Generator().manual_seed(0)).to(torch.uint8) * 255
    split = Split((images, torch.arange(12).remainder(3).to(torch.uint8)))
    found = split_likelihoods(model, split, samples=SAMPLES, seed=0, dtype=torch.float64, prior_samples=200_000)
    grid = torch.linspace(-60, 60, 40_001, dtype=torch.float64)[:, None]
    rows = torch.arange(12)
    with torch.no_grad():
        log_prior = model.prior_log_prob(grid)
        for row in rows.tolist():
            image, label = (split.take(m, rows[row : row + 1]).expand(len(grid), *shape) for m, shape in _shapes())
            x1, x2 = model.log_prob(0, grid, image.double()), model.log_prob(1, grid, label)
            for name, log_f in (("marginal", x1), ("joint", x1 + x2), ("x2", x2)):
                exact = torch.trapezoid((log_f + log_prior).exp(), grid[:, 0]).log()
                error = found[f"log_{name}"][row] - exact
                assert error.abs() < 4 * found[f"se_{name}"][row] + 1e-6, name


def _shapes() -> tuple[tuple[int, tuple[int, ...]], ...]:
    return (0, (1, 2, 2)), (1, ())
