"""Training resumed from a checkpoint gives the numbers of an unbroken run; finished trials are not trained again."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

import mvae.training.loop
from mvae.data import Dataset
from mvae.models import ARMS
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import Progress, train
from tests.small_training import (
    EPOCHS,
    Cut,
    assert_identical,
    cut_after,
    digits,
    folder,
    interrupted,
    small_trial,
    unbroken,
)

__all__ = ["digits", "folder"]


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
@pytest.mark.parametrize("model", sorted(ARMS.keys() - {"logreg"}))
def test_a_trial_resumed_after_any_epoch_equals_an_unbroken_one(
    model: str, epoch: int, digits: Dataset, folder: Path, tmp_path: Path
) -> None:
    trial = small_trial(model)
    interrupted(trial, digits, folder, epoch)
    heard: list[Progress] = []
    resumed = train(trial, digits, Checkpoints(folder, "second"), heard=heard.append)
    assert [progress.epoch for progress in heard] == list(range(epoch, EPOCHS + 1))
    assert_identical(resumed, unbroken(trial, digits, tmp_path))


@pytest.mark.parametrize(
    "fields", [{"pairing": "proportional"}, {"pairing": "resampled"}, {"precision": "bfloat16"}, {"fixed_noise": True}]
)
def test_resuming_is_exact_under_every_protocol_and_precision(
    fields: dict[str, Any], digits: Dataset, folder: Path, tmp_path: Path
) -> None:
    trial = small_trial(**fields)
    interrupted(trial, digits, folder, 2)
    assert_identical(train(trial, digits, Checkpoints(folder, "second")), unbroken(trial, digits, tmp_path))


def test_a_trial_resumed_repeatedly_equals_an_unbroken_one(digits: Dataset, folder: Path, tmp_path: Path) -> None:
    trial = small_trial()
    for epoch in (1, 2, 3):
        interrupted(trial, digits, folder, epoch, attempt=f"attempt-{epoch}")
    assert_identical(train(trial, digits, Checkpoints(folder, "last")), unbroken(trial, digits, tmp_path))


def test_logistic_regression_interrupted_after_its_fit_is_not_fitted_again(
    digits: Dataset, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = small_trial("logreg")
    interrupted(trial, digits, folder, 1)
    fit_again = dataclasses.replace(ARMS["logreg"], fit=lambda *_: pytest.fail("fitted again"))
    expected = unbroken(trial, digits, tmp_path)
    monkeypatch.setitem(ARMS, "logreg", fit_again)
    assert_identical(train(trial, digits, Checkpoints(folder, "second")), expected)


def test_a_trial_interrupted_before_its_first_checkpoint_starts_over(
    digits: Dataset, folder: Path, tmp_path: Path
) -> None:
    trial = small_trial()
    with pytest.raises(Cut):
        train(trial, digits, Checkpoints(folder, "first"), heard=cut_after(2), checkpoint_every=1e9)
    assert Checkpoints(folder, "reader").latest() is None
    assert_identical(train(trial, digits, Checkpoints(folder, "second")), unbroken(trial, digits, tmp_path))


def test_the_last_checkpoint_holds_no_optimiser_because_nothing_resumes_from_it(digits: Dataset, folder: Path) -> None:
    interrupted(small_trial(), digits, folder, 3)
    before = Checkpoints(folder, "reader").latest()
    assert before is not None and set(before.files) == {"model.pt", "training.pt"}
    assert set(train(small_trial(), digits, Checkpoints(folder, "second")).checkpoint.files) == {"model.pt"}


@pytest.mark.parametrize("name", ["model.pt", "training.pt", "manifest.json"])
def test_a_truncated_newest_checkpoint_falls_back_to_the_one_before(
    name: str, digits: Dataset, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trial = small_trial()
    interrupted(trial, digits, folder, 3)
    newest = folder / "000003-first" / name
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    heard: list[Progress] = []
    with caplog.at_level(logging.WARNING):
        resumed = train(trial, digits, Checkpoints(folder, "second"), heard=heard.append)
    assert "000003-first" in caplog.text
    assert heard[0].epoch == 2
    assert_identical(resumed, unbroken(trial, digits, tmp_path))


@pytest.mark.parametrize("model", ARMS)
def test_a_finished_trial_is_loaded_and_not_trained(
    model: str, digits: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = small_trial(model)
    first = train(trial, digits, Checkpoints(folder, "first"))
    Checkpoints(folder, "first").keep_final_weights()
    monkeypatch.setattr(mvae.training.loop, "steps_of", lambda *_: None)  # training would now fail
    heard: list[Progress] = []
    again = train(trial, digits, Checkpoints(folder, "second"), heard=heard.append)
    assert_identical(again, first)
    assert again.history == first.history
    assert again.checkpoint.path == first.checkpoint.path
    epochs = 1 if model == "logreg" else EPOCHS
    assert [(progress.epoch, progress.epochs, progress.committed) for progress in heard] == [
        (epochs, epochs, first.history)
    ]
    assert not again.model.training
