"""Estimates log-likelihoods by importance sampling, in one pass over the samples. Nothing here depends on a model.

The samples z_s come from a proposal r(z). For a function f >= 0, log w_s = log f(z_s) - log r(z_s). The log of f's
integral is estimated by logsumexp(log w) - log S (supplement, Tables 1 and 2). Samples are processed in chunks, and
only a few float64 sums per example are kept, so memory is bounded. The chunk size changes only rounding.

Noise is a function of (seed, stream, example, sample). Each example has its own counter-based generator (numpy's
Philox), whose sequence does not depend on the chunk size. The noise is drawn on the CPU in float64, so every device and
decoder precision gets the same samples. Drawing the noise takes a twentieth of the time of an MLP decoder.

Shapes: n examples, S samples per example, s samples per chunk, D latents. Everything here is float64.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mvae.measure import check_samples
from mvae.models.gaussian import LOG_TWO_PI, Gaussian
from mvae.models.posteriors import Laplace, Mixture, Posterior, mapped, of_each
from mvae.streams import numpy_generator

Proposal = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps standard normal noise [n, s, D'] to samples z [n, s', D] and their log-density under the proposal [n, s']."""

LogWeights = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""Maps samples z [n, s, D] and log r(z) [n, s] to named log-weights: [n, s], or [n, < s] if only some samples count."""


class Estimate(NamedTuple):
    """Estimates from the S log-weights of each example. Each field has shape [n]."""

    log_mean: Tensor
    """logsumexp(log w) - log S, in nats. The mean of w is unbiased, but its logarithm is too small on average."""
    standard_error: Tensor
    """Standard error of log_mean by the delta method: std(w) / (sqrt(S) mean(w)).

    Too small if there are few effective samples.
    """
    effective_samples: Tensor
    """Effective sample size (sum w)^2 / sum w^2, from 1 to S."""
    variance: Tensor
    """Variance of log w over the samples, with divisor S - 1 (Table 2), in nats^2."""


class Noise:
    """Draws standard normal noise for a list of examples, a few samples at a time."""

    def __init__(self, seed: int, stream: str, examples: Sequence[int], latents: int, device: torch.device) -> None:
        self._generators = [numpy_generator(seed, stream, example) for example in examples]
        self._latents, self._device = latents, device

    def next(self, samples: int) -> Tensor:
        """Returns the next samples of every example: float64 [n, samples, D]."""
        drawn = np.empty((len(self._generators), samples, self._latents))
        for generator, row in zip(self._generators, drawn, strict=True):
            generator.standard_normal(out=row)
        return torch.from_numpy(drawn).to(self._device)


def gaussian_proposal(q: Gaussian) -> Proposal:
    """Returns a proposal that maps noise [n, s, D] to samples of each example's Gaussian [n, D]."""
    mean, log_var = (part.double().unsqueeze(1) for part in q)
    deviation, constant = torch.exp(0.5 * log_var), (LOG_TWO_PI + log_var).sum(-1)

    def draw(noise: Tensor) -> tuple[Tensor, Tensor]:
        return mean + deviation * noise, -0.5 * (constant + noise.square().sum(-1))

    return draw


def mixture_proposal(q: Laplace | Mixture) -> Proposal:
    """Returns a proposal that maps noise [n, s, C D] to s samples of each of the C components of a mixture.

    The log-density of a sample is its density under the whole mixture, not under one component. The proposal returns z
    [n, C s, D], component by component.
    """
    parts = q.parts if isinstance(q, Mixture) else of_each(q, lambda part: part.unsqueeze(1))
    mixture = Mixture(of_each(parts, Tensor.double))

    def draw(noise: Tensor) -> tuple[Tensor, Tensor]:
        z = mixture.rsample(torch.unflatten(noise, -1, (mixture.components, -1))).transpose(1, 2).flatten(1, 2)
        return z, mixture.log_prob(z)

    return draw


def proposal_of(q: Posterior) -> Proposal:
    """Returns the proposal that draws from each example's posterior."""
    return gaussian_proposal(q) if isinstance(q, Gaussian) else mixture_proposal(q)


def density(q: Posterior, z: Tensor) -> Tensor:
    """Returns log q(z), [n, s], of each example's posterior [n, D] at that example's samples z [n, s, D]."""
    return q.log_prob(z) if isinstance(q, Mixture) else of_each(q, lambda part: part.unsqueeze(1)).log_prob(z)


