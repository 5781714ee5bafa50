"""Defines the likelihood p(x|z) of each kind of modality, given a decoder's logits.

The methods of each class:

    log_prob   log-probability of each row's target in nats, summed over its dimensions: [n]
    mean       expected value of each row
    sample     one sample per row

Shapes: n rows, any trailing dimensions of the modality, C classes, L tokens of a text.
"""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality
from mvae.data.sentences.text import UNKNOWN, characters


class Bernoulli:
    """Bernoulli likelihood of pixels in [0, 1], or of several binary attributes.

    For grey pixels, the cross-entropy is not a normalised density. The paper uses this cross-entropy nevertheless.
    """

    def log_prob(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the log-likelihood of each row, [n], in nats.

        Each pixel's log-likelihood is computed in the logits' dtype. The sum uses the wider of the logits' and the
        target's dtypes.
        """
        alike = len(target) > 1 and target.stride(0) == 0  # a single image, expanded to many samples: convert it once
        pixels = target[:1].to(logits.dtype).expand_as(target) if alike else target.to(logits.dtype)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, pixels, reduction="none")
        return -cross_entropy.flatten(1).sum(1, dtype=torch.promote_types(logits.dtype, target.dtype))

    def mean(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)

    def sample(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        return torch.bernoulli(torch.sigmoid(logits), generator=generator)


class Categorical:
    """Likelihood of one of C classes, which the paper calls multinomial: logits [n, C], target [n]."""

    def log_prob(self, logits: Tensor, target: Tensor) -> Tensor:
        return -F.cross_entropy(logits, target, reduction="none")

    def log_prob_of_each(self, logits: Tensor) -> Tensor:
        """Returns the log-probability of every class, [n, C], in nats."""
        return F.log_softmax(logits, dim=-1)

    def mean(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits, dim=-1)

    def sample(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        return torch.multinomial(torch.softmax(logits, dim=-1), 1, generator=generator).squeeze(-1)


class Attribute(Bernoulli):
    """Bernoulli likelihood of a single attribute: logits [n], and target [n] of 0 or 1."""

    def log_prob(self, logits: Tensor, target: Tensor) -> Tensor:
        return -F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")


class Text:
    """Likelihood of a text's tokens up to and including the first stop: logits [n, S, C - 1], target [n, L].

    Each token is conditioned on the tokens before it. S is L, or L - 1 if the last token of a row can only be the stop
    (see mvae/networks/text.py). A target without a stop has probability 0. A text has no mean. To sample a text, use
    its decoder.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def log_prob(self, logits: Tensor, target: Tensor) -> Tensor:
        cross_entropy, counted, endless = self._costs(logits, target)
        return -torch.where(endless, torch.inf, torch.where(counted, cross_entropy, 0).sum(1))

    def log_probs(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns two log-probabilities per row, [n, 2]: of all tokens, as in `log_prob`, and of all except <unk>."""
        cross_entropy, counted, endless = self._costs(logits, target)
        known = counted & (target[:, : logits.shape[1]] != UNKNOWN)
        sums = [torch.where(tokens, cross_entropy, 0).sum(1) for tokens in (counted, known)]
        return -torch.where(endless[:, None], torch.inf, torch.stack(sums, dim=1))

    def _costs(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns each token's cross-entropy [n, S], and two masks.

        The first mask marks the tokens up to the first stop, [n, S]. The second marks the rows without a stop, [n].
        """
        before_stop, steps = characters(target, self.classes), logits.shape[1]
        counted = torch.cat([before_stop.new_ones(len(target), 1), before_stop[:, : steps - 1]], dim=1)
        tokens = target[:, :steps].clamp(max=logits.shape[-1] - 1)  # the padding may be any token
        cross_entropy = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)
        return cross_entropy, counted, before_stop[:, -1]

    def mean(self, logits: Tensor) -> Tensor:
        raise NotImplementedError("a text has no mean")

    def sample(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        raise NotImplementedError("a text is sampled token by token: use its decoder")


class Real(nn.Module, ABC):
    """Normalised density of real numbers. The decoder's output is the mean, and all numbers have the same scale.

    The scale is either fixed or learnt in training.
    """

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        start = torch.tensor(math.log(1.0 if scale is None else scale))
        if scale is None:
            self.log_scale: Tensor = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start, persistent=False)

    def log_prob(self, mean: Tensor, target: Tensor) -> Tensor:
        """Returns the log-density of each row's target, [n], in nats. Uses the wider dtype of mean and target."""
        each = self._log_density((target - mean) * torch.exp(-self.log_scale)) - self.log_scale
        return each.flatten(1).sum(1)

    def mean(self, mean: Tensor) -> Tensor:
        return mean

    @abstractmethod
    def sample(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        """Returns one sample per row."""

    @abstractmethod
    def _log_density(self, standardised: Tensor) -> Tensor:
        """Returns each number's log-density for mean 0 and scale 1."""


class Normal(Real):
    """A normal distribution whose scale is the standard deviation."""

    def sample(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + torch.exp(self.log_scale) * noise

    def _log_density(self, standardised: Tensor) -> Tensor:
        return -0.5 * (math.log(2 * math.pi) + standardised.square())


class Laplace(Real):
    """A Laplace distribution around the decoder's output."""

    def sample(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype) - 0.5
        return mean - torch.exp(self.log_scale) * uniform.sign() * torch.log1p(-2 * uniform.abs())

    def _log_density(self, standardised: Tensor) -> Tensor:
        return -math.log(2.0) - standardised.abs()


REAL: dict[str, type[Real]] = {"gaussian": Normal, "laplace": Laplace}


def likelihood_of(modality: Modality) -> Bernoulli | Categorical | Text | Real:
    """Returns the likelihood that a modality declares. The default is the paper's choice (supplement section 1)."""
    name = modality.likelihood or ("gaussian" if modality.kind is Kind.VECTOR else "")
    if name in REAL:
        return REAL[name](modality.scale)
    match modality.kind:
        case Kind.IMAGE | Kind.ATTRIBUTES:
            return Bernoulli()
        case Kind.LABEL:
            return Categorical()
        case Kind.TEXT:
            return Text(modality.classes)
        case Kind.ATTRIBUTE:
            return Attribute()
        case Kind.VECTOR:
            raise AssertionError("the likelihood of a vector must be gaussian or laplace")
