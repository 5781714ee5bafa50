"""Losses of MoPoE, MVTCAE, MMVAE and MMVAE+ equal plain loops of their formulas, row by row, for every availability."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Laplace, Normal

from mvae.models.mmvae import MMVAE, mmvae_loss
from mvae.models.mmvae_plus import MMVAEPlus, mmvae_plus_loss
from mvae.models.mopoe import MoPoE, negative_mopoe_elbo
from mvae.models.multimodal import Multimodal
from mvae.models.mvtcae import MVTCAE, mvtcae_loss
from mvae.models.rows import Presence
from tests.small_models import LATENTS, small_model

PATTERNS = [np.array(bits, bool) for bits in itertools.product((False, True), repeat=3) if any(bits)]
WEIGHTS, BETA, BATCH = (1.0, 2.0, 0.5), 0.7, 4
SAMPLES = 3


def rows_of(pattern: np.ndarray | None) -> np.ndarray:
    """Five rows with this pattern of modalities. Without a pattern, one row per possible pattern."""
    return np.stack(PATTERNS) if pattern is None else np.tile(pattern, (5, 1))


def values_of(present: np.ndarray, *, absent: float = torch.nan) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """Values of all rows, with `absent` for missing images; and, for each modality, only the present values."""
    draw = torch.Generator().manual_seed(1)
    n = len(present)
    image = torch.rand(n, 2, 2, 3, generator=draw, dtype=torch.float64)
    whole = [image, torch.randint(4, (n,), generator=draw), torch.randint(3, (n,), generator=draw)]
    image[~present[:, 0]] = absent
    return whole, tuple(value[torch.from_numpy(present[:, m])] for m, value in enumerate(whole))


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def log_prob(model: Multimodal, m: int, z: Tensor, x: Tensor) -> Tensor:
    """log p(x_m | z) of one row, by torch's own distributions."""
    out = model.decoders[m](z[None])
    over: Any = torch.distributions.Categorical(logits=out)
    if m == 0:
        over = torch.distributions.Bernoulli(logits=out, validate_args=False)
    found: Tensor = over.log_prob(x[None]).sum()
    return found


def expert(model: Multimodal, m: int, x: Tensor) -> tuple[Tensor, Tensor]:
    mean, spread = model.encoders[m](x[None]).chunk(2, dim=-1)
    return mean[0], spread[0]


def kl(mean: Tensor, variance: Tensor, to_mean: Tensor | float = 0.0, to_variance: Tensor | float = 1.0) -> Tensor:
    p = Normal(torch.as_tensor(to_mean).expand_as(mean), torch.as_tensor(to_variance).sqrt().expand_as(mean))
    return torch.distributions.kl_divergence(Normal(mean, variance.sqrt()), p).sum()


