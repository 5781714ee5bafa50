"""A trial process with a job: its order of writing, resuming after a death, and reporting a failure."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mvae.measure import ACCURACY
from mvae.models import arm
from mvae.refusal import Refusal
from mvae.training.records import MODEL
from sweeps.store.provenance import versions
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.trials import run as worker
from sweeps.trials.messages import Job, Message
from sweeps.trials.run import run
from tests.crashes import fails_when_full, files_below, killed_at_any_line, on_disk
from tests.sweeping import digits_job, run_until

WRITERS = ("sweeps/trials/run.py", "sweeps/store/results.py", "mvae/training/checkpoint.py", "mvae/storage/files.py")


@pytest.fixture
def store(storage: Path) -> Store:
    return Store.open(storage, "main", create=True)


def done(job: Job) -> tuple[Result, list[Message]]:
    """Runs a job that must succeed."""
    words: list[Message] = []
    run(job, words.append)
    assert words[-1].done, words[-1].details
    result = job.store.results.read(job.key, ACCURACY.token)
    assert result is not None
    return result, words


def final_files(job: Job) -> list[str]:
    (folder,) = (path for path in (job.store.folder / "checkpoints" / job.key).iterdir() if path.is_dir())
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_job_leaves_only_its_result_and_final_weights(store: Store, cache: Path) -> None:
    job = digits_job(store, cache)
    result, _ = done(job)
    assert result.metrics["test/accuracy"] > 0.1
    assert result.trial == job.trial.model_dump(mode="json")
    assert [record["epoch"] for record in result.history] == [1, 2]
    assert final_files(job) == ["manifest.json", MODEL]


def test_every_epoch_is_reported_once_and_only_after_its_checkpoint(store: Store, cache: Path) -> None:
    told: list[int] = []
    job = digits_job(store, cache, epochs=4)

    def say(word: Message) -> None:
        newest = store.checkpoints(job.key).latest()
        for record in word.committed:
            assert newest is not None and record in newest.history
            told.append(record["epoch"])

    run(job, say)
    assert told == [1, 2, 3, 4]


def test_provenance_records_where_and_with_which_versions_the_numbers_were_made(store: Store, cache: Path) -> None:
    result, _ = done(replace(digits_job(store, cache), git="abc"))
    said = result.provenance
    assert (said["git"], said["device"], said["threads"], said["mixed"]) == ("abc", "cpu", 1, False)
    assert said["versions"] == versions()
    (attempt,) = said["attempts"]
    assert attempt["from_epoch"] == 0
    assert attempt["torch"] == torch.__version__
    assert 0 < said["seconds"] <= said["finished"] - said["started"] + 0.1


@pytest.mark.parametrize("model", ["nn", "mvae", "mvae_q"])
def test_a_job_interrupted_after_any_checkpoint_ends_with_the_same_numbers(
    store: Store, cache: Path, model: str
) -> None:
    job = digits_job(store, cache, model=model, epochs=5)
    whole, _ = done(replace(job, store=Store(store.root, "whole")))
    for epoch in (1, 2, 4, 5):
        run_until(job, epoch)
    resumed, words = done(job)
    assert resumed.metrics == whole.metrics
    assert [record["metrics"] for record in resumed.history] == [record["metrics"] for record in whole.history]
    assert [attempt["from_epoch"] for attempt in resumed.provenance["attempts"]] == [0, 1, 2, 4, 5]
    assert [record["epoch"] for word in words for record in word.committed] == [1, 2, 3, 4, 5]


def test_an_attempt_with_another_torch_version_marks_the_result_as_mixed(
    store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = digits_job(store, cache)
    with monkeypatch.context() as before:
        before.setattr(torch, "__version__", "1.0")
        run_until(job, 1)
    result, _ = done(job)
    assert result.provenance["mixed"] is True


def test_a_trained_trial_without_a_result_is_measured_without_training(
    store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = digits_job(store, cache)
    first, _ = done(job)
    store.results.path(job.key, ACCURACY.token).unlink()
    monkeypatch.setattr("mvae.training.loop.steps_of", lambda *_: None)  # training would now fail
    again, _ = done(job)
    assert again.metrics == first.metrics
    assert again.history == first.history


def test_a_key_that_does_not_match_the_data_is_refused_and_nothing_is_written(store: Store, cache: Path) -> None:
    words: list[Message] = []
    run(replace(digits_job(store, cache), key="0" * 16), words.append)
    assert "computes another key for this trial than the driver" in words[-1].failed
    assert files_below(store.folder) == set()


def test_a_failure_is_reported_in_one_line_and_the_process_can_run_the_next_job(
    store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    words: list[Message] = []
    with monkeypatch.context() as broken:
        broken.setattr(worker, "train", fails)
        run(digits_job(store, cache), words.append)
    assert words[-1].failed == "two lines"
    assert "RuntimeError" in words[-1].details
    assert not words[-1].done
    done(digits_job(store, cache))


@pytest.mark.parametrize(
    ("number", "said", "remedy"),
    [
        (errno.ENOSPC, "No space left on device", "free up space on this disk"),
        (errno.EDQUOT, "Disk quota exceeded", "delete your own files on this disk, or ask for a larger quota"),
    ],
)
def test_a_full_disk_or_quota_names_the_folder_and_the_remedy_and_keeps_the_last_checkpoint(
    number: int, said: str, remedy: str, store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = digits_job(store, cache)
    run_until(job, 1)
    words: list[Message] = []

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails_when_full(0, os.fsync, number))
        run(job, words.append)
    assert words[-1].failed == f"{said}: {store.folder}; {remedy}"
    newest = store.checkpoints(job.key).latest()
    assert newest is not None and newest.epoch == 1
    done(job)


def test_a_trial_finished_meanwhile_by_a_process_of_a_dead_driver_counts_as_done(
    store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = digits_job(store, cache)
    words: list[Message] = []

    def overtaken(word: Message) -> None:
        words.append(word)
        if word.epoch == 1 and word.committed:
            done(job)
            monkeypatch.setattr("mvae.training.checkpoint.Checkpoints.save", gone)

    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "model.pt")

    run(job, overtaken)
    assert words[-1].done


def test_a_result_that_differs_from_the_one_in_storage_is_an_error(store: Store, cache: Path) -> None:
    job = digits_job(store, cache)
    result, _ = done(job)
    path = store.results.path(job.key, ACCURACY.token)
    path.unlink()
    store.results.write(replace(result, metrics={**result.metrics, "test/accuracy": 0.5}))
    words: list[Message] = []
    run(job, words.append)
    assert "the new numbers differ: test/accuracy is 0.5 in storage" in words[-1].failed


def test_a_trial_that_needs_a_gpu_says_if_there_is_none(
    store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words: list[Message] = []
    run(replace(digits_job(store, cache), gpus=0.25), words.append)
    assert "the trial got 0.25 GPUs" in words[-1].failed


@pytest.mark.slow
def test_a_job_killed_at_any_line_of_the_worker_ends_with_the_same_result(store: Store, cache: Path) -> None:
    job = digits_job(store, cache, model="mvae", epochs=1)
    assert arm("mvae").learner is not None
    whole, _ = done(replace(job, store=Store(store.root, "whole")))

    def start() -> None:
        for folder in ("checkpoints", "results", "artifacts"):
            shutil.rmtree(on_disk(store.folder / folder), ignore_errors=True)

    deaths = 0
    for number in killed_at_any_line(lambda: run(job, lambda _: None), WRITERS, start, store.root):
        result, _ = done(job)
        assert result.metrics == whole.metrics
        assert [record["metrics"] for record in result.history] == [record["metrics"] for record in whole.history]
        assert final_files(job) == ["manifest.json", MODEL]
        assert len(list(on_disk(store.artifacts(job.key)).glob("*.png"))) == 3
        deaths = number
    assert deaths >= 30


def test_a_process_allocates_less_than_its_share_of_a_gpu_because_cuda_needs_memory_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from sweeps.trials import run as worker

    limits: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    worker._take("cuda", 0.25)
    assert 4 * limits[0] < 1 and limits[0] > 0.2
    worker._take("cuda", 1.0)
    worker._take("cpu", 0.0)
    assert len(limits) == 1, "a trial with the whole GPU has no limit"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Refusal, match=r"the trial got 0\.25 GPUs on .*, but torch finds no GPU there"):
        worker._take("cuda", 0.25)
