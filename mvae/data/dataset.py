"""Describes data sets before any file is read: modalities, origin, and the paper's settings. Does not import torch.

`Source` describes a data set. `mvae.data.examples.Dataset` holds the examples in memory.
To add a data set to the package, write one `Source` in a new file and list it in `mvae/data/registry.py`.
To add a data set from outside the package, pass the `Source` to `mvae.data.add` (docs/extend/data-set.md).
"""

from __future__ import annotations

import dataclasses
import itertools
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
    """Raised if a data set's raw files are missing. The one-line message says where the files should be."""


class Kind(StrEnum):
    """Meaning of a modality's values. The kind determines the likelihood and the networks."""

    IMAGE = "image"
    LABEL = "label"
    TEXT = "text"
    ATTRIBUTE = "attribute"
    """One binary attribute, 0 or 1."""
    ATTRIBUTES = "attributes"
    """Several binary attributes in one modality."""
    VECTOR = "vector"
    """Real numbers."""


NO_IMAGES = "none"
"""Name of the image network for data sets without images."""

SPECIAL = 3
"""Number of tokens other than words in a sentence vocabulary: <unk>, stop and start."""

ATTRIBUTE_KINDS = frozenset({Kind.ATTRIBUTE, Kind.ATTRIBUTES})

PIXELS_A_COUNT = 16
"""Number of pixels drawn per counter value of a Philox generator (mvae/data/mnist/binarisation.py).

An image that is binarised anew each epoch must have a multiple of this number of pixels.
"""

DCGAN_SIDES = frozenset({50, 64})
"""Side lengths, in pixels, of the square images that have their own DCGAN with batch normalisation (Figure 2)."""


View = Callable[["Tensor"], "Tensor"]
"""Computes one modality from another: images [B, C, H, W] from images [B, C', H, W], both in [0, 1].

A view must be a module-level function, because views are pickled. A view must treat each example independently.
"""


@dataclass(frozen=True)
class Modality:
    """One of the modalities x_1 ... x_M of an example."""

    name: str
    """Name, unique within the data set, for example "image", "label" or "text"."""
    kind: Kind
    shape: tuple[int, ...]
    """Shape of one example.

    (C, H, W) for an image, () for a label or a single attribute, (A,) for A attributes. For a text, (L,) with L the
    largest number of tokens, including the stop token.
    """
    classes: int = 0
    """Number of classes of a label, or vocabulary size of a text (mvae/data/sentences/text.py).

    2 for a single attribute; 0 for an image, a vector, and several attributes.
    """
    attributes: tuple[str, ...] = ()
    """Names of the attributes in a modality of kind `ATTRIBUTES`, in the order of its values."""
    words: tuple[str, ...] = ()
    """For sentences: all words, indexed by token. Words that models know come first (mvae/data/sentences)."""
    sentences: bool = False
    """Whether a text consists of sentences of words.

    Sentences are stored with offsets. In a batch, sentences are padded to the length of the longest one.
    """
    likelihood: str = ""
    """Likelihood of the values: bernoulli, gaussian or laplace (images); gaussian or laplace (vectors).

    Empty: bernoulli for an image, gaussian for a vector, and the paper's likelihood for other kinds.
    """
    scale: float | None = 1.0
    """Scale of a laplace likelihood, or standard deviation of a gaussian likelihood; None: learnt.

    All values of the modality share this number.
    """
    network: str = ""
    """Network of an image: mlp, dcgan or conv. Empty: the trial's image network."""
    view: View | None = None
    """Function that computes this modality from the first one, batch by batch. None: the modality is stored."""

    def knowing(self, words: int) -> Modality:
        """Returns this modality for models that know at most `words` words. Without sentences, nothing changes."""
        return dataclasses.replace(self, classes=min(self.classes, words + SPECIAL)) if self.sentences else self


BYTE, SHORT, MOST_CLASSES = 2**8, 2**15, 2**31
"""Largest numbers of classes whose values fit into one, two and four bytes."""


def stored_type(modality: Modality) -> str:
    """Returns the numpy type in which the values of a modality other than sentences are stored.

    Labels and tokens take one byte each if there are at most 256 classes, else two or four bytes.
    """
    if modality.kind is Kind.VECTOR:
        return "float32"
    if modality.kind not in (Kind.LABEL, Kind.TEXT) or modality.classes <= BYTE:
        return "uint8"
    return "int16" if modality.classes <= SHORT else "int32"


def position(modalities: Sequence[Modality], kind: Kind) -> int:
    """Returns the position of the first modality of the given kind. At least one modality must have this kind."""
    return [modality.kind for modality in modalities].index(kind)


def first_input(modalities: Sequence[Modality]) -> int:
    """Returns the position of the modality from which labels are predicted: the first image or vector.

    The data set must have an image or a vector.
    """
    return next(m for m, modality in enumerate(modalities) if modality.kind in (Kind.IMAGE, Kind.VECTOR))


def all_sentences(modalities: Sequence[Modality]) -> bool:
    """Whether all modalities are sentences, so that they can be translated."""
    return bool(modalities) and all(modality.sentences for modality in modalities)


def directions(modalities: Sequence[Modality]) -> dict[str, tuple[int, int]]:
    """Maps each direction of translation, for example en-vi, to the positions of its source and target language."""
    pairs = itertools.permutations(range(len(modalities)), 2)
    return {f"{modalities[source].name}-{modalities[target].name}": (source, target) for source, target in pairs}


VIEWS = ("image", "grayscale", "edges", "mask", "obscured", "watermark")
"""Names of the modalities of the vision experiment (section 10), in order."""