def with_prior(
    q: Posterior, prior_at: Callable[[Tensor], Tensor], prior_log_prob: Callable[[Tensor], Tensor]
) -> Proposal:
    """Returns a proposal: an equal mixture of each example's q and the prior.

    The proposal maps noise [n, s, 2 C D] to z [n, 2 C s, D] and the log-density of z under the mixture. The first half
    of the samples comes from q, component by component, the second half from the prior. Stratified samples vary no more
    than independent ones, so standard errors are correct or too large.

    Args:
        q: a posterior of C components; C is 1 unless q is a mixture.
        prior_at: maps noise to samples of the prior.
        prior_log_prob: the prior's log-density.
    """
    own, exact = proposal_of(q), mapped(q, Tensor.double)
    components = q.components if isinstance(q, Mixture) else 1

    def draw(noise: Tensor) -> tuple[Tensor, Tensor]:
        of_q, of_prior = noise.chunk(2, dim=-1)
        from_prior = prior_at(torch.unflatten(of_prior, -1, (components, -1)).transpose(1, 2).flatten(1, 2))
        z = torch.cat([own(of_q)[0], from_prior], dim=1)
        return z, torch.logaddexp(density(exact, z), prior_log_prob(z)) - np.log(2.0)

    return draw


class RunningWeights:
    """Accumulates log-weights: sums by log-sum-exp with a running maximum, the variance by Welford's algorithm.

    Args:
        log_w: the first log-weights, [n, s] with s >= 1.
    """

    def __init__(self, log_w: Tensor) -> None:
        self.count = 0
        self._peak = log_w.new_full((len(log_w),), -torch.inf)
        self._sum, self._squares, self._mean, self._spread = torch.zeros(4, len(log_w)).to(log_w).unbind(0)
        self.add(log_w)

    def add(self, log_w: Tensor) -> None:
        """Adds the log-weights of more samples, [n, s] with s >= 1."""
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
        assert self.count >= 2, "a standard error needs at least two samples"
        effective = self._sum.square() / self._squares
        return Estimate(
            self._peak + torch.log(self._sum / self.count),
            torch.sqrt((self.count / effective - 1).clamp_min(0) / (self.count - 1)),
            effective,
            self._spread / (self.count - 1),
        )


class StratifiedWeights:
    """Accumulates log-weights of samples that come in equal numbers from C components. Each component is a stratum.

    The standard error of the mean uses only the variance within each stratum.

    Args:
        log_w: the first log-weights, [n, C s], stratum by stratum.
        strata: C.
    """

    def __init__(self, log_w: Tensor, strata: int) -> None:
        self._strata = strata
        self._all = RunningWeights(log_w)
        self._each = RunningWeights(self._by_stratum(log_w))

    def add(self, log_w: Tensor) -> None:
        """Adds the log-weights of more samples, [n, C s]."""
        self._all.add(log_w)
        self._each.add(self._by_stratum(log_w))

    def estimate(self) -> Estimate:
        found, each = self._all.estimate(), self._each.estimate()
        log_error = (each.log_mean + each.standard_error.log()).view(-1, self._strata)
        relative = 2 * (log_error - found.log_mean.unsqueeze(1))
        return found._replace(standard_error=torch.exp(0.5 * torch.logsumexp(relative, dim=1)) / self._strata)

    def _by_stratum(self, log_w: Tensor) -> Tensor:
        return log_w.reshape(len(log_w) * self._strata, -1)


def importance_estimates(
    proposal: Proposal, log_weights: LogWeights, noise: Noise, *, samples: int, chunk: int, stratified: bool = False
) -> dict[str, Estimate]:
    """Returns the estimates of every named weight, all from the same samples.

    Args:
        samples: number of draws from the proposal per example.
        chunk: maximum number of draws per example and pass.
        stratified: whether each draw gives one sample per component. The weights must be ordered by component.
    Raises:
        Refusal: `samples` is less than 2.
    """
    check_samples(samples)
    running: dict[str, RunningWeights | StratifiedWeights] = {}
    for start in range(0, samples, chunk):
        draws = min(chunk, samples - start)
        z, log_r = proposal(noise.next(draws))
        for name, log_w in log_weights(z, log_r).items():
            if name in running:
                running[name].add(log_w)
            elif stratified:
                running[name] = StratifiedWeights(log_w, log_w.shape[1] // draws)
            else:
                running[name] = RunningWeights(log_w)
    return {name: weights.estimate() for name, weights in running.items()}
