"""MVTCAE: a product of experts with a penalty on its KL to each expert (Hwang et al. 2021).

The model has M modalities, and a row has the modalities A. The posterior q is the product of A's experts without a
prior expert. The unimodal posterior q_m is the expert of modality m. With a weight a from 0 to 1, the loss of a row is

    (M - a)/M * sum over m in A of -w_m log p(x_m | z)
        + beta * [ (1 - a) KL(q || N(0, I))  +  a/M * sum over m in A of KL(q || q_m) ]

Shapes: R rows of a step, M modalities, D latents.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mvae.models.elbo import Loss
from mvae.models.gaussian import Gaussian, product
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import built
from mvae.models.rows import Presence, RowBatch, RowLearner, experts, reconstruction


class MVTCAE(Multimodal):
    """Given modalities A, the posterior is the product of A's experts, without a prior expert."""

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        """Multiplies the experts of the given modalities. `spread` is each expert's log-variance."""
        return product(mean, spread, members, prior=False, nonempty=True)


def mvtcae_loss(
    model: MVTCAE,
    presence: Presence,
    values: Sequence[Tensor],
    noise: Tensor,
    *,
    a: float,
    beta: float | Tensor,
    weights: Sequence[float],
    batch_size: int,
) -> Loss:
    """Returns the loss from the module docstring in nats, summed over rows and divided by the global batch size.

    Args:
        values: for each modality, the values of the n_m rows that have the modality, in row order.
        noise: standard normal [R, D].
        a: weight of the KLs to the experts, from 0 (which gives the joint ELBO) to 1.
        beta: weight of all KLs.
        weights: w_m, the likelihood weight of each modality.
        batch_size: the global batch size.
    """
    mean, log_var = experts(model, presence, values)
    joint = model.posterior(mean, log_var, presence.present[:, None])
    q = Gaussian(joint.mean.squeeze(1), joint.log_var.squeeze(1))
    kl = q.kl_to_prior().sum() / batch_size
    to_experts = joint.kl(Gaussian(mean, log_var))
    apart = torch.where(presence.present, to_experts, 0.0).sum() / batch_size
    likelihood, parts = reconstruction(model, presence, values, q.rsample(noise), weights, batch_size)
    count = len(model.modalities)
    total = beta * ((1 - a) * kl + a / count * apart) - (count - a) / count * likelihood
    return Loss(total, {"kl": kl.detach(), "kl_to_experts": apart.detach(), **parts})


class MvtcaeLearner(RowLearner):
    """Trains an MVTCAE on rows that may lack modalities."""

    model: MVTCAE
    objective = mvtcae_loss

    def arguments(self, batch: RowBatch, step: int | Tensor) -> dict[str, Any]:
        return {"a": self.trial.own_value("a"), "beta": self.beta(step)}


build_mvtcae = partial(built, MVTCAE)
