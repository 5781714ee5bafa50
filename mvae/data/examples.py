"""The examples of a data set in memory: `Dataset` with its three `Split`s, as stored (uint8), on some device."""

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
    """The examples of one split, one value a modality, all with the same leading N, as they are stored."""

    values: tuple[Tensor, ...]
    """Image: uint8 [N, C, H, W], 0 black to 255 white. Label or attribute: uint8 [N]. Text: uint8 [N, L], of sentences
    the tokens of each, stop counted, int64 [N]. Attributes: uint8 [N, A]. On a CPU they map the file. Of a view: the
    very tensor that it is made of."""
    sentences: tuple[Sentences | None, ...] = ()
    """Sentences of each modality, None for a modality of another kind; empty if no modality is sentences."""
    views: tuple[View | None, ...] = ()
    """One a modality; none at all where everything is stored."""
    hidden: tuple[Tensor, ...] = ()
    """Labels that no model sees, uint8 [N] each, in the order of `Source.hidden`."""
    grey: Tensor | None = None
    """Grey values of the first modality's images, uint8 [N, C, H, W], on the CPU whatever the device of `values`. They
    are loaded where training draws bits from them (mvae/data/mnist/binarisation.py)."""

    def __len__(self) -> int:
        return len(self.values[0])

    @property
    def lengths(self) -> np.ndarray | None:
        """Tokens of every sentence of every example, stops counted, int64 [N, M]; None where not all modalities are
        sentences."""
        if not self.sentences or None in self.sentences:
            return None
        return np.asarray(torch.stack(self.values, dim=1).cpu())

    def passes(self, rows: int = 1000) -> tuple[Tensor, ...]:
        """Positions of all examples in order, `rows` at a time: int64, on the device of the values."""
        return torch.split(torch.arange(len(self), device=self.values[0].device), rows)

    def take(self, modality: int, index: Tensor) -> Tensor:
        """The examples at `index` (int64 [B], no negative number) as networks and likelihoods want them.

        Returns:
            Image: float32 [B, C, H, W] in [0, 1]. Label, attribute: int64 [B]. Text: int64 [B, L], of sentences
            as wide as the longest of them. Attributes: int64 [B, A].
        """
        said = self.sentences[modality] if self.sentences else None
        if said is not None:
            return said.take(index)
        stored = self.values[modality].index_select(0, index)
        if stored.dtype == torch.float32:  # a vector
            return stored
        if stored.ndim <= 2:  # no image
            return stored.to(torch.int64)
        image = stored.to(torch.float32).div_(255)
        view = self.views[modality] if self.views else None
        return image if view is None else view(image)

    def redrawn(self, seed: int, epoch: int) -> "Split":
        """Returns these examples with the bits of their images drawn anew for an epoch.

        Raises:
            ValueError: the grey values were not loaded.
        """
        if self.grey is None:
            raise ValueError("no grey values to draw bits from: load the data set with grey=True")
        bits = torch.from_numpy(redrawn(self.grey.numpy(), seed, epoch))
        return dataclasses.replace(self, values=(bits.to(self.values[0].device), *self.values[1:]))

    def knowing(self, words: int) -> "Split":
        """Returns these examples with a vocabulary of at most `words` words in each modality of sentences."""
        return dataclasses.replace(self, sentences=tuple(said and said.knowing(words) for said in self.sentences))

    def first(self, examples: int) -> "Split":
        """Returns the first `examples` examples, in the same memory."""
        fewer = self._of_each(lambda value: value[:examples])
        return dataclasses.replace(
            fewer,
            hidden=tuple(label[:examples] for label in self.hidden),
            sentences=tuple(said and said[:examples] for said in self.sentences),
            grey=None if self.grey is None else self.grey[:examples],
        )

    def hiding(self, shown: int) -> "Split":
        """Returns these examples with the values behind the first `shown` modalities as `hidden`."""
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
        moved = self._of_each(lambda value: value.to(device))
        return dataclasses.replace(
            moved,
            hidden=tuple(label.to(device) for label in self.hidden),
            sentences=tuple(said and said.to(device) for said in self.sentences),
        )

    def _of_each(self, change: Callable[[Tensor], Tensor]) -> "Split":
        """Returns this split with each tensor changed once, even if several modalities are views of it."""
        changed = {id(value): change(value) for value in self.values}
        return dataclasses.replace(self, values=tuple(changed[id(value)] for value in self.values))


@dataclass(frozen=True)
class Dataset:
    """A data set in memory (mapped, not read), ready for training."""

    name: str
    modalities: tuple[Modality, ...]
    fingerprint: str
    """Hex sha256 of raw content, split rule and transform version; part of every trial's key."""
    train: Split
    validation: Split
    test: Split

    def trained_on(self, examples: int | None) -> "Dataset":
        """Returns this data set with only the first `examples` training examples; None: with all of them.

        Raises:
            Refusal: it has fewer.
        """
        if examples is None:
            return self
        check_train_examples(examples, len(self.train), self.name)
        return dataclasses.replace(self, train=self.train.first(examples))

    def knowing(self, words: int | None) -> "Dataset":
        """Returns this data set with a vocabulary of the `words` most frequent words of each language.

        None, or more words than the data set has, changes nothing. Modalities of other kinds stay as they are.
        """
        if words is None:
            return self
        return dataclasses.replace(
            self,
            modalities=tuple(modality.knowing(words) for modality in self.modalities),
            **{split: getattr(self, split).knowing(words) for split in SPLITS},
        )

    def to(self, device: torch.device | str) -> "Dataset":
        """Returns this data set with all values on `device`, still uint8 (MNIST: 55 MB)."""
        return dataclasses.replace(
            self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device)
        )
