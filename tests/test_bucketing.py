"""Bucketing: steps hold sentences of similar length, and show the same examples as without bucketing."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mvae.data import load
from mvae.data.sentences.sentences import padded
from mvae.models import arm
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import ElboLearner
from mvae.sampling import PAIRINGS, Step, kept_steps, paired_batches, steps
from mvae.supervision import paired_set
from mvae.trial import Trial

N, BATCH, SEED = 6013, 50, 3
RANDOM = np.random.default_rng(0)
LENGTHS = np.stack([LENGTH := RANDOM.geometric(0.15, N), LENGTH + RANDOM.integers(0, 5, N)], axis=1)
"""Tokens of sentence pairs whose lengths are correlated."""


def epoch(pairing: str, fraction: float, *, number: int = 0, targets: str = "own", bucketed: bool = True) -> list[Step]:
    return list(
        steps(
            pairing=pairing,
            targets=targets,
            n=N,
            paired=paired_set(N, fraction, SEED),
            batch_size=BATCH,
            seed=SEED,
            epoch=number,
            modalities=2,
            lengths=LENGTHS if bucketed else None,
        )
    )


def padding(made: list[Step]) -> float:
    """Share of padding among the tokens, if all of a language's rows in a step are as wide as the longest row."""
    real = computed = 0
    for step in made:
        for m in (0, 1):
            index = step.index_RM[:, m]
            own = LENGTHS[index[index >= 0], m]
            real, computed = real + own.sum(), computed + own.max(initial=0) * len(own)
    return float(1 - real / computed)


def shown(made: list[Step], m: int) -> Counter[int]:
    return Counter(index for step in made for index in step.index_RM[:, m].tolist() if index >= 0)


@pytest.mark.parametrize("fraction", [0.1, 1.0])
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_at_most_a_fifth_of_the_tokens_is_padding_under_every_protocol(pairing: str, fraction: float) -> None:
    assert padding(epoch(pairing, fraction)) <= 0.2
    assert padding(epoch(pairing, fraction, bucketed=False)) > 0.5, "these lengths need no bucketing"


@pytest.mark.parametrize("fraction", [0.001, 0.005, 0.01])
def test_few_pairs_of_all_lengths_per_step_need_little_padding_in_groups_of_similar_length(fraction: float) -> None:
    made = epoch("reserved", fraction)
    assert padding(made) > 0.2, "these lengths need no groups"
    real = computed = 0
    for step in made:
        for m, index in enumerate(step.index_RM.T):
            own = LENGTHS[index[index >= 0], m]
            real, computed = real + int(own.sum()), computed + padded(own)
    assert 1 - real / computed <= 0.2


@pytest.mark.parametrize(("pairing", "fraction"), [("reserved", 0.02), ("reserved", 1.0), ("proportional", 0.1)])
def test_at_most_a_fifth_of_the_tokens_that_networks_read_per_epoch_is_padding(
    pairing: str, fraction: float, cache: Path
) -> None:
    data = load("toy_translation", cache=cache).trained_on(600)
    trial = Trial.create(
        dataset="toy_translation",
        model="mvae",
        train_examples=600,
        pairing=pairing,
        paired_fraction=fraction,
        latents=3,
        batch_size=100,
    )
    model = arm("mvae").build(trial, data.modalities)
    assert isinstance(model, Multimodal)
    learner = ElboLearner(model, trial, data)
    computed = dict.fromkeys(["encoders", "decoders"], 0)
    for name, networks in (("encoders", model.encoders), ("decoders", model.decoders)):
        for network in networks.modules():
            if isinstance(network, torch.nn.GRU):

                def count(_: object, given: tuple[torch.Tensor, ...], name: str = name) -> None:
                    computed[name] += given[0].shape[0] * given[0].shape[1]

                network.register_forward_pre_hook(count)
    encoded = decoded = 0
    with torch.no_grad():
        for step, batch in enumerate(learner.batches(0)):
            learner.loss(batch, step)
            for m, (value, modality) in enumerate(zip(batch.values, data.modalities, strict=True)):
                lengths = (value != modality.classes - 2).sum(1) + 1
                encoded += 2 * int(lengths.sum())
                decoded += int(lengths[batch.plan.targets[m]].sum())
    assert encoded <= computed["encoders"] and 1 - encoded / computed["encoders"] <= 0.2
    assert decoded <= computed["decoders"] and 1 - decoded / computed["decoders"] <= 0.2
    assert learner.facts()["train/padding_share"] == pytest.approx(1 - encoded / computed["encoders"])


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("fraction", [0.1, 1.0])
def test_with_bucketing_every_example_is_still_shown_once_per_epoch(pairing: str, fraction: float) -> None:
    made, plain = epoch(pairing, fraction), epoch(pairing, fraction, bucketed=False)
    assert len(made) == len(plain)
    if pairing == "reserved":  # here some pairs are shown more often than others
        alone = [[step.index_RM[(step.index_RM >= 0).sum(1) == 1] for step in steps_] for steps_ in (made, plain)]
        for m in (0, 1):
            seen = [Counter(i for rows in each for i in rows[:, m].tolist() if i >= 0) for each in alone]
            assert seen[0] == seen[1] == Counter(range(N))
    else:
        for m in (0, 1):
            assert shown(made, m) == shown(plain, m) == Counter(range(N))


