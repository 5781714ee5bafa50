"""Images, labels and pairs that an arm sees: no pair outside the paired set, and one batch order for all arms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mvae.data import Dataset
from mvae.models.classifiers import NeuralNetworkLearner
from mvae.models.layout import layout
from mvae.models.learners import ImageLearner, PairedLearner
from mvae.models.mvae import ElboBatch, ElboLearner
from mvae.refusal import Refusal
from mvae.sampling import steps
from mvae.supervision import paired_set
from tests.digits_learners import (
    FRACTION,
    FollowedSplit,
    digits,
    digits_trial,
    fitted,
    followed,
    learner,
    rows_of,
    spoilt,
)

__all__ = ["digits", "spoilt"]


def test_arms_with_equal_seeds_share_the_paired_set(digits: Dataset) -> None:
    sets = [learner(digits, digits_trial(token, seed=5)) for token in ("mvae", "mvae_q", "nn", "jmvae", "cvae")]
    expected = paired_set(1297, FRACTION, 5)
    for each in sets:
        assert isinstance(each, ElboLearner | NeuralNetworkLearner | PairedLearner)
        assert (each.paired == expected).all()


def test_arms_with_equal_seeds_share_the_batch_order(digits: Dataset) -> None:
    def seen(token: str, **fields: Any) -> list[tuple[list[int], list[int]]]:
        trial = digits_trial(token, seed=5, **fields)
        return [(images.tolist(), labels.tolist()) for _, images, labels in followed(digits, trial, 2)]

    mvae = seen("mvae")
    assert seen("mvae_q") == mvae
    assert seen("mvae", targets="all", latents=3) == mvae
    assert seen("mvae", pairing="proportional") != mvae
    pairs = min(100, round(FRACTION * 1297))
    assert [images[-pairs:] for images, _ in mvae] == [images for images, _ in seen("nn")]
    assert [labels[-pairs:] for _, labels in mvae] == [labels for _, labels in seen("nn")]


@pytest.mark.parametrize("targets", ["own", "all"])
@pytest.mark.parametrize("pairing", ["reserved", "proportional"])
@pytest.mark.parametrize("token", ["mvae", "mvae_q"])
def test_no_pair_outside_the_reserved_set_is_ever_seen_together(
    token: str, pairing: str, targets: str, digits: Dataset
) -> None:
    trial = digits_trial(token, pairing=pairing, targets=targets, seed=2)
    reserved = set(paired_set(1297, FRACTION, 2).tolist())
    together: set[int] = set()
    images_seen: set[int] = set()
    for batch, images, labels in followed(digits, trial, epochs=4):
        rows = rows_of(batch, images, labels)
        pairs = rows[(rows >= 0).all(1)]
        assert (pairs[:, 0] == pairs[:, 1]).all(), "a row joins the image of one example to the label of another"
        together |= set(pairs[:, 0].tolist())
        images_seen |= set(images.tolist())
        check_targets(batch, rows)
    assert together == reserved
    assert images_seen == set(range(1297))


@pytest.mark.parametrize("pairing", ["reserved", "proportional", "resampled"])
def test_a_learner_takes_exactly_the_rows_of_its_protocol(pairing: str, digits: Dataset) -> None:
    trial = digits_trial("mvae", pairing=pairing)
    given = steps(
        pairing=pairing,
        targets="own",
        n=1297,
        paired=paired_set(1297, FRACTION, 0),
        batch_size=100,
        seed=0,
        epoch=0,
        modalities=2,
    )
    for step, (batch, images, labels) in zip(given, followed(digits, trial, 1), strict=True):
        assert (rows_of(batch, images, labels).numpy() == step.index_RM).all()
        expected = layout(step.present_RM, np.array([[1, 1], [1, 0], [0, 1]], dtype=bool), step.active_TR)
        assert batch.plan.groups == expected.groups


def check_targets(batch: ElboBatch, rows: Tensor) -> None:
    """Asserts that each row's latent reconstructs only examples of that row."""
    plan, terms = batch.plan, batch.plan.members.shape[1]
    pairs = torch.arange(terms * plan.rows) if plan.pairs is None else plan.pairs
    for m in range(2):
        decoded = torch.arange(len(pairs)) if plan.decoded[m] is None else plan.decoded[m]
        row = pairs[decoded] % plan.rows
        where = plan.encoded[m]
        source = torch.arange(plan.rows) if where is None else where
        assert torch.equal(source[plan.targets[m]], row)
        assert (rows[row, m] >= 0).all()
    term, row = pairs // plan.rows, pairs % plan.rows
    conditions = plan.members[row, term]
    assert (rows[row] >= 0)[conditions].all(), "a term conditions on a modality that its row lacks"


