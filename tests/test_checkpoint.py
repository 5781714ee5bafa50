"""Checkpoints: complete or absent after kills, full disks and truncation, and never deleted by another attempt."""

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mvae.storage.files import Damaged
from mvae.training.checkpoint import Checkpoints
from mvae.training.records import MANIFEST, MODEL, Checkpoint, Record
from tests.crashes import fails_when_full, files_below, killed_at_any_line, on_disk

SOURCES = ("mvae/training/checkpoint.py", "mvae/storage/files.py")


def contents(epoch: int, size: int = 3) -> dict[str, Any]:
    return {MODEL: {"weight": torch.full((size,), float(epoch))}, "training.pt": {"step": epoch * 10}}


def history(epochs: int) -> list[Record]:
    return [{"epoch": e, "time": 1e9 + e / 7, "metrics": {"train/loss": 1 / e}} for e in range(1, epochs + 1)]


def saved(checkpoints: Checkpoints, *epochs: int) -> Checkpoint:
    for epoch in epochs:
        checkpoint = checkpoints.save(epoch, contents(epoch), history(epoch), {"device": "cpu"})
    return checkpoint


def is_whole(checkpoints: Checkpoints, checkpoint: Checkpoint) -> bool:
    weight = checkpoints.load(checkpoint, MODEL)["weight"]
    return bool((weight == checkpoint.epoch).all()) and checkpoint.history == history(checkpoint.epoch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "key"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount], capture_output=True, encoding="utf-8"
    )
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_a_checkpoint_loads_back_bit_for_bit_with_optimizer_state_and_history(folder: Path) -> None:
    model = torch.nn.Linear(3, 2)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    model(torch.ones(1, 3)).sum().backward()
    adam.step()
    metrics = {"a": 1 / 3, "b": 5e-324, "c": -0.0, "d": math.inf}
    odd: list[Record] = [{"epoch": 1, "time": 0.1 + 0.2, "metrics": metrics}]
    files = {MODEL: model.state_dict(), "training.pt": {"optimizer": adam.state_dict(), "nested": [(1, None, True)]}}
    Checkpoints(folder, "a").save(1, files, odd, {"device": "cpu"})

    reader = Checkpoints(folder, "b")
    found = reader.latest()
    assert found is not None
    assert (found.epoch, found.device, found.provenance["torch_version"]) == (1, "cpu", torch.__version__)
    assert repr(found.history) == repr(odd)
    assert torch.equal(reader.load(found, MODEL)["weight"], model.weight)
    training = reader.load(found, "training.pt")
    assert torch.equal(training["optimizer"]["state"][0]["exp_avg"], adam.state_dict()["state"][0]["exp_avg"])
    assert training["nested"] == [(1, None, True)]


def test_a_missing_empty_or_half_written_folder_holds_no_checkpoint(folder: Path) -> None:
    assert Checkpoints(folder, "a").latest() is None
    (folder / "000001-x").mkdir(parents=True)
    (folder / "000002-x").mkdir()
    (folder / "000002-x" / MODEL).write_bytes(b"half")
    (folder / "a file").write_text("", encoding="utf-8")
    assert Checkpoints(folder, "a").latest() is None


def test_an_attempt_keeps_its_two_newest_checkpoints_and_all_of_other_attempts(folder: Path) -> None:
    saved(Checkpoints(folder, "a"), 1, 2, 3)
    saved(Checkpoints(folder, "b"), 4, 5, 6)
    assert sorted(path.name for path in folder.iterdir()) == ["000002-a", "000003-a", "000005-b", "000006-b"]


def test_the_newest_checkpoint_has_the_highest_epoch_or_was_written_last(folder: Path) -> None:
    saved(Checkpoints(folder, "z"), 7)
    time.sleep(0.01)
    saved(Checkpoints(folder, "a"), 7)
    time.sleep(0.01)
    saved(Checkpoints(folder, "m"), 3)
    found = Checkpoints(folder, "reader").latest()
    assert found is not None
    assert found.path.name == "000007-a"


def test_saving_an_epoch_again_in_the_same_attempt_changes_nothing(folder: Path) -> None:
    checkpoints = Checkpoints(folder, "a")
    first = saved(checkpoints, 1)
    assert saved(checkpoints, 1) == first
    (first.path / MANIFEST).unlink()
    assert is_whole(checkpoints, saved(checkpoints, 1))


