"""MoPoE-VAE: a uniform mixture over the products of experts of all subsets of modalities (Sutter et al. 2021).

A row with the modalities A has 2^|A| - 1 non-empty subsets of A. Each step draws one subset per row, then draws z
from the subset's product of experts. The loss of a row is

    sum over m in A of -w_m log p(x_m | z)  +  beta / (2^|A| - 1) * sum over subsets S of A of KL(q_S || N(0, I))

The products do not include the prior as an expert. The option `full_subset_prior` adds the prior to the product of all
modalities, as in the authors' code.

Shapes: n rows, R rows of a step, M modalities, S subsets, D latents.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mvae.data.dataset import Modality
from mvae.models.arm import Settings
from mvae.models.elbo import Loss
from mvae.models.gaussian import Gaussian, product
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import built
from mvae.models.posteriors import Mixture, Posterior
from mvae.models.rows import Presence, RowBatch, RowLearner, drawn, experts, reconstruction
from mvae.networks.attribute import AttributeDecoders, AttributeEncoders


@cache
def subsets(modalities: int) -> np.ndarray:
    """Returns every non-empty subset of M modalities, boolean [2^M - 1, M]. Row s holds the bits of s + 1."""
    numbers = np.arange(1, 2**modalities)
    return np.asarray((numbers[:, None] >> np.arange(modalities)) & 1, dtype=bool)


@cache
def _subsets_on(modalities: int, device: torch.device) -> Tensor:
    return torch.from_numpy(subsets(modalities)).to(device)


class MoPoE(Multimodal):
    """Given modalities A, the posterior is a uniform mixture of products of experts, one per non-empty subset of A."""

    def __init__(
        self,
        modalities: tuple[Modality, ...],
        encoders: list[nn.Module],
        decoders: list[nn.Module],
        latents: int,
        stacked: tuple[AttributeEncoders, AttributeDecoders] | None = None,
        *,
        full_subset_prior: bool = False,
    ) -> None:
        super().__init__(modalities, encoders, decoders, latents, stacked)
        self.full_subset_prior = full_subset_prior

    def products(self, mean: Tensor, log_var: Tensor) -> Gaussian:
        """Maps M experts [R, M, D] to the products of all non-empty subsets of experts [R, 2^M - 1, D]."""
        members = _subsets_on(mean.shape[1], mean.device)
        q = product(mean, log_var, members, prior=False, nonempty=True)
        if not self.full_subset_prior or mean.shape[1] < len(self.modalities):
            return q
        full = product(mean, log_var, members[-1:], prior=True)
        return Gaussian(*(torch.cat([some[:, :-1], last], 1) for some, last in zip(q, full, strict=True)))

    def infer_at(self, values: dict[int, Tensor]) -> Posterior:  # type: ignore[override]
        """Returns q(z | the given modalities): a Gaussian [n, D] for one modality, else a mixture."""
        given = sorted(values)
        encoded = [self.encode(m, values[m]) for m in given]
        q = self.products(*(torch.stack(parts, dim=1) for parts in zip(*encoded, strict=True)))
        return Mixture(q) if len(given) > 1 else Gaussian(q.mean.squeeze(1), q.log_var.squeeze(1))


def negative_mopoe_elbo(
    model: MoPoE,
    presence: Presence,
    values: Sequence[Tensor],
    noise: Tensor,
    choice: Tensor,
    *,
    beta: float | Tensor,
    weights: Sequence[float],
    batch_size: int,
) -> Loss:
    """Returns the loss from the module docstring in nats, summed over rows and divided by the global batch size.

    Args:
        values: for each modality, the values of the n_m rows that have the modality, in row order.
        noise: standard normal [R, D].
        choice: uniform numbers in [0, 1), [R]. A row with c subsets uses the subset number floor(c * choice), counted
            from 0.
        beta: weight of the KL.
        weights: w_m, the likelihood weight of each modality.
        batch_size: the global batch size.
    """
    q = model.products(*experts(model, presence, values))
    members = _subsets_on(len(model.modalities), noise.device)
    offered = ~(members & ~presence.present[:, None]).any(-1)
    count = offered.sum(1)
    kl = (torch.where(offered, q.kl_to_prior(), 0.0).sum(1) / count).sum() / batch_size
    z = drawn(q, offered, choice).rsample(noise)
    likelihood, parts = reconstruction(model, presence, values, z, weights, batch_size)
    return Loss(beta * kl - likelihood, {"kl": kl.detach(), **parts})


class MoPoELearner(RowLearner):
    """Trains a MoPoE-VAE on rows that may lack modalities."""

    model: MoPoE
    objective = negative_mopoe_elbo

    def arguments(self, batch: RowBatch, step: int | Tensor) -> dict[str, Any]:
        return {"choice": batch.choice, "beta": self.beta(step)}


def build_mopoe(trial: Settings, modalities: tuple[Modality, ...]) -> MoPoE:
    """Builds the MoPoE-VAE that a trial describes."""
    return built(MoPoE, trial, modalities, full_subset_prior=trial.own_value("full_subset_prior"))
