"""Your own data set: square grey images with one label each, from my_images.npz in the data root."""

import hashlib
from pathlib import Path

import numpy as np

import mvae.data
from mvae.data import Arrays, Defaults, Kind, MissingFiles, Modality, Source

SIZES = {"train": 1200, "validation": 297, "test": 300}


def raw(root: Path) -> Path:
    """Returns the path of the raw file: images [N, 8, 8] from 0 (black) to 255, and labels [N] from 0 to 9."""
    return root / "my_images.npz"


def check(root: Path) -> None:
    """Raises MissingFiles if the raw file does not exist. Does not read the file."""
    if not raw(root).is_file():
        raise MissingFiles(f"{raw(root)} is missing: give its folder with --data-root")


def digest(root: Path) -> str:
    """Returns a digest of the raw content, which becomes part of every key."""
    return hashlib.sha256(raw(root).read_bytes()).hexdigest()


def convert(root: Path) -> Arrays:
    """Returns one uint8 array per split and modality. Images have the shape [N, channels, height, width]."""
    file = np.load(raw(root))
    images, labels = file["images"].astype(np.uint8)[:, None], file["labels"].astype(np.uint8)
    order = np.argsort(np.random.Philox(key=0).random_raw(len(labels)))  # a fixed random order
    ends = np.cumsum(list(SIZES.values()))[:-1]
    parts = zip(np.split(images[order], ends), np.split(labels[order], ends), strict=True)
    return dict(zip(SIZES, parts, strict=True))


mvae.data.add(
    Source(
        name="my_images",
        modalities=(Modality("image", Kind.IMAGE, (1, 8, 8)), Modality("label", Kind.LABEL, (), classes=10)),
        defaults=Defaults(latents=16, epochs=100, image_network="mlp", image_networks=("mlp",)),
        split_rule="random order 0, then 1200/297/300",
        version=1,
        check=check,
        digest=digest,
        examples=lambda _root: SIZES["train"],
        convert=convert,
    )
)
