"""A database that MLflow cannot use is refused before anything starts, with the command to type."""

from __future__ import annotations

import inspect
import shlex
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow.cli import cli
from mlflow.store.db.utils import _get_latest_schema_revision, _verify_schema

from pipelines.weak_supervision import Options, sweep
from sweeps.cli.options import read
from sweeps.cli.tracking_uri import default_uri
from sweeps.main import BAD_INPUT, COMPLETE, INCOMPLETE, main
from sweeps.search.database import database
from sweeps.store.sqlite import Unusable
from sweeps.tracking import tracker
from sweeps.tracking.database import OUT_OF_DATE, check_file, revisions
from sweeps.tracking.mirror import open_database
from tests.test_sweep import Heard, command, tracked
from tests.tracked import KEYS, Storage, expected_rows, finished

__all__ = ["command", "tracked"]


def with_version(path: Path, version: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("update alembic_version set version_num = ?", (version,))


def older(path: Path) -> None:
    with_version(path, next(name for name in revisions()[1] if name != revisions()[0]))


def newer(path: Path) -> None:
    with_version(path, "ffffffffffff")


def half_made(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("drop table alembic_version")


def cut_off(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"x" * 40_000)


def of_optuna(path: Path) -> None:
    path.unlink()
    with database(f"sqlite:///{path}"):
        pass


def of_a_browser(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("create table bookmarks (url text)")


BAD = [
    (
        older,
        r"is from an older MLflow: back it up and run `.*mlflow db upgrade .*` to migrate it, or move the file away",
    ),
    (
        newer,
        r"is from a newer MLflow than \d+\.\d+.*:"
        r" run `.*python -m pip install --upgrade mlflow`, or move the file away",
    ),
    (half_made, r"is incomplete: move the file away and repeat your command to rebuild it from storage$"),
    (cut_off, r"is damaged \(.+\): move the file away and repeat your command to rebuild it from storage$"),
    (overwritten, r"is damaged \(.+\): move the file away and repeat your command to rebuild it from storage$"),
    (of_optuna, r"belongs to another program: choose another file$"),
    (of_a_browser, r"belongs to another program: choose another file$"),
]


@pytest.fixture
def path(tmp_path: Path, empty_database: Path) -> Path:
    """MLflow's database in a storage."""
    (tmp_path / "runs").mkdir()
    return Path(shutil.copyfile(empty_database, tmp_path / "runs" / "mlflow.db"))


def test_our_newest_schema_version_is_the_one_that_mlflow_requires() -> None:
    newest, known = revisions()
    assert newest == _get_latest_schema_revision()  # type: ignore[no-untyped-call]
    assert newest in known and len(known) > 50


@pytest.mark.parametrize(("spoil", "said"), BAD)
def test_a_database_that_mlflow_cannot_use_is_refused_and_left_unchanged(
    path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(Unusable, match=r"^tracking database .*runs/mlflow\.db " + said) as refusal:
        check_file(path)
    assert "\n" not in str(refusal.value) and "..." not in str(refusal.value)
    assert path.read_bytes() == before


def test_the_suggested_migration_command_exists_in_mlflow(path: Path) -> None:
    older(path)
    with pytest.raises(Unusable) as refusal:
        check_file(path)
    program, *words = shlex.split(str(refusal.value).split("`")[1])
    assert program.endswith("mlflow")
    assert "upgrade" in cli.commands["db"].commands  # type: ignore[attr-defined]
    assert words == ["db", "upgrade", f"sqlite:///{path}"]


def test_valid_empty_new_and_locked_databases_are_accepted(path: Path, tmp_path: Path) -> None:
    check_file(path)
    (tmp_path / "empty.db").touch()
    check_file(tmp_path / "empty.db")
    check_file(tmp_path / "new" / "mlflow.db")
    assert not (tmp_path / "new").exists()
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("begin exclusive")
        check_file(path)
        other.execute("rollback")


def test_with_an_old_database_a_sweep_exits_with_code_2_but_plan_works(
    path: Path, cache: Path, no_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    older(path)
    for last, code in (("--plan", COMPLETE), ("--epochs=1", BAD_INPUT)):
        options = read(Options, ["--storage", str(path.parent), "--cache", str(cache), last])
        began = time.monotonic()
        assert main(lambda options=options: sweep(options), options) == code  # type: ignore[misc]
        assert time.monotonic() - began < 30
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and "mlflow db upgrade" in printed.err
    assert sorted(file.name for file in path.parent.iterdir()) == ["mlflow.db"]


def test_a_database_that_becomes_unusable_is_reported_at_once_without_a_wait_at_the_end(
    path: Path, empty_database: Path
) -> None:
    older(path)
    storage = Storage(path.parent, default_uri(path.parent))
    driver = storage.driver(finished(KEYS[0]))
    began = time.monotonic()
    assert not driver.close(300)
    assert time.monotonic() - began < 60
    assert driver.stuck
    first, last = storage.said
    assert "is from an older MLflow: back it up and run `" in first and "training continues" in first
    assert last.startswith(
        f"MLflow at {storage.uri} is incomplete; tracking database {path} is from an older MLflow: back"
    )
    assert last.endswith("then run the same command again to fill in what is missing")
    path.unlink()  # the refusal says so
    shutil.copyfile(empty_database, path)
    again = Storage(path.parent, storage.uri)
    assert again.driver(finished(KEYS[0])).close()
    assert again.rows() == expected_rows(finished(KEYS[0]))


def test_a_database_repaired_during_the_sweep_is_filled(path: Path, empty_database: Path) -> None:
    older(path)
    storage = Storage(path.parent, default_uri(path.parent))
    driver = storage.driver(finished(KEYS[0]), retry_seconds=0.2)
    while not storage.said:
        time.sleep(0.05)
    with_version(path, revisions()[0])
    assert driver.close()
    assert not driver.stuck
    assert "is available again and up to date" in storage.said[-1]


def test_a_complete_sweep_with_a_stuck_mlflow_does_not_exit_with_code_0(
    command: Callable[[], int], tracked: list[Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command() == COMPLETE
    real = Heard.__init__

    def stuck(heard: Heard, uri: str, **about: object) -> None:
        real(heard, uri, **about)  # type: ignore[arg-type]
        heard.stuck = True

    monkeypatch.setattr(Heard, "__init__", stuck)
    assert command() == INCOMPLETE


def test_an_outdated_database_server_is_recognised_by_mlflows_message_and_no_password_is_shown(
    tmp_path: Path,
) -> None:
    assert OUT_OF_DATE in inspect.getsource(_verify_schema)
    driver = Storage(tmp_path, "postgresql://me:secret@host/mlflow").idle()
    said = driver._what_to_do(RuntimeError(f"Detected {OUT_OF_DATE} (found version a, but expected b)"))
    assert "mlflow db upgrade postgresql://host/mlflow" in said
    assert driver._what_to_do(RuntimeError("connection refused")) == ""


def test_an_error_is_not_cut_in_the_middle_of_a_word() -> None:
    said = tracker._first_line(OSError("take a backup of your database " * 20))
    assert len(said) <= 200
    assert said.endswith((" backup ...", " of ...", " your ...", " database ...", " take ...", " a ..."))


def test_a_new_database_is_a_whole_copy_of_the_one_that_the_cache_keeps(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(uri: str) -> object:
        raise AssertionError(f"MLflow makes {uri}, although the cache keeps an empty database")

    kept = tmp_path / f"mlflow-{mlflow.__version__}.db"
    shutil.copyfile(empty_database, kept)
    with monkeypatch.context() as once:
        once.setattr("sweeps.tracking.mirror.stored.mlflow.MlflowClient", slow)
        open_database(tmp_path / "copied.db", tmp_path)
    assert (tmp_path / "copied.db").read_bytes() == kept.read_bytes()
    (tmp_path / "copied.db").unlink()
    for damage in (older, lambda path: path.write_bytes(b"")):
        damage(kept)
        open_database(tmp_path / "made.db", tmp_path)
        check_file(tmp_path / "made.db")
        assert kept.read_bytes() == (tmp_path / "made.db").read_bytes(), "the cache keeps the new one"
        (tmp_path / "made.db").unlink()