def joined(experts: Sequence[tuple[Tensor, Tensor]], *, prior: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and variance of a product of experts given as mean and log-variance."""
    precisions = [torch.exp(-log_var) for _, log_var in experts]
    total = sum(precisions, torch.tensor(float(prior), dtype=torch.float64))
    return sum(p * mean for p, (mean, _) in zip(precisions, experts, strict=True)) / total, 1 / total


def gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a loss, 0 for parameters that it does not use."""
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


def assert_same(found: Tensor, plain: Tensor, model: torch.nn.Module) -> None:
    """Equal values, and equal gradients of every parameter."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert found.item() == pytest.approx(plain.item(), rel=1e-9)
    ours, theirs = (gradients(loss, parameters) for loss in (found, plain))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


EVERY = pytest.mark.parametrize("pattern", [None, *PATTERNS], ids=lambda p: "mixed" if p is None else str(p * 1))


@EVERY
@pytest.mark.parametrize("full_subset_prior", [False, True])
def test_mopoe_equals_a_plain_loop(pattern: np.ndarray | None, full_subset_prior: bool) -> None:
    model: Any = small_model(3, MoPoE, normalised=False)
    model.full_subset_prior = full_subset_prior
    present = rows_of(pattern)
    whole, given = values_of(present)
    noise = normal(len(present), LATENTS)
    choice = torch.rand(len(present), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    plain = torch.zeros((), dtype=torch.float64)
    for r, has in enumerate(present):
        a = np.flatnonzero(has).tolist()
        experts = {m: expert(model, m, whole[m][r]) for m in a}
        subsets = [
            s
            for s in (list(s) for size in (1, 2, 3) for s in itertools.combinations(range(3), size))
            if set(s) <= set(a)
        ]
        subsets.sort(key=lambda s: sum(2**m for m in s))
        q = [joined([experts[m] for m in s], prior=full_subset_prior and len(s) == 3) for s in subsets]
        plain = plain + BETA / len(q) * sum(kl(*one) for one in q)
        mean, variance = q[int(choice[r] * len(q))]
        z = mean + variance.sqrt() * noise[r]
        plain = plain - sum(WEIGHTS[m] * log_prob(model, m, z, whole[m][r]) for m in a)
    presence = Presence.of(present)
    found = negative_mopoe_elbo(model, presence, given, noise, choice, beta=BETA, weights=WEIGHTS, batch_size=BATCH)
    assert_same(found.total, plain / BATCH, model)


@EVERY
@pytest.mark.parametrize("a", [0.0, 5 / 6])
def test_mvtcae_equals_a_plain_loop(pattern: np.ndarray | None, a: float) -> None:
    model: Any = small_model(3, MVTCAE, normalised=False)
    present = rows_of(pattern)
    whole, given = values_of(present)
    noise = normal(len(present), LATENTS)
    plain = torch.zeros((), dtype=torch.float64)
    for r, has in enumerate(present):
        there = np.flatnonzero(has).tolist()
        experts = {m: expert(model, m, whole[m][r]) for m in there}
        mean, variance = joined(list(experts.values()))
        z = mean + variance.sqrt() * noise[r]
        plain = plain + BETA * (1 - a) * kl(mean, variance)
        for m in there:
            plain = plain + BETA * a / 3 * kl(mean, variance, experts[m][0], experts[m][1].exp())
            plain = plain - (3 - a) / 3 * WEIGHTS[m] * log_prob(model, m, z, whole[m][r])
    presence = Presence.of(present)
    found = mvtcae_loss(model, presence, given, noise, a=a, beta=BETA, weights=WEIGHTS, batch_size=BATCH)
    assert_same(found.total, plain / BATCH, model)


def softmax_scale(raw: Tensor) -> Tensor:
    return raw.shape[-1] * torch.softmax(raw, -1) + 1e-6


def drawn(family: str, mean: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
    """The quantile at Phi(noise)."""
    if family == "normal":
        return mean + scale * noise
    standard: Any = Laplace(0.0, 1.0)
    uniform: Any = Normal(0.0, 1.0)
    found: Tensor = mean + scale * standard.icdf(uniform.cdf(noise))
    return found


def distribution(family: str, mean: Tensor, scale: Tensor) -> Any:
    return Normal(mean, scale) if family == "normal" else Laplace(mean, scale)


def log_mixture(family: str, q: Sequence[tuple[Tensor, Tensor]], z: Tensor) -> Tensor:
    each = torch.stack([distribution(family, *one).log_prob(z).sum() for one in q])
    return torch.logsumexp(each, 0) - math.log(len(q))


@EVERY
@pytest.mark.parametrize("family", ["laplace", "normal"])
@pytest.mark.parametrize(("samples", "gradient"), [(1, "exact"), (1, "dreg"), (SAMPLES, "exact"), (SAMPLES, "dreg")])
def test_mmvae_equals_a_plain_loop(pattern: np.ndarray | None, family: str, samples: int, gradient: str) -> None:
    model: Any = small_model(3, MMVAE, normalised=False)
    model.family = family
    torch.nn.init.normal_(model.prior_raw)
    present = rows_of(pattern)
    whole, given = values_of(present)
    noise = torch.randn(
        len(present), samples, 3, LATENTS, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    twice = gradient == "dreg" and samples > 1
    plain = surrogate = torch.zeros((), dtype=torch.float64)
    scale = softmax_scale(model.prior_raw)
    prior = distribution(family, torch.zeros_like(scale), scale)
    for r, has in enumerate(present):
        a = np.flatnonzero(has).tolist()
        q = {m: (mean, softmax_scale(raw)) for m, (mean, raw) in ((m, expert(model, m, whole[m][r])) for m in a)}
        fixed = [(mean.detach(), s.detach()) for mean, s in q.values()]
        for m in a:
            log_w, paths = [], []
            for k in range(samples):
                path = drawn(family, *q[m], noise[r, k, m])
                z = path.detach().requires_grad_() if twice else path
                density = log_mixture(family, fixed if twice else list(q.values()), z)
                likelihood = sum(WEIGHTS[n] * log_prob(model, n, z, whole[n][r]) for n in a)
                log_w.append(prior.log_prob(z).sum() + likelihood - density)
                paths.append((path, z))
            bound = torch.logsumexp(torch.stack(log_w), 0) - math.log(samples)
            plain = plain - bound / len(a)
            if twice:  # the gradient that reaches z is multiplied by v once more, and goes down the path
                v = torch.softmax(torch.stack(log_w).detach(), 0)
                for k, (path, z) in enumerate(paths):
                    (slope,) = torch.autograd.grad(-v[k] * log_w[k] / len(a), z, retain_graph=True)
                    surrogate = surrogate - v[k] * log_w[k] / len(a) + (v[k] * slope * path).sum()
    presence = Presence.of(present)
    found = mmvae_loss(model, presence, given, noise, weights=WEIGHTS, batch_size=BATCH, gradient=gradient).total
    if not twice:
        return assert_same(found, plain / BATCH, model)
    assert found.item() == pytest.approx(plain.item() / BATCH, rel=1e-9)
    surrogate = surrogate / BATCH
    return assert_same(found - found.detach() + surrogate.detach(), surrogate, model)


def small_plus(family: str, private: int = 2) -> MMVAEPlus:
    """An MMVAE+ with 1 shared and `private` private latents of each of three modalities."""
    model: Any = small_model(3, MMVAE, normalised=False)
    plus = MMVAEPlus(
        model.modalities, list(model.encoders), list(model.decoders), LATENTS - private, private, family=family
    ).double()
    torch.nn.init.normal_(plus.replacement_raw)
    return plus


@EVERY
@pytest.mark.parametrize("family", ["laplace", "normal"])
@pytest.mark.parametrize("samples", [1, SAMPLES])
def test_mmvae_plus_equals_a_plain_loop(pattern: np.ndarray | None, family: str, samples: int) -> None:
    model = small_plus(family)
    shared, private = model.shared, model.private
    present = rows_of(pattern)
    whole, given = values_of(present)
    width = shared + private + 3 * private
    noise = torch.randn(
        len(present), samples, 3, width, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    plain = torch.zeros((), dtype=torch.float64)
    standard = distribution(family, torch.zeros(1).double(), torch.ones(1).double())
    for r, has in enumerate(present):
        a = np.flatnonzero(has).tolist()
        q_z, q_u = {}, {}
        for m in a:
            mean, raw = expert(model, m, whole[m][r])
            q_z[m] = (mean[:shared], softmax_scale(raw[:shared]))
            q_u[m] = (mean[shared:], softmax_scale(raw[shared:]))
        for m in a:
            log_w = []
            for k in range(samples):
                own = noise[r, k, m]
                z = drawn(family, *q_z[m], own[:shared])
                u = drawn(family, *q_u[m], own[shared : shared + private])
                ratio = standard.log_prob(z).sum() + standard.log_prob(u).sum()
                ratio = ratio - log_mixture(family, list(q_z.values()), z)
                ratio = ratio - distribution(family, *q_u[m]).log_prob(u).sum()
                likelihood = torch.zeros((), dtype=torch.float64)
                for n in a:
                    start = shared + private + n * private
                    r_scale = softmax_scale(model.replacement_raw[n])
                    other = drawn(family, torch.zeros_like(r_scale), r_scale, own[start : start + private])
                    latents = torch.cat([z, u if n == m else other])
                    likelihood = likelihood + WEIGHTS[n] * log_prob(model, n, latents, whole[n][r])
                log_w.append(BETA * ratio + likelihood)
            plain = plain - (torch.logsumexp(torch.stack(log_w), 0) - math.log(samples)) / len(a)
    presence = Presence.of(present)
    found = mmvae_plus_loss(model, presence, given, noise, beta=BETA, weights=WEIGHTS, batch_size=BATCH)
    assert_same(found.total, plain / BATCH, model)
