"""Checkpoints written during training: they hold the earlier state, are reported when complete, and raise errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from mvae.data import Dataset, load
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import Progress, train
from mvae.training.records import Checkpoint, Record
from mvae.training.saving import Saving
from mvae.trial import Trial
from tests.small_models import shortened

EPOCHS = 3


class Slow(Checkpoints):
    """Waits for permission before it writes a checkpoint."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "slow")
        self.let = threading.Event()
        self.writers: list[str] = []

    def save(
        self, epoch: int, files: Mapping[str, Any], history: Sequence[Record], provenance: Mapping[str, Any]
    ) -> Checkpoint:
        assert self.let.wait(timeout=60)
        self.writers.append(threading.current_thread().name)
        return super().save(epoch, files, history, provenance)


class Full(Checkpoints):
    """A disk without space for the second checkpoint."""

    def save(
        self, epoch: int, files: Mapping[str, Any], history: Sequence[Record], provenance: Mapping[str, Any]
    ) -> Checkpoint:
        if epoch > 1:
            raise OSError(28, "No space left on device")
        return super().save(epoch, files, history, provenance)


@pytest.fixture(scope="module")
def digits(cache: Path) -> Dataset:
    return shortened(load("digits", cache=cache), train=100)


def small_trial(**fields: Any) -> Trial:
    return Trial.create(dataset="digits", model="nn", **{"epochs": EPOCHS, "batch_size": 50, "latents": 4, **fields})


def record(epoch: int) -> Record:
    return Record(epoch=epoch, time=0.0, metrics={})


def test_the_writer_saves_the_state_at_the_time_of_the_call_even_if_it_changes_later(tmp_path: Path) -> None:
    checkpoints, weight, history = Slow(tmp_path), torch.zeros(3), [record(1)]
    with closing(Saving(checkpoints, background=True)) as saving:
        saving.save(1, {"model.pt": {"nested": [weight]}}, history, {})
        weight += 1
        history.append(record(2))
        assert saving.busy and saving.complete() is None
        checkpoints.let.set()
        complete = saving.complete(wait=True)
    assert complete is not None and complete.history == [record(1)]
    (kept,) = checkpoints.load(complete, "model.pt")["nested"]
    assert torch.equal(kept, torch.zeros(3))
    assert saving.complete() is None and not saving.busy, "the error must be raised once"


def test_leaving_the_block_waits_for_the_checkpoint_being_written(tmp_path: Path) -> None:
    checkpoints = Slow(tmp_path)

    def interrupted() -> None:
        with closing(Saving(checkpoints, background=True)) as saving:
            saving.save(1, {"model.pt": {}}, [record(1)], {})
            threading.Timer(0.05, checkpoints.let.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (last := checkpoints.latest()) is not None and last.epoch == 1


def test_records_are_reported_after_their_checkpoint_and_training_does_not_wait(
    digits: Dataset, tmp_path: Path
) -> None:
    checkpoints, heard = Slow(tmp_path), []

    def hear(progress: Progress) -> None:
        heard.append((progress.epoch, [each["epoch"] for each in progress.committed]))
        if progress.epoch == 2:  # two epochs are trained while the first is being written
            assert checkpoints.latest() is None
            checkpoints.let.set()
            deadline = time.monotonic() + 60
            while checkpoints.latest() is None and time.monotonic() < deadline:
                time.sleep(0.01)

    done = train(small_trial(), digits, checkpoints, heard=hear, checkpoint_every=0, background=True)
    assert heard == [(1, []), (2, []), (3, [1, 2, 3])]
    assert done.checkpoint.epoch == EPOCHS and done.checkpoint.history == done.history
    assert len(checkpoints.writers) == 2 and all("checkpoint" in name for name in checkpoints.writers)


def test_saving_in_the_background_gives_the_same_numbers_and_checkpoints_as_in_the_foreground(
    digits: Dataset, tmp_path: Path
) -> None:
    behind, before = (
        train(small_trial(), digits, Checkpoints(tmp_path / str(background), "one"), background=background)
        for background in (True, False)
    )
    for name, weight in before.model.state_dict().items():
        assert torch.equal(behind.model.state_dict()[name], weight)
    stored = []
    for background in (True, False):
        checkpoints = Checkpoints(tmp_path / str(background), "reader")
        last = checkpoints.latest()
        assert last is not None and set(last.files) == {"model.pt"}
        stored.append(checkpoints.load(last, "model.pt"))
    assert_equal_tensors(*stored)


def assert_equal_tensors(one: Any, other: Any) -> None:
    """Checks that nested dictionaries have the same tensors, bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert_equal_tensors(value, other[name])


def test_a_failed_background_write_ends_training(digits: Dataset, tmp_path: Path) -> None:
    heard: list[int] = []
    with pytest.raises(OSError, match="No space left"):
        train(
            small_trial(epochs=50),
            digits,
            Full(tmp_path, "full"),
            heard=lambda progress: heard.extend(each["epoch"] for each in progress.committed),
            checkpoint_every=0,
            background=True,
        )
    assert heard in ([], [1])
    assert (last := Checkpoints(tmp_path, "reader").latest()) is not None and last.epoch == 1
