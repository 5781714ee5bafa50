"""Holds a data set's examples in memory, on any device, in their stored types: a `Dataset` has three `Split`s."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mvae.data.dataset import SPLITS, Modality, View, check_train_examples
from mvae.data.mnist.binarisation import redrawn
from mvae.data.sentences.sentences import Sentences

# N examples, M modalities, C channels, H height, W width


@dataclass(frozen=True)
class Split:
    """The examples of one split in their stored types: one tensor per modality, each with N examples."""

    values: tuple[Tensor, ...]
    """One tensor per modality. On a CPU the tensors map the stored file.

    Image: uint8 [N, C, H, W], from 0 (black) to 255 (white). Label: [N], text: [N, L]; `stored_type` gives their type.
    Single attribute: uint8 [N]. Attributes: uint8 [N, A]. Vector: float32 [N, D]. Sentences: int64 [N], the number of
    tokens including the stop token. A view shares the tensor object of the modality from which the view is computed.
    """
    sentences: tuple[Sentences | None, ...] = ()
    """The sentences of each modality, None for other modalities. Empty if no modality consists of sentences."""
    views: tuple[View | None, ...] = ()
    """The function that computes each view; None for stored modalities. Empty if all modalities are stored."""
    hidden: tuple[Tensor, ...] = ()
    """Labels hidden from models, [N] each, in the order of `Source.hidden`."""
    grey: Tensor | None = None
    """Grey values of the first modality's images, uint8 [N, C, H, W], always on the CPU.

    Loaded only if training draws bits from them (mvae/data/mnist/binarisation.py).
    """

    def __len__(self) -> int:
        return len(self.values[0])

    @property
    def lengths(self) -> np.ndarray | None:
        """Number of tokens of each sentence, including its stop token: int64 [N, M].

        The result is None unless every modality consists of sentences.
        """
        if not self.sentences or None in self.sentences:
            return None
        return np.asarray(torch.stack(self.values, dim=1).cpu())

    def passes(self, rows: int = 1000) -> tuple[Tensor, ...]:
        """Returns the positions of all examples in order, in chunks of `rows`: int64, on the device of the values."""
        return torch.split(torch.arange(len(self), device=self.values[0].device), rows)

    def take(self, modality: int, index: Tensor) -> Tensor:
        """Returns one modality of the examples at `index`, in the form that networks and likelihoods take.

        Args:
            index: int64 [B], without negative numbers.
        Returns:
            Image: float32 [B, C, H, W] in [0, 1]. Label, single attribute: int64 [B]. Attributes: int64 [B, A]. Vector:
            float32 [B, D]. Text: int64 [B, L]; for sentences, L is the number of tokens of the batch's longest one.
        """
        sentences = self.sentences[modality] if self.sentences else None
        if sentences is not None:
            return sentences.take(index)
        stored = self.values[modality].index_select(0, index)
        if stored.dtype == torch.float32:  # a vector
            return stored
        if stored.ndim <= 2:  # not an image
            return stored.to(torch.int64)
        image = stored.to(torch.float32).div_(255)
        view = self.views[modality] if self.views else None
        return image if view is None else view(image)

    def redrawn(self, seed: int, epoch: int) -> "Split":
        """Returns this split with black-and-white images, drawn from the grey values for the given epoch.

        Raises:
            ValueError: the grey values were not loaded.
        """
        if self.grey is None:
            raise ValueError("no grey values to draw bits from: load the data set with grey=True")
        bits = torch.from_numpy(redrawn(self.grey.numpy(), seed, epoch))
        return dataclasses.replace(self, values=(bits.to(self.values[0].device), *self.values[1:]))

    def knowing(self, words: int) -> "Split":
        """Returns this split for models that know at most `words` words in each modality of sentences."""
        return dataclasses.replace(self, sentences=tuple(each and each.knowing(words) for each in self.sentences))

    def first(self, examples: int) -> "Split":
        """Returns the first `examples` examples without copying."""
        return dataclasses.replace(
            self._map_values(lambda value: value[:examples]),
            hidden=tuple(label[:examples] for label in self.hidden),
            sentences=tuple(each and each[:examples] for each in self.sentences),
            grey=None if self.grey is None else self.grey[:examples],
        )

    def hiding(self, shown: int) -> "Split":
        """Returns this split with all but the first `shown` modalities moved to `hidden`."""
        if shown == len(self.values):
            return self
        return dataclasses.replace(
            self,
            values=self.values[:shown],
            hidden=self.values[shown:],
            sentences=self.sentences[:shown],
            views=self.views[:shown],
        )

    def to(self, device: torch.device | str) -> "Split":
        return dataclasses.replace(
            self._map_values(lambda value: value.to(device)),
            hidden=tuple(label.to(device) for label in self.hidden),
            sentences=tuple(each and each.to(device) for each in self.sentences),
        )

    def _map_values(self, change: Callable[[Tensor], Tensor]) -> "Split":
        """Returns this split with `change` applied once to each tensor, even if several modalities share one tensor."""
        changed = {id(value): change(value) for value in self.values}
        return dataclasses.replace(self, values=tuple(changed[id(value)] for value in self.values))


@dataclass(frozen=True)
class Dataset:
    """A data set ready for training. On a CPU, the tensors map the Arrow files."""

    name: str
    modalities: tuple[Modality, ...]
    fingerprint: str
    """Hex sha256 of raw content, split rule and version of the conversion. Part of every trial's key."""
    train: Split
    validation: Split
    test: Split

    def trained_on(self, examples: int | None) -> "Dataset":
        """Returns this data set with only the first `examples` training examples, or with all if None.

        Raises:
            Refusal: the data set has fewer examples.
        """
        if examples is None:
            return self
        check_train_examples(examples, len(self.train), self.name)
        return dataclasses.replace(self, train=self.train.first(examples))

    def knowing(self, words: int | None) -> "Dataset":
        """Returns this data set with a vocabulary of the `words` most frequent words per language.

        If `words` is None or above the number of words in the data set's own vocabulary, nothing changes. Modalities
        other than sentences do not change.
        """
        if words is None:
            return self
        return dataclasses.replace(
            self,
            modalities=tuple(modality.knowing(words) for modality in self.modalities),
            **{split: getattr(self, split).knowing(words) for split in SPLITS},
        )

    def to(self, device: torch.device | str) -> "Dataset":
        """Returns this data set with all values on `device`, in their stored types (MNIST: 55 MB)."""
        return dataclasses.replace(
            self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device)
        )
