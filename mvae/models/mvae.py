"""Defines MVAE and MVAE-Q.

Both combine the experts of several modalities into one posterior. MVAE multiplies the prior and the experts. MVAE-Q
multiplies the n given experts, and divides the product by the prior n - 1 times.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality
from mvae.data.examples import Dataset, Split
from mvae.data.sentences.sentences import Padding
from mvae.models.annealing import annealed_beta, annealed_steps
from mvae.models.arm import Settings
from mvae.models.arms import MVAE_ARM as MVAE_ARM  # plug-ins of earlier releases import MVAE_ARM from here
from mvae.models.elbo import Loss, elbo_terms, negative_elbo
from mvae.models.gaussian import FEW_EXPERTS, Gaussian, product, product_without_prior_expert
from mvae.models.layout import Layout, layout
from mvae.models.learners import examples_of
from mvae.models.multimodal import Multimodal, decoder_of, encoder_of, single_attributes, width_of
from mvae.networks.attribute import AttributeDecoders, AttributeEncoders, attribute_width
from mvae.sampling import Step, kept_steps, step_count, steps
from mvae.streams import numpy_generator, torch_generator
from mvae.supervision import kept_values, paired_set
from mvae.workers import ALONE, Workers

Model = TypeVar("Model", bound=Multimodal)


class MVAE(Multimodal):
    """q(z|X) is the product of the prior and the experts of all given modalities, one or more (paper, equation 3)."""

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        """Multiplies the prior and the given experts. `spread` is each expert's log-variance."""
        return product(mean, spread, members, prior=True)


class MVAEQ(Multimodal):
    """q(z|X) is the product of n experts, divided by the prior n - 1 times (supplement section 3)."""

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        """Combines the given experts. `spread` is the raw output of each expert's variance head."""
        return product_without_prior_expert(mean, spread, members)


@dataclass(frozen=True)
class ElboBatch:
    """Plan, values and noise of one training step for one worker. `negative_elbo` documents the shapes."""

    plan: Layout
    values: tuple[Tensor, ...]
    noise: Tensor


class ElboLearner:
    """Trains a multimodal VAE by the sub-sampled ELBO. The trial's `pairing` sets how often pairs are shown."""

    def __init__(self, model: nn.Module, trial: Settings, data: Dataset, workers: Workers = ALONE) -> None:
        assert isinstance(model, Multimodal)
        self.model, self.trial, self.split, self.workers = model, trial, data.train, workers
        self.paired = paired_set(len(data.train), trial.paired_fraction, trial.seed, dataset=data.name)
        self.device = data.train.values[0].device
        self.weights = [weight_of(modality, trial) for modality in data.modalities]
        n, modalities = len(data.train), len(data.modalities)
        self.kept = None
        if trial.keep_probability < 1:
            keep_first = getattr(trial, "keep_first", False)  # plug-ins from before this field do not read it
            self.kept = kept_values(n, modalities, trial.keep_probability, trial.seed, keep_first)
        self.shown = n if self.kept is None else int(self.kept.any(1).sum())
        self.steps_per_epoch = step_count(self.shown, trial.batch_size)
        self.lengths = self.split.lengths
        self._padding, self._complete = Padding(self.lengths), 0
        """`_complete` counts the examples with all modalities in the epoch so far, repetitions included."""
        self._plans: dict[tuple[int, int, bytes], Layout] = {}

    @cached_property
    def trained_terms(self) -> slice | np.ndarray:
        """Indices of the ELBO terms to train, among the joint, unimodal and subset terms of `elbo_terms`."""
        if getattr(self.trial, "unimodal_terms", True):  # plug-ins from before this field do not read it
            return slice(None)
        modalities = len(self.model.modalities)
        return np.array([0, *range(1 + modalities, 1 + modalities + self.trial.k)])

    @cached_property
    def annealed_steps(self) -> int:
        """Number of steps until the weight of the KL is final. Computed lazily, because some arms do not anneal."""
        return annealed_steps(self.trial, self.steps_per_epoch)

    def facts(self) -> dict[str, float]:
        """Returns metrics about the epoch.

        - train/paired_batches: number of examples with all modalities, divided by the batch size
        - train/skipped_examples: number of examples that lost all values; only if the trial drops values at random
        - train/steps_per_epoch: number of steps; only if the trial drops values at random
        - train/padding_share: fraction of all tokens that are padding; only for sentences
        """
        found = {"train/paired_batches": self._complete / self.trial.batch_size}
        if self.kept is not None:
            skipped = len(self.split) - self.shown
            found |= {"train/skipped_examples": float(skipped), "train/steps_per_epoch": float(self.steps_per_epoch)}
        return found | self._padding.facts()

    def _steps(self, epoch: int, targets: str = "own", subsets: int = 0) -> Iterator[Step]:
        """Yields the steps of an epoch. Resets the counts for `facts`, and counts the examples with all modalities."""
        trial, lengths = self.trial, self.lengths
        self._padding, self._complete = Padding(lengths), 0
        if self.kept is not None:
            chosen = kept_steps(self.kept, trial.batch_size, trial.seed, epoch, subsets=subsets, lengths=lengths)
        else:
            chosen = steps(
                pairing=trial.pairing,
                targets=targets,
                n=len(self.split),
                paired=self.paired,
                batch_size=trial.batch_size,
                seed=trial.seed,
                epoch=epoch,
                modalities=len(self.model.modalities),
                subsets=subsets,
                lengths=lengths,
            )
        for step in chosen:
            self._complete += int(step.present_RM.all(1).sum())
            yield step

    def batches(self, epoch: int) -> Iterator[ElboBatch]:
        trial, modalities = self.trial, len(self.model.modalities)
        noise = torch_generator(trial.seed, "noise", epoch, self.device)
        subsets = numpy_generator(trial.seed, "subsets", epoch)
        examples = examples_of(self.split, trial, epoch)
        for step in self._steps(epoch, trial.targets, trial.k):
            terms = elbo_terms(modalities, trial.k, subsets)[self.trained_terms]
            draws = 1 if trial.fixed_noise else len(terms)
            drawn = torch.randn(
                draws, len(step.index_RM), trial.latents, generator=noise, device=self.device, dtype=torch.float32
            )
            yield ElboBatch(self._plan(step, terms), self._values(step, examples), self.workers.share(drawn, dim=1))

    def loss(self, batch: ElboBatch, step: int | Tensor) -> Loss:
        return negative_elbo(
            self.model,
            batch.plan,
            batch.values,
            batch.noise,
            beta=annealed_beta(step, self.annealed_steps),
            weights=self.weights,
            batch_size=self.trial.batch_size,
        )

    def _values(self, step: Step, examples: Split) -> tuple[Tensor, ...]:
        indices = [column[column >= 0] for column in self.workers.share(step.index_RM).T]
        for m, index in enumerate(indices):
            self._padding.add(m, index)
        return tuple(examples.take(m, torch.from_numpy(index).to(self.device)) for m, index in enumerate(indices))

    def _plan(self, step: Step, terms: np.ndarray) -> Layout:
        pattern = (id(step.present_RM), id(step.active_TR), terms.tobytes())  # see Step.shares_masks
        recurs = step.shares_masks and (self.trial.k == 0 or len(self.model.modalities) <= FEW_EXPERTS)
        plan = self._plans.get(pattern) if recurs else None
        if plan is None:
            plan = layout(
                step.present_RM,
                terms,
                step.active_TR[self.trained_terms],
                targets=self.trial.targets,
                stacked=len(self.model.stacked),
                workers=self.workers,
                device=self.device,
            )
            if recurs:
                if len(self._plans) >= 64:
                    self._plans.clear()
                self._plans[pattern] = plan
        return plan


