"""Which examples stay paired, and which values are kept: drawn once before training (Tables 4 and 5, Figure 5)."""

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
    """The training examples that keep their pairing: the first round(fraction * n) of a seeded permutation.

    Of one seed, the set for a smaller fraction is part of the set for a larger one.

    Args:
        n: number of training examples.
        dataset: its name, for the error's sake.
    Returns:
        int64 [P], in the permutation's order.
    Raises:
        Refusal: the fraction is not in (0, 1], or keeps fewer than two examples.
    """
    check_fraction(n, fraction, dataset)
    return numpy_generator(seed, "labels kept").permutation(n)[: round(fraction * n)]


def check_fraction(n: int, fraction: float, dataset: str = "the data set") -> None:
    """Refuse a fraction that `paired_set` would refuse, with a line that says which would do."""
    shown = plain(fraction)
    if not 0 < fraction <= 1:
        raise Refusal(f"fraction {shown} is no share of the training pairs: it must be above 0 and at most 1")
    pairs = round(fraction * n)
    if pairs < FEWEST_PAIRS:
        kept = "no pair" if pairs == 0 else f"{pairs} pair"
        smallest = _rounded_up((FEWEST_PAIRS - 0.5) / n)  # which rounds to just enough
        raise Refusal(
            f"fraction {shown} keeps {kept}: {dataset} has {n:,} training examples, "
            f"so the smallest fraction is {smallest} ({FEWEST_PAIRS} pairs)"
        )


def kept_values(n: int, modalities: int, probability: float, seed: int) -> np.ndarray:
    """Which values of which training examples are kept, each with that probability (supplement, section 6).

    Of one seed, what a smaller probability keeps is part of what a larger one keeps.

    Returns:
        bool [N, M].
    Raises:
        Refusal: the probability is not in (0, 1], or nothing is kept of any two examples.
    """
    shown = plain(probability)
    if not 0 < probability <= 1:
        raise Refusal(f"keep probability {shown} is no share of values to keep: it must be above 0 and at most 1")
    kept: np.ndarray = numpy_generator(seed, "values kept").random((n, modalities)) < probability
    if kept.any(1).sum() < FEWEST_PAIRS:
        raise Refusal(
            f"keep probability {shown} leaves fewer than {FEWEST_PAIRS} of {n:,} training examples a value:"
            " choose a larger one"
        )
    return kept


def _rounded_up(share: float) -> str:
    """A share with two significant digits, never below the share itself."""
    digits = 1 - math.floor(math.log10(share))
    return plain(math.ceil(share * 10**digits) / 10**digits)
