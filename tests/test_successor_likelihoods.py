"""Likelihoods estimated from mixture and Laplace posteriors agree with closed forms and with quadrature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality
from mvae.data.examples import Split
from mvae.evaluation.importance import StratifiedWeights
from mvae.evaluation.likelihood_estimates import split_likelihoods
from mvae.models.jmvae import JMVAE
from mvae.models.mmvae import MMVAE
from mvae.models.mmvae_plus import MMVAEPlus, mmvae_plus_loss
from mvae.models.mopoe import MoPoE
from mvae.models.multimodal import Multimodal
from mvae.models.mvtcae import MVTCAE
from mvae.models.posteriors import Laplace, Mixture, Posterior, stacked
from mvae.models.rows import Presence
from tests.linear_gaussian import FloatSplit, LinearGaussian

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
    assert_within_three_standard_errors(model)


def assert_within_three_standard_errors(model: LinearGaussian, rounding: float = 0.0) -> None:
    """Compares estimates with the closed forms.

    Args:
        rounding: difference that is allowed beyond three standard errors, for estimates without variance.
    """
    split = model.examples(EXAMPLES)
    found = split_likelihoods(model.double().eval(), split, samples=SAMPLES, seed=0, dtype=torch.float64)
    truth = model.truth(split)
    for name in ("marginal", "joint", "x2"):
        error = (found[f"log_{name}"] - truth[name]).mean()
        standard = found[f"se_{name}"].square().sum().sqrt() / EXAMPLES
        assert standard < 0.02
        assert error.abs() < 3 * standard + rounding, name


class Experts(LinearGaussian):
    """The linear-Gaussian model whose encoders give mean and spread of each exact unimodal posterior."""

    family = "laplace"
    full_subset_prior = False

    def encode(self, m: int, value: Tensor) -> tuple[Tensor, Tensor]:
        q = LinearGaussian.infer_at(self, {m: value})
        return q.mean, q.log_var

    def joint(self, values: list[Tensor]) -> Tensor:
        return torch.cat(list(LinearGaussian.infer_at(self, dict(enumerate(values)))), dim=-1)


RULES: dict[str, tuple[type[Multimodal], tuple[str, ...]]] = {
    "mopoe": (MoPoE, ("infer_at", "products")),
    "mvtcae": (MVTCAE, ("posterior",)),
    "mmvae": (MMVAE, ("infer_at", "unimodal")),
    "jmvae": (JMVAE, ("infer_at",)),
}
"""For each arm: its class, and the methods that make posteriors of the encoders' outputs."""


def as_arm(token: str) -> LinearGaussian:
    """The linear-Gaussian model with the posteriors of an arm."""
    rule, names = RULES[token]
    own: dict[str, Any] = {"infer_at": Multimodal.infer_at, **{name: getattr(rule, name) for name in names}}
    made: LinearGaussian = type(token, (Experts,), own)()
    return made


@pytest.mark.parametrize("token", RULES)
def test_estimates_of_each_arm_agree_with_the_closed_forms(token: str) -> None:
    assert_within_three_standard_errors(as_arm(token), rounding=1e-9)


class LinearDecoder(nn.Module):
    """The mean of a vector, linear in its latents."""

    def __init__(self, latents: int, numbers: int) -> None:
        super().__init__()
        self.linear = nn.Linear(latents, numbers)

    def forward(self, z: Tensor) -> Tensor:
        found: Tensor = self.linear(z)
        return found


def linear_model(rule: str) -> Any:
    """An MMVAE or MMVAE+ with normal posteriors of two vectors, whose decoders are linear, with a learnt prior."""
    widths, latents = (3, 4), 2
    modalities = tuple(
        Modality(f"x{m}", Kind.VECTOR, (width,), likelihood="gaussian", scale=0.8) for m, width in enumerate(widths)
    )
    torch.manual_seed(5)
    encoders: list[Any] = [nn.Linear(width, 2 * latents) for width in widths]
    decoders: list[Any] = [LinearDecoder(latents, width) for width in widths]
    for encoder in encoders:  # scales of 1: proposals that are narrower than the posterior have no finite variance
        with torch.no_grad():
            encoder.weight[latents:], encoder.bias[latents:] = 0.0, 0.0
    if rule == "mmvae_plus":
        return MMVAEPlus(modalities, encoders, decoders, 1, 1, family="normal").double().eval()
    model = MMVAE(modalities, encoders, decoders, latents, family="normal").double().eval()
    with torch.no_grad():
        model.prior_raw[0] = 1.5
    return model


@pytest.mark.parametrize("rule", ["mmvae", "mmvae_plus"])
def test_estimates_of_linear_models_with_private_latents_or_a_learnt_prior_agree_with_the_closed_forms(
    rule: str,
) -> None:
    model = linear_model(rule)
    split = linear_examples(model)
    found = split_likelihoods(model, split, samples=6000, seed=0, dtype=torch.float64)
    for name, rows in (("marginal", FIRST), ("joint", BOTH), ("x2", SECOND), ("x2_prior", SECOND)):
        error = (found[f"log_{name}"] - exact_log_prob(model, split, rows)).mean()
        standard = found[f"se_{name}"].square().sum().sqrt() / EXAMPLES
        assert standard < 0.02
        assert error.abs() < 3 * standard, name


