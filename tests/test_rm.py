"""`mvae rm`: deletes what only one sweep uses, never more, and can be killed at any line."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mvae.refusal import Refusal
from sweeps.cli.programs import INTERRUPTED
from sweeps.commands.entry import main
from sweeps.commands.removal import Part, own
from sweeps.store import lists
from sweeps.store.lease import Lease
from sweeps.store.store import Store
from sweeps.tracking.view import member_tag
from tests.crashes import files_below, killed_at_any_line, on_disk
from tests.stored_sweeps import (
    FIRST,
    JUDGE,
    MINE,
    SECOND,
    SHARED,
    THEIRS,
    UNLISTED,
    cell_of,
    fill,
    fill_trial,
    list_sweep,
    runs_shown,
    show,
    views_shown,
)

DELETED_LINES = (
    "sweeps/commands/rm.py",
    "sweeps/commands/removal.py",
    "sweeps/tracking/mirror/removal.py",
    "/shutil.py",
)
"""Files whose lines delete something."""


@pytest.fixture
def filled(storage: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copyfile(empty_database, storage / "mlflow.db")
    store = fill(storage)
    show(store)
    return store


def rm(store: Store, sweep: str = FIRST, *more: str) -> int:
    return main(["rm", sweep, "--storage", str(store.root), "--name", store.name, "--yes", *more])


def kept(store: Store) -> set[str]:
    """Files of a storage by path, without MLflow's database and half-written leases of killed processes."""
    return {path for path in files_below(store.root) if not path.startswith(("mlflow.db", "main/.lease.json"))}


def expected(store: Store, before: set[str]) -> set[str]:
    """Files that must be left after FIRST was deleted, except MLflow's artifacts."""
    return {path for path in before if MINE not in path and FIRST not in path and not path.startswith("mlartifacts")}


