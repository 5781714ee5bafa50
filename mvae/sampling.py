"""Weak supervision: which training examples keep their pairing, and what each training step gets to see.

A fraction f of the training examples stays paired: image and label of these are known to belong together. Of the
others, images and labels are both there, but nobody says which goes with which. An epoch is one pass over the images,
ceil(N / B) steps, for every protocol and every arm. The published text (supplement, section 8) does not say how often
the pairs are shown, so there are three protocols to compare:

reserved
    The default. Every step takes three things: a batch of images (image term only), a batch of labels shuffled apart
    (label term only), and a batch of the paired set (joint term and the k subsets). The paired set is cycled as often
    as needed, so every step holds min(B, P) pairs, however small f is, and a small set is seen many times an epoch.
proportional
    Every step takes one batch of images. Those in the paired set come with their label and take part in every term;
    the others come alone, and as many labels of unpaired examples, shuffled apart, come alone too. At f = 0.01 and
    B = 100 a step holds one pair on average.
resampled
    Every step, a coin with probability f decides whether the whole batch comes paired (every term) or comes apart (each
    modality in its own term). The coin is drawn anew for each batch, so that sooner or later every example is seen
    paired: supervision leaks, by design. Early code of the authors did so, and it is here for comparison.

`targets` says what a paired row trains besides its joint term. "own", the paper's formula: a term reconstructs the
modalities it conditions on, so in a reserved step the unimodal terms have their own rows and pairs take part in the
joint term and the subsets only. "all": on paired rows the unimodal terms are active too, and each term reconstructs
everything present in the row. So the image-only term learns to predict the label directly, as a classifier would. (The
other two protocols give pairs every term either way; there `targets` changes only what those terms reconstruct, which
is the objective's business.)

Missing modalities (supplement, section 6): with a keep probability p below 1, every value of every training example is
kept with probability p, drawn once, before training, and `kept_steps` shows what is left of each example together. (The
caption of Figure 5 says that values are dropped with probability p; its own claim, that p = 0.1 is close to the full
data, and the text say kept.) An epoch is one pass over the examples that have something left. With p = 1 the steps are
those of `proportional` with all pairs.

Bucketing: where examples are sentences, each of the orders below is sorted by length, ties in the order that they had,
before it is cut into batches, and the steps are then shuffled ("buckets"). So a step's sentences, lone ones and pairs,
are about equally long, and little of what is computed is padding. The reserved protocol's pairs are then runs of the
sorted paired set, spread evenly over it, instead of a cycle.

The order of everything is a pure function of (seed, epoch), by named streams: the paired set ("labels kept"), images
("order"), labels ("label order", further modalities "label order 2", ...), pairs ("paired order"), the coin
("resampled"), the values kept ("values kept"). All arms share them.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvae.refusal import Refusal
from mvae.streams import numpy_generator

# N training examples, B images a step, P paired examples, R rows of a step, M modalities, T ELBO terms

PAIRINGS = ("reserved", "proportional", "resampled")
TARGETS = ("own", "all")


@dataclass(frozen=True)
class Step:
    """What one training step sees. A row is a modality of an example alone, or all of an example (a pair).

    Rows come in blocks: each modality's lone rows, then the pairs. Steps with as many lone rows and as many pairs
    hold the very same (read-only) `present_RM` and `active_TR` objects, for the life of the process, so a caller may
    cache what it derives by their identity.
    """

    index_RM: np.ndarray
    """int64: the training example that the row takes each modality from; -1 where the row lacks the modality."""
    present_RM: np.ndarray
    """bool: which modalities the row has (index_RM >= 0)."""
    active_TR: np.ndarray
    """bool: the ELBO terms the row takes part in. Term 0 is joint, 1..M are unimodal, the rest subsets."""
    alike: bool = True
    """Whether `present_RM` and `active_TR` are objects that like steps share; if not, they are new."""


def kept_steps(
    kept: np.ndarray, batch_size: int, seed: int, epoch: int, subsets: int = 0, lengths: np.ndarray | None = None
) -> Iterator[Step]:
    """The steps of an epoch over the examples that have something left, in the order of the image stream of `steps`.

    Args:
        kept: bool [N, M], from `kept_values`.
        subsets: k, the number of random-subset terms. Every row takes part in every term, with what it has.
        lengths: as for `steps`; what is not kept counts nothing.
    Returns:
        A step for every B examples that have something, the last maybe with fewer.
    """
    order = numpy_generator(seed, "order", epoch).permutation(len(kept))
    order = order[kept[order].any(1)]
    if lengths is not None:
        order = by_length(order, lengths * kept)
    for start in _shuffled(range(0, len(order), batch_size), seed, epoch, lengths is not None):
        examples = order[start : start + batch_size]
        present_RM = kept[examples]
        index_RM = np.where(present_RM, examples[:, None], -1)
        yield Step(index_RM, present_RM, np.ones((1 + kept.shape[1] + subsets, len(examples)), bool), alike=False)


def step_count(n: int, batch_size: int) -> int:
    """Steps of an epoch, whatever the arm and the protocol: one pass over the images, the last batch maybe short."""
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
    """The steps of one epoch under a pairing protocol (see the top of this file).

    Args:
        pairing: "reserved", "proportional" or "resampled".
        targets: "own" or "all".
        n: number of training examples N.
        paired: int64 [P], from `paired_set`.
        batch_size: images a step, B; the last step of an epoch may have fewer.
        seed, epoch: what the order is drawn from.
        modalities: M, at least 2; modality 0 is the image stream.
        subsets: k, the number of random-subset terms; they are active on pairs alone.
        lengths: int64 [N, M], of sentences: a step's examples are then about equally long (see "Bucketing" above).
    Returns:
        ceil(N / B) steps. Rows of a step with b images (b = B but for a short last one): reserved M b + min(B, P);
        proportional M u + (b - u) where u of its images are unpaired; resampled b or M b.
    Raises:
        Refusal: an unknown protocol or target.
    """
    if pairing not in PAIRINGS:
        raise Refusal(f"there is no pairing {pairing!r}: choose one of {', '.join(PAIRINGS)}")
    if targets not in TARGETS:
        raise Refusal(f"there are no targets {targets!r}: choose one of {', '.join(TARGETS)}")
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
            pairs = _bucketed_pairs(
                sorted_by(every, _cycle(paired, seed, epoch)), batch_size, step_count(n, batch_size)
            )
        made = _reserved(orders, pairs, batch_size, subsets, unimodal_on_pairs=targets == "all")
    elif pairing == "proportional":
        is_paired = np.zeros(n, bool)
        is_paired[paired] = True
        unpaired = np.flatnonzero(~is_paired)
        apart = [sorted_by([m], _label_order(seed, epoch, m).permutation(unpaired)) for m in range(1, modalities)]
        made = _proportional(sorted_by(every, order), apart, is_paired, batch_size, subsets)
    else:
        coins = numpy_generator(seed, "resampled", epoch).random(step_count(n, batch_size)) < len(paired) / n
        made = _resampled(sorted_by(every, order), coins, batch_size, modalities, subsets)
    return made if lengths is None else iter(_shuffled(list(made), seed, epoch))


def image_batches(n: int, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """The images of each step of an epoch, in the order of the image stream of `steps`, for arms that see images alone.

    Returns:
        ceil(N / B) batches, int64 [B], the last one maybe shorter.
    """
    order = numpy_generator(seed, "order", epoch).permutation(n)
    return (order[start : start + batch_size] for start in range(0, n, batch_size))


def paired_batches(
    n: int, paired: np.ndarray, batch_size: int, seed: int, epoch: int, lengths: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """The pairs of each step of an epoch, for arms that see nothing else (NN), and for the reserved protocol.

    The paired set is shuffled once an epoch and cycled in that order, so that within an epoch the counts of any two
    pairs differ by at most one. A batch never holds the same pair twice. With lengths, of sentences, see "Bucketing".

    Args:
        lengths: int64 [N, M].
    Returns:
        ceil(N / B) batches, int64 [min(B, P)].
    """
    assert len(paired), "an empty paired set cannot be cycled"
    count, size = step_count(n, batch_size), min(batch_size, len(paired))
    if lengths is not None:
        runs = _bucketed_pairs(by_length(_cycle(paired, seed, epoch), lengths), batch_size, count)
        return iter(_shuffled(list(runs), seed, epoch))
    return iter(np.resize(_cycle(paired, seed, epoch), (count, size)))


def _cycle(paired: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    return numpy_generator(seed, "paired order", epoch).permutation(paired)


def by_length(order: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The same examples, the shortest first: by the last modality's length, among equals by the one before it, and so
    on; examples alike in all of them stay in the order that they were in.

    Args:
        lengths: int64 [N, M'].
    """
    return order[np.lexsort(lengths[order].T)]


