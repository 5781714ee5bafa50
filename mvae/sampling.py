"""Chooses the training examples of each step under weak supervision, as pairs or as separate modalities.

A fraction f of the training examples stays paired: their image and label are known to belong together. The other
examples keep both image and label, but the link between the two is lost. For every protocol and every arm, an
epoch is one pass over the images: ceil(N / B) steps, for N training examples and B images per step. The paper
(supplement, section 8) does not say how often the pairs are used, so three protocols can be compared:

reserved
    The default. Every step has three parts: a batch of images (image term only), a batch of separately shuffled labels
    (label term only), and a batch of pairs (joint term and k subset terms). The paired set is repeated as often as
    needed. So every step has min(B, P) pairs, for P pairs in the paired set, and a small paired set is used many times
    per epoch.
proportional
    Every step has one batch of images. Images in the paired set come with their label and are in every term. The other
    images are in the image term only. The label term gets an equal number of labels of unpaired examples, shuffled
    separately. With f = 0.01 and B = 100, a step has one pair on average.
resampled
    In every step, a coin with probability f decides: either the whole batch is paired (every term), or each modality is
    only in its own term. The coin is drawn again for each batch, so every example is eventually used as a pair. This
    protocol leaks supervision. It is included only for comparison, because the authors' early code used it.

`targets` decides what a paired row trains besides its joint term:

own
    The paper's formula: a term reconstructs only its inputs. In a reserved step, the unimodal terms have their own
    rows, so pairs are only in the joint term and the subset terms.
all
    Paired rows are also in the unimodal terms, and each term reconstructs every modality present in the row. So the
    image-only term learns to predict the label directly, like a classifier.

In the proportional and resampled protocols, pairs are always in every term. There, `targets` changes only the
modalities that the terms reconstruct (`mvae/models/elbo.py`).

Missing modalities (supplement, section 6): with a keep probability p below 1, every value of every training example is
kept with probability p. The kept values are drawn once, before training. The kept values of an example stay together in
one row (`kept_steps`). An epoch is one pass over the examples with at least one kept value. With p = 1, the steps equal
the steps of `proportional` if all examples are paired. (The caption of Figure 5 says that values are dropped with
probability p, but the paper's text says that values are kept. Only "kept" fits the caption's claim that p = 0.1 is
close to the full data.) `keep_first` keeps every value of the first modality, and does not affect the other
modalities (MultiVae's study).

Bucketing, for sentences: examples are stably sorted by length and then cut into batches. The resulting steps are
shuffled (stream "buckets"). So the sentences of a step have similar lengths, and little computation is spent on
padding. The reserved protocol takes its pairs as evenly spaced slices of the sorted paired set. Without bucketing, the
protocol cycles through the paired set.

Every order is a pure function of (seed, epoch). All arms share these named random streams:

    the paired set        "labels kept"
    images                "order"
    labels                "label order"; further modalities "label order 2", ...
    pairs                 "paired order"
    the coin              "resampled"
    the kept values       "values kept"
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvae.refusal import Refusal
from mvae.streams import numpy_generator

# N training examples, B images per step, P paired examples, R rows of a step, M modalities, T ELBO terms

PAIRINGS = ("reserved", "proportional", "resampled")
TARGETS = ("own", "all")


@dataclass(frozen=True)
class Step:
    """The rows of one training step. A row is a single modality of an example, or a whole example (a pair).

    Rows come in blocks: the single rows of each modality, then the pairs. Steps with equal numbers of single rows and
    of pairs, except those of `kept_steps`, share the same (read-only) `present_RM` and `active_TR` objects for the life
    of the process. So callers may cache by the identity of these objects.
    """

    index_RM: np.ndarray
    """int64: index of the training example for each modality of the row; -1 if the row lacks the modality."""
    present_RM: np.ndarray
    """bool: the modalities that the row has (index_RM >= 0)."""
    active_TR: np.ndarray
    """bool: the ELBO terms that include the row. Term 0 is joint, 1..M are unimodal, all later terms are subsets."""
    shares_masks: bool = True
    """Whether `present_RM` and `active_TR` are shared with equally shaped steps. If False, both are new objects."""


def kept_steps(
    kept: np.ndarray, batch_size: int, seed: int, epoch: int, subsets: int = 0, lengths: np.ndarray | None = None
) -> Iterator[Step]:
    """Yields the steps of an epoch if values are missing. Skips examples without any value. Orders images like `steps`.

    Args:
        kept: bool [N, M], from `kept_values`.
        subsets: k, the number of random-subset terms. Every row is in every term, with the values that the row has.
        lengths: same as for `steps`; a dropped value counts as length 0.
    Returns:
        Steps of B examples each; the last step may have fewer.
    """
    order = numpy_generator(seed, "order", epoch).permutation(len(kept))
    order = order[kept[order].any(1)]
    if lengths is not None:
        order = by_length(order, lengths * kept)
    for start in _shuffled(range(0, len(order), batch_size), seed, epoch, lengths is not None):
        examples = order[start : start + batch_size]
        present_RM = kept[examples]
        index_RM = np.where(present_RM, examples[:, None], -1)
        active_TR = np.ones((1 + kept.shape[1] + subsets, len(examples)), bool)
        yield Step(index_RM, present_RM, active_TR, shares_masks=False)


def step_count(n: int, batch_size: int) -> int:
    """Returns the number of steps per epoch, for every arm and protocol. An epoch is one pass over the images."""
    return math.ceil(n / batch_size)


def steps(
    *,
    pairing: str,
    targets: str,
    n: int,
    paired: np.ndarray,
    batch_size: int,
    seed: int,
    epoch: int,
    modalities: int,
    subsets: int = 0,
    lengths: np.ndarray | None = None,
) -> Iterator[Step]:
    """Yields the steps of one epoch under a pairing protocol (see the top of this file).

    Args:
        pairing: "reserved", "proportional" or "resampled".
        targets: "own" or "all".
        n: number of training examples N.
        paired: int64 [P], from `paired_set`.
        batch_size: B, images per step; the last step of an epoch may have fewer.
        seed, epoch: determine the order.
        modalities: M, at least 2; modality 0 is the image stream.
        subsets: k, the number of random-subset terms. Only pairs are in these terms.
        lengths: int64 [N, M], for sentences. With `lengths`, the examples of a step have similar lengths (see
            "Bucketing" above).
    Returns:
        ceil(N / B) steps. A step with b images has M b + min(B, P) rows (reserved), M u + (b - u) rows with u unpaired
        images (proportional), or b or M b rows (resampled). In every step except possibly the last, b = B.
    Raises:
        Refusal: an unknown protocol or target.
    """
    if pairing not in PAIRINGS:
        raise Refusal(f"unknown pairing {pairing!r}: choose one of {', '.join(PAIRINGS)}")
    if targets not in TARGETS:
        raise Refusal(f"unknown targets {targets!r}: choose one of {', '.join(TARGETS)}")
    assert modalities >= 2 and subsets >= 0 and n >= 1 and batch_size >= 1

    def sorted_by(columns: Sequence[int], order: np.ndarray) -> np.ndarray:
        return order if lengths is None else by_length(order, lengths[:, columns])

    every = range(modalities)
    order = numpy_generator(seed, "order", epoch).permutation(n)
    if pairing == "reserved":
        others = (sorted_by([m], _label_order(seed, epoch, m).permutation(n)) for m in range(1, modalities))
        orders = [sorted_by([0], order), *others]
        pairs = paired_batches(n, paired, batch_size, seed, epoch)
        if lengths is not None:
            pairs = _slices(sorted_by(every, _cycle(paired, seed, epoch)), batch_size, step_count(n, batch_size))
        made: Iterator[Step] = (
            _step([order[start : start + batch_size] for order in orders], paired_batch, subsets, targets == "all")
            for start, paired_batch in zip(range(0, n, batch_size), pairs, strict=True)
        )
    elif pairing == "proportional":
        is_paired = np.zeros(n, bool)
        is_paired[paired] = True
        unpaired = np.flatnonzero(~is_paired)
        others = (sorted_by([m], _label_order(seed, epoch, m).permutation(unpaired)) for m in range(1, modalities))
        made = _proportional(sorted_by(every, order), list(others), is_paired, batch_size, subsets)
    else:
        coins = numpy_generator(seed, "resampled", epoch).random(step_count(n, batch_size)) < len(paired) / n
        made = _resampled(sorted_by(every, order), coins, batch_size, modalities, subsets)
    return made if lengths is None else iter(_shuffled(list(made), seed, epoch))


def image_batches(n: int, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Yields the images of each step of an epoch, in the image order of `steps`, for arms that only use images.

    Returns:
        ceil(N / B) batches, int64 [B]; the last one may be shorter.
    """
    order = numpy_generator(seed, "order", epoch).permutation(n)
    return (order[start : start + batch_size] for start in range(0, n, batch_size))