def test_a_sweeps_own_trials_go_and_what_another_sweep_uses_stays(
    filled: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before, runs = kept(filled), runs_shown(on_disk(filled.root))
    assert set(runs) == {MINE, SHARED, THEIRS, FIRST, SECOND, cell_of(FIRST), cell_of(SECOND)}
    assert runs[SHARED].data.tags["mlflow.parentRunId"] == runs[FIRST].info.run_id
    assert rm(filled) == 0
    said = capsys.readouterr().out
    assert "1 trial to delete" in said and "2 trials stay, because other sweeps use them" in said
    assert "3 runs to delete in MLflow" in said
    after = kept(filled)
    assert {path for path in after if not path.startswith("mlartifacts")} == expected(filled, before)
    left = runs_shown(on_disk(filled.root))
    assert set(left) == {SHARED, THEIRS, SECOND, cell_of(SECOND)}
    assert left[SHARED].data.tags["mlflow.parentRunId"] == left[SECOND].info.run_id
    assert member_tag(FIRST) not in left[SHARED].data.tags
    folders = {path.split("/")[1] for path in after if path.startswith("mlartifacts/")}
    assert folders == {left[name].info.run_id for name in (SHARED, THEIRS, SECOND)}
    assert views_shown(on_disk(filled.root)) == {f"mlflow.sharedViewState.mvae-{SECOND}"}
    assert rm(filled, SECOND) == 0
    assert {key for key in (MINE, SHARED, THEIRS, JUDGE) if any(key in path for path in kept(filled))} == set()
    assert any(UNLISTED in path for path in kept(filled)), "a key without a list counts as used"
    assert runs_shown(on_disk(filled.root)) == {}


@pytest.mark.slow
def test_rm_killed_at_any_line_and_repeated_ends_in_the_state_of_an_unbroken_one(
    filled: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(on_disk(filled.root), whole)

    def start() -> None:
        root = on_disk(filled.root)
        for path in root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(whole, root, dirs_exist_ok=True)

    assert rm(filled) == 0
    unbroken, shown = kept(filled), sorted(runs_shown(on_disk(filled.root)))
    deaths = 0
    for number in killed_at_any_line(lambda: _succeeds(rm(filled)), DELETED_LINES, start, filled.root):
        listed = filled.list_of(FIRST).exists()
        assert rm(filled) == (0 if listed else 2), "the list is deleted last"
        assert kept(filled) == unbroken
        assert sorted(runs_shown(on_disk(filled.root))) == shown
        deaths = number
    assert deaths > 20


def test_rm_acknowledges_ctrl_c_at_once_and_says_how_to_delete_the_rest(
    filled: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Part) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    with monkeypatch.context() as patch:
        patch.setattr(Part, "delete", interrupted)
        assert rm(filled) == INTERRUPTED
    said = capsys.readouterr()
    first, *_, last = said.out.splitlines()
    assert first == f"Looking up {FIRST} in storage and in MLflow, which usually takes a few seconds"
    assert last == "Stopping after SIGINT"
    assert said.err == "interrupted; type the same command again to delete the rest\n"
    assert rm(filled) == 0


def _succeeds(code: int) -> None:
    assert code == 0


def test_nothing_is_deleted_without_a_yes(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = kept(filled)
    words = ["rm", FIRST, "--storage", str(filled.root)]
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(words) == 2, "no terminal to ask"
    answers = iter(["n", ""])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    assert main(words) == 1
    assert main(words) == 1
    assert kept(filled) == before


def test_rm_is_refused_while_a_driver_runs(filled: Store, capsys: pytest.CaptureFixture[str]) -> None:
    before = kept(filled)
    with Lease(filled.folder, lambda _: None, renew_every=0.05):
        assert rm(filled) == 2
    assert "is in use by process" in capsys.readouterr().err
    assert kept(filled) == before


def test_links_are_never_followed(filled: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    precious = tmp_path / "precious"
    (precious / "000003-a").mkdir(parents=True)
    (precious / "000003-a" / "model.pt").write_text("weights", encoding="utf-8")
    folder = on_disk(filled.folder) / "checkpoints"
    shutil.rmtree(folder / MINE)
    (folder / MINE).symlink_to(precious)
    (on_disk(filled.folder) / "artifacts" / MINE / "linked").symlink_to(precious)
    assert rm(filled) == 0
    assert not (folder / MINE).is_symlink()
    assert (precious / "000003-a" / "model.pt").read_text(encoding="utf-8") == "weights"
    moved = tmp_path / "moved"
    shutil.move(folder, moved)
    folder.symlink_to(moved)
    before = kept(filled)
    assert rm(filled, SECOND) == 2
    assert "checkpoints is a link, and `mvae rm` never follows links" in capsys.readouterr().err
    assert kept(filled) == before and (moved / THEIRS).is_dir()


def test_artifacts_outside_the_storage_stay_and_are_named(
    filled: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs_shown(on_disk(filled.root))[MINE].info
    artifacts = on_disk(filled.root) / "mlartifacts" / run.run_id
    shutil.move(artifacts, tmp_path / "elsewhere")
    artifacts.symlink_to(tmp_path / "elsewhere")
    assert rm(filled) == 0
    assert f"not deleted, because it is outside the storage: {artifacts}" in capsys.readouterr().err
    assert list((tmp_path / "elsewhere").rglob("*.png"))


def test_a_list_that_names_a_path_is_refused(filled: Store, capsys: pytest.CaptureFixture[str]) -> None:
    path = on_disk(filled.list_of(FIRST))
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "needs": ["../../.."]}), encoding="utf-8")
    before = kept(filled)
    assert rm(filled) == 2
    assert "is damaged (invalid key '../../..')" in capsys.readouterr().err
    assert rm(filled, SECOND) == 2, "an unreadable list may name any trial"
    assert rm(filled, "../main") == 2
    assert kept(filled) == before


def test_a_sweep_of_an_earlier_release_keeps_its_trials(storage: Path) -> None:
    store = fill(storage)
    store.list_of(SECOND).unlink()
    with pytest.raises(Refusal, match=f"sweep {SECOND} has no list of its trials, and its report"):
        own(store, FIRST)
    runs = f"key,measure,link\n{SHARED},accuracy-v1,\n{THEIRS},accuracy-v1,\n"
    (store.reports / SECOND / "runs.csv").write_bytes(runs.encode())
    found = own(store, FIRST)
    assert found.keys == {MINE}, "the other sweep may need the judge, which no report names"
    assert found.used_by_others == {SHARED, JUDGE}
    with pytest.raises(Refusal, match="all its trials count as used"):
        own(store, SECOND)
    with pytest.raises(Refusal, match=f"has no sweep third: choose one of {FIRST}, {SECOND}"):
        own(store, "third")


def test_no_other_sweep_is_deleted_while_a_damaged_list_is_set_aside(
    filled: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    path = on_disk(filled.list_of(SECOND))
    path.write_text("{", encoding="utf-8")
    list_sweep(filled, SECOND, (THEIRS,))
    aside = path.with_name(f"{path.name}.bad")
    assert lists.damaged(filled) == [(SECOND, filled.list_of(SECOND).parent / aside.name)]
    before = kept(filled)
    assert rm(filled) == 2, "only the damaged list names SHARED"
    said = capsys.readouterr().err
    assert f"{aside} is the damaged list of sweep {SECOND}" in said and "then delete this file" in said
    assert kept(filled) == before
    assert rm(filled, SECOND) == 0
    assert not aside.exists()
    assert rm(filled) == 0


def test_runs_in_another_mlflow_are_not_left_behind_without_a_question(
    filled: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = on_disk(filled.mirrored(FIRST))
    record.parent.mkdir(exist_ok=True)
    other, usual = f"sqlite:///{tmp_path}/other.db", f"sqlite:///{on_disk(filled.root)}/mlflow.db"
    record.write_text(json.dumps({"tracking_uri": other, "views": ""}), encoding="utf-8")
    before = kept(filled)
    assert rm(filled) == 2
    assert f"last wrote to MLflow at {other}: give --tracking-uri {other}, or" in capsys.readouterr().err
    assert kept(filled) == before and MINE in runs_shown(on_disk(filled.root))
    assert rm(filled, FIRST, "--tracking-uri", usual) == 0
    assert f"the runs in MLflow at {other} stay" in capsys.readouterr().out
    assert not any(MINE in path for path in kept(filled))


def test_a_list_only_grows_and_is_not_written_again_without_a_change(storage: Path) -> None:
    store = Store.open(storage, "main", create=True)
    list_sweep(store, FIRST, (MINE,), (JUDGE,))
    before = store.list_of(FIRST).version()
    list_sweep(store, FIRST, (MINE,))
    assert store.list_of(FIRST).version() == before
    list_sweep(store, FIRST, (SHARED,))
    found = lists.read(store, FIRST)
    assert found is not None and found.keys == {MINE, SHARED, JUDGE}
    assert replace(found, cells={}).title == f"Sweep {FIRST}"


def test_files_of_a_trial_with_a_longer_key_stay(storage: Path) -> None:
    store = fill(storage)
    fill_trial(store, f"{MINE}0")
    found = own(store, FIRST)
    assert all(f"{MINE}0" not in str(part.place) for part in found.parts_of_trials())
