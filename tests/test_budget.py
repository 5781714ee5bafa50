"""--max-hours: a sweep that stops when its hours are over, and the same command that resumes it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mvae.data import load
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import CALLED_OFF_AFTER, Progress, seconds_between, train
from mvae.trial import Trial
from pipelines import search as searching
from pipelines.weak_supervision import Options, sweep
from sweeps import engine
from sweeps.cli.options import read
from sweeps.cli.signals import STOPS_AT, Interrupted, Interruption
from sweeps.engine import Capacity, Listener, SearchListener
from sweeps.main import BAD_INPUT, COMPLETE, INTERRUPTED, OUT_OF_HOURS, main
from sweeps.planning.state import TrialState
from sweeps.store.store import Store
from sweeps.trials import run as worker
from sweeps.trials.messages import Job, Message
from tests.sweeping import SWEEP, Unbroken, mlflow_differs, place, unbroken
from tests.test_sweep import Heard, tracked

__all__ = ["tracked", "unbroken"]

DEMO = ("--arms", "nn,logreg,mvae", "--targets", "own", "--fractions", "0.05,1", "--seeds", "0", "--epochs", "8")
"""Six trials, in this order: NN, LOGREG, MVAE."""
HALF = 4
"""Epochs of the first MVAE when the hours are over."""


def run(storage: Path, cache: Path, *more: str) -> int:
    options = read(Options, ("--storage", str(storage), "--cache", str(cache), *DEMO, *more))
    return main(lambda: sweep(options), options)


def numbers(storage: Path) -> dict[str, Any]:
    """Everything that must be equal bit for bit: metrics and curves of all results, and the table."""
    store = Store.open(storage, "main", create=False)
    found: dict[str, Any] = {
        f"{one.key}.{one.measure}": (one.metrics, [record["metrics"] for record in one.history])
        for one in store.results
    }
    (table,) = (storage / "main" / "reports").glob("*/table.md")
    return found | {"table": table.read_text(encoding="utf-8")}


def hours_over() -> None:
    """Lets the hours of the running command be over now, and waits for the end."""
    (timer,) = (one for one in threading.enumerate() if isinstance(one, threading.Timer))
    timer.function()
    time.sleep(600)


def test_a_budget_of_half_the_demo_stops_resumes_and_ends_with_the_table_of_an_unbroken_run(
    tmp_path: Path,
    cache: Path,
    tracked: list[Heard],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tmp_path / "unbroken", cache) == COMPLETE

    def half(jobs: Sequence[Job], listener: Listener, *, max_concurrent: int) -> None:
        """Runs the trials one after the other. Lets the hours be over in the middle of the first MVAE."""
        for job in jobs:
            listener.started(job.key)

            def word(message: Message, job: Job = job) -> None:
                listener.word(job.key, message)
                if job.trial.model == "mvae" and message.epoch == HALF:
                    hours_over()

            worker.run(job, word)

    capsys.readouterr()
    with monkeypatch.context() as once:
        once.setattr(engine, "run_jobs", half)
        assert run(tmp_path / "half", cache, "--max-hours", "1", "--checkpoint-every", "0") == OUT_OF_HOURS == 3
    said = capsys.readouterr().out
    assert said.count("Stopping after --max-hours 1; ending the running trials can take half a minute") == 1
    assert re.search(r"^Left: 2 trials, 1 half done; [\d.]+( to [\d.]+)? (s|min) on this machine$", said, re.MULTILINE)
    assert "Stopped by --max-hours 1; finished trials are kept. To resume: " in said
    assert tracked[-1].sweep.state is TrialState.INTERRUPTED

    assert run(tmp_path / "half", cache, "--max-hours", "2") == COMPLETE
    assert numbers(tmp_path / "half") == numbers(tmp_path / "unbroken")


def test_a_search_out_of_hours_says_how_many_trials_are_left_and_resumes(
    tmp_path: Path,
    cache: Path,
    tracked: list[Heard],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def search(*more: str) -> int:
        asked = ("--trials", "3", "--epochs", "4", "--no-prune", "--paired-fraction", "0.05", *more)
        options = read(searching.Options, ("--storage", str(tmp_path), "--cache", str(cache), *asked))
        return main(lambda: searching.sweep(options), options)

    def trials(most: int, template: Job, listener: SearchListener, **_: Any) -> None:
        """Runs trials one after the other. Lets the hours be over when `most` are done."""
        done = 0
        while (question := listener.ask()) is not None:
            listener.trials.started(question.key)
            if done == most:
                hours_over()
            trial = template.trial.with_(**question.settings)
            job = replace(template, key=question.key, trial=trial)
            worker.run(job, lambda message, key=question.key: listener.trials.word(key, message))  # type: ignore[misc]
            done += 1

    monkeypatch.setattr(engine, "run_search", partial(trials, 1))
    assert search("--max-hours", "1") == OUT_OF_HOURS
    said = capsys.readouterr().out
    assert re.search(r"^Left: 2 trials, 1 half done; .* on this machine$", said, re.MULTILINE), said
    assert "Stopped by --max-hours 1; finished trials are kept. To resume: " in said

    monkeypatch.setattr(engine, "run_search", partial(trials, 3))
    assert search("--max-hours", "1") == COMPLETE
    assert len(Store.open(tmp_path, "main", create=False).results.keys()) == 3


@contextmanager
def out_of_hours_while_ray_shuts_down(*_: object) -> Iterator[Capacity]:
    """Replaces the engine's cluster. If the hours still count when the block ends, they are over then."""
    yield Capacity(2, 0)
    if any(isinstance(one, threading.Timer) and not one.finished.is_set() for one in threading.enumerate()):
        hours_over()