def paired_batches(
    n: int, paired: np.ndarray, batch_size: int, seed: int, epoch: int, lengths: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Yields the pairs of each step of an epoch, for arms that only use pairs (NN) and for the reserved protocol.

    The paired set is shuffled once per epoch. Without `lengths`, the shuffled set is repeated in that order, so the
    numbers of uses of any two pairs in an epoch differ by at most one. A batch never contains the same pair twice.

    Args:
        lengths: int64 [N, M], for sentences (see "Bucketing" above).
    Returns:
        ceil(N / B) batches, int64 [min(B, P)].
    """
    assert len(paired), "an empty paired set cannot be cycled"
    count, size = step_count(n, batch_size), min(batch_size, len(paired))
    if lengths is not None:
        slices = _slices(by_length(_cycle(paired, seed, epoch), lengths), batch_size, count)
        return iter(_shuffled(list(slices), seed, epoch))
    return iter(np.resize(_cycle(paired, seed, epoch), (count, size)))


def _cycle(paired: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    return numpy_generator(seed, "paired order", epoch).permutation(paired)


def by_length(order: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sorts examples stably by length, the shortest first.

    Compares lengths in the last modality first. Breaks ties by the modality before the last, and so on.

    Args:
        lengths: int64 [N, M'].
    """
    return order[np.lexsort(lengths[order].T)]


def _slices(pairs: np.ndarray, batch_size: int, count: int) -> Iterator[np.ndarray]:
    """Yields `count` evenly spaced slices of the sorted pairs, each int64 [min(B, P)]."""
    size = min(batch_size, len(pairs))
    for start in np.linspace(0, len(pairs) - size, count).round().astype(int).tolist():
        yield pairs[start : start + size]


def _shuffled(steps: Sequence[Any], seed: int, epoch: int, wanted: bool = True) -> list[Any]:
    order = numpy_generator(seed, "buckets", epoch).permutation(len(steps)) if wanted else range(len(steps))
    return [steps[i] for i in order]


def _proportional(
    order: np.ndarray, others: Sequence[np.ndarray], is_paired: np.ndarray, batch_size: int, subsets: int
) -> Iterator[Step]:
    start_of_others = 0
    for start in range(0, len(order), batch_size):
        images = order[start : start + batch_size]
        mask = is_paired[images]
        unpaired = images[~mask]
        end = start_of_others + len(unpaired)
        yield _step([unpaired, *(labels[start_of_others:end] for labels in others)], images[mask], subsets)
        start_of_others = end


def _resampled(order: np.ndarray, coins: np.ndarray, batch_size: int, modalities: int, subsets: int) -> Iterator[Step]:
    for start, is_paired in zip(range(0, len(order), batch_size), coins, strict=True):
        examples = order[start : start + batch_size]
        single, paired = (examples[:0], examples) if is_paired else (examples, examples[:0])
        yield _step([single] * modalities, paired, subsets)


def _step(single: Sequence[np.ndarray], paired: np.ndarray, subsets: int, unimodal_on_pairs: bool = True) -> Step:
    size, modalities = len(single[0]), len(single)
    present_RM, active_TR = _row_masks(size, len(paired), modalities, subsets, unimodal_on_pairs)
    index_RM = np.full(present_RM.shape, -1, np.int64)
    for modality, examples in enumerate(single):
        index_RM[modality * size : (modality + 1) * size, modality] = examples
    index_RM[modalities * size :] = paired[:, None]
    return Step(index_RM, present_RM, active_TR)


@functools.cache  # unbounded: callers cache by the identity of these objects for the life of the process
def _row_masks(
    single: int, paired: int, modalities: int, subsets: int, unimodal_on_pairs: bool
) -> tuple[np.ndarray, np.ndarray]:
    rows = modalities * single + paired
    present_RM = np.zeros((rows, modalities), bool)
    active_TR = np.zeros((1 + modalities + subsets, rows), bool)
    for modality in range(modalities):
        block = slice(modality * single, (modality + 1) * single)
        present_RM[block, modality] = True
        active_TR[1 + modality, block] = True
    present_RM[modalities * single :] = True
    active_TR[:, modalities * single :] = True
    if not unimodal_on_pairs:
        active_TR[1 : 1 + modalities, modalities * single :] = False
    present_RM.flags.writeable = active_TR.flags.writeable = False
    return present_RM, active_TR


def _label_order(seed: int, epoch: int, modality: int) -> np.random.Generator:
    return numpy_generator(seed, "label order" if modality == 1 else f"label order {modality}", epoch)
