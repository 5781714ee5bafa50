"""Composes PolyMNIST tuples: a digit of the same class in M handwritings, each on a crop of its own background.

In each modality, the digits of a class are shuffled independently. A pixel with a grey value above 128 is ink.
Each picture is a random 28x28 crop of the modality's background, inverted (255 - x) where the digit has ink.
PolyMNIST's own script ignores its seed, so the published pictures cannot be reproduced. Our bytes depend only on SEED,
split, modality and position.
All random numbers come from raw Philox streams, which are the same in all numpy versions.

Shapes: N tuples, M modalities.
"""

from collections.abc import Sequence

import numpy as np

SEED = 2021
SIDE = 28
"""Height and width of a picture, in pixels."""
INK = 128
"""A digit's pixel is ink if the grey value of the pixel is above this number."""


def random_words(split: str, modality: int, purpose: int, count: int) -> np.ndarray:
    """Returns random 64-bit numbers, uint64 [count]. Each split, modality and purpose has its own random stream."""
    stream = (("train", "test", "validation").index(split) << 16) | (modality << 8) | purpose
    return np.asarray(np.random.Philox(key=[SEED, stream]).random_raw(count))


def handwritings(labels: np.ndarray, split: str, modalities: int) -> np.ndarray:
    """Returns the index of the digit image that each modality of each tuple shows: int64 [N, M].

    All images of tuple `i` have the class of digit `i`.

    Args:
        labels: class of every digit, uint8 [N].
    """
    chosen = np.empty((len(labels), modalities), np.int64)
    for m in range(modalities):
        ranks = random_words(split, m, 0, len(labels))
        for digit in np.unique(labels):
            members = np.flatnonzero(labels == digit)
            chosen[members, m] = members[np.argsort(ranks[members], kind="stable")]
    return chosen


def crops(background: np.ndarray, split: str, modality: int, count: int) -> np.ndarray:
    """Returns random crops of a picture: uint8 [count, 3, 28, 28].

    Args:
        background: uint8 [height, width, 3], at least 28 pixels a side.
    """
    height, width, _ = background.shape
    words = random_words(split, modality, 1, 2 * count).reshape(2, count)
    top = (words[0] % np.uint64(height - SIDE + 1)).astype(np.int64)
    left = (words[1] % np.uint64(width - SIDE + 1)).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(background, (SIDE, SIDE), axis=(0, 1))
    return np.ascontiguousarray(windows[top, left])


def composed(
    digits: np.ndarray, labels: np.ndarray, backgrounds: Sequence[np.ndarray], split: str
) -> tuple[np.ndarray, ...]:
    """Returns the tuples of a split: M arrays of pictures, uint8 [N, 3, 28, 28], then their classes, uint8 [N].

    Args:
        digits: grey values, uint8 [N, 28, 28].
        labels: class of every digit, uint8 [N].
        backgrounds: one picture per modality, uint8 [height, width, 3], at least 28 pixels a side
            (checked by `polymnist.pictures`).
        split: train, test or validation.
    """
    chosen = handwritings(labels, split, len(backgrounds))
    made = []
    for m, background in enumerate(backgrounds):
        ink = digits[chosen[:, m]] > INK
        picture = crops(background, split, m, len(labels))
        made.append(np.where(ink[:, None], 255 - picture, picture))
    return (*made, labels)
