"""Trains four short epochs on the digits, with or without interruption, and compares two trainings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mvae.data import Dataset, load
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import Progress, Trained, train
from mvae.trial import Trial
from tests.small_models import shortened

EPOCHS = 4
STEPS = 4


class Cut(Exception):
    """Simulates the death of the trial's process."""


@pytest.fixture(scope="module")
def digits(cache: Path) -> Dataset:
    return shortened(load("digits", cache=cache), train=200)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "key"


def small_trial(model: str = "mvae", **fields: Any) -> Trial:
    small = {"epochs": EPOCHS, "batch_size": 50, "latents": 4, "paired_fraction": 0.2}
    return Trial.create(dataset="digits", model=model, **{**small, **fields})


def outcome(trained: Trained) -> tuple[dict[str, Tensor], list[tuple[int, dict[str, float]]]]:
    """Values that must be equal bit for bit: the weights, and each epoch's metrics."""
    return dict(trained.model.state_dict()), [(record["epoch"], record["metrics"]) for record in trained.history]


def assert_identical(one: Trained, other: Trained) -> None:
    (weights, metrics), (other_weights, other_metrics) = outcome(one), outcome(other)
    assert metrics == other_metrics
    assert weights.keys() == other_weights.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, other_weights[name]), name


def unbroken(trial: Trial, data: Dataset, tmp_path: Path) -> Trained:
    return train(trial, data, Checkpoints(tmp_path / "unbroken", "whole"))


def cut_after(epoch: int) -> Callable[[Progress], None]:
    """A callback that interrupts training at the end of an epoch."""

    def heard(progress: Progress) -> None:
        if progress.epoch == epoch:
            raise Cut

    return heard


def interrupted(trial: Trial, data: Dataset, folder: Path, epoch: int, *, attempt: str = "first") -> None:
    """Trains until an epoch is saved and reported, then stops."""
    with pytest.raises(Cut):
        train(trial, data, Checkpoints(folder, attempt), heard=cut_after(epoch), checkpoint_every=0)
