"""Computes with diagonal Gaussians: products, KL, log-density (supplement, Lemmas 2.1 and 3.1).

Each expert is a pair (mean, log-variance). Precisions are summed in float64. In float64, exp(x) neither overflows nor
underflows for log-variances x from -300 to 300. So finite experts never produce inf or nan. Only the results are
converted to the caller's dtype.

Shapes: `...` any leading dimensions, M experts, T products ("terms"), D dimensions.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOG_TWO_PI = math.log(2 * math.pi)

FEW_EXPERTS = 4
"""Largest number of experts for which summing expert by expert is faster than a batched matrix product."""


class Gaussian(NamedTuple):
    """A diagonal Gaussian. Both tensors have shape [..., D]."""

    mean: Tensor
    log_var: Tensor

    def rsample(self, noise: Tensor) -> Tensor:
        """Returns mean + standard deviation * noise, differentiable in the parameters."""
        return self.mean + torch.exp(0.5 * self.log_var) * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Returns the log-density of z in nats, summed over D: shape [...]."""
        squared = (z - self.mean).square() * torch.exp(-self.log_var)
        return -0.5 * (LOG_TWO_PI + self.log_var + squared).sum(-1)

    def kl_to_prior(self) -> Tensor:
        """Returns KL(self || N(0, I)) in nats, summed over D: shape [...]."""
        return 0.5 * (torch.exp(self.log_var) + self.mean.square() - 1 - self.log_var).sum(-1)

    def kl(self, other: "Gaussian") -> Tensor:
        """Returns KL(self || other) in nats, summed over D: shape [...]."""
        log_ratio = other.log_var - self.log_var
        squared = (self.mean - other.mean).square() * torch.exp(-other.log_var)
        return 0.5 * (log_ratio + torch.exp(-log_ratio) + squared - 1).sum(-1)


def standard_log_prob(z: Tensor) -> Tensor:
    """Returns the log-density of N(0, I) at z in nats, summed over D."""
    return -0.5 * (LOG_TWO_PI + z.square()).sum(-1)


def product(mean: Tensor, log_var: Tensor, members: Tensor, *, prior: bool, nonempty: bool = False) -> Gaussian:
    """Computes T products of experts at once: adds the precisions, and weights the means by precision (Lemma 2.1).

    Args:
        mean, log_var: [..., M, D], one diagonal Gaussian per expert.
        members: boolean [..., T, M], the experts of each product. All other experts have no effect, even if they are
            nan.
        prior: whether N(0, I), the universal expert of the MVAE, is an additional expert of every product.
        nonempty: whether every product is known to have a member. If true, skips the check for members,
            which would wait for the GPU.
    Returns:
        Gaussian of shape [..., T, D]. With `prior`, a product without members is N(0, I).
    Raises:
        ValueError: a product has no members, and `prior` and `nonempty` are False.
    """
    if not (prior or nonempty) and not bool(members.any(-1).all()):
        raise ValueError("a product without experts has no density: give every product a member, or include the prior")
    mean64, log_var64, chosen = mean.double(), log_var.double(), members.double()
    broken, spoilt = _broken_experts(mean64, log_var64, chosen)
    precision = _without(broken, torch.exp(-_without(broken, log_var64)))
    total = _sums(chosen, precision)
    if prior:
        total = total + 1.0
    weighted = _sums(chosen, precision * _without(broken, mean64))
    return _from_natural(weighted, total, spoilt, mean.dtype)