def _bucketed_pairs(cycle: np.ndarray, batch_size: int, count: int) -> Iterator[np.ndarray]:
    """Of P pairs in order of length, `count` runs that are spread evenly over them: [min(B, P)] each."""
    size = min(batch_size, len(cycle))
    for start in np.linspace(0, len(cycle) - size, count).round().astype(int).tolist():
        yield cycle[start : start + size]


def _shuffled(steps: Sequence[Any], seed: int, epoch: int, wanted: bool = True) -> list[Any]:
    """Steps that came by length, in an order of the epoch's own."""
    order = numpy_generator(seed, "buckets", epoch).permutation(len(steps)) if wanted else range(len(steps))
    return [steps[i] for i in order]


def _reserved(
    orders: Sequence[np.ndarray], pairs: Iterator[np.ndarray], batch_size: int, subsets: int, unimodal_on_pairs: bool
) -> Iterator[Step]:
    for start, together in zip(range(0, len(orders[0]), batch_size), pairs, strict=True):
        alone = [order[start : start + batch_size] for order in orders]
        yield _step(alone, together, subsets, unimodal_on_pairs)


def _proportional(
    order: np.ndarray, apart: Sequence[np.ndarray], is_paired: np.ndarray, batch_size: int, subsets: int
) -> Iterator[Step]:
    seen = 0
    for start in range(0, len(order), batch_size):
        images = order[start : start + batch_size]
        mask = is_paired[images]
        lone_images = images[~mask]
        until = seen + len(lone_images)
        yield _step([lone_images, *(labels[seen:until] for labels in apart)], images[mask], subsets)
        seen = until


