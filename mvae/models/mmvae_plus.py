"""MMVAE+: an MMVAE in which each modality also has private latents (Palumbo et al. 2023).

All modalities share the latents z. Modality m also has private latents u_m. The encoder of modality m returns q_m(z)
and q(u_m | x_m). Let A be the modalities of a row. For each modality m in A, z and u_m are drawn from these two
posteriors. Then x_m is reconstructed from (z, u_m), and every other x_n is reconstructed from (z, u_n), with u_n drawn
from a distribution r_n that has mean 0 and a learnt scale. In training only, r_n replaces the prior p(u_n).

    log w_mk = beta * [log p(z) + log p(u_m) - log q(z) - log q(u_m | x_m)]
               + w_m log p(x_m | z, u_m) + sum over the other n in A of w_n log p(x_n | z, u_n)
    loss     = -1/|A| * sum over m in A of log (1/K sum over k of w_mk)

Here q(z) is the mixture of A's unimodal posteriors; p(z) and p(u) have mean 0 and scale 1. For inference, the model's
latents are z and all u_m side by side. If modality m is not given, the prior p(u_m) replaces the posterior of u_m.

Shapes: n rows, R rows of a step, M modalities, P pairs of a row and one of its modalities, K samples, D shared and U
private latents.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mvae.data.dataset import Modality
from mvae.models.arm import Settings
from mvae.models.elbo import Loss
from mvae.models.mmvae import MMVAE, importance_bound, log_likelihoods, mixture_log_prob
from mvae.models.mvae import networks_of, stacked_networks_of
from mvae.models.posteriors import Component, Mixture, Posterior, beside, component, of_each, softmax_log_scale, stacked
from mvae.models.rows import Presence, RowBatch, RowLearner, experts
from mvae.networks.attribute import AttributeDecoders, AttributeEncoders

PREDICTION_SEED = 0
"""Seed with which the private latents of a predicted modality are drawn from their prior."""


class MMVAEPlus(MMVAE):
    """The MMVAE+ model. The latents [n, D + M U] are z, then u_m of each modality. `shared` is D, `private` is U."""

    def __init__(
        self,
        modalities: tuple[Modality, ...],
        encoders: list[nn.Module],
        decoders: list[nn.Module],
        shared: int,
        private: int,
        stacked: tuple[AttributeEncoders, AttributeDecoders] | None = None,
        *,
        family: str = "laplace",
    ) -> None:
        latents = shared + len(modalities) * private
        super().__init__(modalities, encoders, decoders, latents, stacked, family=family, learn_prior=False)
        self.shared, self.private = shared, private
        self.replacement_raw = nn.Parameter(torch.zeros(len(modalities), private))

    def prior(self) -> Component:
        """Returns the prior of z and all u_m, [D + M U], with mean 0 and scale 1."""
        zeros = torch.zeros_like(self.prior_raw)
        return component(self.family, zeros, zeros)

    def replacement(self) -> Component:
        """Returns r_m for every modality, [M, U]. In training, r_m replaces the prior p(u_m)."""
        zeros = torch.zeros_like(self.replacement_raw)
        return component(self.family, zeros, softmax_log_scale(self.replacement_raw))

    def apart(self, mean: Tensor, spread: Tensor) -> tuple[Component, Component]:
        """Splits an encoder's mean and spread, each [..., D + U], into posteriors of shared and private latents."""
        sizes = [self.shared, self.private]
        pairs = zip(torch.split(mean, sizes, dim=-1), torch.split(spread, sizes, dim=-1), strict=True)
        shared, private = (component(self.family, some, softmax_log_scale(raw)) for some, raw in pairs)
        return shared, private

    def private_of(self, m: int) -> slice:
        """Returns the slice of the latents that contains u_m."""
        start = self.shared + m * self.private
        return slice(start, start + self.private)

    def of_modality(self, m: int, z: Tensor) -> Tensor:
        """Selects z and u_m, the input [..., D + U] of modality m's decoder, from all latents [..., D + M U]."""
        if z.shape[-1] == self.shared + self.private:
            return z
        return torch.cat([z[..., : self.shared], z[..., self.private_of(m)]], dim=-1)

    def decode(self, m: int, z: Tensor) -> Tensor:
        return super().decode(m, self.of_modality(m, z))

    def decode_attributes(self, z: Tensor, only: slice = slice(None)) -> Tensor:
        own = [self.of_modality(m, part) for m, part in zip(self.stacked[only], z, strict=True)]
        return super().decode_attributes(torch.stack(own), only)

    def text_at(self, m: int, z: Tensor, generator: torch.Generator | None) -> Tensor:
        return super().text_at(m, self.of_modality(m, z), generator)

    def text_logits(self, m: int, z: Tensor, text: Tensor) -> Tensor:
        return super().text_logits(m, self.of_modality(m, z), text)

    def infer_at(self, values: dict[int, Tensor]) -> Posterior:  # type: ignore[override]
        """Returns the posterior of z and all u_m: one distribution [n, D + M U], or a mixture for several modalities.

        The mixture's components differ only in z. The posterior of u_m is q(u_m | x_m) if modality m is given.
        Otherwise it is the prior p(u_m).
        """
        given = sorted(values)
        parts = {m: self.apart(*self.encode(m, values[m])) for m in given}
        rows = len(next(iter(parts.values()))[0].mean)
        prior = self.prior()

        def private(m: int) -> Component:
            if m in parts:
                return parts[m][1]
            return of_each(prior, lambda part: part[self.private_of(m)].expand(rows, -1))

        privates = [private(m) for m in range(len(self.modalities))]
        components = [beside([parts[m][0], *privates]) for m in given]
        return components[0] if len(components) == 1 else Mixture(stacked(components))

    def predictive(self, values: dict[int, Tensor]) -> Tensor:
        """Returns the posterior mean, but draws u_m from its prior for every modality m that is not given."""
        z = self.infer_at(values).mean
        for m in range(len(self.modalities)):
            if m not in values:
                z = self.for_prediction(m, z)
        return z

    def for_prediction(self, m: int, z: Tensor) -> Tensor:
        """Returns z with u_m replaced by a sample from its prior. Every call uses the same random seed."""
        generator = torch.Generator(device=z.device).manual_seed(PREDICTION_SEED)
        noise = torch.randn(len(z), self.private, generator=generator, device=z.device, dtype=z.dtype)
        prior, z = self.prior(), z.clone()
        z[:, self.private_of(m)] = of_each(prior, lambda part: part[self.private_of(m)]).rsample(noise)
        return z


