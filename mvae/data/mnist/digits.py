"""Defines `digits`: the 1,797 handwritten 8x8 digits in scikit-learn (UCI, Alpaydin and Kaynak 1998).

`digits` is the default of the demo and of most tests. The numbers of latents and epochs and the
split are our choice, because the paper does not use these digits. There is no download.
"""

import hashlib
from pathlib import Path

import numpy as np

from mvae.data.dataset import Arrays, Defaults, Kind, Modality, Source
from mvae.refusal import Refusal

CONTENT = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
"""Digest of scikit-learn's values, so that fingerprints need no import of scikit-learn. `convert` checks the digest."""

SHUFFLE_SEED = 1797
SIZES = {"train": 1297, "validation": 250, "test": 250}


def content_digest(images: np.ndarray, labels: np.ndarray) -> str:
    """Returns a hex sha256 of scikit-learn's values: images [1797, 8, 8] in 0..16, labels [1797]; both as uint8."""
    return hashlib.sha256(images.astype(np.uint8).tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()


def convert(_root: Path) -> Arrays:
    """Scales images from 0..16 to 0..255, shuffles them with a fixed seed, and divides them into the splits.

    The splits have 1,297 training, 250 validation and 250 test digits.

    Raises:
        Refusal: the digits of the installed scikit-learn do not match the fingerprint.
    """
    from sklearn.datasets import (
        load_digits,
    )  # imported here because the import takes a second, and a warm cache needs no conversion

    digits = load_digits()
    if content_digest(digits.images, digits.target) != CONTENT:
        raise Refusal(
            "scikit-learn's digits are not the expected ones: install a released scikit-learn, for example 1.9"
        )
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.uint8)
    # A bit generator's raw stream is the same in all numpy versions; Generator.permutation may change.
    order = np.argsort(np.random.Philox(key=SHUFFLE_SEED).random_raw(len(labels)), kind="stable")
    cuts = np.cumsum(list(SIZES.values()))[:-1]
    parts = zip(np.split(images[order], cuts), np.split(labels[order], cuts), strict=True)
    return dict(zip(SIZES, parts, strict=True))


DIGITS = Source(
    name="digits",
    modalities=(Modality("image", Kind.IMAGE, (1, 8, 8)), Modality("label", Kind.LABEL, (), classes=10)),
    defaults=Defaults(latents=16, epochs=100, image_network="mlp", image_networks=("mlp",)),
    split_rule="seeded shuffle 1797, then 1297/250/250",
    version=1,
    check=lambda _root: None,
    digest=lambda _root: CONTENT,
    examples=lambda _root: SIZES["train"],
    convert=convert,
)
