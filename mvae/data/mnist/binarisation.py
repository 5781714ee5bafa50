"""Draws black-and-white images from grey images. A pixel's probability of being white is its grey value / 255.

A trial on black-and-white images (binary_mnist) gets its training images in one of two ways:

fixed
    The default. The conversion draws the bits of all images once, and all trials use these bits. The supplement
    compares its numbers with reference [5] (Larochelle and Murray, the NADE paper), which binarises MNIST once.
dynamic
    Each epoch draws new bits for the training images from their grey values. All arms that are trained by steps,
    including RBM, use these bits. Many later papers draw new bits each epoch, so that a model cannot memorise one draw.

The dynamic bits of a training image depend only on (seed, epoch, position in the training split). Resumed runs,
data-parallel workers, every batch order and every arm with the same seed therefore get the same bits. If an epoch
shows an image several times, alone or in pairs, the image has the same bits each time. All ELBO terms of a step use the
same bits, as inputs and as targets.

Validation, testing, the logistic regressions on a model's features, and LOGREG (which is not trained by steps) always
use the fixed bits, so that their numbers are comparable.
"""

import math

import numpy as np

from mvae.data.dataset import PIXELS_A_COUNT
from mvae.streams import derive

# N images, C channels, H height, W width

BLOCK = 5000
"""Number of images drawn at a time."""


def binarise(images: np.ndarray, bits: np.random.Philox) -> np.ndarray:
    """Draws every pixel, 0 or 255, from Bernoulli(value / 255), with probabilities rounded to 1/65536.

    Uses the bit generator's raw stream, four pixels per word, because this stream is the same in all numpy versions.

    Args:
        images: uint8 [N, C, H, W].
        bits: random bit generator. This function takes one word from it per four pixels.
    """
    drawn = np.empty_like(images)
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        words = bits.random_raw(-(-block.size // 4)).astype("<u8", copy=False).view("<u2")[: block.size]
        white = words.reshape(block.shape) < block * np.uint16(257)  # 257 = 65535 / 255
        white |= block == 255
        np.negative(white.view(np.uint8), out=drawn[start : start + BLOCK])  # 1 becomes 255
    return drawn


def redrawn(grey: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Returns the images of a training split for one epoch of dynamic binarisation.

    The bits of image `i` start at counter value `i * C * H * W / 16` of the stream ("binarisation", seed, epoch).
    Therefore, the bits of an image do not depend on the number of images.

    Args:
        grey: uint8 [N, C, H, W], with C * H * W a multiple of 16.
    Returns:
        uint8 [N, C, H, W], 0 or 255.
    """
    assert math.prod(grey.shape[1:]) % PIXELS_A_COUNT == 0, "every image must start at a whole count of the generator"
    return binarise(grey, np.random.Philox(key=derive(seed, "binarisation", epoch)))
