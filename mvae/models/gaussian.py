"""Algebra of diagonal Gaussians: product, quotient, KL, log-density (supplement, Lemmas 2.1 and 3.1).

Experts come as (mean, log-variance). Sums of precisions run in float64, where exp of any log-variance from -300 to 300
is an ordinary number, and only their results return to the caller's precision: no expert can give inf or nan.

Shapes: ... any leading dimensions, M experts, T products ("terms"), D dimensions.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOG_TWO_PI = math.log(2 * math.pi)

FEW_EXPERTS = 4
"""Up to this many experts, sums over them are faster expert by expert than as a batch of matrix products."""


class Gaussian(NamedTuple):
    """A diagonal Gaussian; both tensors have shape [..., D]."""

    mean: Tensor
    log_var: Tensor

    def rsample(self, noise: Tensor) -> Tensor:
        """mean + standard deviation * noise, differentiable in the parameters."""
        return self.mean + torch.exp(0.5 * self.log_var) * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of z, summed over D: shape [...], in nats."""
        squared = (z - self.mean).square() * torch.exp(-self.log_var)
        return -0.5 * (LOG_TWO_PI + self.log_var + squared).sum(-1)

    def kl_to_prior(self) -> Tensor:
        """KL(self || N(0, I)), summed over D: shape [...], in nats."""
        return 0.5 * (torch.exp(self.log_var) + self.mean.square() - 1 - self.log_var).sum(-1)

    def kl(self, other: "Gaussian") -> Tensor:
        """KL(self || other), summed over D: shape [...], in nats."""
        log_ratio = other.log_var - self.log_var
        squared = (self.mean - other.mean).square() * torch.exp(-other.log_var)
        return 0.5 * (log_ratio + torch.exp(-log_ratio) + squared - 1).sum(-1)


def standard_log_prob(z: Tensor) -> Tensor:
    """Log-density of N(0, I) at z, summed over D, in nats."""
    return -0.5 * (LOG_TWO_PI + z.square()).sum(-1)


def product(mean: Tensor, log_var: Tensor, members: Tensor, *, prior: bool, nonempty: bool = False) -> Gaussian:
    """Products of experts, several at once: precisions add, means are precision-weighted (Lemma 2.1).

    Args:
        mean, log_var: [..., M, D], one diagonal Gaussian an expert.
        members: boolean [..., T, M], which experts each product multiplies. An expert outside a product never enters
            it, not even as nan.
        prior: whether N(0, I) is one more expert of every product, the universal expert of the MVAE.
        nonempty: the caller's promise that every product has a member; checking would wait for a GPU.
    Returns:
        Gaussian of shape [..., T, D]. A product without any member is the prior.
    Raises:
        ValueError: without prior, a product without any member.
    """
    if not (prior or nonempty) and not bool(members.any(-1).all()):
        raise ValueError("a product of no experts has no density: give every product a member, or include the prior")
    mean64, log_var64, chosen = mean.double(), log_var.double(), members.double()
    broken, spoilt = _broken_experts(mean64, log_var64, chosen)
    precision = _without(broken, torch.exp(-_without(broken, log_var64)))
    total = _sums(chosen, precision)
    if prior:
        total = total + 1.0
    weighted = _sums(chosen, precision * _without(broken, mean64))
    joined = _from_natural(weighted, total, spoilt)
    return Gaussian(joined.mean.to(mean.dtype), joined.log_var.to(log_var.dtype))


def quotient(p: Gaussian, q: Gaussian) -> Gaussian:
    """p / q (Lemma 3.1): precisions and precision-weighted means subtract.

    Raises:
        ValueError: where q is not wider than p, so that the quotient has no density.
    """
    precision_p, precision_q = torch.exp(-p.log_var.double()), torch.exp(-q.log_var.double())
    precision = precision_p - precision_q
    if not bool((precision > 0).all()):
        raise ValueError(
            "the quotient p/q is no Gaussian where the precision of p does not exceed that of q: widen q or narrow p"
        )
    mean = (precision_p * p.mean.double() - precision_q * q.mean.double()) / precision
    return Gaussian(mean.to(p.mean.dtype), (-torch.log(precision)).to(p.log_var.dtype))


def product_without_prior_expert(mean: Tensor, raw: Tensor, members: Tensor) -> Gaussian:
    """MVAE-Q's posteriors: a product of experts over one division by the prior a further expert (supplement section 3).

    Each expert's variance is the rescaled sigmoid V = N/(N-1) * sigmoid(raw) over all N = M modalities. With n of N
    present the posterior is prod q_i / prior^(n-1), of precision sum 1/V_i - (n-1). Written out that is
    (N-n)/N + (N-1)/N * sum exp(-raw_i): a sum of positive numbers, where the subtraction gives 0 in float32.

    Args:
        mean: [..., M, D], the experts' means.
        raw: [..., M, D], the raw outputs of the variance heads.
        members: boolean [..., T, M], which modalities each posterior conditions on.
    Returns:
        Gaussian of shape [..., T, D].
    Raises:
        ValueError: fewer than two modalities, or a posterior that conditions on none.
    """
    modalities = members.shape[-1]
    if modalities < 2:
        raise ValueError("the rescaled sigmoid N/(N-1) needs at least 2 modalities: this model has one")
    recorded = members.is_cuda and torch.cuda.is_current_stream_capturing()  # of a step that was taken before
    if not recorded and not bool(members.any(-1).all()):
        raise ValueError("a product of no experts has no density: give every product a member")
    mean64, raw64, chosen = mean.double(), raw.double(), members.double()
    broken, spoilt = _broken_experts(mean64, raw64, chosen)
    scale = (modalities - 1) / modalities
    odds = _without(broken, torch.exp(-_without(broken, raw64)))
    total = 1.0 - chosen.sum(-1, keepdim=True) / modalities + scale * _sums(chosen, odds)
    weighted = _sums(chosen, scale * (odds + 1.0) * _without(broken, mean64))
    joined = _from_natural(weighted, total, spoilt)
    return Gaussian(joined.mean.to(mean.dtype), joined.log_var.to(raw.dtype))


def _sums(chosen: Tensor, values: Tensor) -> Tensor:
    """chosen @ values, [..., T, M] by [..., M, D], without a batch of tiny matrix products where that can be."""
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
    """Where experts are nan or infinite [..., M, D], and which products [..., T, D] that spoils; None if nowhere.

    Weighting by 0 would carry the nan of an expert into products that it is no member of, so broken numbers are left
    out of the sums, and the products they belong to are marked to be nan. A sum that is finite has no broken addend,
    which is the quick way to know; on a GPU to ask is to wait, so there the answer is used unseen.
    """
    if mean.device.type == "cpu" and math.isfinite((mean.detach().sum() + spread.detach().sum()).item()):
        return None, None
    broken = ~(torch.isfinite(mean) & torch.isfinite(spread))
    return broken, _sums(chosen, broken.double()) > 0


def _without(broken: Tensor | None, values: Tensor) -> Tensor:
    return values if broken is None else values.masked_fill(broken, 0.0)


def _from_natural(weighted: Tensor, total: Tensor, spoilt: Tensor | None) -> Gaussian:
    """Mean and log-variance from sums of weighted means and of precisions; spoilt products are nan.

    Their nan is put in last, so that it comes back in no gradient of the other products.
    """
    if spoilt is None:
        return Gaussian(weighted / total, -torch.log(total))
    safe = total.masked_fill(spoilt, 1.0)
    return Gaussian((weighted / safe).masked_fill(spoilt, torch.nan), (-torch.log(safe)).masked_fill(spoilt, torch.nan))
