"""A data set before anything is read: its modalities, its origin, and the settings that the paper uses. No torch.

`Source` describes a data set; `mvae.data.examples.Dataset` holds its examples.
Adding a data set means writing one `Source` in a file of its own and naming it in `mvae/data/__init__.py`; or, outside
the package, handing it to `mvae.data.add` (docs/extend/data-set.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from mvae.refusal import Refusal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# N examples, C channels, H height, W width

SPLITS = ("train", "validation", "test")
"""Names of the three splits, in the order in which they are stored."""


class MissingFiles(Refusal):
    """A data set's raw files are not where we looked. The message is one line with what would be right."""


class Kind(StrEnum):
    """What a modality's values mean, which decides its likelihood and its networks."""

    IMAGE = "image"
    LABEL = "label"
    TEXT = "text"
    ATTRIBUTE = "attribute"
    """One binary attribute, 0 or 1."""
    ATTRIBUTES = "attributes"
    """Several binary attributes as one modality."""
    VECTOR = "vector"
    """Real numbers."""


NO_IMAGES = "none"
"""The image network of a data set without images."""

SPECIAL = 3
"""Tokens of a model of sentences that are no words: <unk>, stop and start."""

ATTRIBUTE_KINDS = frozenset({Kind.ATTRIBUTE, Kind.ATTRIBUTES})

PIXELS_A_COUNT = 16
"""Pixels per count of a Philox generator. Images binarised anew each epoch have a multiple of it (binarisation.py)."""

DCGAN_SIDES = frozenset({50, 64})
"""Sides in pixels of the square images that have a DCGAN of their own, with batch normalisation (Figure 2)."""


View = Callable[["Tensor"], "Tensor"]
"""Makes one modality's values of another's: images [B, C, H, W] in [0, 1] of images [B, C', H, W]. A module's function,
since it is pickled, and of each example alone."""


@dataclass(frozen=True)
class Modality:
    """One of the views x_1 ... x_M of an example."""

    name: str
    """Unique within the data set: "image", "label", "text"."""
    kind: Kind
    shape: tuple[int, ...]
    """Of one example: (C, H, W) for an image, () for a label or an attribute, (A,) for A attributes, (most tokens, stop
    counted) for a text."""
    classes: int = 0
    """How many classes a label has, or tokens a text's vocabulary (mvae/data/sentences/text.py); 2 for an attribute, 0
    for an image and for several attributes."""
    attributes: tuple[str, ...] = ()
    """Names of the attributes of a modality of several, in the order of its values."""
    words: tuple[str, ...] = ()
    """Words of sentences by their number, the known words first (mvae/data/sentences/sentences.py)."""
    sentences: bool = False
    """Whether a text is sentences of words, stored with offsets and as wide in a batch as its longest."""
    likelihood: str = ""
    """bernoulli (images, attributes), categorical (labels), gaussian or laplace (images, vectors). Empty: bernoulli for
    an image, gaussian for a vector, and what the paper has for the other kinds."""
    scale: float | None = 1.0
    """Of a gaussian (standard deviation) or laplace likelihood, the same for all values; None: learnt."""
    network: str = ""
    """Network of an image, if it is not the one that the trial names: mlp, dcgan or conv."""
    view: View | None = None
    """Computed from the first modality a batch at a time, in place of being stored."""

    def knowing(self, words: int) -> Modality:
        """The same with so many known words at most, where it is sentences."""
        return dataclasses.replace(self, classes=min(self.classes, words + SPECIAL)) if self.sentences else self


def position(modalities: Sequence[Modality], kind: Kind) -> int:
    """Position of the first modality of a kind, which there must be."""
    return [modality.kind for modality in modalities].index(kind)


def all_sentences(modalities: Sequence[Modality]) -> bool:
    """Whether there is nothing but sentences, so that they can be translated."""
    return bool(modalities) and all(modality.sentences for modality in modalities)


VIEWS = ("image", "grayscale", "edges", "mask", "obscured", "watermark")
"""Modalities of the vision experiment (section 10), in this order."""


def has_views(modalities: Sequence[Modality]) -> bool:
    """Whether a data set has the six views of the vision experiment."""
    return tuple(modality.name for modality in modalities) == VIEWS


def attribute_names(modalities: tuple[Modality, ...]) -> tuple[str, ...]:
    """All attributes, be they modalities of their own or one together; empty where there are none."""
    return tuple(
        name
        for modality in modalities
        for name in ((modality.name,) if modality.kind is Kind.ATTRIBUTE else modality.attributes)
    )


