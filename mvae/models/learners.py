"""What the arms besides the MVAE see of the training set: pairs alone (JMVAE, CVAE), or images alone (VAE, RBM).

Both draw from the streams that every arm of a seed shares: the paired set and its order, the order of the images.
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
    """The training examples as an epoch shows them: under dynamic binarisation with bits drawn for that epoch."""
    way = getattr(trial, "binarisation", "fixed")  # a plug-in's arm that does not read the field has the fixed bits
    return split.redrawn(trial.seed, epoch) if way == "dynamic" else split


@dataclass(frozen=True)
class Batch:
    """What one step sees, or a worker's share of it."""

    values: tuple[Tensor, ...]
    """The modalities that the learner shows, n examples each."""
    noise: Tensor
    """Of the step's draws, [n, ...]."""
    rows: int
    """Examples of the whole step."""


class _Learner(ABC):
    """Steps with values and noise; subclasses say which examples, which modalities, and what a step loses."""

    model: nn.Module
    shown: tuple[int, ...]
    """Positions of the modalities that are taken from the training set."""

    def __init__(self, model: nn.Module, trial: Settings, data: Dataset, workers: Workers = ALONE) -> None:
        self.model, self.trial, self.split, self.workers = model, trial, data.train, workers
        self.device = data.train.values[0].device
        self.steps_per_epoch = step_count(len(data.train), trial.batch_size)
        self._padding = Padding(self.split.lengths)

    def beta(self, step: int | Tensor) -> float | Tensor:
        """The weight of the KL at a step, for a loss that has one."""
        return annealed_beta(step, annealed_steps(self.trial, self.steps_per_epoch))

    def batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch_generator(self.trial.seed, "noise", epoch, self.device)
        examples = examples_of(self.split, self.trial, epoch)
        self._padding = Padding(self.split.lengths)
        for index in self.indices(epoch):
            own = self.workers.share(index)
            for m in self.shown:
                self._padding.add(m, own)
            chosen = torch.from_numpy(own).to(self.device)
            noise = self.workers.share(self.noise(len(index), generator))
            yield Batch(tuple(examples.take(m, chosen) for m in self.shown), noise, len(index))

    def facts(self) -> dict[str, float]:
        """Where there are sentences: the share of the epoch's tokens that were padding."""
        return self._padding.facts()

    def noise(self, rows: int, generator: torch.Generator) -> Tensor:
        """What a step draws: standard normal [n, D] unless a subclass says otherwise."""
        return torch.randn(rows, self.trial.latents, generator=generator, device=self.device, dtype=torch.float32)

    @abstractmethod
    def indices(self, epoch: int) -> Iterator[np.ndarray]:
        """The training examples of each step."""


class PairedLearner(_Learner):
    """Sees the paired set and nothing else, cycled through an epoch as long as every other arm's."""

    def __init__(self, model: nn.Module, trial: Settings, data: Dataset, workers: Workers = ALONE) -> None:
        super().__init__(model, trial, data, workers)
        self.shown = tuple(range(len(data.modalities)))
        self.paired = paired_set(len(data.train), trial.paired_fraction, trial.seed, dataset=data.name)
        self.batch_size = min(trial.batch_size, len(self.paired))
        """Pairs of every step."""

    def indices(self, epoch: int) -> Iterator[np.ndarray]:
        trial, lengths = self.trial, self.split.lengths
        return paired_batches(len(self.split), self.paired, trial.batch_size, trial.seed, epoch, lengths)


class ImageLearner(_Learner):
    """Sees all images and no label."""

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
    """The sum over rows of beta * KL(q || N(0, I)) - weight * log_prob(z), divided by the batch size, in nats.

    Args:
        q: posteriors [n, D], of which z is drawn by standard normal noise [n, D].
        log_prob: of the images given z [n, D], [n].
    """
    kl = q.kl_to_prior().sum() / batch_size
    likelihood = log_prob(q.rsample(noise)).sum() / batch_size
    return Loss(beta * kl - weight * likelihood, {"kl": kl.detach(), "log_likelihood_image": likelihood.detach()})


@torch.no_grad()
def validation_elbo(
    trial: Settings, split: Split, shown: tuple[int, ...], loss: Callable[..., Loss]
) -> dict[str, float]:
    """validation/elbo: minus the mean loss of an example, always with the same noise.

    Args:
        shown: positions of the modalities that the loss takes.
        loss: from the values [n, ...] of each and noise [n, D], with beta, weight and batch_size.
    """
    device = split.values[shown[0]].device
    generator = torch_generator(trial.seed, "validation noise", 0, device)
    total = 0.0
    for rows in split.passes():
        noise = torch.randn(len(rows), trial.latents, generator=generator, device=device)
        values = (split.take(m, rows) for m in shown)
        total -= float(loss(*values, noise, beta=1.0, weight=1.0, batch_size=1).total)
    return {"validation/elbo": total / len(split)}
