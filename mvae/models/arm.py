"""Defines `Arm`, which describes a model of the tables, and `Learner`, which trains a model step by step.

An `Arm` contains all model-specific information that other modules use.
"""

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
    from torch.optim import Optimizer

    from mvae.data.examples import Dataset
    from mvae.models.elbo import Loss
    from mvae.settings import Settings as Settings
else:  # models and training need no pydantic (benchmarks/gpu_runs)
    Settings = Any

IDENTITY = frozenset({"dataset", "model", "seed", "train_examples"})
"""Fields that every arm reads."""

PAIRED = frozenset({"paired_fraction"})
"""Fields of every arm that trains on pairs. Any other arm is trained only once, whatever the fraction is."""

OPTIMISED = frozenset(
    {"epochs", "batch_size", "learning_rate", "precision", "compile", "workers", "fewest_workers", "sync_batchnorm"}
)
"""Fields of every arm trained by gradient steps."""

BINARISED = frozenset({"binarisation"})
"""Fields of an arm whose images come from `examples_of` (mvae/models/learners.py).

For all other arms, the bits of black-and-white images stay the same in every epoch.
"""

ANNEALED = frozenset({"annealing_share", "annealing_epochs"})
"""Fields of every arm with an annealed KL."""

NETWORKS = frozenset({"image_network", "decoder_hidden", "latents", "vocabulary"})
"""Fields that determine the networks."""


class Learner(Protocol):
    """Trains a PyTorch module step by step: provides the batches of an epoch and the loss of each step."""

    def batches(self, epoch: int) -> Iterator[Any]:
        """Yields this worker's part of the batch for each step of an epoch. Equal epochs yield equal batches.

        Args:
            epoch: counted from 0.
        """

    def loss(self, batch: Any, step: int | Tensor) -> Loss:
        """Returns the loss of one step; with several workers, only this worker's part of the loss.

        Args:
            step: number of the step, counted from 0 at the start of training. A float64 scalar tensor on the GPU if
                the step is recorded as a CUDA graph (see `Arm.cuda_graphs`).
        """

    def facts(self) -> dict[str, float]:
        """Returns additional metrics to log after each epoch."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimiser steps per epoch."""


class Feature(StrEnum):
    """A property of a data set that only some arms support, such as texts. All other arms refuse the data set."""

    TEXTS = "texts"
    ATTRIBUTES = "attributes"
    MANY = "many"
    """More than two modalities."""
    VECTORS = "vectors"
    IMAGELESS = "imageless"
    """No modality is an image."""


def features(modalities: tuple[Modality, ...]) -> frozenset[Feature]:
    """Returns the features that an arm must support to train on the given modalities."""
    kinds = {modality.kind for modality in modalities}
    has = {
        Feature.TEXTS: Kind.TEXT in kinds,
        Feature.ATTRIBUTES: not kinds.isdisjoint(ATTRIBUTE_KINDS),
        Feature.MANY: len(modalities) > 2,
        Feature.VECTORS: Kind.VECTOR in kinds,
        Feature.IMAGELESS: kinds.isdisjoint({Kind.IMAGE, Kind.VECTOR}),
    }
    return frozenset(feature for feature, present in has.items() if present)


@dataclass(frozen=True)
class Later:
    """Calls a function or class of a module in mvae/models/. The first call imports the module.

    Arms can therefore be declared without importing torch.
    """

    module: str
    """Name of a file in mvae/models/, without the ending .py."""
    name: str

    def __call__(self, *given: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(f"mvae.models.{self.module}"), self.name)(*given, **named)


