"""Arm: a model of the table with all that the rest of the system asks of it. Learner: how one is trained by steps."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, Self

from mvae.data.checks import NAME
from mvae.data.dataset import ATTRIBUTE_KINDS, Kind, Modality
from mvae.hyperparameters import Hyperparameter
from mvae.measure import NAMES
from mvae.refusal import Refusal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mvae.data.examples import Dataset
    from mvae.models.elbo import Loss
    from mvae.settings import Settings as Settings
else:  # models and training need no pydantic (benchmarks/gpu_runs)
    Settings = Any

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

    def loss(self, batch: Any, step: int | Tensor) -> Loss:
        """The loss of one step, or this worker's part of it; `step` counts from the start of training: a float64 scalar
        on the device where a step is recorded, which the arm allows by `cuda_graphs`."""

    def facts(self) -> dict[str, float]:
        """Numbers of this training that stay the same, logged with every epoch."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""


class Feature(StrEnum):
    """A property of a data set that not every arm can handle. A trial that its arm cannot handle is refused."""

    TEXTS = "texts"
    ATTRIBUTES = "attributes"
    MANY = "many"
    """More than two modalities."""
    IMAGELESS = "imageless"
    """No modality is an image."""


def features(modalities: tuple[Modality, ...]) -> frozenset[Feature]:
    """Features that an arm must handle to be trained on these modalities."""
    kinds = {modality.kind for modality in modalities}
    has = {
        Feature.TEXTS: Kind.TEXT in kinds,
        Feature.ATTRIBUTES: not kinds.isdisjoint(ATTRIBUTE_KINDS),
        Feature.MANY: len(modalities) > 2,
        Feature.IMAGELESS: Kind.IMAGE not in kinds,
    }
    return frozenset(feature for feature, there in has.items() if there)


@dataclass(frozen=True)
class Later:
    """A function or class of this package, imported when it is called: arms are declared without torch."""

    module: str
    """Its file in mvae/models/."""
    name: str

    def __call__(self, *given: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(f"mvae.models.{self.module}"), self.name)(*given, **named)


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
    learner: Callable[..., Learner] | None = None
    """Trained by gradient steps: from model, trial, whole data set and workers (ALONE if left out), the learner of this
    worker. Most often the class of a learner."""
    fit: Callable[[nn.Module, Settings, Dataset], dict[str, float]] | None = None
    """Fitted in one go, in place; returns metrics."""
    watch: Callable[[nn.Module, Settings, Dataset], dict[str, float]] | None = None
    """Metrics on the validation split after each epoch, for an arm that has no accuracy to watch."""
    watched: str = ""
    """The name of the metric that `watch` gives: what a search can go by."""
    decodes_labels: bool = True
    """Whether it has a decoder for labels, where there are labels."""
    handles: frozenset[Feature] = frozenset({Feature.TEXTS})
    """Features of data sets that it can be trained on, besides an image and a label."""
    hyperparameters: tuple[Hyperparameter, ...] = ()
    """Settings of its own, besides those of every trial: `trial.own_value(name)`. They are part of the key."""
    most_modalities: int | None = None
    """Largest number of modalities that it can be trained on; None: any."""
    cuda_graphs: bool = False
    """Whether on a GPU its steps may be recorded and played (mvae/training/steps.py): `loss` then takes `step` as a
    tensor, asks for no value on the GPU (no `.item()`, no branch on a tensor), and counts nothing in Python. A batch is
    a dataclass, a tensor, or a tuple of them; a subclass of a tuple is not recorded."""
    version: int = 1
    """Raised by hand when what it computes changes on purpose, where the arm is none of this package, which has
    `mvae.trial.TRAINING_VERSION` for that; above 1 a part of the key."""

    def __new__(cls, *_given: Any, **named: Any) -> Self:
        """Refuses the keywords that plug-ins of earlier releases used."""
        if former := [name for name in ("recorded", *Feature) if name in named]:
            handled = [f"Feature.{one.name}" for one in Feature if named.get(one, one is Feature.TEXTS)]
            raise Refusal(
                f"an Arm no longer takes {', '.join(former)}: write handles=frozenset({{{', '.join(handled)}}})"
                + ", cuda_graphs=True" * bool(named.get("recorded"))
                + " (from mvae.models.arm import Feature)"
            )
        return super().__new__(cls)

    @property
    def predicts(self) -> bool:
        return "accuracy" in self.measures

    def __post_init__(self) -> None:
        assert (self.learner is None) != (self.fit is None), f"arm {self.token} must be trained in one way"


def check_arm(new: Arm) -> None:
    """Refuses an arm that the rest of the code could not work with.

    Raises:
        Refusal: one line.
    """
    from mvae.settings import Settings

    if not NAME.fullmatch(new.token):
        raise Refusal(f"arm {new.token!r}: its token is of letters, digits, '_', '.' and '-', beginning with one")
    if unknown := sorted(new.reads - set(Settings.model_fields)):
        raise Refusal(f"arm {new.token} reads {unknown[0]}, which is no field of a trial")
    needed = IDENTITY | (OPTIMISED if new.learner else frozenset())
    if missing := sorted(needed - new.reads):
        raise Refusal(
            f"arm {new.token} must read {missing[0]}: begin its reads with IDENTITY"
            + " | OPTIMISED, as every arm that is trained by steps" * bool(new.learner)
        )
    if unknown := sorted(new.measures - NAMES):
        raise Refusal(f"arm {new.token} has a measure {unknown[0]}: choose among {', '.join(sorted(NAMES))}")
    names = [each.name for each in new.hyperparameters]
    for name in names:
        if name in Settings.model_fields or names.count(name) > 1:
            raise Refusal(f"arm {new.token}: hyper-parameter {name!r} exists already: choose another name")
        if not name.isidentifier():
            raise Refusal(f"arm {new.token}: hyper-parameter {name!r}: name it like a Python variable")
    for each in new.hyperparameters:
        each.checked(each.default)
    if new.version < 1:
        raise Refusal(f"arm {new.token}: version = {new.version} is not from 1 on")