@pytest.mark.parametrize("name", [MODEL, "training.pt", MANIFEST])
@pytest.mark.parametrize("harm", ["truncated", "flipped", "emptied"])
def test_a_damaged_checkpoint_is_skipped_and_reported_once(
    folder: Path, name: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved(Checkpoints(folder, "a"), 1, 2)
    path = folder / "000002-a" / name
    data = bytearray(path.read_bytes())
    if harm == "flipped":
        data[0] ^= 0xFF
    path.write_bytes(data if harm == "flipped" else data[: len(data) // 2] if harm == "truncated" else b"")
    reader = Checkpoints(folder, "b")
    with caplog.at_level(logging.WARNING):
        found = reader.latest()
        reader.latest()
    assert found is not None
    assert found.epoch == 1
    assert len(caplog.records) == 1
    assert str(path) in caplog.text


def test_a_deleted_file_damages_its_checkpoint(folder: Path) -> None:
    saved(Checkpoints(folder, "a"), 1, 2)
    (folder / "000002-a" / "training.pt").unlink()
    found = Checkpoints(folder, "b").latest()
    assert found is not None
    assert found.epoch == 1


def test_a_file_that_changed_after_the_lookup_is_not_loaded(folder: Path) -> None:
    checkpoints = Checkpoints(folder, "a")
    checkpoint = saved(checkpoints, 1)
    with on_disk(checkpoint.path / MODEL).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(Damaged, match=MODEL):
        checkpoints.load(checkpoint, MODEL)


def test_after_a_kill_at_any_line_of_saving_the_last_checkpoint_still_exists(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    template = folder.with_name("template")
    saved(Checkpoints(template, "a"), 1)
    saved(Checkpoints(template, "b"), 2)

    def start() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder)

    epochs = set()
    for _ in killed_at_any_line(lambda: saved(Checkpoints(folder, "b", keep=1), 3), SOURCES, start, folder):
        reader = Checkpoints(folder, "c")
        found = reader.latest()
        assert found is not None
        assert is_whole(reader, found)
        assert not caplog.records, "an unfinished checkpoint is absent, not damaged"
        assert (folder / "000001-a" / MANIFEST).exists()
        epochs.add(found.epoch)
    assert epochs == {2, 3}


def test_after_kills_at_random_moments_no_acknowledged_checkpoint_is_lost(folder: Path) -> None:
    last = 0
    for round_ in range(6):
        receive, send = os.pipe()
        pid = os.fork()
        if pid == 0:
            checkpoints = Checkpoints(folder, f"attempt{round_}")
            for epoch in range(last + 1, 100_000):
                checkpoints.save(epoch, contents(epoch, 5_000), [], {})
                os.write(send, f"{epoch}\n".encode())
        os.close(send)
        time.sleep(0.05 + 0.013 * round_)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(receive, encoding="utf-8") as acknowledged:
            promised = [int(line) for line in acknowledged]
        if not (last or promised):
            continue
        reader = Checkpoints(folder, "reader")
        found = reader.latest()
        assert found is not None
        assert found.epoch - (promised or [last])[-1] in (0, 1)
        assert (reader.load(found, MODEL)["weight"] == found.epoch).all()
        last = found.epoch


def test_after_a_kill_at_any_line_of_the_final_clean_up_the_weights_stay_and_a_second_call_completes_it(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    template = folder.with_name("template")
    saved(Checkpoints(template, "a"), 2)
    saved(Checkpoints(template, "b"), 3, 4)
    (template / "000004-dead").mkdir()
    (template / "000004-dead" / MODEL).write_bytes(b"half")

    def start() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder)

    for _ in killed_at_any_line(lambda: Checkpoints(folder, "b").keep_final_weights(), SOURCES, start, folder):
        reader = Checkpoints(folder, "c")
        found = reader.latest()
        assert found is not None
        assert found.epoch == 4
        assert is_whole(reader, found)
        assert not caplog.records
        kept = reader.keep_final_weights()
        assert kept is not None
        assert kept.final
        assert is_whole(reader, kept)
        assert files_below(folder) == {f"000004-b/{MODEL}", f"000004-b/{MANIFEST}"}
        assert list(kept.files) == [MODEL]
        assert reader.latest() == kept


def test_final_weights_are_not_chosen_while_a_newer_checkpoint_is_damaged(folder: Path) -> None:
    checkpoints = Checkpoints(folder, "a")
    saved(checkpoints, 1, 2)
    (folder / "000002-a" / MODEL).write_bytes(b"")
    before = files_below(folder)
    assert checkpoints.keep_final_weights() is None
    assert files_below(folder) == before
    assert Checkpoints(folder.parent / "never saved", "a").keep_final_weights() is None


@pytest.mark.parametrize("calls", range(7))
def test_a_full_disk_raises_and_leaves_nothing_half_written(
    folder: Path, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(folder, "a")
    saved(checkpoints, 1, 2)
    before = files_below(folder)
    monkeypatch.setattr(os, "fsync", fails_when_full(calls, os.fsync))
    with pytest.raises(OSError, match="No space left"):
        saved(checkpoints, 3)
    monkeypatch.undo()
    found = checkpoints.latest()
    assert found is not None
    if calls == 6:  # the manifest has its name already, so the checkpoint is complete
        assert found.epoch == 3 and is_whole(checkpoints, found)
    else:
        assert files_below(folder) == before and found.epoch == 2
    assert is_whole(checkpoints, saved(checkpoints, 3))


def test_a_really_full_disk_loses_only_the_checkpoint_that_did_not_fit(small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk / "key", "a")
    checkpoints.save(1, contents(1, 20_000), [], {})
    checkpoints.save(2, contents(2, 20_000), [], {})
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(3, contents(3, 20_000), [], {})
    assert sorted(path.name for path in (small_disk / "key").glob("0*")) == ["000001-a", "000002-a"]
    assert len(files_below(small_disk)) == 2 * 3
    final = checkpoints.keep_final_weights()
    assert final is not None
    assert (checkpoints.load(final, MODEL)["weight"] == 2).all()


def test_an_attempt_that_wakes_up_after_the_trial_finished_does_no_harm(folder: Path) -> None:
    zombie = Checkpoints(folder, "zombie")
    saved(zombie, 1, 2)
    heir = Checkpoints(folder, "heir")
    saved(heir, 3, 4)
    assert heir.keep_final_weights() is not None
    saved(zombie, 3)
    found = heir.latest()
    assert found is not None
    assert found.path.name == "000004-heir"
    assert is_whole(heir, found)
    saved(zombie, 4)
    found = zombie.keep_final_weights()
    assert found is not None
    assert is_whole(heir, found)
    assert len(files_below(folder)) == 2


def test_deleting_a_checkpoint_while_it_is_written_raises_in_the_writer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heir, zombie = Checkpoints(folder, "heir"), Checkpoints(folder, "zombie")
    saved(heir, 4)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        monkeypatch.setattr(os, "fsync", real)
        heir.keep_final_weights()

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError):
        saved(zombie, 4)
    found = heir.latest()
    assert found is not None
    assert found.path.name == "000004-heir"
    assert not list(folder.glob("*zombie"))


def test_two_attempts_that_finish_together_leave_exactly_one_set_of_weights(folder: Path) -> None:
    for round_ in range(8):
        shutil.rmtree(folder, ignore_errors=True)
        children = []
        for attempt in "ab":
            pid = os.fork()
            if pid == 0:
                try:
                    mine = Checkpoints(folder, attempt)
                    saved(mine, 1, 2)
                    time.sleep(0.002 * round_)
                    mine.keep_final_weights()
                except OSError:
                    pass
                finally:
                    os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        reader = Checkpoints(folder, "reader")
        found = reader.keep_final_weights()
        assert found is not None
        assert found.epoch == 2
        assert is_whole(reader, found)
        assert len(files_below(folder)) == 2


def test_a_reader_always_finds_a_checkpoint_while_an_attempt_saves_and_deletes(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(Checkpoints(folder, "a", keep=1), 1)
    pid = os.fork()
    if pid == 0:
        writer = Checkpoints(folder, "a", keep=1)
        for epoch in range(2, 100_000):
            writer.save(epoch, contents(epoch), [], {})
    try:
        reader = Checkpoints(folder, "reader")
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            assert reader.latest() is not None
        assert not caplog.records
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_manifest_in_another_format_is_ignored(folder: Path) -> None:
    checkpoint = saved(Checkpoints(folder, "a"), 1)
    manifest = json.loads((checkpoint.path / MANIFEST).read_bytes())
    on_disk(checkpoint.path / MANIFEST).write_text(json.dumps({**manifest, "format": 99}), encoding="utf-8")
    assert Checkpoints(folder, "b").latest() is None