def mmvae_plus_loss(
    model: MMVAEPlus,
    presence: Presence,
    values: Sequence[Tensor],
    noise: Tensor,
    *,
    beta: float | Tensor,
    weights: Sequence[float],
    batch_size: int,
) -> Loss:
    """Returns the loss from the module docstring in nats, summed over rows and divided by the global batch size.

    Args:
        values: for each modality, the values of the n_m rows that have the modality, in row order.
        noise: standard normal [R, K, M, D + U + M U]. For each modality m: D numbers for z, U for u_m, and U
            for every u_n drawn from r_n.
        beta: weight of the log-ratio of prior and posterior, in brackets in the module docstring.
        weights: w_m, the likelihood weight of each modality.
        batch_size: the global batch size.
    """
    pairs, count = presence.pairs, len(model.modalities)
    shared, private = model.apart(*experts(model, presence, values))
    drawn = noise[pairs.rows, :, pairs.modalities].transpose(0, 1)
    of_z, of_u, of_r = torch.split(drawn, [model.shared, model.private, count * model.private], dim=-1)
    of_r = torch.unflatten(of_r, -1, (count, model.private))
    own_z, own_u = (of_each(q, lambda part: part[pairs.rows, pairs.modalities]) for q in (shared, private))
    z, u = own_z.rsample(of_z), own_u.rsample(of_u)
    prior, replaced = model.prior(), model.replacement()
    log_ratio = (
        of_each(prior, lambda part: part[: model.shared]).log_prob(z)
        + of_each(prior, lambda part: part[model.private_of(0)]).log_prob(u)
        - mixture_log_prob(shared, pairs, z)
        - own_u.log_prob(u)
    )
    share = 1.0 / pairs.present.sum(1) / len(z) / batch_size
    log_w, parts = beta * log_ratio, {"kl": -(log_ratio.detach() * share).sum()}
    for m, modality in enumerate(model.modalities):
        chosen = pairs.decoded[m]
        r = of_each(replaced, partial(torch.select, dim=0, index=m))
        other = r.rsample(of_r[:, chosen, m])
        mine = (pairs.modalities[chosen] == m)[:, None]
        latents = torch.cat([z[:, chosen], torch.where(mine, u[:, chosen], other)], dim=-1)
        each = log_likelihoods(model, pairs, values, m, latents)
        log_w = log_w.index_add(1, chosen, weights[m] * each)
        parts[f"log_likelihood_{modality.name}"] = (each.detach() * share[chosen]).sum()
    return Loss(importance_bound(log_w, pairs, batch_size), parts)


class MmvaePlusLearner(RowLearner):
    """Trains an MMVAE+ on rows that may lack modalities."""

    model: MMVAEPlus
    objective = mmvae_plus_loss

    def noise_shape(self) -> tuple[int, ...]:
        model, count = self.model, len(self.model.modalities)
        return (self.trial.own_value("samples"), count, model.shared + model.private * (1 + count))

    def arguments(self, batch: RowBatch, step: int | Tensor) -> dict[str, Any]:
        return {"beta": self.trial.own_value("beta")}


def build_mmvae_plus(trial: Settings, modalities: tuple[Modality, ...]) -> MMVAEPlus:
    """Builds the MMVAE+ that a trial describes."""
    private = trial.own_value("private_latents")
    both = trial.latents + private
    return MMVAEPlus(
        modalities,
        *networks_of(trial, modalities, both),
        trial.latents,
        private,
        stacked_networks_of(trial, modalities, both),
        family=trial.own_value("posterior"),
    )
