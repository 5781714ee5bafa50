"""`mvae ls`: sweeps of a storage, on a disk and in object storage, without opening or writing a file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sweeps.commands.entry import main
from sweeps.store.store import Store
from tests.bucket import endpoint, uri
from tests.crashes import files_below, on_disk
from tests.stored_sweeps import FIRST, JUDGE, MINE, SECOND, SHARED, THEIRS, UNLISTED, fill

__all__ = ["endpoint"]


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["ls", *words]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_each_sweep_is_listed_with_its_cells_files_and_bytes(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, cache = fill(storage), tmp_path / "cache"
    (on_disk(store.folder) / "results" / f"{MINE}.accuracy-v1.json").unlink()
    cache.mkdir()
    (cache / "digits.arrow").write_bytes(b"0" * 1500)
    Store.open(storage, "other", create=True).namespace()
    before = files_below(storage)
    lines = listed(capsys, "--storage", str(storage), "--cache", str(cache))
    assert lines[0] == f"{storage}: 2 names"
    (first,) = (line for line in lines if line.startswith(f"main {FIRST} "))
    assert f"Sweep {FIRST} 2023-11-14" in first
    assert first.endswith("1 of 2 3 30 B in 3 files 30 B in 3 files"), "MINE, SHARED and JUDGE"
    assert "main: 5 trials, checkpoints 50 B in 5 files, artifacts 50 B in 5 files; 1 trial in no sweep" in lines
    assert "other: 0 trials, checkpoints -, artifacts -" in lines
    assert f"Cache {cache}: 1.5 kB in 1 file" in lines
    assert files_below(storage) == before
    only = listed(capsys, "--storage", str(storage), "--cache", str(cache), "--name", "other")
    assert not any(FIRST in line for line in only)


def test_a_sweep_of_an_earlier_release_is_listed_without_cells(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = fill(storage)
    store.list_of(SECOND).unlink()
    (store.reports / SECOND / "runs.csv").write_bytes(f"key,measure,link\n{THEIRS},accuracy-v1,\n".encode())
    lines = listed(capsys, "--storage", str(storage), "--cache", str(tmp_path))
    (second,) = (line for line in lines if line.startswith(f"main {SECOND} "))
    assert second.startswith(f"main {SECOND} no list; run the sweep again - ")
    assert second.endswith("- 1 10 B in 1 file 10 B in 1 file")


def test_a_missing_storage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--storage", str(tmp_path / "no")]) == 2
    assert capsys.readouterr().err.startswith(f"--storage {tmp_path / 'no'} does not exist: ")


def test_sweeps_in_a_bucket_are_listed_and_deleted(
    endpoint: str, storage: Path, tmp_path: Path, empty_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = on_disk(fill(storage).folder)
    bucket = Store.open(uri(endpoint, "bucket/sweeps"), "main", create=True)
    for path in files_below(local):
        (bucket.folder / path).write_bytes((local / path).read_bytes())
    bucket.namespace()
    where = ("--storage", uri(endpoint, "bucket/sweeps"))
    lines = listed(capsys, *where, "--cache", str(tmp_path))
    (first,) = (line for line in lines if line.startswith(f"main {FIRST} "))
    assert first.endswith("2 of 2 3 30 B in 3 files 30 B in 3 files")
    assert main(["rm", FIRST, *where, "--yes"]) == 2, "object storage cannot hold MLflow's database"
    assert "cannot hold MLflow's database: set --tracking-uri" in capsys.readouterr().err
    database = tmp_path / "mlflow.db"
    shutil.copyfile(empty_database, database)
    assert main(["rm", FIRST, *where, "--yes", "--tracking-uri", f"sqlite:///{database}"]) == 0
    left = bucket.folder.listing()
    assert not any(MINE in path or FIRST in path for path in left)
    assert all(any(key in path for path in left) for key in (SHARED, THEIRS, JUDGE, UNLISTED))
    assert "lease.json" not in left
