"""What must hold of a data set before it is taken: of its description, and of the arrays that a conversion gives.

Those of this package are held to it by tests; those that come from outside are refused with a line that says what would
be right.
"""

import math
import re
from typing import TYPE_CHECKING, Any

from mvae.data.dataset import (
    ATTRIBUTE_KINDS,
    DCGAN_SIDES,
    PIXELS_A_COUNT,
    SPLITS,
    Arrays,
    Kind,
    Modality,
    Source,
    all_sentences,
)
from mvae.refusal import Refusal

if TYPE_CHECKING:
    import numpy as np

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""A simple token: it is typed on the command line, and part of file names."""

SHAPES = {
    Kind.IMAGE: ("(channels, height, width)", 3),
    Kind.LABEL: ("()", 0),
    Kind.TEXT: ("(most tokens,)", 1),
    Kind.ATTRIBUTE: ("()", 0),
    Kind.ATTRIBUTES: ("(attributes,)", 1),
    Kind.VECTOR: ("(numbers,)", 1),
}
"""The shape of one example of each kind, in words, and its length."""


def check_source(found: Source) -> None:
    """Refuses a description that the rest of the code could not work with.

    Raises:
        Refusal: one line.
    """
    assert isinstance(found, Source)
    if not NAME.fullmatch(found.name):
        raise Refusal(f"data set {found.name!r}: name it with letters, digits, '_', '.' and '-', beginning with one")
    kinds = [modality.kind for modality in found.modalities]
    imageless = all_sentences(found.modalities)
    if len(kinds) < 2 or not (imageless or kinds[0] in (Kind.IMAGE, Kind.VECTOR)):
        said = ", ".join(kinds) or "none"
        raise Refusal(
            f"data set {found.name}: its modalities are an image or a vector, then at least one more, not {said}"
        )
    for one in found.hidden:
        if one.kind is not Kind.LABEL:
            raise Refusal(f"data set {found.name}, {one.name}: what is hidden from models is a label, not {one.kind}")
        _check_modality(one, found.name)
    if len({modality.name for modality in found.modalities}) < len(kinds):
        raise Refusal(f"data set {found.name}: two modalities have one name")
    if Kind.ATTRIBUTE in kinds and set(kinds[kinds.index(Kind.ATTRIBUTE) :]) != {Kind.ATTRIBUTE}:
        raise Refusal(f"data set {found.name}: single attributes come last among its modalities")
    for modality in found.modalities:
        _check_modality(modality, found.name)
    if found.modalities[0].view is not None:
        raise Refusal(f"data set {found.name}, {found.modalities[0].name}: the first modality is stored, and no view")
    if not imageless:
        _check_networks(found)


def _check_modality(modality: Modality, dataset: str) -> None:
    """The shape that its kind has, and numbers that fit into the byte in which values are stored."""
    words, length = SHAPES[modality.kind]
    if len(modality.shape) != length or min(modality.shape, default=1) < 1:
        raise Refusal(
            f"data set {dataset}, {modality.name}: the shape of an example of kind {modality.kind.value} is {words},"
            f" not {modality.shape}"
        )
    if modality.kind is Kind.ATTRIBUTES and modality.attributes and len(modality.attributes) != modality.shape[0]:
        raise Refusal(
            f"data set {dataset}, {modality.name}: {len(modality.attributes)} names of attributes for a shape of"
            f" {modality.shape}"
        )
    if modality.view is not None and modality.kind is not Kind.IMAGE:
        raise Refusal(f"data set {dataset}, {modality.name}: a view makes images, not values of kind {modality.kind}")
    _check_likelihood(modality, dataset)
    if modality.sentences:
        return  # their words come with the raw files, and are stored as numbers of four bytes
    if modality.kind in (Kind.LABEL, Kind.TEXT) and not 2 <= modality.classes <= 256:
        raise Refusal(f"data set {dataset}, {modality.name}: classes = {modality.classes} is not from 2 to 256")
    if modality.kind is Kind.ATTRIBUTE and modality.classes != 2:
        raise Refusal(f"data set {dataset}, {modality.name}: an attribute has classes = 2, not {modality.classes}")


SMALLEST_CONV_SIDE = 16
"""Smallest side in pixels of a square image that the network conv takes."""

LIKELIHOODS = {
    Kind.IMAGE: ("bernoulli", "gaussian", "laplace"),
    Kind.VECTOR: ("gaussian", "laplace"),
    Kind.LABEL: ("categorical",),
    Kind.TEXT: ("categorical",),
    Kind.ATTRIBUTE: ("bernoulli",),
    Kind.ATTRIBUTES: ("bernoulli",),
}
"""Likelihoods that fit a kind of modality, the default first."""


def _check_likelihood(modality: Modality, dataset: str) -> None:
    able = LIKELIHOODS[modality.kind]
    if modality.likelihood and modality.likelihood not in able:
        raise Refusal(
            f"data set {dataset}, {modality.name}: likelihood {modality.likelihood!r} does not fit kind"
            f" {modality.kind.value}: choose {' or '.join(able)}"
        )
    if modality.scale is not None and not 0 < modality.scale < math.inf:
        raise Refusal(
            f"data set {dataset}, {modality.name}: scale = {modality.scale:g}: give a positive number, or None to learn"
        )


def _check_vectors(array: Any, modality: Modality, where: str) -> None:
    if getattr(array, "dtype", None) != "float32":
        given = getattr(array, "dtype", type(array).__name__)
        raise Refusal(f"{where}: vectors are stored as an array of float32, not {given}: convert them")
    if array.shape[1:] != modality.shape:
        raise Refusal(f"{where}: an example is shaped {modality.shape}, not {array.shape[1:]}")
    finite = (abs(array) < math.inf).all(1)  # false for nan
    if not finite.all():
        raise Refusal(f"{where}: example {int((~finite).argmax())} has nan or inf: replace or drop it")


def _check_networks(found: Source) -> None:
    """The default among the networks, each of which fits the images of every modality."""
    chosen, able = found.defaults.image_network, found.defaults.image_networks
    for modality in found.modalities:
        if modality.kind is not Kind.IMAGE:
            continue
        _, height, width = modality.shape
        fitting = ["mlp"]
        if height == width and (height == 28 or height in DCGAN_SIDES):
            fitting.append("dcgan")
        if height == width >= SMALLEST_CONV_SIDE:
            fitting.append("conv")
        for network in (modality.network,) if modality.network else (*able, chosen):
            if network not in fitting:
                raise Refusal(
                    f"data set {found.name}, {modality.name}: image network {network!r} does not fit images of {height}"
                    f" by {width}, which can have {' or '.join(fitting)}"
                )
    if chosen not in able:
        raise Refusal(f"data set {found.name}: the default image network {chosen!r} is not among image_networks")
    if found.grey and math.prod(found.modalities[0].shape) % PIXELS_A_COUNT:
        raise Refusal(
            f"data set {found.name}: bits are drawn from grey values {PIXELS_A_COUNT} at a time, and an image has"
            f" {math.prod(found.modalities[0].shape)}: leave grey out, or change the size of the images"
        )


def check_arrays(found: Source, arrays: Arrays, examples: int) -> None:
    """Refuses what a conversion gave, where it is not what the description says.

    Args:
        examples: how many training examples the description promises.
    Raises:
        Refusal: one line.
    """
    where = f"convert of data set {found.name}"
    stored = [modality for modality in (*found.modalities, *found.hidden) if modality.view is None]
    if sorted(arrays) != sorted(SPLITS):
        raise Refusal(f"{where} gives {', '.join(map(str, arrays)) or 'nothing'}, not {', '.join(SPLITS)}")
    for split in SPLITS:
        values = arrays[split]
        if len(values) != len(stored):
            raise Refusal(f"{where}, {split}: {len(values)} arrays of {len(stored)} modalities")
        for array, modality in zip(values, stored, strict=True):
            if modality.sentences:
                continue  # ragged; their reader refuses what is wrong, by file and line
            _check_array(array, modality, f"{where}, {split}, {modality.name}")
        if len({len(array) for array in values}) != 1 or not len(values[0]):
            counts = [len(array) for array in values]
            raise Refusal(
                f"{where}, {split}: every modality needs the same number of examples, at least 1, not {counts}"
            )
    _check_views(found, arrays["train"][0])
    if (there := len(arrays["train"][0])) != examples:
        raise Refusal(f"{where} gives {there:,} training examples, and examples says {examples:,}")


def _check_views(found: Source, first: "np.ndarray") -> None:
    for modality in found.modalities:
        if modality.view is None:
            continue
        import torch

        image = torch.tensor(first[:1]).float() / 255
        made = tuple(modality.view(image).shape)
        if made != (1, *modality.shape):
            raise Refusal(
                f"data set {found.name}, {modality.name}: its view makes images shaped {made[1:]}, not {modality.shape}"
            )


def _check_array(array: Any, modality: Modality, where: str) -> None:
    if modality.kind is Kind.VECTOR:
        _check_vectors(array, modality, where)
        return
    if getattr(array, "dtype", None) != "uint8":
        given = getattr(array, "dtype", type(array).__name__)
        raise Refusal(f"{where}: values are stored as an array of uint8 (images from 0 to 255), not {given}")
    if array.shape[1:] != modality.shape:
        raise Refusal(f"{where}: an example is shaped {modality.shape}, not {array.shape[1:]}")
    most = 1 if modality.kind in ATTRIBUTE_KINDS else modality.classes - 1
    if modality.kind is not Kind.IMAGE and array.size and int(array.max()) > most:
        raise Refusal(f"{where}: values go from 0 to {most}, and one is {array.max()}")
