"""Defines posteriors other than the diagonal Gaussian: Laplace distributions, and uniform mixtures of components.

All distributions transform standard normal noise into samples, so that arms with the same seed use the same noise.

Shapes: ... any leading dimensions, C components, D latents.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mvae.models.gaussian import Gaussian

LOG_TWO = math.log(2.0)
SMALLEST_SCALE = 1e-6
"""Added to each scale that a softmax computes (Shi et al. 2019)."""


class Laplace(NamedTuple):
    """A diagonal Laplace distribution; both tensors have shape [..., D]."""

    mean: Tensor
    log_scale: Tensor

    def rsample(self, noise: Tensor) -> Tensor:
        """Samples by applying the quantile function to Phi(noise). Samples are differentiable in the parameters."""
        quantile = -noise.sign() * (LOG_TWO + torch.special.log_ndtr(-noise.abs()))
        drawn: Tensor = self.mean + torch.exp(self.log_scale) * quantile
        return drawn

    def log_prob(self, z: Tensor) -> Tensor:
        """Returns the log-density of z, summed over D: shape [...], in nats."""
        distance = (z - self.mean).abs() * torch.exp(-self.log_scale)
        return -(LOG_TWO + self.log_scale + distance).sum(-1)


Component = Gaussian | Laplace


def component(family: str, mean: Tensor, log_scale: Tensor) -> Component:
    """Returns a Laplace distribution if `family` is `laplace`, else a Gaussian with the scale as standard deviation."""
    return Laplace(mean, log_scale) if family == "laplace" else Gaussian(mean, 2 * log_scale)


def softmax_log_scale(raw: Tensor) -> Tensor:
    """Returns the logarithms of the scales D * softmax(raw) + 1e-6, [..., D] (Shi et al. 2019)."""
    return torch.log(raw.shape[-1] * F.softmax(raw, dim=-1) + SMALLEST_SCALE)


def of_each(parts: Component, change: Callable[[Tensor], Tensor]) -> Component:
    """Applies one function to both parameters of a distribution, for example to select rows."""
    first, second = (change(part) for part in parts)
    return Laplace(first, second) if isinstance(parts, Laplace) else Gaussian(first, second)


def stacked(parts: Sequence[Component]) -> Component:
    """Stacks C components [n, D] of the same family into one distribution [n, C, D]."""
    means, scales = zip(*parts, strict=True)
    joined = (torch.stack(means, dim=1), torch.stack(scales, dim=1))
    return Laplace(*joined) if isinstance(parts[0], Laplace) else Gaussian(*joined)


def beside(parts: Sequence[Component]) -> Component:
    """Concatenates the latents of independent distributions of the same family: [n, D'] each to [n, sum of D']."""
    means, scales = zip(*parts, strict=True)
    joined = (torch.cat(means, dim=-1), torch.cat(scales, dim=-1))
    return Laplace(*joined) if isinstance(parts[0], Laplace) else Gaussian(*joined)


@dataclass(frozen=True)
class Mixture:
    """A uniform mixture of C components, whose parameters have shape [n, C, D]."""

    parts: Component

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture: [n, D]."""
        return self.parts.mean.mean(1)

    @property
    def components(self) -> int:
        """Number of components C."""
        return self.parts.mean.shape[1]

    def log_prob(self, z: Tensor) -> Tensor:
        """Returns the log-density of z [n, s, D], in nats: [n, s]."""
        each = of_each(self.parts, lambda part: part.unsqueeze(1)).log_prob(z.unsqueeze(2))
        return torch.logsumexp(each, dim=2) - math.log(self.components)

    def rsample(self, noise: Tensor) -> Tensor:
        """Draws s samples of every component, [n, s, C, D], from noise of the same shape."""
        return of_each(self.parts, lambda part: part.unsqueeze(1)).rsample(noise)


Posterior = Component | Mixture


def mapped(q: Posterior, change: Callable[[Tensor], Tensor]) -> Posterior:
    """Applies one function to both parameters of a posterior. In a mixture, this changes all components."""
    return Mixture(of_each(q.parts, change)) if isinstance(q, Mixture) else of_each(q, change)


def component_means(q: Posterior) -> tuple[Tensor, ...]:
    """Returns the mean of each component of a mixture, [n, D] each. Any other posterior counts as one component."""
    return q.parts.mean.unbind(1) if isinstance(q, Mixture) else (q.mean,)