def test_the_hours_end_no_sweep_and_no_search_whose_trials_are_all_done(
    tmp_path: Path,
    cache: Path,
    tracked: list[Heard],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def jobs_done(jobs: Sequence[Job], listener: Listener, **_: object) -> None:
        for job in jobs:
            listener.started(job.key)
            worker.run(job, lambda message, key=job.key: listener.word(key, message))  # type: ignore[misc]

    def search_done(template: Job, listener: SearchListener, **_: object) -> None:
        while (question := listener.ask()) is not None:
            trial = template.trial.with_(**question.settings)
            jobs_done([replace(template, key=question.key, trial=trial)], listener.trials)

    monkeypatch.setattr(engine, "cluster", out_of_hours_while_ray_shuts_down)
    monkeypatch.setattr(engine, "run_jobs", jobs_done)
    monkeypatch.setattr(engine, "run_search", search_done)
    assert run(tmp_path / "sweep", cache, "--max-hours", "1", "--epochs", "1") == COMPLETE
    assert "Left:" not in capsys.readouterr().out
    asked = ("--trials", "1", "--epochs", "1", "--no-prune", "--paired-fraction", "0.05", "--max-hours", "1")
    options = read(searching.Options, ("--storage", str(tmp_path / "search"), "--cache", str(cache), *asked))
    assert main(lambda: searching.sweep(options), options) == COMPLETE
    assert "Left:" not in capsys.readouterr().out


def commits(cache: Path, tmp_path: Path, until: float | None) -> list[int]:
    """Number of epochs that each epoch's message adds to the checkpoint, if checkpoints are due once per hour."""
    found: list[int] = []
    trial = Trial.create(dataset="digits", model="nn", epochs=3)

    def heard(progress: Progress) -> None:
        found.append(len(progress.committed))

    checkpoints = Checkpoints(tmp_path / str(until), "a")
    train(trial, load("digits", cache=cache), checkpoints, heard=heard, checkpoint_every=3600.0, until=until)
    return found


def test_shortly_before_the_hours_are_over_every_epoch_is_saved(cache: Path, tmp_path: Path) -> None:
    now = time.time()
    assert commits(cache, tmp_path, None) == commits(cache, tmp_path, now + 7200.0) == [0, 0, 3]
    assert commits(cache, tmp_path, now) == [1, 1, 1]


def test_checkpoints_are_more_frequent_before_a_stop_but_not_after_a_stop_that_was_called_off() -> None:
    now = time.time()
    assert seconds_between(60.0, None) == seconds_between(60.0, now + 300.0) == 60.0
    assert 29.0 < seconds_between(60.0, now + 60.0) <= 30.0
    assert seconds_between(60.0, now - 1.0) < 0.0, "every epoch is saved"
    assert seconds_between(60.0, now - CALLED_OFF_AFTER - 1.0) == 60.0


def test_every_trial_knows_when_a_batch_system_will_stop_the_job(
    tmp_path: Path, cache: Path, tracked: list[Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    stops_at = float(int(time.time()) + 1800)
    known: list[float | None] = []

    def asked_for(jobs: Sequence[Job], listener: Listener, **_: object) -> None:
        known.extend(job.until for job in jobs)
        raise Interrupted("enough")

    monkeypatch.setattr(engine, "run_jobs", asked_for)
    monkeypatch.setenv(STOPS_AT, f"{stops_at:.0f}")
    few = ("--arms", "nn", "--fractions", "1")
    for hours in ((), ("--max-hours", "1"), ("--max-hours", "0.1")):
        assert run(tmp_path, cache, *few, *hours) == INTERRUPTED
    assert known[:2] == [stops_at] * 2
    assert known[2] is not None and known[2] < stops_at, "the hours are over earlier"


def test_a_stop_that_is_not_a_time_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(STOPS_AT, "tomorrow")
    assert run(tmp_path, cache) == BAD_INPUT
    assert "MVAE_STOPS_AT 'tomorrow' is not a time" in capsys.readouterr().err


def test_the_end_of_the_hours_is_acknowledged_and_told_apart_from_a_signal() -> None:
    acknowledged: list[str] = []
    interruption = Interruption(acknowledged.append, hours=0.1 / 3600)
    with pytest.raises(Interrupted, match=r"^--max-hours 2\.77778e-05$"), interruption:
        time.sleep(60)
    assert acknowledged == [interruption.heard] == ["--max-hours 2.77778e-05"]
    assert interruption.out_of_hours
    assert not Interruption().out_of_hours


def test_hours_that_are_no_longer_counted_end_nothing() -> None:
    with Interruption(hours=0.2 / 3600) as interruption:
        interruption.without_limit()
        time.sleep(0.4)
        interruption.check()
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_the_hours_do_not_end_a_command_that_only_looks(
    storage: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sweeps.planning.probe.probed", lambda *_, **__: time.sleep(0.2))
    assert run(storage, cache, "--max-hours", "0.00001", "--plan") == COMPLETE
    assert "time unknown" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_real_sweep_with_half_of_its_time_resumes_to_the_numbers_of_an_unbroken_one(unbroken: Unbroken) -> None:
    half = unbroken.ended.seconds / 2 / 3600
    with place() as here:
        stopped = here.run(*SWEEP, "--max-hours", f"{half:.6f}")
        assert stopped.code == OUT_OF_HOURS, stopped
        assert re.search(r"^Left: \d trials", stopped.out, re.MULTILINE), stopped
        assert here.running() == []
        assert here.run(*SWEEP, "--max-hours", "1").code == COMPLETE
        assert here.numbers() == unbroken.place.numbers()
        assert mlflow_differs(here) == []
