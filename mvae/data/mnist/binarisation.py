"""Binarisation: black and white images drawn from grey ones, each pixel white with probability grey value / 255.

A trial on black and white images (binary_mnist) takes its training images in one of two ways:

fixed
    The default. The conversion draws the bits of all images once, and every trial sees these bits. The supplement
    aligns its numbers with its reference [5] (Larochelle and Murray, the NADE paper), whose MNIST is binarised once.
dynamic
    Every epoch draws the bits of the training images anew from their grey values. Every arm that is trained by steps
    sees them, RBM included. Much later work does so: it keeps a model from memorising one draw.

The dynamic bits of a training image are a pure function of (seed, epoch, position in the training split). So resumed
runs, data-parallel workers and any order of the batches see the same bits, and so does every arm of a seed. An image
that an epoch shows more than once, alone and in a pair or again and again in a small paired set, has the same bits
each time. All ELBO terms of a step take their inputs and their targets from one draw.

Validation, test, read-outs and LOGREG, which is not trained by steps, use the fixed bits in both cases, so that their
numbers can be compared.
"""

import math

import numpy as np

from mvae.data.dataset import PIXELS_A_COUNT
from mvae.streams import derive

# N images, C channels, H height, W width

BLOCK = 5000
"""Images drawn at a time."""


def binarise(images: np.ndarray, bits: np.random.Philox) -> np.ndarray:
    """Draws every pixel from Bernoulli(value / 255), to the nearest 1/65536, as 0 or 255.

    It uses the bit generator's raw stream, four pixels a word, because that never changes between numpy versions.

    Args:
        images: uint8 [N, C, H, W].
        bits: advanced by one word for every four pixels.
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
    """The images of a training split as one epoch shows them under dynamic binarisation.

    Image i starts at count i * C * H * W / 16 of the stream ("binarisation", seed, epoch), so its bits do not depend
    on how many images there are.

    Args:
        grey: uint8 [N, C, H, W], with C * H * W a multiple of 16.
    Returns:
        uint8 [N, C, H, W], 0 or 255.
    """
    assert math.prod(grey.shape[1:]) % PIXELS_A_COUNT == 0, "an image must begin with a count of its own"
    return binarise(grey, np.random.Philox(key=derive(seed, "binarisation", epoch)))