@pytest.mark.parametrize("targets", ["own", "all"])
def test_a_reserved_step_has_single_images_single_labels_and_the_paired_set(targets: str, digits: Dataset) -> None:
    pairs = round(FRACTION * 1297)
    batch, images, labels = next(followed(digits, digits_trial("mvae", targets=targets), 1))
    rows = rows_of(batch, images, labels)
    assert (rows[:100, 1] == -1).all()
    assert (rows[100:200, 0] == -1).all()
    assert (rows[200:] >= 0).all()
    assert len(rows) == 200 + pairs
    own = ((pairs, 100), (pairs, 100))  # rows of the joint term, rows of the modality's own term
    everything = ((pairs, 100 + pairs, pairs), (pairs, pairs, 100 + pairs))
    assert batch.plan.groups == (own if targets == "own" else everything)


@pytest.mark.parametrize("token", ["nn", "jmvae", "cvae"])
def test_nn_jmvae_and_cvae_see_only_the_paired_set(token: str, digits: Dataset) -> None:
    reserved = set(paired_set(1297, FRACTION, 0).tolist())
    seen: set[int] = set()
    for _, images, labels in followed(digits, digits_trial(token), epochs=4):
        assert torch.equal(images, labels)
        assert len(set(images.tolist())) == len(images) <= 100
        seen |= set(labels.tolist())
    assert seen == reserved


@pytest.mark.parametrize("token", ["rbm", "vae"])
def test_rbm_and_vae_see_every_image_once_per_epoch_in_the_shared_order_and_no_label(
    token: str, digits: Dataset
) -> None:
    watched = learner(digits, digits_trial(token, seed=5))
    assert isinstance(watched, ImageLearner)
    split = FollowedSplit(digits.train.values)
    watched.split = split  # type: ignore[assignment]
    assert all(len(batch.values) == 1 for batch in watched.batches(1))
    assert {modality for modality, _ in split.taken} == {0}
    seen = [index.tolist() for _, index in split.taken]
    assert sorted(image for images in seen for image in images) == list(range(1297))
    theirs = [images.tolist() for _, images, _ in followed(digits, digits_trial("mvae", seed=5), 2)][len(seen) :]
    assert [images[: len(own)] for images, own in zip(theirs, seen, strict=True)] == seen


def test_the_nn_ignores_labels_outside_the_paired_set(digits: Dataset, spoilt: Dataset) -> None:
    batches = [list(learner(data, digits_trial("nn")).batches(1)) for data in (digits, spoilt)]
    for whole, dirty in zip(*batches, strict=True):
        assert torch.equal(whole.values[0], dirty.values[0])
        assert torch.equal(whole.values[1], dirty.values[1])


def test_fewer_than_two_pairs_are_refused_by_every_arm(digits: Dataset) -> None:
    for token in ("mvae", "nn", "jmvae", "cvae"):
        with pytest.raises(Refusal, match="1 pair"):
            learner(digits, digits_trial(token, paired_fraction=1 / 1297))
    with pytest.raises(Refusal, match="1 pair"):
        fitted(digits, digits_trial("logreg", paired_fraction=1 / 1297))
