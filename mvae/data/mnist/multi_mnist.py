"""`multi_mnist`: 0 to 4 of MNIST's digits at fixed places on a 50x50 canvas, and their classes as a text.

Made from MNIST's raw files (the layout is in `mvae/data/mnist/mnist.py`; supplement, section 1). Each split has as many
canvases as MNIST's split has digits, and draws its digits from that split alone, with replacement. The count of digits
is uniform on 0..4. A digit is shrunk by 1/1.3 to 21x21 and pasted by pixelwise maximum, in this order: top left, top
right, bottom left, bottom right. Neighbouring boxes share a border of two pixels; canvases on which two digits really
meet there are counted and logged (a collision costs nothing but beauty, so none is drawn again).

The text is the classes in the same order, then the stop token, which also fills the row: 5 tokens, of a vocabulary of
10 digits, stop and start. Every draw comes from one seeded raw stream, so the same raw files give the same bytes.
"""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from mvae.data.dataset import SPLITS, Arrays, Defaults, Kind, Modality
from mvae.data.mnist import mnist
from mvae.data.sentences.text import stop_token

log = logging.getLogger(__name__)

# N canvases of a split, n digits of a split

SEED = 50
SIDE = 50
"""Height and width of a canvas."""
SMALL = 21
"""Height and width of a digit on it: 28 / 1.3, cut off."""
PLACES = ((4, 4), (4, 23), (23, 4), (23, 23))
"""Top and left of each digit's box, in the order in which digits are pasted and read."""
VOCABULARY = 12
"""Ten digits, stop, start."""
STOP = stop_token(VOCABULARY)
LENGTH = len(PLACES) + 1
"""Tokens of a stored text."""


def convert(root: Path) -> Arrays:
    """Read MNIST's raw files and compose each split's canvases.

    Raises:
        Refusal: a damaged file, as for `mnist`.
    """
    digits = mnist.MNIST.convert(root)
    bits = np.random.Philox(key=SEED)
    arrays: Arrays = {}
    for split in SPLITS:
        images, labels = digits[split]
        canvases, texts, collisions = compose(images, labels, bits)
        log.info("multi_mnist: digits touch on %d of %d %s images", collisions, len(canvases), split)
        arrays[split] = canvases, texts
    return arrays


def compose(images: np.ndarray, labels: np.ndarray, bits: np.random.Philox) -> tuple[np.ndarray, np.ndarray, int]:
    """As many canvases as there are digits, drawn from these digits.

    Args:
        images: uint8 [n, 1, 28, 28].
        labels: uint8 [n].
        bits: advanced by five words a canvas (the count, then one digit a place, used or not), whose raw stream never
            changes between numpy versions.
    Returns:
        Canvases uint8 [n, 1, 50, 50], texts uint8 [n, 5], and the number of canvases with a pixel that two digits
        draw on.
    """
    n = len(images)
    words = bits.random_raw(n * LENGTH).reshape(n, LENGTH)
    counts, chosen = words[:, 0] % LENGTH, words[:, 1:] % n
    small = shrink(images[:, 0])
    canvases = np.zeros((n, 1, SIDE, SIDE), np.uint8)
    collided = np.zeros(n, bool)
    for place, (top, left) in enumerate(PLACES):
        here = np.flatnonzero(counts > place)
        box = np.s_[here, 0, top : top + SMALL, left : left + SMALL]
        before, digit = canvases[box], small[chosen[here, place]]
        collided[here] |= ((before > 0) & (digit > 0)).any(axis=(1, 2))
        canvases[box] = np.maximum(before, digit)
    texts = np.full((n, LENGTH), STOP, np.uint8)
    drawn = np.arange(len(PLACES)) < counts[:, None]
    texts[:, :-1] = np.where(drawn, labels[chosen], STOP)
    return canvases, texts, int(collided.sum())


def shrink(images: np.ndarray) -> np.ndarray:
    """28x28 to 21x21 by the mean over the area that a pixel comes to cover, rounded: whole numbers in any library.

    A new pixel covers 4/3 of an old one each way, so weights are thirds and sixteen of ninths make a whole.

    Args:
        images: uint8 [n, 28, 28].
    Returns:
        uint8 [n, 21, 21].
    """
    old, new = 3 * np.arange(28), 4 * np.arange(SMALL)[:, None]  # where pixels begin, in thirds of an old one
    thirds = np.clip(np.minimum(old + 3, new + 4) - np.maximum(old, new), 0, None).astype(np.float32)  # [21, 28]
    small = np.empty((len(images), SMALL, SMALL), np.uint8)
    for start in range(0, len(images), 5000):
        sums = thirds @ images[start : start + 5000].astype(np.float32) @ thirds.T  # whole numbers, exact as floats
        small[start : start + 5000] = (sums.astype(np.uint32) + 8) // 16
    return small


MULTI_MNIST = replace(
    mnist.MNIST,
    name="multi_mnist",
    modalities=(
        Modality("image", Kind.IMAGE, (1, SIDE, SIDE)),
        Modality("text", Kind.TEXT, (LENGTH,), classes=VOCABULARY),
    ),
    defaults=Defaults(latents=100, epochs=100, image_network="dcgan", image_networks=("dcgan",)),
    split_rule=f"as mnist's; a split's digits make its canvases, drawn with seed {SEED}",
    version=1,
    convert=convert,
)