def weight_of(modality: Modality, trial: Settings) -> float:
    """Returns the weight (lambda) of a modality's likelihood."""
    match modality.kind:
        case Kind.IMAGE:
            return trial.image_weight
        case Kind.LABEL:
            return trial.label_weight
        case Kind.TEXT:
            return trial.text_weight
        case Kind.ATTRIBUTE | Kind.ATTRIBUTES:
            return trial.attribute_weight
        case Kind.VECTOR:
            return trial.vector_weight


def networks_of(
    trial: Settings, modalities: tuple[Modality, ...], latents: int | None = None
) -> tuple[list[nn.Module], list[nn.Module]]:
    """Builds the encoders and the decoders of all modalities except single attributes (Figures 1 to 4).

    Args:
        latents: number of latents of each network. If None, the trial's `latents`.
    """
    width, latents = width_of(modalities), latents or trial.latents
    separate = modalities[: single_attributes(modalities).start]
    return (
        [encoder_of(m, trial.image_network, width, 2 * latents) for m in separate],
        [decoder_of(m, trial.image_network, width, latents, trial.decoder_hidden) for m in separate],
    )


def stacked_networks_of(
    trial: Settings, modalities: tuple[Modality, ...], latents: int | None = None
) -> tuple[AttributeEncoders, AttributeDecoders] | None:
    """Builds the stacked networks of all single attributes. Returns None if there are no single attributes."""
    count, latents = len(single_attributes(modalities)), latents or trial.latents
    if not count:
        return None
    images = (modality.shape for modality in modalities if modality.kind is Kind.IMAGE)
    width = attribute_width(next(images, None))
    return (
        AttributeEncoders(count, width, 2 * latents),
        AttributeDecoders(count, width, latents, trial.decoder_hidden),
    )


def built(model: type[Model], trial: Settings, modalities: tuple[Modality, ...], **options: Any) -> Model:
    """Builds a model with networks for all modalities. `options` are passed to the model's constructor."""
    networks, stacked = networks_of(trial, modalities), stacked_networks_of(trial, modalities)
    return model(modalities, *networks, trial.latents, stacked, **options)


build_mvae, build_mvae_q = partial(built, MVAE), partial(built, MVAEQ)
