"""Learners of every arm on the digits, and the examples in each batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mvae.data import Dataset, load
from mvae.models import arm
from mvae.models.arm import Learner
from mvae.models.classifiers import LogisticRegression, NeuralNetworkLearner, fit_logistic_regression
from mvae.models.learners import PairedLearner
from mvae.models.mvae import ElboBatch, ElboLearner
from mvae.supervision import paired_set
from mvae.trial import Trial
from tests.small_models import with_labels

FRACTION = 0.05


@pytest.fixture(scope="module")
def digits(cache: Path) -> Dataset:
    return load("digits", cache=cache)


def digits_trial(model: str, **fields: Any) -> Trial:
    return Trial.create(dataset="digits", model=model, **{"paired_fraction": FRACTION, "epochs": 3, **fields})


def learner(data: Dataset, trial: Trial) -> Learner:
    chosen = arm(trial.model)
    assert chosen.learner is not None
    torch.manual_seed(0)
    return chosen.learner(chosen.build(trial, data.modalities), trial, data)


@dataclass
class FollowedSplit:
    """A split that records which examples a learner takes."""

    values: tuple[Tensor, ...]
    taken: list[tuple[int, Tensor]] = field(default_factory=list)
    lengths: None = None
    """The split has no sentences."""

    def __len__(self) -> int:
        return len(self.values[0])

    def take(self, modality: int, index: Tensor) -> Tensor:
        self.taken.append((modality, index.clone()))
        return self.values[modality].index_select(0, index).to(torch.int64 if modality else torch.float32)


def followed(data: Dataset, trial: Trial, epochs: int) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """Yields each batch of several epochs with the indices of its images and labels."""
    watched = learner(data, trial)
    assert isinstance(watched, ElboLearner | NeuralNetworkLearner | PairedLearner)
    split = FollowedSplit(data.train.values)
    watched.split = split  # type: ignore[assignment]
    for epoch in range(epochs):
        for batch in watched.batches(epoch):
            (image, images), (label, labels) = split.taken
            assert (image, label) == (0, 1)
            yield batch, images, labels
            split.taken.clear()


def rows_of(batch: ElboBatch, images: Tensor, labels: Tensor) -> Tensor:
    """Example index of each row's image and label, int64 [R, 2]; -1 if the row has none."""
    rows = torch.full((batch.plan.rows, 2), -1)
    for m, index in enumerate((images, labels)):
        where = batch.plan.encoded[m]
        rows[slice(None) if where is None else where, m] = index
    return rows


def fitted(data: Dataset, trial: Trial) -> LogisticRegression:
    model = arm("logreg").build(trial, data.modalities)
    assert isinstance(model, LogisticRegression)
    fit_logistic_regression(model, trial, data)
    return model


@pytest.fixture
def spoilt(digits: Dataset) -> Dataset:
    """The digits with a wrong label on every example outside the paired set of seed 0."""
    labels = (digits.train.values[1].numpy() + 1) % 10
    kept = paired_set(1297, FRACTION, 0)
    labels[kept] = digits.train.values[1].numpy()[kept]
    return with_labels(digits, labels)
