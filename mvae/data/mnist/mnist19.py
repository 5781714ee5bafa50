"""Defines `mnist19`: MNIST with 19 modalities: the image, and 18 binary attributes computed from label and pixels.

The raw files (layout: `mvae/data/mnist/mnist.py`), the images and the splits are the same as MNIST's. Ten attributes,
`is_0` to `is_9`, say which digit the label is. The other eight describe the shape of the ink. Every pixel with a
grey value of at least 128 is ink.

Each shape attribute says whether a quantity exceeds a threshold. The formula of a quantity is in the docstring of the
function that computes the quantity. The threshold of `has_hole` is 0. The other thresholds are medians over the 50,000
training digits. So every shape attribute except `has_hole` holds for half of the training digits, minus the few digits
whose quantity equals the median:

                  quantity                                  median   share: training, validation, test
    thick         stroke width, in pixels                   2.371    0.5000   0.4569   0.5210
    slanted       columns to the right for each row up      0.1027   0.5000   0.5138   0.4756
    wide          variance of the ink's columns             14.49    0.5000   0.4905   0.4822
    tall          variance of the ink's rows                30.55    0.5000   0.5280   0.5094
    has_hole      holes                                     -        0.4020   0.3994   0.3892
    heavy_above   rows from box's middle up to centroid     0.08163  0.5000   0.4908   0.4937
    symmetric     share of ink whose mirror image is ink    0.4368   0.4995   0.4897   0.5353
    heavy_right   columns from box's middle to centroid     0.02941  0.4998   0.5157   0.5043

MNIST centres each digit by its mass and scales its longer side to 20 pixels. Therefore neither the centroid's position
in the image nor the longer side of the bounding box is informative. Instead, "heavy" refers to the digit's own bounding
box, and "wide" and "tall" are second moments. All sums are integers, followed by a few correctly rounded operations, so
the same raw files give the same bytes with any version of numpy.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mvae.data.dataset import SPLITS, Arrays, Defaults, Kind, Modality
from mvae.data.mnist import mnist

log = logging.getLogger(__name__)

# N images, n images of a chunk, H height, W width

INK = 128
"""Smallest grey value that counts as ink."""
CHUNK = 5000
"""Number of images measured at a time."""


@dataclass(frozen=True)
class Ink:
    """Counts per image, from which the quantities of the shape attributes are computed. Every field is int64 [N].

    Windows are the 2x2 windows of the image after padding it with empty pixels (Gray's bit quads).

    Attributes:
        area: number of ink pixels.
        row, column: sum of the row indices of all ink pixels (0 is the top), and of the column indices (0 is the left).
        row_row, row_column, column_column: sums of squared rows, of row times column, of squared columns.
        top_bottom: index of the first row with ink plus index of the last row with ink.
        left_right: index of the first column with ink plus index of the last column with ink.
        matched: number of ink pixels whose mirror image is ink too. The mirror is the vertical line through
            the middle of the bounding box.
        ones, threes: number of windows with one ink pixel, and with three ink pixels.
        pairs, diagonals: number of windows with two ink pixels side by side, and with two on a diagonal.
    """

    area: np.ndarray
    row: np.ndarray
    column: np.ndarray
    row_row: np.ndarray
    row_column: np.ndarray
    column_column: np.ndarray
    top_bottom: np.ndarray
    left_right: np.ndarray
    matched: np.ndarray
    ones: np.ndarray
    pairs: np.ndarray
    diagonals: np.ndarray
    threes: np.ndarray


def measure(images: np.ndarray) -> Ink:
    """Computes the counts of each image, in about one second for 70,000 digits.

    Args:
        images: uint8 [N, 1, H, W], at most 28x28.
    """
    chunks = [_counts(images[start : start + CHUNK, 0] >= INK) for start in range(0, max(len(images), 1), CHUNK)]
    return Ink(*np.concatenate(chunks, axis=1))


def _counts(ink: np.ndarray) -> np.ndarray:
    """Computes the fields of `Ink` from images of ink, bool [n, H, W]. Returns them in order, int64 [fields, n]."""
    n, height, width = ink.shape
    rows, columns = (axis.reshape(-1) for axis in np.indices((height, width)))
    moments = np.stack([rows**0, rows, columns, rows**2, rows * columns, columns**2], axis=1)
    sums = ink.reshape(n, height * width).astype(np.float32) @ moments.astype(
        np.float32
    )  # below 2^24: exact in any order of summation
    top_bottom, left_right = (_first_plus_last(np.asarray(ink.any(axis=axis))) for axis in (2, 1))
    opposite = np.clip(left_right[:, None] - np.arange(width), 0, width - 1)  # a clipped column has no ink opposite
    mirrored = np.take_along_axis(ink, opposite[:, None], axis=2)
    framed = np.pad(ink, ((0, 0), (1, 1), (1, 1))).view(np.uint8)
    a, b, c, d = framed[:, :-1, :-1], framed[:, :-1, 1:], framed[:, 1:, :-1], framed[:, 1:, 1:]
    held = a + b + c + d
    ones, twos, diagonals, threes = (
        np.count_nonzero(windows, axis=(1, 2))
        for windows in (held == 1, held == 2, (a == d) & (b == c) & (a != b), held == 3)
    )
    matched = np.count_nonzero(ink & mirrored, axis=(1, 2))
    return np.stack(
        [*sums.T.astype(np.int64), top_bottom, left_right, matched, ones, twos - diagonals, diagonals, threes]
    )


def _first_plus_last(holds: np.ndarray) -> np.ndarray:
    """For each row of bool [n, positions], returns the position of the first true value plus that of the last.

    If a row has no true value, the result is `positions - 1`.
    """
    return np.asarray(holds.argmax(axis=1) + holds.shape[1] - 1 - holds[:, ::-1].argmax(axis=1))


def stroke_width(ink: Ink) -> np.ndarray:
    """Returns 2 A / P for `thick`: twice the area divided by the perimeter, in pixels.

    For a long stroke of width w, the result is w. P = pairs + (ones + threes + 2 diagonals) / sqrt(2) is estimated from
    bit quads. This estimate is right for straight and for diagonal edges (Pratt, Digital Image Processing).
    """
    perimeter = ink.pairs + (ink.ones + ink.threes + 2 * ink.diagonals) / np.sqrt(2)
    return _ratio(2 * ink.area, perimeter)


def slant(ink: Ink) -> np.ndarray:
    """Returns -mu11 / mu02 for `slanted`: the shear, in columns to the right for each row up.

    mu11 is the central moment of rows and columns, and mu02 is the second central moment of rows. If all ink is in one
    row, the result is 0.
    """
    return _ratio(ink.row * ink.column - ink.area * ink.row_column, ink.area * ink.row_row - ink.row**2)


def column_spread(ink: Ink) -> np.ndarray:
    """Returns the variance of the ink's columns for `wide`: (A sum(c^2) - sum(c)^2) / A^2, in pixels squared."""
    return _ratio(ink.area * ink.column_column - ink.column**2, ink.area**2)


def row_spread(ink: Ink) -> np.ndarray:
    """Returns the variance of the ink's rows for `tall`: (A sum(r^2) - sum(r)^2) / A^2, in pixels squared."""
    return _ratio(ink.area * ink.row_row - ink.row**2, ink.area**2)


def euler_number(ink: Ink) -> np.ndarray:
    """Returns the number of pieces minus the number of holes: (ones - threes - 2 diagonals) / 4, int64 [N].

    Ink pixels are connected across sides and corners. Empty pixels of a hole are connected only across sides. See
    Gray, Local properties of binary images, 1971.
    """
    return np.asarray((ink.ones - ink.threes - 2 * ink.diagonals) // 4)


def holes(ink: Ink) -> np.ndarray:
    """Returns 1 - E for `has_hole`, with E the Euler number. Without ink, returns 0.

    If the ink is one piece, the result is the number of holes. Each additional piece cancels one hole. So 0.65 % of the
    training digits have a hole but lack the attribute, because E >= 1.
    """
    return np.asarray(np.minimum(ink.area, 1) - euler_number(ink))


def weight_above(ink: Ink) -> np.ndarray:
    """Returns (top + bottom) / 2 - sum(r) / A for `heavy_above`: rows from the box's middle up to the centroid."""
    return _ratio(ink.area * ink.top_bottom - 2 * ink.row, 2 * ink.area)


def symmetry(ink: Ink) -> np.ndarray:
    """Returns the share of ink pixels whose mirror image is ink too, for `symmetric`.

    The image is mirrored left to right about the bounding box's middle. The share equals 1 - D / (2 A). A is the number
    of ink pixels, and D is the number of pixels in which the digit and its mirror image differ.
    """
    return _ratio(ink.matched, ink.area)


def weight_right(ink: Ink) -> np.ndarray:
    """Returns sum(c) / A - (left + right) / 2 for `heavy_right`: columns from the box's middle to the centroid."""
    return _ratio(2 * ink.column - ink.area * ink.left_right, 2 * ink.area)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns the quotients, float64 [N]. If a denominator is 0, the quotient is 0."""
    quotient = np.zeros(len(numerator))
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


QUANTITIES: dict[str, Callable[[Ink], np.ndarray]] = {
    "thick": stroke_width,
    "slanted": slant,
    "wide": column_spread,
    "tall": row_spread,
    "has_hole": holes,
    "heavy_above": weight_above,
    "symmetric": symmetry,
    "heavy_right": weight_right,
}
"""For each shape attribute, the function that returns its quantity, [N].

The attribute holds if the quantity exceeds the threshold.
"""

ATTRIBUTES = (*(f"is_{label}" for label in range(mnist.CLASSES)), *QUANTITIES)
"""Names of the 18 attributes, in the order of their modalities, which follow the image."""


def thresholds(ink: Ink) -> dict[str, float]:
    """Returns the threshold of each quantity: 0 for holes, and the median over all images for the others.

    Args:
        ink: counts of the training split.
    """
    return {name: 0.0 if name == "has_hole" else float(np.median(of(ink))) for name, of in QUANTITIES.items()}


def attributes(labels: np.ndarray, ink: Ink, above: dict[str, float]) -> tuple[np.ndarray, ...]:
    """Returns the values of all 18 attributes, each uint8 [N], 0 or 1.

    Args:
        labels: uint8 [N].
        above: threshold of each quantity, by attribute name.
    """
    bits = [labels == label for label in range(mnist.CLASSES)]
    shapes = [of(ink) > above[name] for name, of in QUANTITIES.items()]
    return tuple(holds.astype(np.uint8) for holds in (*bits, *shapes))


def convert(root: Path) -> Arrays:
    """Reads MNIST's raw files and computes the attributes of each split.

    Raises:
        Refusal: same as for `mnist`.
    """
    digits = mnist.MNIST.convert(root)
    inks = {split: measure(digits[split][0]) for split in SPLITS}
    above = thresholds(inks["train"])
    log.info("mnist19: thresholds %s", ", ".join(f"{name} {value:.4g}" for name, value in above.items()))
    return {split: (images, *attributes(labels, inks[split], above)) for split, (images, labels) in digits.items()}


MNIST19 = replace(
    mnist.MNIST,
    name="mnist19",
    modalities=(
        Modality("image", Kind.IMAGE, mnist.SHAPE),
        *(Modality(name, Kind.ATTRIBUTE, (), classes=2) for name in ATTRIBUTES),
    ),
    defaults=Defaults(
        latents=64, epochs=100, image_network="mlp", image_networks=("mlp", "dcgan"), k=1, pairing="proportional"
    ),
    version=1,
    convert=convert,
)
