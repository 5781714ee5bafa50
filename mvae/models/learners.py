"""Defines base classes of learners: `PairedLearner` for NN, JMVAE and CVAE, `ImageLearner` for VAE, RBM and the judge.

Arms with the same seed use the same random streams. They therefore see the same pairs and images in the same order.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, position
from mvae.data.examples import Dataset, Split
from mvae.data.sentences.sentences import Padding
from mvae.models.annealing import annealed_beta, annealed_steps
from mvae.models.arm import Settings
from mvae.models.elbo import Loss
from mvae.models.gaussian import Gaussian
from mvae.sampling import image_batches, paired_batches, step_count
from mvae.streams import torch_generator
from mvae.supervision import paired_set
from mvae.workers import ALONE, Workers


def examples_of(split: Split, trial: Settings, epoch: int) -> Split:
    """Returns the training examples of an epoch. Dynamic binarisation redraws the pixels in every epoch."""
    binarisation = getattr(trial, "binarisation", "fixed")  # a plug-in's arm may not read the field
    return split.redrawn(trial.seed, epoch) if binarisation == "dynamic" else split


@dataclass(frozen=True)
class Batch:
    """Examples and noise of one training step; with several workers, only one worker's part."""

    values: tuple[Tensor, ...]
    """n values of each modality that the learner uses."""
    noise: Tensor
    """Noise of the step, [n, ...]."""
    rows: int
    """Number of examples of the whole step."""


class _Learner(ABC):
    """Base class of learners. Subclasses define each step's examples (`indices`), modalities (`shown`) and loss."""

    model: nn.Module
    shown: tuple[int, ...]
    """Positions of the modalities that the learner uses."""

    def __init__(self, model: nn.Module, trial: Settings, data: Dataset, workers: Workers = ALONE) -> None:
        self.model, self.trial, self.split, self.workers = model, trial, data.train, workers
        self.device = data.train.values[0].device
        self.steps_per_epoch = step_count(len(data.train), trial.batch_size)
        self._padding = Padding(self.split.lengths)

    def beta(self, step: int | Tensor) -> float | Tensor:
        """Returns the weight of the KL at the given training step."""
        return annealed_beta(step, annealed_steps(self.trial, self.steps_per_epoch))

    def batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch_generator(self.trial.seed, "noise", epoch, self.device)
        examples = examples_of(self.split, self.trial, epoch)
        self._padding = Padding(self.split.lengths)
        for index in self.indices(epoch):
            own = self.workers.share(index)
            for m in self.shown:
                self._padding.add(m, own)
            rows = torch.from_numpy(own).to(self.device)
            noise = self.workers.share(self.noise(len(index), generator))
            yield Batch(tuple(examples.take(m, rows) for m in self.shown), noise, len(index))

    def facts(self) -> dict[str, float]:
        """Returns the metric train/padding_share, the fraction of tokens that are padding; empty without sentences."""
        return self._padding.facts()

    def noise(self, rows: int, generator: torch.Generator) -> Tensor:
        """Draws the noise of one step, standard normal [n, D]. Subclasses may draw other noise."""
        return torch.randn(rows, self.trial.latents, generator=generator, device=self.device, dtype=torch.float32)

    @abstractmethod
    def indices(self, epoch: int) -> Iterator[np.ndarray]:
        """Yields the indices of the training examples of each step."""


class PairedLearner(_Learner):
    """Trains only on the paired set, repeated until the epoch has as many steps as an epoch of other arms."""

    def __init__(self, model: nn.Module, trial: Settings, data: Dataset, workers: Workers = ALONE) -> None:
        super().__init__(model, trial, data, workers)
        self.shown = tuple(range(len(data.modalities)))
        self.paired = paired_set(len(data.train), trial.paired_fraction, trial.seed, dataset=data.name)
        self.batch_size = min(trial.batch_size, len(self.paired))
        """Pairs per step."""

    def indices(self, epoch: int) -> Iterator[np.ndarray]:
        trial, lengths = self.trial, self.split.lengths
        return paired_batches(len(self.split), self.paired, trial.batch_size, trial.seed, epoch, lengths)


class ImageLearner(_Learner):
    """Trains on all images, without labels."""

    def __init__(self, model: nn.Module, trial: Settings, data: Dataset, workers: Workers = ALONE) -> None:
        super().__init__(model, trial, data, workers)
        self.shown = (position(data.modalities, Kind.IMAGE),)

    def indices(self, epoch: int) -> Iterator[np.ndarray]:
        return image_batches(len(self.split), self.trial.batch_size, self.trial.seed, epoch)


def image_bound(
    q: Gaussian,
    noise: Tensor,
    log_prob: Callable[[Tensor], Tensor],
    *,
    beta: float | Tensor,
    weight: float,
    batch_size: int,
) -> Loss:
    """Returns the loss of one training step for a model of images, in nats.

    The loss is the sum over rows of beta * KL(q || N(0, I)) - weight * log_prob(z), divided by the batch size.

    Args:
        q: posteriors [n, D], from which z is sampled with `noise`.
        noise: standard normal [n, D].
        log_prob: function that returns the log-likelihood of each image, [n], given z [n, D].
    """
    kl = q.kl_to_prior().sum() / batch_size
    likelihood = log_prob(q.rsample(noise)).sum() / batch_size
    return Loss(beta * kl - weight * likelihood, {"kl": kl.detach(), "log_likelihood_image": likelihood.detach()})


@torch.no_grad()
def validation_elbo(
    trial: Settings, split: Split, shown: tuple[int, ...], loss: Callable[..., Loss]
) -> dict[str, float]:
    """Returns the metric validation/elbo: the negative loss, averaged over examples and computed with fixed noise.

    Args:
        shown: positions of the modalities that the loss needs.
        loss: function of n values of each modality, noise [n, D], beta, weight and batch_size.
    """
    device = split.values[shown[0]].device
    generator = torch_generator(trial.seed, "validation noise", 0, device)
    total = 0.0
    for rows in split.passes():
        noise = torch.randn(len(rows), trial.latents, generator=generator, device=device)
        values = (split.take(m, rows) for m in shown)
        total -= float(loss(*values, noise, beta=1.0, weight=1.0, batch_size=1).total)
    return {"validation/elbo": total / len(split)}