def _resampled(order: np.ndarray, coins: np.ndarray, batch_size: int, modalities: int, subsets: int) -> Iterator[Step]:
    for start, come_paired in zip(range(0, len(order), batch_size), coins, strict=True):
        examples = order[start : start + batch_size]
        alone = examples[:0] if come_paired else examples
        yield _step([alone] * modalities, examples if come_paired else examples[:0], subsets)


def _step(alone: Sequence[np.ndarray], together: np.ndarray, subsets: int, unimodal_on_pairs: bool = True) -> Step:
    size, modalities = len(alone[0]), len(alone)
    present_RM, active_TR = _row_masks(size, len(together), modalities, subsets, unimodal_on_pairs)
    index_RM = np.full(present_RM.shape, -1, np.int64)
    for modality, examples in enumerate(alone):
        index_RM[modality * size : (modality + 1) * size, modality] = examples
    index_RM[modalities * size :] = together[:, None]
    return Step(index_RM, present_RM, active_TR)


@functools.cache  # never evicts: an object's identity must mean the same thing as long as the process lives
def _row_masks(
    alone: int, together: int, modalities: int, subsets: int, unimodal_on_pairs: bool
) -> tuple[np.ndarray, np.ndarray]:
    """present_RM and active_TR of a step with `alone` lone rows a modality and `together` pairs; one object each."""
    rows = modalities * alone + together
    present_RM = np.zeros((rows, modalities), bool)
    active_TR = np.zeros((1 + modalities + subsets, rows), bool)
    for modality in range(modalities):
        block = slice(modality * alone, (modality + 1) * alone)
        present_RM[block, modality] = True
        active_TR[1 + modality, block] = True
    present_RM[modalities * alone :] = True
    active_TR[:, modalities * alone :] = True
    if not unimodal_on_pairs:
        active_TR[1 : 1 + modalities, modalities * alone :] = False
    present_RM.flags.writeable = active_TR.flags.writeable = False
    return present_RM, active_TR


def _label_order(seed: int, epoch: int, modality: int) -> np.random.Generator:
    return numpy_generator(seed, "label order" if modality == 1 else f"label order {modality}", epoch)
