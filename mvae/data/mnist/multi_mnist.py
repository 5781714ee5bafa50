"""Defines `multi_mnist`: 0 to 4 MNIST digits at fixed places on a 50x50 canvas, with their classes as a text.

The canvases are made from MNIST's raw files (layout: `mvae/data/mnist/mnist.py`; supplement, section 1). Each split has
as many canvases as the same split of MNIST has digits. The digits of a canvas are drawn, with replacement, from its own
split only. The number of digits is uniform on 0..4. Digits are shrunk by 1/1.3, from 28x28 to 21x21, and pasted by
pixelwise maximum, in this order: top left, top right, bottom left, bottom right. Neighbouring boxes overlap by two
pixels. Canvases on which two digits overlap are counted and logged, but not drawn again, because an overlap affects
only the appearance.

The text has 5 tokens: the classes of the digits in the same order, then stop tokens. The vocabulary is 10 digits, stop
and start. All random numbers come from one seeded raw stream, so the same raw files give the same bytes.
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
"""Height and width of a canvas, in pixels."""
SMALL = 21
"""Height and width of a digit on the canvas, in pixels: 28 / 1.3, rounded down."""
PLACES = ((4, 4), (4, 23), (23, 4), (23, 23))
"""Top and left of each digit's box, in the order of pasting and of the text."""
VOCABULARY = 12
"""Number of tokens: ten digits, stop and start."""
STOP = stop_token(VOCABULARY)
LENGTH = len(PLACES) + 1
"""Number of tokens of a stored text."""


def convert(root: Path) -> Arrays:
    """Reads MNIST's raw files and composes the canvases of each split.

    Raises:
        Refusal: same as for `mnist`.
    """
    digits = mnist.MNIST.convert(root)
    bits = np.random.Philox(key=SEED)
    arrays: Arrays = {}
    for split in SPLITS:
        images, labels = digits[split]
        canvases, texts, collisions = compose(images, labels, bits)
        log.info("multi_mnist: digits overlap on %d of %d %s images", collisions, len(canvases), split)
        arrays[split] = canvases, texts
    return arrays


def compose(images: np.ndarray, labels: np.ndarray, bits: np.random.Philox) -> tuple[np.ndarray, np.ndarray, int]:
    """Composes n canvases from n digits. The digits of each canvas are drawn from all n digits.

    Args:
        images: uint8 [n, 1, 28, 28].
        labels: uint8 [n].
        bits: random bit generator. Each canvas takes five words from it: one for the number of digits, then one for
            the digit at each place, even if the place stays empty. Its raw stream is the same in all numpy versions.
    Returns:
        Canvases uint8 [n, 1, 50, 50], texts uint8 [n, 5], and the number of canvases on which digits overlap.
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
    """Shrinks 28x28 to 21x21 pixels by averaging areas. Integer arithmetic gives the same result with every library.

    A new pixel covers 4/3 of an old pixel in each direction. In units of 1/9, the weights of the old pixels are
    integers that sum to 16.

    Args:
        images: uint8 [n, 28, 28].
    Returns:
        uint8 [n, 21, 21].
    """
    old, new = 3 * np.arange(28), 4 * np.arange(SMALL)[:, None]  # starts of pixels, in thirds of an old pixel
    thirds = np.clip(np.minimum(old + 3, new + 4) - np.maximum(old, new), 0, None).astype(np.float32)  # [21, 28]
    small = np.empty((len(images), SMALL, SMALL), np.uint8)
    for start in range(0, len(images), 5000):
        sums = thirds @ images[start : start + 5000].astype(np.float32) @ thirds.T  # integers, exact in float32
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