FIRST, SECOND, BOTH = slice(0, 3), slice(3, 7), slice(0, 7)
"""Numbers of `linear_model`'s first vector, of its second one, and of both."""


def linear_examples(model: Any) -> FloatSplit:
    draw = torch.Generator().manual_seed(1)
    return FloatSplit(tuple(torch.randn(EXAMPLES, *m.shape, generator=draw).double() for m in model.modalities))


@torch.no_grad()
def exact_log_prob(model: Any, split: Split, rows: slice) -> Tensor:
    """log p of some numbers of a `linear_model`, [n], from the density of the stacked vectors."""
    scale = model.prior().log_var.exp()
    weight = torch.zeros(7, len(scale)).double()
    for m, own_rows in enumerate((FIRST, SECOND)):
        own = [0, 1 + m] if isinstance(model, MMVAEPlus) else [0, 1]
        weight[own_rows, own] = model.decoders[m].linear.weight
    bias = torch.cat([decoder.linear.bias for decoder in model.decoders])
    covariance = weight @ torch.diag(scale) @ weight.T + 0.64 * torch.eye(7).double()
    density: Any = torch.distributions.MultivariateNormal(bias[rows], covariance[rows, rows])
    found: Tensor = density.log_prob(torch.cat(list(split.values), dim=1)[:, rows])
    return found


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 5])
def test_the_bound_of_mmvae_plus_stays_below_the_exact_log_likelihood(samples: int) -> None:
    model = linear_model("mmvae_plus")  # untrained: the replacement of p(u) is p(u)
    split = linear_examples(model)
    values = [value.repeat(100, 1) for value in split.values]
    rows = len(values[0])
    presence = Presence.of(np.ones((rows, 2), bool))
    losses = []
    for repeat in range(8):
        draw = torch.Generator().manual_seed(repeat)
        noise = torch.randn(rows, samples, 2, 4, generator=draw, dtype=torch.float64)
        loss = mmvae_plus_loss(model, presence, values, noise, beta=1.0, weights=[1.0, 1.0], batch_size=rows)
        losses.append(-loss.total.item())
    exact = exact_log_prob(model, split, BOTH).mean().item()
    standard_error = float(np.std(losses, ddof=1)) / len(losses) ** 0.5
    assert exact - 10 < np.mean(losses) <= exact + 4 * standard_error


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
    """A linear decoder of few latents to logits."""

    def __init__(self, outputs: tuple[int, ...], latents: int = 1) -> None:
        super().__init__()
        self.linear, self.outputs = nn.Linear(latents, math.prod(outputs)), outputs

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


@pytest.mark.parametrize("family", ["laplace", "normal"])
def test_estimates_of_an_mmvae_plus_agree_with_quadrature_over_shared_and_private_latents(family: str) -> None:
    torch.manual_seed(3)
    modalities = (Modality("image", Kind.IMAGE, (1, 2, 2)), Modality("label", Kind.LABEL, (), classes=3))
    encoders: list[Any] = [nn.Sequential(nn.Flatten(), nn.Linear(4, 4)), nn.Embedding(3, 4)]
    decoders: list[Any] = [Flat((1, 2, 2), 2), Flat((3,), 2)]
    model = MMVAEPlus(modalities, encoders, decoders, 1, 1, family=family).double().eval()
    split = Split((torch.randint(0, 2, (6, 1, 2, 2)).to(torch.uint8) * 255, torch.arange(6).remainder(3).byte()))
    found = split_likelihoods(model, split, samples=SAMPLES, seed=0, dtype=torch.float64, prior_samples=200_000)
    line = torch.linspace(-25, 25, 1001, dtype=torch.float64)
    latents = torch.cartesian_prod(line, line)
    standard: Any = getattr(torch.distributions, family.capitalize())(0.0, 1.0)
    prior = standard.log_prob(line).exp()
    with torch.no_grad():
        for row in range(6):
            given_z = []  # p(x_m | z) for every z on the line, of each modality
            for m, shape in _shapes():
                x = split.take(m, torch.tensor([row])).expand(len(latents), *shape)
                density = model.log_prob(m, latents, x.double() if m == 0 else x).exp().view(1001, 1001)
                given_z.append(torch.trapezoid(density * prior, line, dim=1))
            x1, x2 = given_z
            for name, f in (("marginal", x1), ("joint", x1 * x2), ("x2", x2)):
                error = found[f"log_{name}"][row] - torch.trapezoid(f * prior, line).log()
                assert error.abs() < 4 * found[f"se_{name}"][row] + 1e-3, name


def _shapes() -> tuple[tuple[int, tuple[int, ...]], ...]:
    return (0, (1, 2, 2)), (1, ())
