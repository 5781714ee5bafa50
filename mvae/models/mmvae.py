"""MMVAE: a uniform mixture of the unimodal posteriors, trained by an importance-weighted bound (Shi et al. 2019).

For a row with the modalities A, with K samples z_mk of each q_m and the mixture q(z) = 1/|A| sum over j of q_j(z),

    log w_mk = log p(z_mk) + sum over n in A of w_n log p(x_n | z_mk) - log q(z_mk)
    loss     = -1/|A| * sum over m in A of log (1/K sum over k of w_mk)

With K = 1, or with `gradient = exact`, the loss is differentiated as it is. With K > 1 and `gradient = dreg`, the
gradients are doubly reparameterised. They are the gradients of -1/|A| sum_m sum_k v_mk log w_mk with three changes:

    v_mk = w_mk / sum_k w_mk is held constant
    the parameters of every q_j in log q are held constant
    the gradient that reaches z_mk is multiplied by v_mk

Shapes: n rows, R rows of a step, M modalities, P pairs of a row and one of its modalities, K samples, D latents.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvae.data.dataset import Modality
from mvae.models.arm import Settings
from mvae.models.elbo import Loss, repeated
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import built
from mvae.models.posteriors import Component, Mixture, Posterior, component, of_each, softmax_log_scale, stacked
from mvae.models.rows import Pairs, Presence, RowBatch, RowLearner, experts
from mvae.networks.attribute import AttributeDecoders, AttributeEncoders


class MMVAE(Multimodal):
    """Given modalities A, the posterior is the uniform mixture of A's unimodal posteriors."""

    def __init__(
        self,
        modalities: tuple[Modality, ...],
        encoders: list[nn.Module],
        decoders: list[nn.Module],
        latents: int,
        stacked: tuple[AttributeEncoders, AttributeDecoders] | None = None,
        *,
        family: str = "laplace",
        learn_prior: bool = True,
    ) -> None:
        super().__init__(modalities, encoders, decoders, latents, stacked)
        self.family = family
        self.prior_raw = nn.Parameter(torch.zeros(latents), requires_grad=learn_prior)

    def prior(self) -> Component:
        """Returns the prior p(z), [D], with mean 0. The scales D * softmax(prior_raw) + 1e-6 are fixed or learnt."""
        return component(self.family, torch.zeros_like(self.prior_raw), softmax_log_scale(self.prior_raw))

    def prior_at(self, noise: Tensor) -> Tensor:
        return self.prior().rsample(noise)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        return self.prior().log_prob(z)

    def unimodal(self, mean: Tensor, spread: Tensor) -> Component:
        """Returns unimodal posteriors from the encoders' outputs, [..., D]."""
        return component(self.family, mean, softmax_log_scale(spread))

    def infer_at(self, values: dict[int, Tensor]) -> Posterior:  # type: ignore[override]
        """Returns q(z | the given modalities): one distribution [n, D] for one modality, a mixture for several."""
        parts = [self.unimodal(*self.encode(m, values[m])) for m in sorted(values)]
        if len(parts) == 1:
            return parts[0]
        return Mixture(stacked(parts))


def mixture_log_prob(parts: Component, pairs: Pairs, z: Tensor) -> Tensor:
    """Returns log q(z), [K, P], where q is the mixture posterior of each pair's row.

    Args:
        parts: unimodal posteriors [R, M, D].
        z: samples [K, P, D].
    """
    of_pairs = of_each(parts, lambda part: repeated(part, pairs.rows))
    each = of_pairs.log_prob(z.unsqueeze(2)).masked_fill(~pairs.present, -torch.inf)
    return torch.logsumexp(each, dim=-1) - torch.log(pairs.present.sum(1).to(each.dtype))


def log_likelihoods(model: Multimodal, pairs: Pairs, values: Sequence[Tensor], m: int, z: Tensor) -> Tensor:
    """Returns log p(x_m | z), [K, P_m], for the P_m pairs whose row has modality m, given samples z [K, P_m, D]."""
    samples = len(z)
    target = values[m].index_select(0, pairs.targets[m])
    wide = target.unsqueeze(0).expand(samples, *target.shape).flatten(0, 1)
    return model.log_prob(m, z.flatten(0, 1), wide).view(samples, -1)


