"""Checks a data set's description, and the arrays that its conversion returns.

Tests run these checks on the data sets of this package. If a plug-in's data set fails a check, the error message says
how to correct the data set.
"""

import math
import re
from typing import TYPE_CHECKING, Any

from mvae.data.dataset import (
    ATTRIBUTE_KINDS,
    DCGAN_SIDES,
    MOST_CLASSES,
    PIXELS_A_COUNT,
    SPLITS,
    Arrays,
    Kind,
    Modality,
    Source,
    all_sentences,
    stored_type,
)
from mvae.refusal import Refusal

if TYPE_CHECKING:
    import numpy as np

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Pattern of valid data set names, which are typed on the command line and become part of file names."""

SHAPES = {
    Kind.IMAGE: ("(channels, height, width), each at least 1", 3),
    Kind.LABEL: ("()", 0),
    Kind.TEXT: ("(largest number of tokens,)", 1),
    Kind.ATTRIBUTE: ("()", 0),
    Kind.ATTRIBUTES: ("(number of attributes,)", 1),
    Kind.VECTOR: ("(number of values,)", 1),
}
"""For each kind: the shape of one example, in words, and the number of dimensions of that shape."""


def check_source(found: Source) -> None:
    """Checks that a data set's description is valid.

    Raises:
        Refusal: the description is invalid. The message names the data set and the invalid modality, if there is one.
    """
    if not NAME.fullmatch(found.name):
        raise Refusal(
            f"invalid data set name {found.name!r}: use letters, digits, '_', '.' and '-', and begin with a letter or"
            " digit"
        )
    kinds = [modality.kind for modality in found.modalities]
    imageless = all_sentences(found.modalities)
    if len(kinds) < 2 or not (imageless or kinds[0] in (Kind.IMAGE, Kind.VECTOR)):
        raise Refusal(
            f"data set {found.name} has the modalities {', '.join(kinds) or 'none'}: give an image or a vector first,"
            " then at least one more modality"
        )
    for one in found.hidden:
        if one.kind is not Kind.LABEL:
            raise Refusal(
                f"data set {found.name}, {one.name}: cannot hide a modality of kind {one.kind.value}: hide only labels"
            )
        _check_modality(one, f"data set {found.name}, {one.name}")
    if len({modality.name for modality in found.modalities}) < len(kinds):
        raise Refusal(f"data set {found.name}: two modalities have the same name; rename one")
    if Kind.ATTRIBUTE in kinds and set(kinds[kinds.index(Kind.ATTRIBUTE) :]) != {Kind.ATTRIBUTE}:
        raise Refusal(f"data set {found.name}: put modalities of kind attribute after all others")
    for modality in found.modalities:
        _check_modality(modality, f"data set {found.name}, {modality.name}")
    if found.modalities[0].view is not None:
        raise Refusal(
            f"data set {found.name}, {found.modalities[0].name}: the first modality cannot be a view of another;"
            " remove `view`"
        )
    if not imageless:
        _check_networks(found)


def _check_modality(modality: Modality, where: str) -> None:
    words, dimensions = SHAPES[modality.kind]
    if len(modality.shape) != dimensions or min(modality.shape, default=1) < 1:
        raise Refusal(f"{where}: shape {modality.shape} does not fit kind {modality.kind.value}: give {words}")
    if modality.kind is Kind.ATTRIBUTES and modality.attributes and len(modality.attributes) != modality.shape[0]:
        raise Refusal(
            f"{where}: {len(modality.attributes)} attribute names do not fit shape {modality.shape}:"
            " give one name per attribute"
        )
    if modality.view is not None and modality.kind is not Kind.IMAGE:
        raise Refusal(f"{where}: a view makes images, so its kind cannot be {modality.kind}: use Kind.IMAGE")
    _check_likelihood(modality, where)
    if modality.sentences:
        return  # the vocabulary comes from the raw files, and words are stored as four bytes each
    if modality.kind in (Kind.LABEL, Kind.TEXT) and not 2 <= modality.classes <= MOST_CLASSES:
        raise Refusal(f"{where}: classes must be from 2 to {MOST_CLASSES:,}, not {modality.classes}")
    if modality.kind is Kind.ATTRIBUTE and modality.classes != 2:
        raise Refusal(f"{where}: an attribute needs classes = 2, not {modality.classes}")


SMALLEST_CONV_SIDE = 16
"""Smallest side length, in pixels, of the square images that the image network `conv` accepts."""

LIKELIHOODS = {
    Kind.IMAGE: ("bernoulli", "gaussian", "laplace"),
    Kind.VECTOR: ("gaussian", "laplace"),
    Kind.LABEL: ("categorical",),
    Kind.TEXT: ("categorical",),
    Kind.ATTRIBUTE: ("bernoulli",),
    Kind.ATTRIBUTES: ("bernoulli",),
}
"""Likelihoods that fit each kind of modality, the default first."""


def _check_likelihood(modality: Modality, where: str) -> None:
    able = LIKELIHOODS[modality.kind]
    if modality.likelihood and modality.likelihood not in able:
        raise Refusal(
            f"{where}: likelihood {modality.likelihood!r} does not fit kind {modality.kind.value}: choose"
            f" {' or '.join(able)}"
        )
    if modality.scale is not None and not 0 < modality.scale < math.inf:
        raise Refusal(f"{where}: scale = {modality.scale:g}: give a positive number, or None to learn it")
    likelihood = modality.likelihood or able[0]
    if modality.scale != 1 and likelihood not in ("gaussian", "laplace"):
        remedy = f"leave it out, or choose likelihood {' or '.join(able[1:])}" if able[1:] else "leave it out"
        raise Refusal(f"{where}: scale = {modality.scale} has no meaning for likelihood {likelihood}: {remedy}")
    if modality.network and modality.kind is not Kind.IMAGE:
        raise Refusal(f"{where}: network {modality.network!r} does not fit kind {modality.kind.value}: leave it out")


def _check_networks(found: Source) -> None:
    default, offered = found.defaults.image_network, found.defaults.image_networks
    for modality in (modality for modality in found.modalities if modality.kind is Kind.IMAGE):
        _, height, width = modality.shape
        fitting = ["mlp"]
        if height == width and (height == 28 or height in DCGAN_SIDES):
            fitting.append("dcgan")
        if height == width >= SMALLEST_CONV_SIDE:
            fitting.append("conv")
        for network in (modality.network,) if modality.network else (*offered, default):
            if network not in fitting:
                raise Refusal(
                    f"data set {found.name}, {modality.name}: image network {network!r} does not fit images of"
                    f" {height} by {width}: use {' or '.join(fitting)}"
                )
    if default not in offered:
        raise Refusal(
            f"data set {found.name}: the default image network {default!r} is missing from image_networks: add it"
        )
    values = math.prod(found.modalities[0].shape)
    if found.grey and values % PIXELS_A_COUNT:
        raise Refusal(
            f"data set {found.name}: an image has {values} grey values, but bits are drawn {PIXELS_A_COUNT} at a time:"
            " leave out `grey`, or change the size of the images"
        )


def check_arrays(found: Source, arrays: Arrays, examples: int) -> None:
    """Checks that the arrays from a conversion match the data set's description.

    Args:
        examples: number of training examples, from `Source.examples`.
    Raises:
        Refusal: the arrays do not match the description.
    """
    where = f"convert of data set {found.name}"
    stored = [modality for modality in (*found.modalities, *found.hidden) if modality.view is None]
    if sorted(arrays) != sorted(SPLITS):
        raise Refusal(
            f"{where} returned the splits {', '.join(map(str, arrays)) or 'none'}: return {', '.join(SPLITS)}"
        )
    for split in SPLITS:
        values = arrays[split]
        if len(values) != len(stored):
            raise Refusal(
                f"{where}, {split}: {len(values)} arrays for {len(stored)} stored modalities: return one per modality"
            )
        for array, modality in zip(values, stored, strict=True):
            if not modality.sentences:  # the reader of sentences reports errors by file and line
                _check_array(array, modality, f"{where}, {split}, {modality.name}")
        counts = [len(array) for array in values]
        if len(set(counts)) != 1 or not counts[0]:
            raise Refusal(
                f"{where}, {split}: the modalities have {counts} examples: return equally many per modality, at least 1"
            )
    _check_views(found, arrays["train"][0])
    if (returned := len(arrays["train"][0])) != examples:
        raise Refusal(
            f"{where} returned {returned:,} training examples, but `examples` returns {examples:,}: make both equal"
        )


def _check_views(found: Source, images: "np.ndarray") -> None:
    for modality in found.modalities:
        if modality.view is None:
            continue
        import torch

        image = torch.tensor(images[:1]).float() / 255
        made = tuple(modality.view(image).shape)
        if made != (1, *modality.shape):
            raise Refusal(
                f"data set {found.name}, {modality.name}: its view returns images of shape {made[1:]}, not"
                f" {modality.shape}: make the shapes equal"
            )


def _check_array(array: Any, modality: Modality, where: str) -> None:
    stored = stored_type(modality)
    if getattr(array, "dtype", None) != stored:
        given = getattr(array, "dtype", type(array).__name__)
        classes = f" for {modality.classes:,} classes" if modality.kind in (Kind.LABEL, Kind.TEXT) else ""
        meaning = " (images from 0 to 255)" if modality.kind is Kind.IMAGE else classes
        raise Refusal(f"{where}: return an array of {stored}{meaning}, not {given}")
    if array.shape[1:] != modality.shape:
        raise Refusal(f"{where}: an example has shape {array.shape[1:]}, not {modality.shape}: make the shapes equal")
    if modality.kind is Kind.VECTOR:
        finite = (abs(array) < math.inf).all(1)  # also refuses nan, because comparisons with nan are false
        if not finite.all():
            raise Refusal(
                f"{where}: example {int((~finite).argmax())} has nan or inf: replace the value or drop the example"
            )
    elif modality.kind is not Kind.IMAGE and array.size:
        largest = 1 if modality.kind in ATTRIBUTE_KINDS else modality.classes - 1
        for value, wrong in ((array.max(), "large"), (array.min(), "small")):
            if not 0 <= int(value) <= largest:
                raise Refusal(f"{where}: value {value} is too {wrong}: return values from 0 to {largest}")
