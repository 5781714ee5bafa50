"""A locked, restarted, damaged or outdated database of a study: one line, retries, and a clean end."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
import pytest
from sqlalchemy.exc import OperationalError

from mvae.refusal import Refusal
from pipelines.search import Options, search, sweep
from sweeps import engine
from sweeps.cli.console import Console
from sweeps.cli.options import read
from sweeps.main import COMPLETE, INCOMPLETE, main
from sweeps.planning.state import TrialState
from sweeps.planning.times import Probed
from sweeps.search import database as study_database
from sweeps.search.database import StudyLost, study_uri
from sweeps.search.space import Search
from sweeps.search.study import look, opened
from sweeps.store.store import Store
from tests.crashes import on_disk
from tests.test_sweep import Heard, tracked

__all__ = ["tracked"]

Answer = TypeVar("Answer")

TYPED = ("--trials", "3", "--epochs", "10")


@pytest.fixture
def of() -> Search:
    return search(read(Options, TYPED))


@pytest.fixture
def store(storage: Path) -> Store:
    return Store.open(storage, "main", create=True)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BUSY_SECONDS", 0.05), ("PAUSE_SECONDS", 0.05), ("PATIENCE_SECONDS", 60.0)):
        monkeypatch.setattr(study_database, name, seconds)


@contextmanager
def locked(store: Store) -> Iterator[sqlite3.Connection]:
    """Locks the study's file like another program, until the block ends or its connection is closed."""
    other = sqlite3.connect(on_disk(store.folder / "study.db"), isolation_level=None)
    other.execute("begin exclusive")
    try:
        yield other
    finally:
        other.close()


def test_a_temporarily_locked_study_costs_only_two_lines(store: Store, of: Search) -> None:
    said: list[str] = []
    others: list[sqlite3.Connection] = []

    def say(line: str) -> None:
        said.append(line)
        others[-1].close()

    def meanwhile(act: Callable[..., Answer], *about: Any) -> Answer:
        with locked(store) as other:
            others.append(other)
            return act(*about)

    with opened(of, study_uri(store, None), say) as study:
        study.settle(store)
        first = meanwhile(study.ask, store)
        assert first is not None
        meanwhile(study.lags_behind, first.key, 1, 0.5)
        meanwhile(study.give_up, first.key, 3, 0.4, store)
        second = meanwhile(study.ask, store)
        assert second is not None
        meanwhile(study.diverged, second.key, "the loss is nan")
        known = meanwhile(study.known)
    assert [(one.number, one.state) for one in known] == [(0, TrialState.PRUNED), (1, TrialState.DIVERGED)]
    assert dict(known[0].steps) == {1: 0.5, 3: 0.4}
    assert len(said) == 2 * len(others) == 12
    assert said[0].endswith("(database is locked): end the other program that has it open; trying again for 1 min")
    assert said[1] == f"the study's database {study_uri(store, None)} answers again"


def test_a_study_locked_for_too_long_ends_the_search_in_one_line(
    store: Store, of: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_database, "PATIENCE_SECONDS", 0.3)
    said: list[str] = []
    with opened(of, study_uri(store, None), said.append) as study:
        study.settle(store)
        with (
            locked(store),
            pytest.raises(StudyLost, match=r"^the study's database .* \(database is locked\): end the o"),
        ):
            study.ask(store)
        assert study.ask(store) is not None, "the next command must resume it"
    assert len(said) == 1


