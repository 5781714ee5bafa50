"""Defines `celeba` and `celeba19`: aligned faces with 18 of CelebA's 40 attributes (files: celeba_files.py).

Attributes and image size follow sections 1 and 6 of the supplement. An image's short side is scaled to 64 pixels,
and the central 64x64 pixels are kept. `celeba` has two modalities: the image, and all attributes together. `celeba19`
has 19 modalities: the image, and one per attribute.

Images are decoded once for both data sets, into `<cache>/celeba-<digits>-pictures` (mvae/data/faces/pictures.py; 2.5 GB
for all of CelebA). The folder is kept, so the second data set need not decode the images again. The images are
never in memory all at once.
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
"""The 18 visually distinct attributes that the paper uses, in this order."""

PARTITIONS = "partitions.npy"
"""File next to the pictures: uint8 [N], the split (0, 1, 2) of each picture. Pictures are sorted by split."""
VALUES = "attributes.npy"
"""File next to the pictures: uint8 [N, A], the attributes of each picture, 0 or 1."""


def prepare(root: Path, cache: Path) -> Path:
    """Reads the lists and decodes all images. `celeba` and `celeba19` share the result, a folder of the cache.

    Returns:
        The folder, which `convert` takes.
    Raises:
        Refusal: a list or an image is damaged, or the lists do not match each other.
        OSError: the cache is not writable.
    """
    files = celeba_files.find(root)
    digest = hashlib.sha256(f"{celeba_files.content_digest(root, cache)} {pictures.VERSION}".encode()).hexdigest()
    names, partitions, values = celeba_lists.read_lists(files.attributes, files.partitions, ATTRIBUTES)
    ordered, order = files.by_split(names, partitions)
    folder = cache / f"celeba-{digest[:16]}-pictures"
    pictures.make(
        folder,
        len(ordered),
        lambda start, stop: functools.partial(celeba_files.read_block, files, ordered[start:stop]),
        beside={PARTITIONS: partitions[order], VALUES: values[order]},
        what="CelebA's images",
    )
    return folder


def convert(folder: Path, separate: bool) -> Arrays:
    """Returns the splits from the folder that `prepare` made. Images are memory-mapped.

    Args:
        separate: return one array per attribute instead of one array for all attributes.
    """
    partitions, values = np.load(folder / PARTITIONS), np.load(folder / VALUES)
    images = pictures.mapped(folder, len(partitions))
    return pictures.cut(partitions, images, *(values.T if separate else (values,)))


def modalities(separate: bool) -> tuple[Modality, ...]:
    """Returns the image modality, then one modality per attribute if `separate`, else one for all attributes."""
    image = Modality("image", Kind.IMAGE, pictures.SHAPE)
    if separate:
        return image, *(Modality(name, Kind.ATTRIBUTE, (), classes=2) for name in ATTRIBUTES)
    return image, Modality("attributes", Kind.ATTRIBUTES, (len(ATTRIBUTES),), attributes=ATTRIBUTES)


def defaults(separate: bool) -> Defaults:
    """Returns the settings of section 1 of the supplement.

    Adam has learning rate 1e-4. Training takes 100 epochs, 20 of them with annealing. If `separate`, k = 1.
    """
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