def importance_bound(log_w: Tensor, pairs: Pairs, batch_size: int) -> Tensor:
    """Returns -1/|A| * sum over m of log(mean over k of w_mk), summed over rows and divided by the batch size."""
    bound = torch.logsumexp(log_w, dim=0) - math.log(len(log_w))
    return -(bound / pairs.present.sum(1)).sum() / batch_size


def doubly_reparameterised(log_w: Tensor, z: Tensor, pairs: Pairs, batch_size: int) -> Tensor:
    """Returns a loss whose value is `importance_bound` and whose gradients are doubly reparameterised (DReG).

    Args:
        log_w: [K, P], computed with the parameters in log q held constant.
        z: samples [K, P, D] from which log_w was computed. Their gradients are multiplied by the normalised weights.
    """
    v = torch.softmax(log_w.detach(), dim=0)
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * v.unsqueeze(-1))  # type: ignore[no-untyped-call]
    surrogate = -((v * log_w).sum(0) / pairs.present.sum(1)).sum() / batch_size
    bound = importance_bound(log_w.detach(), pairs, batch_size)
    return surrogate - surrogate.detach() + bound


def mmvae_loss(
    model: MMVAE,
    presence: Presence,
    values: Sequence[Tensor],
    noise: Tensor,
    *,
    weights: Sequence[float],
    batch_size: int,
    gradient: str = "dreg",
) -> Loss:
    """Returns the loss from the module docstring in nats, summed over rows and divided by the global batch size.

    Args:
        values: for each modality, the values of the n_m rows that have the modality, in row order.
        noise: standard normal [R, K, M, D].
        weights: w_m, the likelihood weight of each modality.
        batch_size: the global batch size.
        gradient: `dreg` or `exact`. With K = 1, both give the same gradients.
    """
    pairs = presence.pairs
    q = model.unimodal(*experts(model, presence, values))
    own = of_each(q, lambda part: part[pairs.rows, pairs.modalities])
    z = own.rsample(noise[pairs.rows, :, pairs.modalities].transpose(0, 1))
    reparameterised_twice = gradient == "dreg" and len(z) > 1
    log_q = mixture_log_prob(of_each(q, Tensor.detach) if reparameterised_twice else q, pairs, z)
    log_ratio = model.prior().log_prob(z) - log_q
    share = 1.0 / pairs.present.sum(1) / len(z) / batch_size
    log_w, parts = log_ratio, {"kl": -(log_ratio.detach() * share).sum()}
    for m, modality in enumerate(model.modalities):
        chosen = pairs.decoded[m]
        each = log_likelihoods(model, pairs, values, m, z.index_select(1, chosen))
        log_w = log_w.index_add(1, chosen, weights[m] * each)
        parts[f"log_likelihood_{modality.name}"] = (each.detach() * share[chosen]).sum()
    bound = doubly_reparameterised(log_w, z, pairs, batch_size) if reparameterised_twice else None
    return Loss(importance_bound(log_w, pairs, batch_size) if bound is None else bound, parts)


class MmvaeLearner(RowLearner):
    """Trains an MMVAE on rows that may lack modalities."""

    model: MMVAE
    objective = mmvae_loss

    def noise_shape(self) -> tuple[int, ...]:
        return (self.trial.own_value("samples"), len(self.model.modalities), self.model.latents)

    def arguments(self, batch: RowBatch, step: int | Tensor) -> dict[str, Any]:
        return {"gradient": self.trial.own_value("gradient")}


def build_mmvae(trial: Settings, modalities: tuple[Modality, ...]) -> MMVAE:
    """Builds the MMVAE that a trial describes."""
    posterior, learn_prior = trial.own_value("posterior"), trial.own_value("learn_prior")
    return built(MMVAE, trial, modalities, family=posterior, learn_prior=learn_prior)