def has_views(modalities: Sequence[Modality]) -> bool:
    """Whether a data set has the six views of the vision experiment."""
    return tuple(modality.name for modality in modalities) == VIEWS


def attribute_names(modalities: tuple[Modality, ...]) -> tuple[str, ...]:
    """Returns the names of all attributes, whether single or grouped in one modality; empty if there are none."""
    return tuple(
        name
        for modality in modalities
        for name in ((modality.name,) if modality.kind is Kind.ATTRIBUTE else modality.attributes)
    )


@dataclass(frozen=True)
class Defaults:
    """Settings that a trial on this data set uses by default. Section numbers refer to the paper's supplement."""

    latents: int
    """Number of latent dimensions L.

    Section 1: 64 for the MNIST family, 100 for MultiMNIST. For `digits`, the number is our choice.
    """
    epochs: int
    """Epochs of a weak-supervision trial.

    Section 8: 500 for MNIST, 100 for FashionMNIST and MultiMNIST. For `digits`, the number is our choice.
    """
    image_network: str
    """Network of the image encoder and decoder: "mlp" (Figure 1) or "dcgan" (Figure 2); "none" without images."""
    image_networks: tuple[str, ...]
    """All image networks that fit the data set's images, including the default."""
    batch_size: int = 100
    """Global batch size: number of examples per step in the image stream (section 1)."""
    learning_rate: float = 1e-3
    """Learning rate of Adam (section 1)."""
    annealing_share: float = 0.4
    """Share of the training steps over which beta rises from 0 to 1 (section 1: 200 of 500 epochs)."""
    label_weight: float = 1.0
    """Weight lambda of the label's log-likelihood. The next two fields are the weights of texts and attributes.

    The image's weight is 1. The supplement names no weights.
    """
    text_weight: float = 1.0
    attribute_weight: float = 1.0
    k: int = 0
    """Number of random subsets of modalities per step (section 1: 1 for MVAE19, which gives 21 ELBO terms)."""
    pairing: str = "reserved"
    """Pairing protocol (mvae/sampling.py): "reserved", "resampled", or "proportional" for many modalities."""


def check_train_examples(requested: int, available: int, dataset: str) -> None:
    """Checks that a data set has enough training examples.

    Raises:
        Refusal: more examples are requested than the data set has.
    """
    if requested > available:
        raise Refusal(
            f"{dataset} has only {available:,} training examples, not {requested:,}: give a smaller --train-examples"
        )


Arrays = dict[str, tuple["np.ndarray", ...]]
"""For each split, one array per stored modality.

`stored_type` gives the type of each array, and `Split.values` the shape. For sentences, `ragged` makes the array.
"""


@dataclass(frozen=True)
class Source:
    """Describes a data set and the origin of its files.

    Each function takes the data root, unless stated otherwise. If there are no raw files, the data root is ignored.
    """

    name: str
    modalities: tuple[Modality, ...]
    """Modalities of each example. If `made_of` is given, only the number of modalities and their kinds are certain."""
    defaults: Defaults
    split_rule: str
    """How the examples are divided into splits, in words. Part of the fingerprint."""
    version: int
    """Version of the conversion; part of the fingerprint. Increase this number whenever the stored values change."""
    check: Callable[[Path], object]
    """Raises MissingFiles unless all raw files exist. Does not read the files. The return value is ignored."""
    digest: Callable[[Path], str]
    """Returns a hex digest of the raw content, equal for a file and its gzip. Raises Refusal if a file is damaged."""
    examples: Callable[[Path], int]
    """Returns the number of training examples, if possible without reading them. Raises Refusal for a damaged file."""
    convert: Callable[[Path], Arrays]
    """Reads the raw files and returns the stored arrays. Raises Refusal if a file is damaged."""
    prepare: Callable[[Path, Path], Path] | None = None
    """Does the slow part of a long conversion in a folder of the cache, so that a killed conversion can resume.

    Takes the data root and the cache, and returns a folder. `convert` gets this folder instead of the data root. Raises
    the same errors as `convert`. None: the conversion has no slow part.
    """
    made_of: Callable[[Path], tuple[Modality, ...]] | None = None
    """Returns the modalities if they depend on the raw files, as vocabularies do. None: `modalities` is complete."""
    facts: Callable[[Path, int | None], tuple[str, ...]] | None = None
    """Returns lines of text about the raw files, which are shown to the user.

    The lines say what the files hold, how the files differ from the published data set, and what was left out. The
    function takes the data root and the largest number of known words (None: all).
    """
    download: Callable[[Path], None] | None = None
    """Downloads the raw files into the data root. Raises MissingFiles if that fails. None: there is no download."""
    hidden: tuple[Modality, ...] = ()
    """Labels that are stored with the examples and hidden from models. Some measures use these labels.

    `convert` returns the arrays of the modalities first, then the arrays of these labels.
    """
    grey: str = ""
    """For black-and-white images: name of the data set that holds the same examples, in the same order, in grey.

    The grey images must be the first modality of that data set. Trials can draw new bits every epoch only
    if this name is set. The name is not part of the fingerprint.
    """
    remembered_digest: Callable[[Path, Path], str] | None = None
    """Like `digest`, for data sets of many files. Takes the data root and the cache.

    The cache remembers the digest of each unchanged file (mvae/data/contents.py). None: `digest` is fast enough.
    """
    former_digest: Callable[[Path], str] | None = None
    """Returns the digest that earlier releases gave the same raw content.

    Results whose keys contain the former digest are listed as superseded. None: the digest has not changed.
    """
    code: str = ""
    """Digest of the plug-in file that describes the data set; empty for data sets of the package.

    Data converted by another version of the plug-in file are not reused. The digest is not part of the fingerprint.
    """
