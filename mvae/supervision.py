"""Draws, once before training, which examples stay paired and which values are kept (Tables 4 and 5, Figure 5)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mvae.decimals import plain
from mvae.refusal import Refusal
from mvae.streams import numpy_generator

if TYPE_CHECKING:
    import numpy as np

FEWEST_PAIRS = 2


def paired_set(n: int, fraction: float, seed: int, dataset: str = "the data set") -> np.ndarray:
    """Returns the training examples that keep their pairing: the first round(fraction * n) of a seeded permutation.

    For the same seed, the set of a smaller fraction is a subset of the set of a larger fraction.

    Args:
        n: number of training examples.
        dataset: name of the data set, for the error message.
    Returns:
        int64 [P], in the permutation's order.
    Raises:
        Refusal: the fraction is not in (0, 1], or keeps fewer than two examples.
    """
    check_fraction(n, fraction, dataset)
    return numpy_generator(seed, "labels kept").permutation(n)[: round(fraction * n)]


def check_fraction(n: int, fraction: float, dataset: str = "the data set") -> None:
    """Raises Refusal for a fraction that `paired_set` refuses. The message gives the smallest valid fraction."""
    shown = plain(fraction)
    if not 0 < fraction <= 1:
        raise Refusal(f"fraction {shown} is not a share of the training pairs: choose a value above 0 and at most 1")
    pairs = round(fraction * n)
    if pairs < FEWEST_PAIRS:
        kept = "no pairs" if pairs == 0 else f"only {pairs} pair"
        smallest = _ceil_to_two_digits((FEWEST_PAIRS - 0.5) / n)  # times n, this rounds to FEWEST_PAIRS
        raise Refusal(
            f"fraction {shown} keeps {kept}: {dataset} has {n:,} training examples, "
            f"so the smallest fraction is {smallest} ({FEWEST_PAIRS} pairs)"
        )


def kept_values(n: int, modalities: int, probability: float, seed: int, keep_first: bool = False) -> np.ndarray:
    """Draws which values of the training examples are kept, each with the same probability (supplement, section 6).

    For the same seed, the values kept at a smaller probability are also kept at a larger probability.

    Args:
        keep_first: whether to keep every value of the first modality. Does not affect the other modalities.
    Returns:
        bool [N, M].
    Raises:
        Refusal: the probability is not in (0, 1], or fewer than two examples keep a value.
    """
    shown = plain(probability)
    if not 0 < probability <= 1:
        raise Refusal(f"keep probability {shown} is not a probability: choose a value above 0 and at most 1")
    kept: np.ndarray = numpy_generator(seed, "values kept").random((n, modalities)) < probability
    if keep_first:
        kept[:, 0] = True
    if kept.any(1).sum() < FEWEST_PAIRS:
        raise Refusal(
            f"keep probability {shown} is too small: fewer than {FEWEST_PAIRS} of {n:,} training examples keep a value;"
            " choose a larger probability"
        )
    return kept


def _ceil_to_two_digits(share: float) -> str:
    digits = 1 - math.floor(math.log10(share))
    return plain(math.ceil(share * 10**digits) / 10**digits)
