"""Checkpoints in memory: the writer dies before any one change, or another attempt deletes the writer's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mvae.training.checkpoint
from mvae.storage.objects import place
from mvae.storage.place import Place
from mvae.training.checkpoint import Checkpoints
from mvae.training.records import MANIFEST, MODEL, Checkpoint
from tests.memory import Disk, FakeClock, Memory

WEEK = 7 * 86400.0


class Killed(BaseException):
    """Simulates the end of the process: nothing changes after this."""


class Mortal(dict[str, tuple[bytes, int]]):
    """A disk whose writer dies before one of its changes."""

    left = -1
    """Changes that the writer may still make; if negative, the writer never dies."""

    def __setitem__(self, key: str, value: tuple[bytes, int]) -> None:
        self._live()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._live()
        super().__delitem__(key)

    def _live(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


def saved(checkpoints: Checkpoints, *epochs: int) -> Checkpoint:
    for epoch in epochs:
        contents = {MODEL: {"weight": torch.full((3,), float(epoch))}, "training.pt": {"step": epoch}}
        checkpoint = checkpoints.save(epoch, contents, [], {"device": "cpu"})
    return checkpoint


def killed_before_any_change(folder: Callable[[], Memory], action: Callable[[Memory], object]) -> list[Memory]:
    """Returns the folders that `action` leaves if it is killed before change 1, 2, and so on. The last run is whole."""
    outcomes: list[Memory] = []
    died = True
    while died:
        left = folder()
        assert isinstance(left.disk.files, Mortal)
        left.disk.files.left, died = len(outcomes), False
        try:
            action(left)
        except Killed:
            died = True
        left.disk.files.left = -1
        outcomes.append(left)
    return outcomes


@pytest.fixture(params=[True, False], ids=["locks", "no locks"])
def two_saved(request: pytest.FixtureRequest) -> Callable[[], Memory]:
    """Makes the folder of a trial that one attempt has saved twice."""

    def make() -> Memory:
        folder = Memory("key", Disk(FakeClock(), has_locks=request.param, files=Mortal()))
        saved(Checkpoints(folder, "first"), 1, 2)
        return folder

    return make


def test_a_save_killed_anywhere_leaves_a_checkpoint_to_resume_from(two_saved: Callable[[], Memory]) -> None:
    epochs = []
    for folder in killed_before_any_change(two_saved, lambda folder: saved(Checkpoints(folder, "first"), 3)):
        resumed = Checkpoints(folder, "second")
        found = resumed.latest()
        assert found is not None
        assert (resumed.load(found, MODEL)["weight"] == found.epoch).all()
        epochs.append(found.epoch)
        assert saved(resumed, 3, 4) == resumed.latest()
    assert epochs == [2, 2, 2, 3, 3, 3, 3], "epoch 3 counts only after its manifest, the third change"


def test_a_final_clean_up_killed_anywhere_is_completed_by_the_next(two_saved: Callable[[], Memory]) -> None:
    outcomes = killed_before_any_change(two_saved, lambda folder: Checkpoints(folder, "first").keep_final_weights())
    assert len(outcomes) > 3
    for folder in outcomes:
        clock = folder.disk.clock
        assert isinstance(clock, FakeClock)
        clock.now += WEEK
        final = Checkpoints(folder, "second", clock=clock).keep_final_weights()
        assert final is not None and final.epoch == 2 and final.final
        assert list(folder.listing()) == [f"000002-first/{MANIFEST}", f"000002-first/{MODEL}"]


def test_without_locks_an_unfinished_checkpoint_is_kept_until_its_writer_must_be_dead() -> None:
    clock = FakeClock()
    folder = Memory("key", Disk(clock, has_locks=False))
    saved(Checkpoints(folder, "a"), 1)
    (folder / "000002-b" / MODEL).write_bytes(b"in the making")
    mine = Checkpoints(folder, "a", clock=clock)
    for waited, stays in ((0.0, True), (590.0, True), (20.0, False)):
        clock.now += waited
        assert mine.keep_final_weights() is not None
        assert (folder / "000002-b").is_dir() == stays


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_a_save_fails_if_another_attempt_finishes_the_trial_before_the_manifest_is_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: Place = place(tmp_path / "key") if kind == "folder" else Memory("key")
    heir, zombie = Checkpoints(folder, "heir"), Checkpoints(folder, "zombie")
    saved(heir, 4)
    write_manifest = mvae.training.checkpoint._write_manifest

    def late(checkpoint: Checkpoint) -> None:
        if checkpoint.attempt == "zombie":
            heir.keep_final_weights()
        write_manifest(checkpoint)

    monkeypatch.setattr(mvae.training.checkpoint, "_write_manifest", late)
    with pytest.raises(FileNotFoundError):
        saved(zombie, 4)
    found: Any = heir.latest()
    assert found.path == folder / "000004-heir" and found.final
    assert not (folder / "000004-zombie").exists()


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_a_writer_that_returns_late_does_not_delete_the_checkpoint_that_another_attempt_has_kept(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: Place = place(tmp_path / "key") if kind == "folder" else Memory("key")
    heir, zombie = Checkpoints(folder, "heir"), Checkpoints(folder, "zombie")
    check = mvae.training.checkpoint._check_not_deleted

    def late(checkpoint: Checkpoint) -> None:
        if not checkpoint.final:
            assert heir.keep_final_weights() is not None
        check(checkpoint)

    monkeypatch.setattr(mvae.training.checkpoint, "_check_not_deleted", late)
    with pytest.raises(FileNotFoundError):
        saved(zombie, 4)
    kept = heir.latest()
    assert kept is not None and kept.final and kept.path == folder / "000004-zombie"
    assert (heir.load(kept, MODEL)["weight"] == 4).all()


def test_an_interrupt_after_the_manifest_was_written_leaves_a_complete_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, write_manifest = Memory("key"), mvae.training.checkpoint._write_manifest

    def interrupted(checkpoint: Checkpoint) -> None:
        write_manifest(checkpoint)
        raise KeyboardInterrupt

    monkeypatch.setattr(mvae.training.checkpoint, "_write_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        saved(Checkpoints(folder, "first"), 3)
    found = Checkpoints(folder, "second").latest()
    assert found is not None and found.epoch == 3