def test_pairs_stay_together_and_only_the_paired_set_is_shown_in_pairs() -> None:
    paired = set(paired_set(N, 0.1, SEED).tolist())
    for pairing in ("reserved", "proportional"):
        for step in epoch(pairing, 0.1):
            both = step.index_RM[(step.index_RM >= 0).all(1)]
            assert (both[:, 0] == both[:, 1]).all() and set(both[:, 0].tolist()) <= paired
            assert len(set(both[:, 0].tolist())) == len(both), "a batch holds a pair twice"


def test_with_few_pairs_the_reserved_protocol_shows_each_of_them_many_times() -> None:
    counts = shown(epoch("reserved", 0.1), 0)
    paired = paired_set(N, 0.1, SEED).tolist()
    assert min(counts[i] for i in paired) >= 2 and len(paired) > BATCH


def test_an_arm_that_sees_only_pairs_sees_all_of_them_each_epoch() -> None:
    batches = list(paired_batches(N, paired_set(N, 1.0, SEED), BATCH, SEED, 0, LENGTHS))
    assert [len(batch) for batch in batches] == [BATCH] * 121
    assert set(np.concatenate(batches).tolist()) == set(range(N))
    assert all(len(set(batch.tolist())) == BATCH for batch in batches)


def test_the_order_depends_on_seed_and_epoch_and_not_on_length() -> None:
    one, same, other = (epoch("proportional", 1.0, number=number) for number in (0, 0, 1))
    assert all(np.array_equal(a.index_RM, b.index_RM) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a.index_RM, b.index_RM) for a, b in zip(one, other, strict=True))
    longest = [int(LENGTHS[step.index_RM[:, 1], 1].max()) for step in one]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_long_and_short_batches_are_shuffled_every_epoch(pairing: str) -> None:
    widths = [[int(LENGTHS[step.index_RM[0, 0], 0]) for step in epoch(pairing, 1.0, number=e)] for e in range(3)]
    for one, other in itertools.combinations(widths, 2):
        assert np.corrcoef(one, other)[0, 1] < 0.5


def test_bucketing_of_kept_values_ignores_dropped_ones() -> None:
    kept = np.random.default_rng(1).random((N, 2)) < 0.5
    made = list(kept_steps(kept, BATCH, SEED, 0, lengths=LENGTHS))
    assert padding(made) <= 0.2
    assert all(shown(made, m) == Counter(np.flatnonzero(kept[:, m]).tolist()) for m in (0, 1))


def test_the_reported_share_of_padding_is_that_of_the_epochs_batches(cache: Path) -> None:
    data = load("toy_translation", cache=cache)
    trial = Trial.create(dataset="toy_translation", model="mvae", train_examples=500, latents=3)
    own = data.trained_on(500)
    learner = ElboLearner(arm("mvae").build(trial, data.modalities), trial, own)
    lengths = own.train.lengths
    assert lengths is not None
    for number in (0, 1):
        real = computed = 0
        for batch in learner.batches(number):
            stops = [modality.classes - 2 for modality in data.modalities]
            for value, stop in zip(batch.values, stops, strict=True):
                real, computed = real + int((value != stop).sum()) + len(value), computed + value.numel()
        assert real == int(lengths.sum())
        assert learner.facts()["train/padding_share"] == pytest.approx(1 - real / computed)
        assert learner.facts()["train/padding_share"] <= 0.2
