"""Example of your own loss and posterior: the MMVAE of the MVTCAE paper, a uniform mixture of Gaussian experts.

Hwang et al. (2021) compare their MVTCAE with this model. Shi's MMVAE (2019), which is the arm `mmvae`, differs: it has
Laplace experts and another loss. For a row with the modalities A, the model draws m from A, and z from
q_m = q(z | x_m). The loss of the row is

    sum over n in A of -w_n log p(x_n | z)  +  beta / |A| * sum over n in A of KL(q_n || N(0, I))
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import mvae.models
from mvae.data import Modality
from mvae.models.arms import MOPOE_ARM
from mvae.models.elbo import Loss
from mvae.models.gaussian import Gaussian
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import networks_of, stacked_networks_of
from mvae.models.posteriors import Mixture, Posterior, stacked
from mvae.models.rows import Presence, RowBatch, RowLearner, drawn, experts, reconstruction
from mvae.settings import Settings

# R rows of a step, M modalities, D latents


class MixtureOfExperts(Multimodal):
    """q(z | modalities) is the uniform mixture of the experts of these modalities."""

    def infer_at(self, values: dict[int, Tensor]) -> Posterior:  # type: ignore[override]
        each = [Gaussian(*self.encode(m, values[m])) for m in sorted(values)]
        return Mixture(stacked(each)) if len(each) > 1 else each[0]


def mixture_loss(
    model: MixtureOfExperts,
    presence: Presence,
    values: Sequence[Tensor],
    noise: Tensor,
    choice: Tensor,
    *,
    beta: float | Tensor,
    weights: Sequence[float],
    batch_size: int,
) -> Loss:
    """Returns the loss in nats: the sum of the rows' losses (see the top of this file), divided by the batch size."""
    q = Gaussian(*experts(model, presence, values))  # [R, M, D]
    present = presence.present
    count = present.sum(1)
    kl = (torch.where(present, q.kl_to_prior(), 0.0).sum(1) / count).sum() / batch_size
    z = drawn(q, present, choice).rsample(noise)
    likelihood, parts = reconstruction(model, presence, values, z, weights, batch_size)
    return Loss(beta * kl - likelihood, {"kl": kl.detach(), **parts})


class MixtureLearner(RowLearner):
    """Trains the mixture on rows in which modalities may be missing."""

    model: MixtureOfExperts
    objective = mixture_loss

    def arguments(self, batch: RowBatch, step: int | Tensor) -> dict[str, Any]:
        return {"choice": batch.choice, "beta": self.beta(step)}


def build(trial: Settings, modalities: tuple[Modality, ...]) -> MixtureOfExperts:
    """Returns the untrained model."""
    networks = networks_of(trial, modalities)
    return MixtureOfExperts(modalities, *networks, trial.latents, stacked_networks_of(trial, modalities))


mvae.models.add(
    replace(
        MOPOE_ARM,  # the same measures and data sets
        token="mixture",
        title="MMVAE (Gaussian)",
        build=build,
        learner=MixtureLearner,
        hyperparameters=tuple(one for one in MOPOE_ARM.hyperparameters if one.name == "beta"),
        most_modalities=None,
    )
)