@dataclass(frozen=True)
class Arm:
    """Describes a model that is one row of a table. Either `learner` or `fit` must be given, but not both."""

    token: str
    """Name in --arms and in `Trial.model`."""
    title: str
    """Name in tables."""
    reads: frozenset[str]
    """Names of the trial fields that the arm reads. These fields are part of the trial's key."""
    build: Callable[[Settings, tuple[Modality, ...]], nn.Module]
    """Returns the untrained module, on the CPU."""
    measures: frozenset[str]
    """Names of the measures that can be computed for the arm.

    accuracy: `module(image)` returns label logits [n, C] for images [n, C', H, W] in [0, 1].
    readout: `module(image)` returns features [n, F], on which a logistic regression is fitted.
    likelihood: log-likelihoods can be estimated by importance sampling.
    attributes: attributes can be sampled given an image, if the data set has attributes.
    translation: sentences can be generated given a sentence, if all modalities are sentences.
    """
    learner: Callable[..., Learner] | None = None
    """For training by gradient steps: returns this worker's learner. Usually a learner class.

    The arguments are the model, the trial, the whole data set, and the workers (default `ALONE`).
    """
    fit: Callable[[nn.Module, Settings, Dataset], dict[str, float]] | None = None
    """For training without steps: fits the module in place and returns metrics."""
    optimiser: Callable[[nn.Module, Settings], Optimizer] | None = None
    """Returns the optimiser of the module's parameters. `None` means Adam with the trial's learning rate.

    The optimiser's state must consist of tensors and plain values, like the state of torch's own optimisers. The
    optimiser must not draw random numbers, because each worker would draw different numbers.
    """
    schedule: Callable[[int, int, Settings], float] | None = None
    """Returns the factor on the optimiser's learning rates at a step. `None` means a factor of 1.

    The arguments are the step, counted from 0, the number of steps of the whole training, and the trial. The factor
    must depend only on these arguments.
    """
    watch: Callable[[nn.Module, Settings, Dataset], dict[str, float]] | None = None
    """Returns validation metrics after each epoch, for an arm without accuracy."""
    watched: str = ""
    """Name of the metric from `watch` that a search can optimise."""
    infers: bool = False
    """Whether `module.predict` predicts a label from any of the other modalities, as every `Multimodal` does."""
    decodes_labels: bool = True
    """Whether the arm has a decoder for labels if the data set has labels."""
    handles: frozenset[Feature] = frozenset({Feature.TEXTS})
    """Features of data sets that the arm supports, besides an image and a label."""
    hyperparameters: tuple[Hyperparameter, ...] = ()
    """Settings that only this arm has, read with `trial.own_value`. They are part of the trial's key."""
    needs_labels: bool = False
    """Whether the arm can only be trained on data sets with a label or a text."""
    single_attributes: bool = True
    """Whether an arm that supports attributes can also train if each attribute is a separate modality."""
    most_modalities: int | None = None
    """Largest number of modalities that the arm can be trained on. `None` means no limit."""
    cuda_graphs: bool = False
    """Whether steps may be recorded and replayed on a GPU (mvae/training/steps.py).

    If so, `loss` must accept `step` as a tensor. `loss` must read no value from the GPU (no `.item()`, no `if` on a
    tensor) and count nothing in Python. A batch must be a tensor, a tuple of tensors, or a dataclass. The fields of the
    dataclass are tensors, tuples of tensors, or constants. A step is not recorded if its batch is a subclass of tuple,
    or if the arm has its own `optimiser` or `schedule`.
    """
    version: int = 1
    """For arms of plug-ins: increment when the arm's results change on purpose.

    A version above 1 is part of the key. For arms of this package, increment `mvae.trial.TRAINING_VERSION` instead.
    """

    def __new__(cls, *_given: Any, **named: Any) -> Self:
        """Raises Refusal for keyword arguments of earlier releases, which plug-ins may still pass."""
        if old := [name for name in ("recorded", *Feature) if name in named]:
            handled = [f"Feature.{one.name}" for one in Feature if named.get(one, one is Feature.TEXTS)]
            raise Refusal(
                f"Arm no longer takes {', '.join(old)}: write handles=frozenset({{{', '.join(handled)}}})"
                + ", cuda_graphs=True" * bool(named.get("recorded"))
                + " (from mvae.models.arm import Feature)"
            )
        return super().__new__(cls)

    @property
    def predicts(self) -> bool:
        return "accuracy" in self.measures

    def __post_init__(self) -> None:
        assert (self.learner is None) != (self.fit is None), f"arm {self.token} needs either a learner or a fit"


def check_arm(new: Arm) -> None:
    """Checks the declaration of an arm that a plug-in adds.

    Raises:
        Refusal: the token, a field, a measure, a hyper-parameter or the version is invalid.
    """
    from mvae.settings import Settings

    if not NAME.fullmatch(new.token):
        raise Refusal(
            f"invalid arm token {new.token!r}: use only letters, digits, '_', '.' and '-', and start with a letter"
            " or digit"
        )
    if unknown := sorted(new.reads - set(Settings.model_fields)):
        raise Refusal(
            f"arm {new.token} reads {unknown[0]}, which is not a field of a trial: remove {unknown[0]} from `reads`"
        )
    needed = IDENTITY | (OPTIMISED if new.learner else frozenset())
    if missing := sorted(needed - new.reads):
        raise Refusal(
            f"arm {new.token} must read {missing[0]}: start its `reads` with IDENTITY"
            + " | OPTIMISED, like every arm trained by steps" * bool(new.learner)
        )
    if unknown := sorted(new.measures - NAMES):
        raise Refusal(f"arm {new.token} has the unknown measure {unknown[0]}: choose from {', '.join(sorted(NAMES))}")
    for field in ("optimiser", "schedule"):
        given = getattr(new, field)
        if given is not None and not callable(given):
            raise Refusal(f"arm {new.token}: `{field}` must be a function, not {type(given).__name__}")
        if given is not None and new.learner is None:
            raise Refusal(f"arm {new.token} is fitted without gradient steps: remove `{field}`, or set `learner`")
    names = [each.name for each in new.hyperparameters]
    for name in names:
        if name in Settings.model_fields or names.count(name) > 1:
            raise Refusal(f"arm {new.token}: hyper-parameter {name!r} already exists: choose another name")
        if not name.isidentifier():
            raise Refusal(f"arm {new.token}: hyper-parameter {name!r} is not a valid Python identifier: rename it")
    for each in new.hyperparameters:
        try:
            each.check_declared()
        except Refusal as refusal:
            raise Refusal(f"arm {new.token}, hyper-parameter {refusal}") from None
    if new.version < 1:
        raise Refusal(f"arm {new.token} has version {new.version}: set `version` to 1 or more")