@dataclass(frozen=True)
class Defaults:
    """What a trial on this data set uses where nothing else is said. Sections are those of the paper's supplement."""

    latents: int
    """Latent dimensions L (section 1: 64 for the MNIST family, 100 for MultiMNIST; digits: ours)."""
    epochs: int
    """Epochs of a weak-supervision trial (section 8: 500 for MNIST, 100 for Fashion- and MultiMNIST; digits: ours)."""
    image_network: str
    """Network of the image encoder and decoder: "mlp" (Figure 1) or "dcgan" (Figure 2); "none" without images."""
    image_networks: tuple[str, ...]
    """Every image network that fits the data set's images, the default among them."""
    batch_size: int = 100
    """Global batch size, in examples of the image stream (section 1)."""
    learning_rate: float = 1e-3
    """Of Adam (section 1)."""
    annealing_share: float = 0.4
    """Share of the steps over which beta rises from 0 to 1 (section 1: 200 of 500 epochs)."""
    label_weight: float = 1.0
    """Weight lambda of a log-likelihood, as the next two; the image's is 1 (the supplement names no weights)."""
    text_weight: float = 1.0
    attribute_weight: float = 1.0
    k: int = 0
    """Random subsets of modalities a step (section 1: 1 for MVAE19, which makes 21 terms)."""
    pairing: str = "reserved"
    """How pairs are shown (mvae/sampling.py); where examples have many modalities: proportional, one batch."""


def check_train_examples(asked: int, there: int, dataset: str) -> None:
    """Refuse to train on more examples than there are.

    Raises:
        Refusal: one line.
    """
    if asked > there:
        raise Refusal(f"{asked:,} training examples are more than the {there:,} of {dataset}")


Arrays = dict[str, tuple["np.ndarray", ...]]
"""Split name to one uint8 array a modality that is stored, shaped as in `Split.values`; of sentences what `ragged`
gives."""


@dataclass(frozen=True)
class Source:
    """Where a data set comes from. The callables get the data root, which embedded data ignore."""

    name: str
    modalities: tuple[Modality, ...]
    """Of its examples; where `made_of` is given, only their number and kinds are sure."""
    defaults: Defaults
    split_rule: str
    """How examples are divided, in words; part of the fingerprint."""
    version: int
    """Of the transform from raw to stored values; raised by hand when stored values change; part of the fingerprint."""
    check: Callable[[Path], object]
    """Raises MissingFiles where the raw files are not all there. Looks, does not read. What it returns is ignored."""
    digest: Callable[[Path], str]
    """Hex digest of the raw content (equal for a file and its gzip). Refusal for a damaged file."""
    examples: Callable[[Path], int]
    """Number of training examples, found without reading them all. Refusal for a damaged file."""
    convert: Callable[[Path], Arrays]
    """Read everything and transform it. Refusal, one line, for a damaged file."""
    prepare: Callable[[Path, Path], Path] | None = None
    """The slow part of a long conversion, done in a folder of the cache so that a killed one goes on: data root, cache
    to the folder, which `convert` then gets instead of the data root. Errors as `convert`. None: nothing is slow."""
    made_of: Callable[[Path], tuple[Modality, ...]] | None = None
    """The modalities as the raw files make them, where `modalities` can name their kinds alone: vocabularies."""
    facts: Callable[[Path, int | None], tuple[str, ...]] | None = None
    """Lines for the user: what the raw files have, how they differ from the published data set, what was left out of
    them. Takes the data root and the largest number of known words (None: all)."""
    download: Callable[[Path], None] | None = None
    """Fetch the raw files into the data root; MissingFiles, one line, where that fails. None: nothing to fetch."""
    hidden: tuple[Modality, ...] = ()
    """Labels that are stored behind the modalities and that no model sees: what a measure judges models by. `convert`
    gives their arrays last."""
    grey: str = ""
    """Data set with the same examples in the same order, whose first modality holds the grey values of the black and
    white images here. With it, trials may draw bits anew each epoch; empty: they may not. No part of the fingerprint.
    """
    remembered_digest: Callable[[Path, Path], str] | None = None
    """As `digest`, of data root and cache, for data of many files: the cache remembers the digest of each file that has
    not changed (mvae/data/contents.py). None: `digest` is fast enough."""
    former_digest: Callable[[Path], str] | None = None
    """Digest by which earlier releases knew the same raw content: results under its keys are listed as superseded."""
    code: str = ""
    """Digest of the file that describes it, where that is a plug-in: what another state of the file converted is not
    taken for its own. No part of the fingerprint."""
