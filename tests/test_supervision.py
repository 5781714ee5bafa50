"""Weak supervision: each protocol shows the right pairs, often enough, and the same to all arms."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from mvae.refusal import Refusal
from mvae.sampling import PAIRINGS, TARGETS, Step, image_batches, kept_steps, paired_batches, step_count, steps
from mvae.supervision import check_fraction, kept_values, paired_set

N, BATCH, SEED = 1297, 100, 3
EPOCHS = range(4)


def an_epoch(
    pairing: str,
    *,
    targets: str = "own",
    fraction: float = 0.05,
    n: int = N,
    epoch: int = 0,
    seed: int = SEED,
    modalities: int = 2,
    subsets: int = 0,
) -> list[Step]:
    return list(
        steps(
            pairing=pairing,
            targets=targets,
            n=n,
            paired=paired_set(n, fraction, seed),
            batch_size=BATCH,
            seed=seed,
            epoch=epoch,
            modalities=modalities,
            subsets=subsets,
        )
    )


def together(step: Step) -> np.ndarray:
    """Rows [P, M] of a step with more than one modality."""
    rows: np.ndarray = step.index_RM[(step.index_RM >= 0).sum(axis=1) > 1]
    return rows


def seen(epoch: list[Step], modality: int) -> Counter[int]:
    """How often each example of a modality is shown, alone or in a pair."""
    index = np.concatenate([step.index_RM[:, modality] for step in epoch])
    return Counter(index[index >= 0].tolist())


def same(ours: list[Step], theirs: list[Step]) -> bool:
    return all(np.array_equal(a.index_RM, b.index_RM) for a, b in zip(ours, theirs, strict=True))


# The paired set


def test_the_paired_set_of_a_larger_fraction_contains_that_of_a_smaller_one() -> None:
    fractions = (0.002, 0.01, 0.1, 0.5, 1.0)
    sets = [set(paired_set(N, fraction, SEED).tolist()) for fraction in fractions]
    assert [len(each) for each in sets] == [round(fraction * N) for fraction in fractions]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(sets))


def test_each_seed_has_its_own_paired_set() -> None:
    ours = paired_set(N, 0.1, 0)
    assert ours.dtype == np.int64
    assert np.array_equal(ours, paired_set(N, 0.1, 0))
    assert set(ours.tolist()) != set(paired_set(N, 0.1, 1).tolist())


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (
            0.00001,
            r"^fraction 0.00001 keeps no pairs: digits has 1,297 training examples, so the smallest fraction is 0.0",
        ),
        (0.0008, r"^fraction 0.0008 keeps only 1 pair: "),
        (0.0, "choose a value above 0 and at most 1"),
        (1.5, "fraction 1.5 is not a share"),
        (-0.1, "choose a value above 0"),
        (float("nan"), "choose a value above 0"),
    ],
)
def test_an_invalid_fraction_or_one_that_keeps_fewer_than_two_pairs_is_refused(fraction: float, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        paired_set(N, fraction, SEED, "digits")


@pytest.mark.parametrize("n", [2, 50, 1000, 1297, 50_000])
def test_the_fraction_suggested_by_a_refusal_is_the_smallest_accepted(n: int) -> None:
    with pytest.raises(Refusal, match="smallest fraction is") as refused:
        check_fraction(n, 1e-9, "it")
    named = float(str(refused.value).split("smallest fraction is ")[1].split()[0])
    assert len(paired_set(n, named, SEED)) == 2
    assert round(0.9 * named * n) < 2


# Common to all protocols


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("modalities", [2, 3])
def test_every_example_of_every_modality_is_seen_once_per_epoch_except_reserved_pairs(
    pairing: str, modalities: int
) -> None:
    for epoch in EPOCHS:
        epoch_steps = an_epoch(pairing, epoch=epoch, modalities=modalities)
        for modality in range(modalities):
            counts = seen(epoch_steps, modality)
            if pairing == "reserved":
                counts -= Counter(index for step in epoch_steps for index in together(step)[:, modality].tolist())
            assert counts == Counter(range(N))


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize(("n", "count"), [(1297, 13), (1300, 13), (99, 1)])
def test_under_every_protocol_an_epoch_is_one_pass_over_the_images(pairing: str, n: int, count: int) -> None:
    assert len(an_epoch(pairing, n=n)) == count == step_count(n, BATCH)
    assert len(list(paired_batches(n, paired_set(n, 0.05, SEED), BATCH, SEED, 0))) == count


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize(("modalities", "subsets"), [(2, 0), (3, 2)])
@pytest.mark.parametrize("targets", TARGETS)
def test_terms_are_active_only_in_rows_with_something_to_condition_on(
    pairing: str, modalities: int, subsets: int, targets: str
) -> None:
    for step in an_epoch(pairing, targets=targets, modalities=modalities, subsets=subsets, fraction=0.3):
        assert step.active_TR.shape == (1 + modalities + subsets, len(step.index_RM))
        assert np.array_equal(step.present_RM, step.index_RM >= 0)
        assert step.present_RM.any(axis=1).all()
        is_pair = step.present_RM.all(axis=1)
        assert np.array_equal(step.active_TR[0], is_pair)
        for modality in range(modalities):
            active = step.active_TR[1 + modality]
            assert np.array_equal(active[~is_pair], step.present_RM[~is_pair, modality])
            assert (active[is_pair] == (pairing != "reserved" or targets == "all")).all()
        assert (step.active_TR[1 + modalities :] == is_pair).all()


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_steps_are_a_pure_function_of_seed_and_epoch(pairing: str) -> None:
    ours = an_epoch(pairing, epoch=2)
    assert same(ours, an_epoch(pairing, epoch=2))
    assert not np.array_equal(ours[0].index_RM[:50, 0], an_epoch(pairing, epoch=3)[0].index_RM[:50, 0])
    assert not np.array_equal(ours[0].index_RM[:50, 0], an_epoch(pairing, epoch=2, seed=SEED + 1)[0].index_RM[:50, 0])


def alone(modality: int, pairing: str = "reserved") -> Callable[[int], list[np.ndarray]]:
    """Returns a function that lists, for each step of an epoch, the examples whose modality is shown alone."""

    def batches(epoch: int) -> list[np.ndarray]:
        rows = [step.index_RM for step in an_epoch(pairing, modalities=3, epoch=epoch)]
        return [index[(index >= 0).sum(axis=1) == 1, modality] for index in rows]

    return lambda epoch: [batch[batch >= 0] for batch in batches(epoch)]


def pairs_of_steps(pairing: str) -> Callable[[int], list[np.ndarray]]:
    """Returns a function that lists, for each step of an epoch, the examples that are shown as pairs."""
    return lambda epoch: [together(step)[:, 0] for step in an_epoch(pairing, fraction=0.4, epoch=epoch)]


PAIRED, KEPT = paired_set(N, 0.4, SEED), kept_values(N, 3, 0.5, SEED)
EQUALLY_LONG = np.full((N, 2), 7)

ORDERS: dict[str, Callable[[int], list[np.ndarray]]] = {
    "images": alone(0),
    "labels": alone(1),
    "labels of a third modality": alone(2),
    "labels, proportional": alone(1, "proportional"),
    "images of arms without labels": lambda epoch: list(image_batches(N, BATCH, SEED, epoch)),
    "pairs, reserved": pairs_of_steps("reserved"),
    "pairs, proportional": pairs_of_steps("proportional"),
    "pairs of arms without images of their own": lambda epoch: list(paired_batches(N, PAIRED, BATCH, SEED, epoch)),
    "pairs of sentences": lambda epoch: list(paired_batches(N, PAIRED, BATCH, SEED, epoch, EQUALLY_LONG)),
    "examples with missing values": lambda epoch: [
        step.index_RM.max(axis=1) for step in kept_steps(KEPT, BATCH, SEED, epoch)
    ],
}


@pytest.mark.parametrize("what", ORDERS)
def test_every_epoch_shows_the_same_examples_in_a_new_order_and_new_batches(what: str) -> None:
    epochs = [ORDERS[what](epoch) for epoch in EPOCHS]
    for one, other in itertools.combinations(epochs, 2):
        first, second = np.concatenate(one), np.concatenate(other)
        assert len(first) == len(second) > BATCH
        assert set(first.tolist()) == set(second.tolist())
        assert np.mean(first == second) < 0.05, "the order is drawn again"
        assert not {frozenset(batch.tolist()) for batch in one} & {frozenset(batch.tolist()) for batch in other}


def test_resampled_pairs_different_steps_in_every_epoch() -> None:
    coins = [tuple(len(together(step)) > 0 for step in an_epoch("resampled", fraction=0.5, epoch=e)) for e in range(8)]
    assert len(set(coins)) == len(coins)


def test_all_protocols_and_fractions_share_the_order_of_the_images() -> None:
    def batches(pairing: str, fraction: float) -> list[set[int]]:
        lone_or_resampled = [
            step.index_RM if pairing != "reserved" else step.index_RM[~step.present_RM.all(axis=1)]
            for step in an_epoch(pairing, fraction=fraction)
        ]
        return [set(index[index[:, 0] >= 0, 0].tolist()) for index in lone_or_resampled]

    expected = batches("reserved", 0.05)
    assert all(batches(pairing, f) == expected for pairing in PAIRINGS for f in (0.01, 0.05, 0.5))


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_equal_row_masks_are_one_object_so_that_callers_can_cache_by_identity(pairing: str) -> None:
    masks: dict[tuple[int, int], tuple[int, int]] = {}
    for epoch in EPOCHS:
        for step in an_epoch(pairing, epoch=epoch):
            make_up = (len(step.index_RM), len(together(step)))
            identity = (id(step.present_RM), id(step.active_TR))
            assert masks.setdefault(make_up, identity) == identity
            assert not step.present_RM.flags.writeable
            assert not step.active_TR.flags.writeable


@pytest.mark.parametrize(("pairing", "targets"), [("sometimes", "own"), ("reserved", "both")])
def test_an_unknown_protocol_or_target_is_refused_before_the_first_training_step(pairing: str, targets: str) -> None:
    with pytest.raises(Refusal, match=r"choose one of (reserved, proportional, resampled|own, all)"):
        steps(
            pairing=pairing,
            targets=targets,
            n=N,
            paired=np.arange(2),
            batch_size=BATCH,
            seed=0,
            epoch=0,
            modalities=2,
        )


# Leaks


@pytest.mark.parametrize("pairing", ["reserved", "proportional"])
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("modalities", [2, 3])
def test_no_pair_outside_the_reserved_set_is_ever_seen_together(pairing: str, targets: str, modalities: int) -> None:
    reserved = set(paired_set(N, 0.05, SEED).tolist())
    shown: set[int] = set()
    for epoch in EPOCHS:
        for step in an_epoch(pairing, targets=targets, epoch=epoch, modalities=modalities):
            rows = together(step)
            assert (rows == rows[:, :1]).all(), "a row joins modalities of different examples"
            assert (rows >= 0).all(), "a row holds some modalities but not all"
            shown |= set(rows[:, 0].tolist())
    assert shown == reserved


@pytest.mark.parametrize("pairing", ["reserved", "proportional"])
def test_single_labels_are_shuffled_independently_of_images(pairing: str) -> None:
    for step in an_epoch(pairing):
        alone = step.index_RM[~step.present_RM.all(axis=1)]
        images, labels = alone[alone[:, 0] >= 0, 0], alone[alone[:, 1] >= 0, 1]
        assert len(images) == len(labels)
        assert (images == labels).sum() <= 3
        assert set(images.tolist()) != set(labels.tolist())


def test_single_labels_of_proportional_belong_only_to_unpaired_examples() -> None:
    paired = set(paired_set(N, 0.05, SEED).tolist())
    for step in an_epoch("proportional"):
        alone = step.index_RM[~step.present_RM.all(axis=1), 1]
        assert not paired & set(alone[alone >= 0].tolist())


def test_resampled_leaks_by_design_and_eventually_pairs_more_than_the_paired_set() -> None:
    shown: set[int] = set()
    share: list[bool] = []
    for epoch in range(60):
        for step in an_epoch("resampled", epoch=epoch, fraction=0.25):
            rows = together(step)
            assert len(rows) in (0, len(step.index_RM)), "a batch is paired completely or not at all"
            share.append(len(rows) > 0)
            shown |= set(rows[:, 0].tolist())
    assert shown == set(range(N))
    assert np.mean(share) == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / len(share)))


def test_resampled_shows_an_unpaired_batch_as_separate_modalities_of_the_same_examples() -> None:
    apart = [step for step in an_epoch("resampled") if not len(together(step))]
    assert apart
    for step in apart:
        images, labels = (set(column[column >= 0].tolist()) for column in step.index_RM.T)
        assert images == labels


# Frequency of pairs


@pytest.mark.parametrize(("fraction", "pairs"), [(0.002, 3), (0.05, 65), (0.5, 100)])
def test_reserved_shows_a_batch_of_pairs_per_step_or_all_if_there_are_fewer(fraction: float, pairs: int) -> None:
    for step in an_epoch("reserved", fraction=fraction):
        rows = together(step)
        assert len(rows) == pairs == len(set(rows[:, 0].tolist()))


@pytest.mark.parametrize("fraction", [0.002, 0.05, 0.1, 0.7, 1.0])
def test_the_paired_set_is_cycled_evenly_and_identically_for_every_arm(fraction: float) -> None:
    paired = paired_set(N, fraction, SEED)
    for epoch in EPOCHS:
        alone = list(paired_batches(N, paired, BATCH, SEED, epoch))
        beside = [together(step)[:, 0] for step in an_epoch("reserved", fraction=fraction, epoch=epoch)]
        assert all(np.array_equal(a, b) for a, b in zip(alone, beside, strict=True))
        counts = Counter(np.concatenate(alone).tolist())
        assert set(counts) == set(paired.tolist())
        assert max(counts.values()) - min(counts.values()) <= 1


def test_the_last_short_batch_has_fewer_single_rows_but_all_its_pairs() -> None:
    sizes = [len(step.index_RM) for step in an_epoch("reserved")]
    assert sizes == [100 + 100 + 65] * 12 + [97 + 97 + 65]


def test_with_all_pairs_kept_proportional_is_plain_joint_training() -> None:
    epoch = an_epoch("proportional", fraction=1.0)
    assert [len(step.index_RM) for step in epoch] == [100] * 12 + [97]
    assert all(step.active_TR.all() and step.present_RM.all() for step in epoch)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_choosing_the_rows_of_a_step_takes_less_than_fifty_microseconds(pairing: str) -> None:
    n = 50_000
    paired = paired_set(n, 0.01, SEED)

    def cost() -> float:
        start = time.process_time()
        epoch = steps(pairing=pairing, targets="own", n=n, paired=paired, batch_size=100, seed=0, epoch=0, modalities=2)
        count = len(list(epoch))
        return (time.process_time() - start) / count

    assert min(cost() for _ in range(5)) < 50e-6
