"""Temporary folders are deleted with their block, or after their process was killed. Other programs' folders stay."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sweeps.store import scratch as module
from sweeps.store.processes import this_process
from sweeps.store.scratch import OWNER, UNCLAIMED_SECONDS, remove_folders_of_the_dead, scratch


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder."""
    monkeypatch.setattr(module, "temporary", lambda: tmp_path)
    return tmp_path


def left_by_a_killed_process() -> None:
    pid = os.fork()
    if pid == 0:
        with scratch("model") as folder:
            (folder / "model").mkdir()
            (folder / "model" / "weights").write_bytes(b"1")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def owned(here: Path, name: str, **changes: object) -> Path:
    """A folder with this process as its owner, except for the given changes."""
    folder = here / name
    folder.mkdir()
    (folder / OWNER).write_text(json.dumps({**asdict(this_process()), **changes}), encoding="utf-8")
    return folder


def test_a_scratch_folder_exists_only_within_its_block_even_after_errors(here: Path) -> None:
    def fails() -> None:
        with scratch("ray") as folder:
            (folder / "inside").mkdir()
            (inside,) = here.glob("*/inside")
            assert inside.parent == folder
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert not list(here.iterdir())


def test_files_left_by_a_killed_process_are_removed_by_the_next(here: Path) -> None:
    left_by_a_killed_process()
    assert len(list(here.glob("mvae-model-*/model/weights"))) == 1
    remove_folders_of_the_dead()
    assert not list(here.iterdir())


def test_a_reused_process_id_does_not_keep_a_dead_processes_folder(here: Path) -> None:
    dead = owned(here, "mvae-ray-dead", pid_started=this_process().pid_started - 1)
    alive = owned(here, "mvae-ray-alive")
    remove_folders_of_the_dead()
    assert not dead.exists() and alive.exists()


def test_folders_of_other_machines_and_other_programs_stay(here: Path) -> None:
    gone = replace(this_process(), pid_started=0)
    assert gone.is_dead()
    folders = [
        owned(here, "mvae-ray-far", host="far-away", pid_started=0),
        owned(here, "mvae-ray-container", machine="this boot, another PID namespace", pid_started=0),
        owned(here, "mvae-ray-untold", machine="", pid_started=0),
        owned(here, "mvae-data-mine", pid_started=0),
    ]
    (here / "mvae-ray-note").write_text("a file", encoding="utf-8")
    (here / "mvae-ray-json").mkdir()
    (here / "mvae-ray-json" / OWNER).write_text("{", encoding="utf-8")
    remove_folders_of_the_dead()
    assert all(folder.exists() for folder in folders)
    assert (here / "mvae-ray-note").exists() and (here / "mvae-ray-json").exists()


def test_a_folder_without_an_owner_is_removed_only_if_old_and_empty(here: Path) -> None:
    for name, age, content in (("new", 0.0, ""), ("old", 2.0, ""), ("full", 2.0, "text")):
        folder = here / f"mvae-ray-{name}"
        folder.mkdir()
        if content:
            (folder / "file").write_text(content, encoding="utf-8")
        then = folder.stat().st_mtime - age * UNCLAIMED_SECONDS
        os.utime(folder, (then, then))
    remove_folders_of_the_dead()
    assert sorted(path.name for path in here.iterdir()) == ["mvae-ray-full", "mvae-ray-new"]