def test_queries_are_repeated_after_a_database_server_restarts(
    store: Store, of: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    gone = OperationalError("select", {}, ConnectionError("server closed the connection unexpectedly"))
    answers: list[Any] = [gone, gone, "answer"]

    def ask() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert study_database._retried("postgresql://me:secret@host/study", said.append, ask) == "answer"
    assert [line.partition(" (")[0] for line in said] == [
        "the study's database postgresql://host/study cannot be used",
        "the study's database postgresql://host/study answers again",
    ]
    assert "server closed the connection" in said[0] and "start its server" in said[0]


def test_a_study_damaged_during_a_search_ends_it_at_once(store: Store, of: Search) -> None:
    said: list[str] = []
    with opened(of, study_uri(store, None), said.append) as study:
        study.settle(store)
        with on_disk(store.folder / "study.db").open("r+b") as file:
            file.seek(4096)
            file.write(b"x" * 200_000)
        with pytest.raises(StudyLost, match="move the file away and repeat your command to rebuild it from storage"):
            study.ask(store)
    assert said == []


@pytest.fixture
def start(storage: Path, cache: Path, of: Search, store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Starts a search whose study exists, without training; returns the exit code."""
    with opened(of, study_uri(store, None)):
        pass
    monkeypatch.setattr(engine, "run_search", lambda *_, **__: None)

    def command(*more: str) -> int:
        options = read(Options, ["--storage", str(storage), "--cache", str(cache), *TYPED, *more])
        return main(lambda: sweep(options), options)

    return command


@pytest.mark.parametrize("more", [(), ("--plan",), ("--report",)], ids=["run", "plan", "report"])
@pytest.mark.usefixtures("tracked")
def test_a_study_locked_at_the_start_of_a_search_is_tried_again(
    start: Callable[..., int],
    store: Store,
    more: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sweeps.planning.probe.probed", lambda *_, **__: Probed(3600.0, {}))
    say = Console.say
    with locked(store) as other:

        def closing(console: Console, line: str) -> None:
            say(console, line)
            if "trying again" in line:
                other.close()

        monkeypatch.setattr(Console, "say", closing)
        code = start(*more)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert code == (COMPLETE if more == ("--plan",) else INCOMPLETE), "three trials are missing"
    said = [line for line in printed.out.splitlines() if "study's database" in line]
    assert said == [
        f"the study's database {study_uri(store, None)} cannot be used (database is locked): end the other program"
        " that has it open; trying again for 1 min",
        f"the study's database {study_uri(store, None)} answers again",
    ]


def test_a_study_that_stays_locked_at_the_start_ends_the_search_and_says_how_to_resume(
    start: Callable[..., int], store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study_database, "PATIENCE_SECONDS", 0.3)
    with locked(store):
        assert start() == INCOMPLETE
    printed = capsys.readouterr()
    assert printed.out.count("trying again for") == 1
    assert printed.err.count("\n") == 1
    assert (
        "(database is locked): end the other program that has it open; finished trials are kept. To resume:"
        in printed.err
    )


@pytest.mark.parametrize(
    ("answer", "held"),
    [
        ("database is locked", True),
        ("database table is locked: studies", True),
        ("FATAL:  the database system is starting up", True),
        ("canceling statement due to lock timeout", True),
        ("(1205, 'Lock wait timeout exceeded; try restarting transaction')", True),
        ("connection to server at 10.0.0.1, port 5432 failed: Connection refused", False),
        ("could not translate host name to address: Name or service not known", False),
        ('FATAL:  password authentication failed for user "me"', False),
        ("Access denied for user 'me'@'here'. Account is locked.", False),
        ('FATAL:  database "study" does not exist', False),
        ("unable to open database file", False),
        ("FATAL:  the database system is not yet accepting connections", True),
        ("FATAL:  the database system is in recovery mode", True),
        ("FATAL:  sorry, too many clients already", True),
        ("terminating connection due to administrator command", True),
    ],
)
def test_at_the_start_only_a_database_locked_by_another_program_is_tried_again(
    of: Search, answer: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the database has answered once, other errors count as a mistake in the URI."""
    attempts = list[str]()

    def opening(uri: str, **_: object) -> Any:
        attempts.append(uri)
        raise OperationalError("select", {}, Exception(answer))

    monkeypatch.setattr(optuna.storages, "RDBStorage", opening)
    monkeypatch.setattr(study_database, "PATIENCE_SECONDS", 0.1)
    said = list[str]()
    with pytest.raises(StudyLost if held else Refusal, match=r"^the study's database postgresql://host/study cannot"):
        look(of, "postgresql://me:secret@host/study", said.append)
    assert (len(attempts) > 1, len(said)) == (held, int(held))


@pytest.mark.parametrize(
    ("version", "right"),
    [
        ("v2.6.0.a", r"run `\S*optuna storage upgrade --storage sqlite:///\S+/main/study.db`$"),
        ("v99.0.0.a", r"run `\S*python -m pip install --upgrade optuna`, or choose another --study-uri$"),
    ],
)
def test_a_study_of_another_optuna_version_is_refused_with_the_command_to_type(
    store: Store, of: Search, version: str, right: str
) -> None:
    with opened(of, study_uri(store, None)):
        pass
    with sqlite3.connect(on_disk(store.folder / "study.db")) as database:
        database.execute("update alembic_version set version_num = ?", (version,))
    with pytest.raises(Refusal, match=r"no longer compatible with the table schema .*" + right) as refusal:
        look(of, study_uri(store, None))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("answer", "helps"),
    [
        ("database or disk is full", "free up space on its disk"),
        ("attempt to write a readonly database", "make the file and its folder writable"),
        ("disk I/O error", "check its disk, and your quota on this disk"),
    ],
)
def test_an_intact_study_is_not_reported_as_moved_away(answer: str, helps: str, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.touch()
    lost = study_database._lost(f"sqlite:///{path}", OperationalError("insert", {}, Exception(answer)))
    assert str(lost).endswith(f"({answer}): {helps}")


def test_a_search_that_loses_its_study_ends_in_one_line_that_says_how_to_resume(
    store: Store,
    storage: Path,
    cache: Path,
    tracked: list[Heard],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(study_database, "PATIENCE_SECONDS", 0.3)
    asked: list[Any] = []

    def as_tune_does(_template: Any, listener: engine.SearchListener, **_: Any) -> None:
        asked.append(listener.ask())
        try:
            with locked(store):
                listener.ask()
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(engine, "run_search", as_tune_does)
    options = read(Options, ["--storage", str(storage), "--cache", str(cache), *TYPED])
    assert main(lambda: sweep(options), options) == INCOMPLETE
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "study's database" in printed.err and "database is locked" in printed.err
    assert "finished trials are kept. To resume: " in printed.err
    assert "Traceback" not in printed.out + printed.err
    assert not (store.folder / "lease.json").exists()
    with opened(search(options), study_uri(store, None)) as study:
        study.settle(store)
        taken_up = study.ask(store)
        assert taken_up is not None and taken_up.key == asked[0].key, "the next command resumes the suggested trial"