def product_without_prior_expert(mean: Tensor, raw: Tensor, members: Tensor) -> Gaussian:
    """Returns MVAE-Q's posteriors: a product of n experts, divided by the prior n - 1 times (supplement section 3).

    The variance of an expert is the rescaled sigmoid V = N/(N-1) * sigmoid(raw), with N = M modalities. If n of N are
    present, the posterior is prod q_i / prior^(n-1), with precision sum 1/V_i - (n-1). The subtraction can give 0 in
    float32. So this function computes the precision as (N-n)/N + (N-1)/N * sum exp(-raw_i), which is equal but has no
    negative addend.

    Args:
        mean: [..., M, D], the experts' means.
        raw: [..., M, D], the raw outputs of the variance heads.
        members: boolean [..., T, M], the modalities that each posterior conditions on.
    Returns:
        Gaussian of shape [..., T, D].
    Raises:
        ValueError: there are fewer than two modalities, or a posterior conditions on no modality.
    """
    modalities = members.shape[-1]
    if modalities < 2:
        raise ValueError(
            "this model has 1 modality, but MVAE-Q needs 2 or more, because MVAE-Q scales variances by N/(N-1)"
        )
    recording = members.is_cuda and torch.cuda.is_current_stream_capturing()  # the step was checked when it ran eagerly
    if not recording and not bool(members.any(-1).all()):
        raise ValueError("a product without experts has no density: give every product a member")
    mean64, raw64, chosen = mean.double(), raw.double(), members.double()
    broken, spoilt = _broken_experts(mean64, raw64, chosen)
    scale = (modalities - 1) / modalities
    odds = _without(broken, torch.exp(-_without(broken, raw64)))
    total = 1.0 - chosen.sum(-1, keepdim=True) / modalities + scale * _sums(chosen, odds)
    weighted = _sums(chosen, scale * (odds + 1.0) * _without(broken, mean64))
    return _from_natural(weighted, total, spoilt, mean.dtype)


def _sums(chosen: Tensor, values: Tensor) -> Tensor:
    """Returns chosen @ values for shapes [..., T, M] and [..., M, D]. Avoids batches of tiny matrix products."""
    if chosen.dim() == 2:
        by_expert = values.movedim(-2, 0)
        return (chosen @ by_expert.flatten(1)).view(len(chosen), *by_expert.shape[1:]).movedim(0, -2)
    if values.shape[-2] > FEW_EXPERTS:
        return chosen @ values
    addends = zip(chosen.unsqueeze(-1).unbind(-2), values.unsqueeze(-3).unbind(-2), strict=True)
    picked, value = next(addends)
    total = picked * value
    for picked, value in addends:
        total = torch.addcmul(total, picked, value)
    return total


def _broken_experts(mean: Tensor, spread: Tensor, chosen: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Returns two masks: nan or infinite experts [..., M, D], and products that contain such an expert [..., T, D].

    A nan expert with weight 0 would make every product nan. So the caller leaves nan and infinite values out of the
    sums, and sets the affected products to nan afterwards. On a CPU, both masks are None if the sum of all values is
    finite. On a GPU, the masks are always computed, because testing the sum would wait for the device.
    """
    if mean.device.type == "cpu" and math.isfinite((mean.detach().sum() + spread.detach().sum()).item()):
        return None, None
    broken = ~(torch.isfinite(mean) & torch.isfinite(spread))
    return broken, _sums(chosen, broken.double()) > 0


def _without(broken: Tensor | None, values: Tensor) -> Tensor:
    return values if broken is None else values.masked_fill(broken, 0.0)


def _from_natural(weighted: Tensor, precision: Tensor, spoilt: Tensor | None, dtype: torch.dtype) -> Gaussian:
    """Returns the Gaussian with the given precision and with mean `weighted / precision`; nan where `spoilt` is True.

    The nan values are filled in last, so that they do not reach the gradients of other products.
    """
    if spoilt is None:
        return Gaussian((weighted / precision).to(dtype), (-torch.log(precision)).to(dtype))
    safe = precision.masked_fill(spoilt, 1.0)
    mean, log_var = (weighted / safe).to(dtype), (-torch.log(safe)).to(dtype)
    return Gaussian(mean.masked_fill(spoilt, torch.nan), log_var.masked_fill(spoilt, torch.nan))
