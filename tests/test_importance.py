"""Core of importance sampling: sums over chunks equal sums over all samples; noise depends on the sample."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mvae.evaluation.importance import (
    Noise,
    RunningWeights,
    gaussian_proposal,
    importance_estimates,
    with_prior,
)
from mvae.models.gaussian import Gaussian, standard_log_prob
from mvae.refusal import Refusal
from tests.linear_gaussian import normal_log_prob

CPU = torch.device("cpu")


@pytest.fixture
def log_w() -> Tensor:
    """Log-weights of 5 examples with 40 samples each, on different levels and with different spreads."""
    draw = torch.randn(5, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    level = torch.tensor([-1e4, -300.0, 0.0, 300.0, 1e4], dtype=torch.float64)
    return level.unsqueeze(1) + draw * torch.tensor([0.01, 1.0, 3.0, 30.0, 1.0]).double().unsqueeze(1)


def in_chunks(log_w: Tensor, chunk: int) -> RunningWeights:
    first, *others = torch.split(log_w, chunk, dim=1)
    running = RunningWeights(first)
    for other in others:
        running.add(other)
    return running


@pytest.mark.parametrize("chunk", [1, 7, 39, 40])
def test_sums_over_chunks_equal_the_textbook_formulas_over_all_samples(log_w: Tensor, chunk: int) -> None:
    estimate = in_chunks(log_w, chunk).estimate()
    w = torch.exp(log_w - log_w.amax(1, keepdim=True))
    torch.testing.assert_close(estimate.log_mean, torch.logsumexp(log_w, 1) - math.log(40))
    torch.testing.assert_close(estimate.standard_error, w.std(1) / w.mean(1) / math.sqrt(40), rtol=1e-6, atol=0)
    torch.testing.assert_close(estimate.effective_samples, w.sum(1) ** 2 / (w**2).sum(1))
    torch.testing.assert_close(estimate.variance, log_w.var(1), rtol=1e-9, atol=0)


def test_equal_weights_have_zero_error_and_all_samples_are_effective() -> None:
    estimate = in_chunks(torch.full((2, 30), -123.4, dtype=torch.float64), 11).estimate()
    assert estimate.standard_error.abs().max() < 1e-8
    assert estimate.variance.max() < 1e-18
    torch.testing.assert_close(estimate.effective_samples, torch.full((2,), 30.0).double())


def test_noise_depends_only_on_seed_stream_example_and_sample() -> None:
    whole = Noise(3, "likelihood", [5, 9], 4, CPU).next(12)
    parts = Noise(3, "likelihood", [9], 4, CPU)
    torch.testing.assert_close(torch.cat([parts.next(1), parts.next(5), parts.next(6)], 1), whole[1:], rtol=0, atol=0)
    others = [Noise(4, "likelihood", [9], 4, CPU), Noise(3, "other", [9], 4, CPU), Noise(3, "likelihood", [5], 4, CPU)]
    for other in others:
        assert not torch.isclose(other.next(12), whole[1:]).any()


def test_noise_is_standard_normal() -> None:
    drawn = Noise(0, "likelihood", list(range(50)), 8, CPU).next(500)
    assert abs(drawn.mean()) < 4 / math.sqrt(drawn.numel())
    assert abs(drawn.var() - 1) < 4 * math.sqrt(2 / drawn.numel())
    by_example = drawn.mean((1, 2)) * math.sqrt(500 * 8)
    assert by_example.abs().max() < 4.5


def test_a_proposal_gives_the_density_of_its_own_samples() -> None:
    q = Gaussian(torch.randn(3, 2).double(), torch.randn(3, 2).double())
    z, log_r = gaussian_proposal(q)(torch.randn(3, 7, 2).double())
    for example in range(3):
        own = normal_log_prob(z[example], q.mean[example], (q.log_var[example] / 2).exp()).sum(-1)
        torch.testing.assert_close(log_r[example], own)


def test_the_mixture_draws_half_from_each_component_and_gives_the_mixture_density() -> None:
    q = Gaussian(torch.full((1, 2), 50.0).double(), torch.randn(1, 2).double())
    z, log_r = with_prior(q, lambda noise: noise, standard_log_prob)(torch.randn(1, 9, 4).double())
    assert z.shape == (1, 18, 2)
    assert (z[:, :9] > 30).all()
    assert (z[:, 9:] < 20).all()
    parts = [
        normal_log_prob(z, mean, spread).sum(-1)
        for mean, spread in ((q.mean, (q.log_var / 2).exp()), (torch.zeros(2), torch.ones(2)))
    ]
    torch.testing.assert_close(log_r, torch.logsumexp(torch.stack(parts), 0) - math.log(2))


def test_each_example_keeps_its_own_samples() -> None:
    def weights(z: Tensor, log_r: Tensor) -> dict[str, Tensor]:
        assert z.shape[:2] == log_r.shape
        return {"level": z[..., 0] + 0 * log_r}

    means = torch.tensor([[0.0], [1000.0], [2000.0]]).double()
    narrow = Gaussian(means, torch.full_like(means, -40.0))
    noise = Noise(0, "likelihood", [0, 1, 2], 1, CPU)
    found = importance_estimates(gaussian_proposal(narrow), weights, noise, samples=7, chunk=2)["level"]
    torch.testing.assert_close(found.log_mean, means.squeeze(1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("samples", [1, 0, -3])
def test_fewer_than_two_samples_are_refused_in_one_line(samples: int) -> None:
    q = Gaussian(torch.zeros(1, 1), torch.zeros(1, 1))
    noise = Noise(0, "likelihood", [0], 1, CPU)
    with pytest.raises(Refusal, match=rf"samples = {samples}: .* at least 2") as refused:
        importance_estimates(gaussian_proposal(q), lambda z, log_r: {"": log_r}, noise, samples=samples, chunk=5)
    assert "\n" not in str(refused.value)
