"""Computes training steps of the arms with one loss per example: MoPoE, MVTCAE, MMVAE and MMVAE+.

In the MVAE, an example can occur in several ELBO terms. In these arms, an example is one row, which may lack some
modalities. A step consists of rows, a mask of their modalities, and noise. `mvae/sampling.py` chooses the rows for all
arms.

Shapes: R rows of a step, M modalities, n_m rows that have modality m, P pairs of a row and one of its modalities, P_m
pairs whose row has modality m, D latents.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mvae.data.examples import Dataset
from mvae.models.annealing import annealed_beta
from mvae.models.arm import Settings
from mvae.models.elbo import Loss, all_rows
from mvae.models.learners import examples_of
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import ElboLearner
from mvae.models.posteriors import Component, of_each
from mvae.sampling import Step
from mvae.streams import numpy_generator, torch_generator
from mvae.workers import ALONE, Workers


@dataclass(frozen=True)
class Pairs:
    """All pairs of a row and one of its modalities. Each pair has a z, from which the row's modalities are decoded."""

    rows: Tensor
    """Row of each pair, int64 [P]."""
    modalities: Tensor
    """Modality of each pair, int64 [P]."""
    present: Tensor
    """Boolean [P, M]: the modalities that a pair's row has."""
    decoded: tuple[Tensor, ...]
    """For each modality, the pairs whose row has the modality, int64 [P_m]."""
    targets: tuple[Tensor, ...]
    """For each modality, the target of each pair in `decoded`, as a position among the n_m values: int64 [P_m]."""

    @classmethod
    def of(cls, present: np.ndarray, device: torch.device | str) -> "Pairs":
        """Lists all pairs of a batch. `present`, boolean [R, M], marks the modalities of each row."""
        rows, modalities = np.nonzero(present)
        decoded = [np.flatnonzero(column) for column in present[rows].T]
        positions = present.cumsum(0) - 1
        targets = [positions[rows[pairs], m] for m, pairs in enumerate(decoded)]

        def tensors(arrays: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
            return tuple(torch.from_numpy(array).to(device) for array in arrays)

        row, modality, mask = tensors([rows, modalities, present[rows]])
        return cls(row, modality, mask, tensors(decoded), tensors(targets))


@dataclass(frozen=True)
class Presence:
    """Records which modalities each row of a batch has."""

    present: Tensor
    """Boolean [R, M]; every row has a modality."""
    where: tuple[Tensor | None, ...]
    """For each modality, the rows that have the modality, int64 [n_m]; `None` if all rows have it."""
    pairs: Pairs

    @classmethod
    def of(cls, present: np.ndarray, device: torch.device | str = "cpu") -> "Presence":
        """Builds a `Presence` from a mask, boolean [R, M], of the modalities of each row."""
        where = tuple(
            None if column.all() else torch.from_numpy(np.flatnonzero(column)).to(device) for column in present.T
        )
        every = torch.from_numpy(present.copy()).to(device)
        return cls(every, where, Pairs.of(present, device))

    def spread(self, m: int, values: Tensor) -> Tensor:
        """Expands values [n_m, ...] of the rows that have modality m to all rows, [R, ...]. Other rows get 0."""
        return all_rows(values, self.where[m], len(self.present))

    def taken(self, m: int, values: Tensor) -> Tensor:
        """Returns the values of the rows that have modality m, [n_m, ...], from the values of all rows, [R, ...]."""
        rows = self.where[m]
        return values if rows is None else values.index_select(0, rows)


@dataclass(frozen=True)
class RowBatch:
    """The rows of one training step; with several workers, only one worker's rows."""

    presence: Presence
    values: tuple[Tensor, ...]
    """For each modality, the n_m values of the rows that have the modality, in row order."""
    noise: Tensor
    """Standard normal [R, ...], shaped by the arm."""
    choice: Tensor
    """Uniform in [0, 1), float64 [R]: chooses the mixture component of each row."""


def experts(model: Multimodal, presence: Presence, values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the mean and spread of every modality's expert, each [R, M, D]; 0 if the row lacks the modality."""
    encoded = [model.encode(m, value) for m, value in enumerate(values)]
    mean = torch.stack([presence.spread(m, mean) for m, (mean, _) in enumerate(encoded)], dim=1)
    spread = torch.stack([presence.spread(m, spread) for m, (_, spread) in enumerate(encoded)], dim=1)
    return mean, spread


def drawn(parts: Component, offered: Tensor, choice: Tensor) -> Component:
    """Draws one component per row, [R, D], uniformly from the components that the row allows.

    Args:
        parts: all components of each row, [R, C, D].
        offered: boolean [R, C], the components that each row allows; at least one per row.
        choice: uniform numbers in [0, 1), [R]. A row that allows c components gets the component number
            floor(c * choice) among these c, counted from 0.
    """
    wanted = (choice * offered.sum(1)).long() + 1
    at = (offered.cumsum(1) == wanted[:, None]).int().argmax(1)[:, None, None].expand(-1, 1, parts.mean.shape[-1])
    return of_each(parts, lambda part: part.gather(1, at).squeeze(1))


def reconstruction(
    model: Multimodal, presence: Presence, values: Sequence[Tensor], z: Tensor, weights: Sequence[float], rows: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the log-likelihood of all rows' modalities given z [R, D], divided by `rows`, in nats.

    Args:
        weights: weight of each modality in the total.
    Returns:
        The weighted total, and a dictionary from metric names to each modality's unweighted log-likelihood.
    """
    total, parts = z.new_zeros(()), {}
    for m, modality in enumerate(model.modalities):
        each = model.log_prob(m, presence.taken(m, z), values[m]).sum() / rows
        total = total + weights[m] * each
        parts[f"log_likelihood_{modality.name}"] = each.detach()
    return total, parts


class RowLearner(ElboLearner):
    """Base class of learners whose training examples may lack modalities. Subclasses set `objective`."""

    objective: ClassVar[Callable[..., Loss]]
    """Computes the loss of a batch: objective(model, presence, values, noise, weights=, batch_size=, **arguments)."""

    def __init__(self, model: nn.Module, trial: Settings, data: Dataset, workers: Workers = ALONE) -> None:
        super().__init__(model, trial, data, workers)
        self._presences: dict[int, Presence] = {}

    def noise_shape(self) -> tuple[int, ...]:
        """Returns the shape of one row's noise."""
        return (self.model.latents,)

    def beta(self, step: int | Tensor) -> float | Tensor:
        """Returns the weight of the KL at the given training step. The weight rises to the hyper-parameter `beta`."""
        return annealed_beta(step, self.annealed_steps, self.trial.own_value("beta"))

    def batches(self, epoch: int) -> Iterator[RowBatch]:  # type: ignore[override]
        generator = torch_generator(self.trial.seed, "noise", epoch, self.device)
        choices = numpy_generator(self.trial.seed, "mixture component", epoch)
        examples = examples_of(self.split, self.trial, epoch)
        for step in self._steps(epoch):
            rows = len(step.index_RM)
            noise = torch.randn(rows, *self.noise_shape(), generator=generator, device=self.device, dtype=torch.float32)
            choice = torch.from_numpy(self.workers.share(choices.random(rows))).to(self.device)
            yield RowBatch(self._presence(step), self._values(step, examples), self.workers.share(noise), choice)

    def arguments(self, batch: RowBatch, step: int | Tensor) -> dict[str, Any]:
        """Returns additional keyword arguments for the objective of this arm."""
        raise NotImplementedError

    def loss(self, batch: RowBatch, step: int | Tensor) -> Loss:  # type: ignore[override]
        return type(self).objective(
            self.model,
            batch.presence,
            batch.values,
            batch.noise,
            weights=self.weights,
            batch_size=self.trial.batch_size,
            **self.arguments(batch, step),
        )

    def _presence(self, step: Step) -> Presence:
        known = self._presences.get(id(step.present_RM)) if step.shares_masks else None
        if known is None:
            known = Presence.of(self.workers.share(step.present_RM), self.device)
            if step.shares_masks:
                self._presences[id(step.present_RM)] = known
        return known
