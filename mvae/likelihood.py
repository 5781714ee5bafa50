"""Likelihoods p(x|z) of each kind of modality: log-probability, mean and sample, from a decoder's logits.

Shapes: n rows, any trailing dimensions of the modality, C classes.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mvae.data.dataset import Kind, Modality


class Likelihood(Protocol):
    """What a decoder's logits mean."""

    def log_prob(self, logits: Tensor, target: Tensor) -> Tensor:
        """Log-probability of each row's target, summed over its dimensions: [n], in nats."""
        ...

    def mean(self, logits: Tensor) -> Tensor:
        """Expected value of each row."""
        ...

    def sample(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """One draw a row."""
        ...


class Bernoulli:
    """Pixels in [0, 1]. On grey values the cross-entropy is no normalised density, as in the paper."""

    def log_prob(self, logits: Tensor, target: Tensor) -> Tensor:
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return -cross_entropy.flatten(1).sum(1)

    def mean(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)

    def sample(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        return torch.bernoulli(torch.sigmoid(logits), generator=generator)


class Categorical:
    """One of C classes: logits [n, C], target [n] (the paper's multinomial likelihood of a label)."""

    def log_prob(self, logits: Tensor, target: Tensor) -> Tensor:
        return -F.cross_entropy(logits, target, reduction="none")

    def mean(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits, dim=-1)

    def sample(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        return torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=generator).squeeze(-1)


def likelihood_of(modality: Modality) -> Likelihood:
    """The likelihood that the paper gives a modality (supplement section 1)."""
    match modality.kind:
        case Kind.IMAGE:
            return Bernoulli()
        case Kind.LABEL:
            return Categorical()
