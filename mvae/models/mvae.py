"""MVAE (product of experts, the prior as universal expert) and MVAE-Q (without it, by the quotient of Gaussians)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mvae.data.dataset import Dataset, Kind, Modality
from mvae.data.supervision import Step, paired_set, step_count, steps
from mvae.gaussian import Gaussian, product, product_without_prior_expert
from mvae.models.annealing import Annealing
from mvae.models.arm import ANNEALED, IDENTITY, NETWORKS, OPTIMISED, PAIRED, Arm
from mvae.models.multimodal import Multimodal, decoder_of, encoder_of, width_of
from mvae.objective import Layout, Loss, elbo_terms, layout, negative_elbo
from mvae.streams import numpy_generator, torch_generator

if TYPE_CHECKING:
    from mvae.trial import Trial


class MVAE(Multimodal):
    """q(z|X) is the prior times the experts that are there (main paper, equation 3): unimodal posteriors too."""

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        """`spread` is each expert's log-variance."""
        return product(mean, spread, members, prior=True)


class MVAEQ(Multimodal):
    """Experts by the rescaled sigmoid, joined by product and quotient (supplement section 3)."""

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        """`spread` is the raw output of each expert's variance head."""
        return product_without_prior_expert(mean, spread, members)


@dataclass(frozen=True)
class ElboBatch:
    """What one step sees: the values that are there, where they go, and the noise."""

    plan: Layout
    values: tuple[Tensor, ...]
    noise: Tensor


class ElboLearner:
    """Trains a multimodal VAE by the sub-sampled ELBO under a pairing protocol."""

    def __init__(self, model: nn.Module, trial: Trial, data: Dataset) -> None:
        assert isinstance(model, Multimodal)
        self.model, self.trial, self.split = model, trial, data.train
        self.paired = paired_set(len(data.train), trial.paired_fraction, trial.seed, dataset=data.name)
        self.device = data.train.values[0].device
        self.weights = [weight_of(modality, trial) for modality in data.modalities]
        self.steps_per_epoch = step_count(len(data.train), trial.batch_size)
        self.annealing = Annealing.of(trial, self.steps_per_epoch)
        self._plans: dict[tuple[int, int, bytes], Layout] = {}

    def batches(self, epoch: int) -> Iterator[ElboBatch]:
        trial, modalities = self.trial, len(self.model.modalities)
        noise = torch_generator(trial.seed, "noise", epoch, self.device)
        subsets = numpy_generator(trial.seed, "subsets", epoch)
        for step in steps(
            pairing=trial.pairing,
            targets=trial.targets,
            n=len(self.split),
            paired=self.paired,
            batch_size=trial.batch_size,
            seed=trial.seed,
            epoch=epoch,
            modalities=modalities,
            subsets=trial.k,
        ):
            terms = elbo_terms(modalities, trial.k, subsets)
            draws = 1 if trial.fixed_noise else len(terms)
            yield ElboBatch(
                self._plan(step, terms),
                self._values(step),
                torch.randn(
                    draws, len(step.index_RM), trial.latents, generator=noise, device=self.device, dtype=torch.float32
                ),
            )

    def loss(self, batch: ElboBatch, step: int) -> Loss:
        return negative_elbo(
            self.model,
            batch.plan,
            batch.values,
            batch.noise,
            beta=self.annealing.beta(step),
            weights=self.weights,
            batch_size=self.trial.batch_size,
        )

    def _values(self, step: Step) -> tuple[Tensor, ...]:
        indices = (column[column >= 0] for column in step.index_RM.T)
        return tuple(self.split.take(m, torch.from_numpy(index).to(self.device)) for m, index in enumerate(indices))

    def _plan(self, step: Step, terms: np.ndarray) -> Layout:
        pattern = (id(step.present_RM), id(step.active_TR), terms.tobytes())  # like steps share these very objects
        plan = self._plans.get(pattern)
        if plan is None:
            if len(self._plans) >= 64:
                self._plans.clear()
            plan = layout(step.present_RM, terms, step.active_TR, targets=self.trial.targets).to(self.device)
            self._plans[pattern] = plan
        return plan


def weight_of(modality: Modality, trial: Trial) -> float:
    """The likelihood weight lambda that a trial gives a modality."""
    match modality.kind:
        case Kind.IMAGE:
            return trial.image_weight
        case Kind.LABEL:
            return trial.label_weight
        case Kind.TEXT:
            return trial.text_weight


def networks_of(trial: Trial, modalities: tuple[Modality, ...]) -> tuple[list[nn.Module], list[nn.Module]]:
    """An encoder to mean and spread, and a decoder, for each modality (Figures 1 to 4)."""
    width = width_of(modalities)
    return (
        [encoder_of(m, trial.image_network, width, 2 * trial.latents) for m in modalities],
        [decoder_of(m, trial.image_network, width, trial.latents, trial.decoder_hidden) for m in modalities],
    )


def build_mvae(trial: Trial, modalities: tuple[Modality, ...]) -> MVAE:
    """The MVAE that a trial describes."""
    return MVAE(modalities, *networks_of(trial, modalities), trial.latents)


def build_mvae_q(trial: Trial, modalities: tuple[Modality, ...]) -> MVAEQ:
    """The MVAE-Q that a trial describes."""
    return MVAEQ(modalities, *networks_of(trial, modalities), trial.latents)


_READS = (
    IDENTITY
    | PAIRED
    | OPTIMISED
    | NETWORKS
    | ANNEALED
    | {"pairing", "targets", "k", "fixed_noise", "image_weight", "label_weight", "text_weight"}
)
_CAN = frozenset({"accuracy", "likelihood"})

MVAE_ARM = Arm("mvae", "MVAE", _READS, build_mvae, _CAN, learner=ElboLearner)
MVAE_Q_ARM = Arm("mvae_q", "MVAE-Q", _READS, build_mvae_q, _CAN, learner=ElboLearner)
