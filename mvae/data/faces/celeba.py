"""`celeba` and `celeba19`: aligned faces with 18 of CelebA's 40 attributes (layout: mvae/data/faces/celeba_files.py).

Attributes and image size are those of the supplement's sections 1 and 6: short side to 64, then the 64x64 pixels in the
middle. `celeba` has two modalities, the image and all attributes; `celeba19` has 19, the image and each attribute.

Images are decoded once for both, into `<cache>/celeba-<digits>-pictures` (mvae/data/faces/pictures.py, 2.5 GB for all
of CelebA), which stays: the other data set is then no more than a copy. Nothing passes through memory as a whole.
"""

import functools
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from mvae.data.dataset import Arrays, Defaults, Kind, Modality, Source
from mvae.data.faces import celeba_files, celeba_lists, pictures

# N images, A attributes

ATTRIBUTES = (
    "Bald",
    "Bangs",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Eyeglasses",
    "Gray_Hair",
    "Heavy_Makeup",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Pale_Skin",
    "Receding_Hairline",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Hat",
)
"""The 18 visually distinct ones that the paper uses, in this order."""

PARTITIONS = "partitions.npy"
"""Beside the pictures: uint8 [N], which split (0, 1, 2) each is of; ascending, as pictures are in that order."""
VALUES = "attributes.npy"
"""Beside the pictures: uint8 [N, A], 0 or 1."""


def prepare(root: Path, cache: Path) -> Path:
    """Read the lists and decode all images, into a folder of the cache that both data sets share.

    Returns:
        The folder, for `convert`.
    Raises:
        Refusal: a damaged list, lists that do not fit each other, a damaged image; one line.
        OSError: the cache cannot be written.
    """
    files = celeba_files.find(root)
    mark = hashlib.sha256(f"{celeba_files.content_digest(root, cache)} {pictures.VERSION}".encode()).hexdigest()
    names, partitions, values = celeba_lists.read_lists(files.attributes, files.partitions, ATTRIBUTES)
    places = files.located(names)
    order = np.argsort(partitions, kind="stable")
    ordered = tuple(places[number] for number in order)
    folder = cache / f"celeba-{mark[:16]}-pictures"
    pictures.make(
        folder,
        len(ordered),
        lambda start, stop: functools.partial(celeba_files.read_block, files, ordered[start:stop]),
        beside={PARTITIONS: partitions[order], VALUES: values[order]},
        what="CelebA's images",
    )
    return folder


def convert(folder: Path, separate: bool) -> Arrays:
    """The splits of what was prepared, images mapped; `separate` makes a modality of each attribute."""
    partitions, values = np.load(folder / PARTITIONS), np.load(folder / VALUES)
    images = pictures.mapped(folder, len(partitions))
    return pictures.cut(partitions, images, *(values.T if separate else (values,)))


def modalities(separate: bool) -> tuple[Modality, ...]:
    """The image, and the 18 attributes one by one or all as one."""
    image = Modality("image", Kind.IMAGE, pictures.SHAPE)
    if separate:
        return image, *(Modality(name, Kind.ATTRIBUTE, (), classes=2) for name in ATTRIBUTES)
    return image, Modality("attributes", Kind.ATTRIBUTES, (len(ATTRIBUTES),), attributes=ATTRIBUTES)


def defaults(separate: bool) -> Defaults:
    """Section 1 of the supplement: Adam 1e-4, 100 epochs, beta annealed over 20 of them; MVAE19 with k = 1."""
    common = Defaults(
        latents=100,
        epochs=100,
        image_network="dcgan",
        image_networks=("dcgan",),
        learning_rate=1e-4,
        annealing_share=0.2,
    )
    return replace(common, k=1, pairing="proportional") if separate else common


def _source(name: str, separate: bool) -> Source:
    return Source(
        name=name,
        modalities=modalities(separate),
        defaults=defaults(separate),
        split_rule="CelebA's own partitions",
        version=pictures.VERSION,
        check=celeba_files.find,
        digest=celeba_files.content_digest,
        remembered_digest=celeba_files.content_digest,
        former_digest=celeba_files.names_and_sizes_digest,
        examples=celeba_files.training_examples,
        prepare=prepare,
        convert=functools.partial(convert, separate=separate),
        facts=celeba_files.facts,
    )


CELEBA = _source("celeba", separate=False)
CELEBA19 = _source("celeba19", separate=True)
