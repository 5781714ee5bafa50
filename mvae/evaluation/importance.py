"""Importance sampling of log-likelihoods, in one pass over the samples. Knows functions and Gaussians, no model.

From S samples z_s of a proposal r(z), log w_s = log f(z_s) - log r(z_s), the estimate of log of the integral of f is
logsumexp(log w) - log S (reference: supplement, Tables 1 and 2). Samples come in chunks; what is kept of them is a
handful of float64 sums an example, so that memory is bounded and the size of a chunk changes nothing but rounding.

Noise belongs to (seed, stream, example, sample): each example has its own counter-based generator (numpy's Philox),
whose numbers come in the same sequence however they are asked for. It draws on the CPU, in float64, whatever the device
and the decoders' precision, so that all of them see the same samples; that is a twentieth of an MLP decoder's time.

Shapes: n examples, S samples of each, s of them in a chunk, D latents. Everything here is float64.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mvae.measure import check_samples
from mvae.models.gaussian import LOG_TWO_PI, Gaussian, standard_log_prob
from mvae.streams import numpy_generator

Proposal = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From standard normal noise [n, s, D']: samples z [n, s', D] and the log-density of the proposal there, [n, s']."""

LogWeights = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""From samples z [n, s, D] and log r(z) [n, s]: log-weights by name, each with n rows and a column a sample it uses."""


class Estimate(NamedTuple):
    """What S log-weights of each example say; each [n]."""

    log_mean: Tensor
    """logsumexp(log w) - log S, in nats: unbiased before the logarithm, on average too small after it."""
    standard_error: Tensor
    """Of log_mean, by the delta method: standard deviation of w over sqrt(S) times its mean. Too small where the
    effective samples are few."""
    effective_samples: Tensor
    """(sum w)^2 / sum w^2, from 1 to S."""
    variance: Tensor
    """Of log w over the samples, with S - 1 below (Table 2), in nats^2."""


class Noise:
    """Standard normal noise of some examples, sample after sample."""

    def __init__(self, seed: int, stream: str, examples: Sequence[int], latents: int, device: torch.device) -> None:
        self._generators = [numpy_generator(seed, stream, example) for example in examples]
        self._latents, self._device = latents, device

    def next(self, samples: int) -> Tensor:
        """The next samples of every example: float64 [n, samples, D]."""
        drawn = np.empty((len(self._generators), samples, self._latents))
        for generator, own in zip(self._generators, drawn, strict=True):
            generator.standard_normal(out=own)
        return torch.from_numpy(drawn).to(self._device)


def gaussian_proposal(q: Gaussian) -> Proposal:
    """Samples of each example's Gaussian [n, D], from noise [n, s, D]."""
    mean, log_var = (part.double().unsqueeze(1) for part in q)
    deviation, constant = torch.exp(0.5 * log_var), (LOG_TWO_PI + log_var).sum(-1)

    def draw(noise: Tensor) -> tuple[Tensor, Tensor]:
        return mean + deviation * noise, -0.5 * (constant + noise.square().sum(-1))

    return draw


def half_prior_proposal(q: Gaussian) -> Proposal:
    """Samples of each example's Gaussian [n, D] and as many of N(0, I), from noise [n, s, 2 D].

    The density is the mixture's, half and half. Every pair holds one sample of each half, which is no worse than a coin
    for each: standard errors that take the samples for independent are, if anything, too large.

    Returns:
        z [n, 2 s, D], first the s of the Gaussian, then the s of the prior, and the log-density there.
    """
    own, density = gaussian_proposal(q), Gaussian(*(part.double().unsqueeze(1) for part in q))

    def draw(noise: Tensor) -> tuple[Tensor, Tensor]:
        of_q, of_prior = noise.chunk(2, dim=-1)
        z = torch.cat([own(of_q)[0], of_prior], dim=1)
        log_half = torch.logaddexp(density.log_prob(z), standard_log_prob(z)) - np.log(2.0)
        return z, log_half

    return draw


class RunningWeights:
    """The sums over log-weights that estimates are made of: log-sum-exp by a moving peak, variance after Welford."""

    def __init__(self, log_w: Tensor) -> None:
        """Starts with the first log-weights, [n, s] with s >= 1."""
        self.count = 0
        self._peak = log_w.new_full((len(log_w),), -torch.inf)
        self._sum, self._squares, self._mean, self._spread = torch.zeros(4, len(log_w)).to(log_w).unbind(0)
        self.add(log_w)

    def add(self, log_w: Tensor) -> None:
        """Takes in the log-weights of further samples, [n, s] with s >= 1."""
        assert log_w.dtype == torch.float64 and log_w.shape[1] >= 1
        peak = torch.maximum(self._peak, log_w.amax(1))
        shrunk, weights = torch.exp(self._peak - peak), torch.exp(log_w - peak.unsqueeze(1))
        self._peak = peak
        self._sum = self._sum * shrunk + weights.sum(1)
        self._squares = self._squares * shrunk.square() + weights.square().sum(1)
        added, before = log_w.shape[1], self.count
        mean, self.count = log_w.mean(1), before + added
        apart = mean - self._mean
        self._spread = (
            self._spread + (log_w - mean.unsqueeze(1)).square().sum(1) + apart.square() * (before * added / self.count)
        )
        self._mean = self._mean + apart * (added / self.count)

    def estimate(self) -> Estimate:
        assert self.count >= 2, "a standard error needs two samples"
        effective = self._sum.square() / self._squares
        return Estimate(
            self._peak + torch.log(self._sum / self.count),
            torch.sqrt((self.count / effective - 1).clamp_min(0) / (self.count - 1)),
            effective,
            self._spread / (self.count - 1),
        )


def importance_estimates(
    proposal: Proposal, log_weights: LogWeights, noise: Noise, *, samples: int, chunk: int
) -> dict[str, Estimate]:
    """The estimates of every named weight, all from the same samples.

    Args:
        samples: draws of the proposal an example. chunk: how many of them at a time.
    Raises:
        Refusal: fewer than 2 samples.
    """
    check_samples(samples)
    running: dict[str, RunningWeights] = {}
    for start in range(0, samples, chunk):
        z, log_r = proposal(noise.next(min(chunk, samples - start)))
        for name, log_w in log_weights(z, log_r).items():
            if name in running:
                running[name].add(log_w)
            else:
                running[name] = RunningWeights(log_w)
    return {name: weights.estimate() for name, weights in running.items()}
