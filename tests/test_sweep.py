"""The driver without Ray and MLflow: bugs, refusals, and the traceback of a failed trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mvae.storage.files import Folder
from pipelines.weak_supervision import Options, sweep
from sweeps import engine
from sweeps.cli.options import read
from sweeps.engine import Capacity, Listener
from sweeps.main import COMPLETE, INCOMPLETE, main
from sweeps.planning.state import TrialState
from sweeps.store.store import Store
from sweeps.tracking.view import RunView, SweepView
from sweeps.trials import run as worker
from sweeps.trials.messages import Job
from tests.crashes import on_disk


class Heard:
    """A tracker that only keeps the last view of each run."""

    def __init__(self, uri: str, *, sweep: SweepView, **_: Any) -> None:
        self.sweep, self.views, self.stuck = sweep, dict[str, RunView](), False
        self.experiment = ""
        self.update_sweep = lambda view: setattr(self, "sweep", view)
        self.start = self.close = self.give_up = lambda *_: None
        self.links = lambda _timeout: dict[str, str]()

    def update(self, view: RunView) -> None:
        self.views[view.key] = view


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> list[Heard]:
    """Trackers, one per command; trials run in this process, one after the other."""
    trackers: list[Heard] = []

    def tracker(uri: str, **about: Any) -> Heard:
        trackers.append(Heard(uri, **about))
        return trackers[-1]

    @contextmanager
    def here(*_: object) -> Iterator[Capacity]:
        yield Capacity(1, 0)

    def one_by_one(jobs: Sequence[Job], listener: Listener, *, max_concurrent: int) -> None:
        for job in jobs:
            listener.started(job.key)
            worker.run(job, lambda word, key=job.key: listener.word(key, word))  # type: ignore[misc]

    monkeypatch.setattr("sweeps.driver.Tracker", tracker)
    monkeypatch.setattr(engine, "cluster", here)
    monkeypatch.setattr(engine, "run_jobs", one_by_one)
    return trackers


@pytest.fixture
def command(storage: Path, cache: Path) -> Callable[[], int]:
    """Runs a sweep of one trial that takes a second; returns the exit code."""
    asked = ("--arms", "nn", "--fractions", "0.05", "--seeds", "0", "--epochs", "1")
    options = read(Options, ("--storage", str(storage), "--cache", str(cache), *asked))
    return lambda: main(lambda: sweep(options), options)


def broken(*_: object, **__: object) -> None:
    raise ValueError("nobody's input")


def test_a_value_error_during_a_sweep_is_a_bug_and_not_bad_input(
    command: Callable[[], int], tracked: list[Heard], storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as once:
        once.setattr(engine, "run_jobs", broken)
        with pytest.raises(ValueError, match="nobody's input"):
            command()
    assert tracked[-1].sweep.state is TrialState.FAILED
    assert not (storage / "main" / "lease.json").exists()
    assert command() == COMPLETE


def test_a_failed_trials_traceback_is_kept_and_its_file_named_until_the_trial_succeeds(
    command: Callable[[], int],
    tracked: list[Heard],
    storage: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as once:
        once.setattr(worker, "train", broken)
        assert command() == INCOMPLETE
    ((key, view),) = tracked[-1].views.items()
    kept = Store.open(storage, "main", create=False).traceback(key)
    printed = capsys.readouterr().out
    assert printed.count(f"failed: nobody's input (traceback: {kept})") == 1
    assert " ".join(printed.split()).count(f"nobody's input (traceback: {kept})") == 2, "in the report too"
    assert (view.state, view.error, view.traceback) == (TrialState.FAILED, "nobody's input", kept)
    assert kept.read_bytes().decode().startswith("NN 5% seed 0\nnobody's input\n\nTraceback (most recent call last):\n")
    assert 'raise ValueError("nobody\'s input")' in kept.read_bytes().decode()

    assert command() == COMPLETE
    assert not kept.exists()
    assert tracked[-1].views[key].traceback is None
    on_disk(kept).write_text("left by a driver that was killed between the result and this file", encoding="utf-8")
    assert command() == COMPLETE
    assert not kept.exists()


def test_a_traceback_that_cannot_be_written_does_not_stop_the_sweep(
    command: Callable[[], int],
    tracked: list[Heard],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = Folder.write_bytes

    def full(path: Folder, data: bytes) -> int:
        if path.parent.name == "errors":
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Folder, "write_bytes", full)
    monkeypatch.setattr(worker, "train", broken)
    assert command() == INCOMPLETE
    assert "failed: nobody's input\n" in capsys.readouterr().out
