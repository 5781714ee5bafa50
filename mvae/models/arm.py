"""Arm: a model of the table with all that the rest of the system asks of it. Learner: how one is trained by steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from mvae.workers import ALONE, Workers

if TYPE_CHECKING:
    from mvae.data.dataset import Dataset, Modality
    from mvae.models.elbo import Loss
    from mvae.settings import Settings

IDENTITY = frozenset({"dataset", "model", "seed", "train_examples"})
"""Fields that every arm reads."""

PAIRED = frozenset({"paired_fraction"})
"""What an arm reads that sees pairs in training; one that sees images alone is trained once for all fractions."""

OPTIMISED = frozenset(
    {"epochs", "batch_size", "learning_rate", "precision", "compile", "workers", "fewest_workers", "sync_batchnorm"}
)
"""Fields that every arm trained by gradient steps reads."""

BINARISED = frozenset({"binarisation"})
"""Fields read by an arm that takes its images from `examples_of` at each step (mvae/models/learners.py). Any other arm
sees the fixed bits of black and white images."""

ANNEALED = frozenset({"annealing_share", "annealing_epochs"})
"""Fields that every arm with an annealed KL reads."""

NETWORKS = frozenset({"image_network", "decoder_hidden", "latents", "vocabulary"})
"""Fields that shape the networks."""


class Learner(Protocol):
    """A module with the rule that trains it: what each step sees, and the loss of a step."""

    def batches(self, epoch: int) -> Iterator[Any]:
        """The steps of an epoch (counted from 0), always the same for the same epoch; of each this worker's share."""
        ...

    def loss(self, batch: Any, step: int | Tensor) -> Loss:
        """The loss of one step, or this worker's part of it; `step` counts from the start of training: a float64 scalar
        on the device where a step is recorded, which the arm allows by `recorded`."""
        ...

    def facts(self) -> dict[str, float]:
        """Numbers of this training that stay the same, logged with every epoch."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        ...


class MakesLearner(Protocol):
    """Most often the class of a learner."""

    def __call__(self, model: nn.Module, trial: Settings, data: Dataset, workers: Workers = ALONE) -> Learner:
        """The learner of this worker, with the whole data set."""
        ...


@dataclass(frozen=True)
class Arm:
    """One row of a table. Exactly one of `learner` and `fit` is there."""

    token: str
    """Its name in --arms and in `Trial.model`."""
    title: str
    """Its name in tables."""
    reads: frozenset[str]
    """The fields of a trial that it reads: these make its key."""
    build: Callable[[Settings, tuple[Modality, ...]], nn.Module]
    """The untrained module, on the CPU."""
    measures: frozenset[str]
    """Names of the measures that it can be given.

    accuracy: `module(image)` gives label logits [n, C] of images [n, C', H, W] in [0, 1].
    readout: `module(image)` gives features [n, F], on which a logistic regression is fitted.
    likelihood: log-likelihoods can be estimated by importance sampling.
    attributes: attributes can be sampled given an image, where the data set has some.
    translation: sentences can be written given a sentence, where all modalities are sentences.
    """
    learner: MakesLearner | None = None
    """Trained by gradient steps."""
    fit: Callable[[nn.Module, Settings, Dataset], dict[str, float]] | None = None
    """Fitted in one go, in place; returns metrics."""
    watch: Callable[[nn.Module, Settings, Dataset], dict[str, float]] | None = None
    """Metrics on the validation split after each epoch, for an arm that has no accuracy to watch."""
    watched: str = ""
    """The name of the metric that `watch` gives: what a search can go by."""
    decodes_labels: bool = True
    """Whether it has a decoder for labels, where there are labels."""
    texts: bool = True
    """Whether it can be trained on a data set of texts; a trial refuses the others."""
    attributes: bool = False
    """Whether it can be trained on a data set with attributes, likewise."""
    many: bool = False
    """Whether it can be trained on more than two modalities, likewise."""
    imageless: bool = False
    """Whether it can be trained where no modality is an image, likewise."""
    recorded: bool = False
    """Whether on a GPU its steps may be recorded and played (mvae/training/steps.py): `loss` then takes `step` as a
    tensor, asks for no value on the GPU (no `.item()`, no branch on a tensor), and counts nothing in Python. A batch is
    a dataclass, a tensor, or a tuple of them; a subclass of a tuple is not recorded."""
    version: int = 1
    """Raised by hand when what it computes changes on purpose, where the arm is none of this package, which has
    `mvae.trial.TRAINING_VERSION` for that; above 1 a part of the key."""

    @property
    def predicts(self) -> bool:
        """Whether its module gives label logits of images."""
        return "accuracy" in self.measures

    def __post_init__(self) -> None:
        assert (self.learner is None) != (self.fit is None), f"arm {self.token} must be trained in one way"
