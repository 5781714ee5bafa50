"""Storage behind s3://, on moto's server in its own process: claims about folders also hold for a bucket."""

from __future__ import annotations

import json
import pickle
import re
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import mvae.storage.objects
import mvae.training.checkpoint
from mvae.refusal import Refusal
from mvae.storage.objects import RemotePath, place
from mvae.training.checkpoint import Checkpoints
from mvae.training.records import MANIFEST, MODEL, Checkpoint
from pipelines.weak_supervision import Options, sweep
from sweeps.cli.options import parse
from sweeps.main import BAD_INPUT, COMPLETE, main
from sweeps.store.lease import Lease
from sweeps.store.results import Results
from sweeps.store.store import Store
from sweeps.trials.messages import Message
from sweeps.trials.run import run
from tests import sweeping
from tests.bucket import endpoint, free_port, remote, uri
from tests.crashes import on_disk
from tests.processes import kill

__all__ = ["endpoint"]

EPOCHS = 25
SWEEP = ("--arms", "nn,mvae", "--targets", "own", "--fractions", "1", "--seeds", "0", "--epochs", str(EPOCHS))


@pytest.fixture
def bucket(endpoint: str, request: pytest.FixtureRequest) -> RemotePath:
    """An empty folder of the bucket for one test."""
    return remote(endpoint, f"bucket/{re.sub(r'[^a-z0-9]+', '-', request.node.name)[-60:]}")


def names(folder: RemotePath) -> list[str]:
    return list(folder.listing())


def saved(checkpoints: Checkpoints, *epochs: int) -> Checkpoint:
    for epoch in epochs:
        contents = {MODEL: {"weight": torch.full((3,), float(epoch))}, "training.pt": {"step": epoch}}
        checkpoint = checkpoints.save(epoch, contents, [], {"device": "cpu"})
    return checkpoint


@pytest.mark.parametrize(("times", "size"), [(1, 200), (3, 200), (1, 5_000), (2, 600_000)])
@pytest.mark.parametrize("now", [b"", b"short", b"y" * 700_000, None], ids=["empty", "shorter", "longer", "deleted"])
def test_an_object_replaced_during_a_read_is_read_as_one_version(
    bucket: RemotePath, monkeypatch: pytest.MonkeyPatch, now: bytes | None, times: int, size: int
) -> None:
    path, opened, changes = bucket / "a.json", mvae.storage.objects._opened, [now] * times

    class Changing:
        """The store's file system, but the object changes as soon as its size has been read."""

        def open_input_file(self, name: str) -> Any:
            file = opened(bucket.root)[0].open_input_file(name)
            if changes and (new := changes.pop()) is not None:
                path.write_bytes(new * (len(changes) + 1))
            elif now is None:
                path.unlink()
            return file

        def __getattr__(self, name: str) -> Any:
            return getattr(opened(bucket.root)[0], name)

    path.write_bytes(b"x" * size)
    monkeypatch.setattr(mvae.storage.objects, "_opened", lambda root, *_: (Changing(), opened(root)[1]))
    if now is None:
        with pytest.raises(FileNotFoundError):
            path.read_bytes()
    else:
        assert path.read_bytes() == now
        assert len(changes) < times


def test_a_pickled_path_means_the_same_in_another_process(bucket: RemotePath) -> None:
    (bucket / "one").write_bytes(b"1")
    again = pickle.loads(pickle.dumps(bucket))
    assert again == bucket and hash(again) == hash(bucket)
    assert (again / "one").read_bytes() == b"1"


def test_no_text_shows_the_credentials_of_a_uri(endpoint: str) -> None:
    path = remote(endpoint, "bucket/x", "KEY:s3cr3t@")
    (path / "one").write_bytes(b"1")
    with pytest.raises(FileNotFoundError) as missing:
        (path / "two").read_bytes()
    with pytest.raises(Refusal) as unreachable:
        Store.open(uri(f"127.0.0.1:{free_port()}", "bucket/x", "KEY:s3cr3t@"), "main", create=False)
    with pytest.raises(Refusal) as unknown:
        place("ftp://KEY:s3cr3t@host/x")
    said = [str(path), repr(path), str(path / "one"), str(missing.value), str(unreachable.value), str(unknown.value)]
    assert not [text for text in said if "s3cr3t" in text or "KEY" in text]


def test_a_gs_uri_is_parsed_without_a_request() -> None:
    path = place("gs://bucket/runs//a/./b")
    assert isinstance(path, RemotePath)
    assert (path.scheme, path.key, str(path.parent)) == ("gs", "runs/a/b", "gs://bucket/runs/a")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the interrupt may hit a finaliser
def test_an_interrupted_write_leaves_a_complete_object_or_none(bucket: RemotePath) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    content, interrupted = b"x" * 1000, 0
    (bucket / "first").write_bytes(content)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(100):
            try:
                signal.setitimer(signal.ITIMER_REAL, (number + 1) * 5e-5)
                (bucket / str(number)).write_bytes(content)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 10
    assert {version.size for version in bucket.listing().values()} == {len(content)}


def test_opening_a_storage_creates_nothing(bucket: RemotePath) -> None:
    store = Store.open(bucket, "main", create=True)
    assert not store.folder.exists()
    with store.mark() as mark:
        assert mark.why_unseen() == ""
        assert "other content" in replace(mark, text="mine").why_unseen()
    assert not store.folder.exists() and names(bucket) == []


def test_the_manifest_is_written_last_and_a_checkpoint_needs_it(
    bucket: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[list[str]] = []
    real = RemotePath.write_bytes

    def write(path: RemotePath, data: bytes | memoryview) -> int:
        if path.name == MANIFEST:
            there.append(names(bucket))
            assert Checkpoints(bucket, "reader").latest() is None
        return real(path, data)

    monkeypatch.setattr(RemotePath, "write_bytes", write)
    checkpoint = saved(Checkpoints(bucket, "a"), 1)
    assert there == [["000001-a/model.pt", "000001-a/training.pt"]]
    assert Checkpoints(bucket, "reader").latest() == checkpoint


def test_a_damaged_checkpoint_is_skipped(bucket: RemotePath) -> None:
    checkpoints = Checkpoints(bucket, "a")
    saved(checkpoints, 1, 2)
    (bucket / "000002-a" / MODEL).write_bytes(b"short")
    found = checkpoints.latest()
    assert found is not None and found.epoch == 1
    assert checkpoints.load(found, MODEL)["weight"].tolist() == [1, 1, 1]
    (bucket / "000001-a" / MANIFEST).write_bytes(b"{")
    assert checkpoints.latest() is None
    assert checkpoints.keep_final_weights() is None
    assert len(names(bucket)) == 6


def test_only_the_newest_weights_stay_and_other_attempts_that_may_still_run_keep_their_files(
    bucket: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(Checkpoints(bucket, "a"), 1, 2, 3)
    saved(Checkpoints(bucket, "b"), 2)
    (bucket / "000003-c" / MODEL).write_bytes(b"in the making")
    final = Checkpoints(bucket, "b").keep_final_weights()
    assert final is not None and final.final
    assert names(bucket) == ["000003-a/manifest.json", "000003-a/model.pt", "000003-c/model.pt"]
    monkeypatch.setattr(mvae.training.checkpoint, "_ABANDONED_AFTER", -60.0)
    assert Checkpoints(bucket, "b").keep_final_weights() == final
    assert names(bucket) == ["000003-a/manifest.json", "000003-a/model.pt"]


def test_two_attempts_that_finish_together_leave_one_set_of_weights(
    bucket: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = Checkpoints(bucket, "a"), Checkpoints(bucket, "b")
    saved(a, 2)
    half_written, a_has_chosen, b_is_done = threading.Event(), threading.Event(), threading.Event()
    write_manifest, newest_of = mvae.training.checkpoint._write_manifest, Checkpoints._first_valid

    def late_manifest(checkpoint: Checkpoint) -> None:
        if checkpoint.attempt == "b" and not checkpoint.final:
            half_written.set()
            assert a_has_chosen.wait(60)
        write_manifest(checkpoint)

    def choose(checkpoints: Checkpoints, *arguments: Any, **named: Any) -> Checkpoint | None:
        chosen = newest_of(checkpoints, *arguments, **named)
        if checkpoints is a and not a_has_chosen.is_set():
            a_has_chosen.set()
            assert b_is_done.wait(60)
        return chosen

    monkeypatch.setattr(mvae.training.checkpoint, "_write_manifest", late_manifest)
    monkeypatch.setattr(Checkpoints, "_first_valid", choose)

    def second() -> None:
        saved(b, 2)
        b.keep_final_weights()
        b_is_done.set()

    other = threading.Thread(target=second)
    other.start()
    assert half_written.wait(60)
    final = a.keep_final_weights()
    other.join(60)
    found = Checkpoints(bucket, "reader").latest()
    assert final is not None and found is not None
    assert found.path == final.path and found.final
    assert len(names(bucket)) == 2


def test_a_lease_that_disappears_while_settling_is_taken_again(bucket: RemotePath) -> None:
    path = bucket / "lease.json"
    threading.Timer(0.3, path.unlink, kwargs={"missing_ok": True}).start()
    with Lease(bucket, print, renew_every=0.2, settle=0.6):
        assert path.exists()
        with pytest.raises(Refusal, match="is being renewed"):
            Lease(bucket, print, settle=0.1).__enter__()
    assert not path.exists()


@pytest.mark.parametrize("address", ["missing bucket", "nobody there", pytest.param("silent", marks=pytest.mark.slow)])
def test_an_unusable_store_gives_a_one_line_error_within_15_seconds(
    endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        at = {
            "missing bucket": uri(endpoint, "no-such-bucket/runs"),
            "nobody there": uri(f"127.0.0.1:{free_port()}", "bucket/runs"),
            "silent": uri(f"127.0.0.1:{silent.getsockname()[1]}", "bucket/runs"),
        }[address]
        began = time.monotonic()
        assert command(at, tmp_path) == BAD_INPUT
    assert time.monotonic() - began < 15
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert re.match(r"--storage s3://\S+/runs cannot be written \(.+\): \w+", printed.err), printed.err


def command(storage: str, folder: Path, *more: str) -> int:
    """Runs the pipeline in this process; returns its exit code."""
    tracking = ("--tracking-uri", f"sqlite:///{folder}/mlflow.db", "--cache", str(folder / "cache"))
    options = parse(Options, [*SWEEP, "--storage", storage, *tracking, *more])
    return main(lambda: sweep(options), options)


def numbers(results: Results) -> dict[str, Any]:
    """Values that must be equal bit for bit, by key."""
    return {
        result.key: (result.metrics, [(record["epoch"], record["metrics"]) for record in result.history])
        for result in results
    }


@pytest.mark.slow
def test_a_contested_killed_and_damaged_sweep_in_a_bucket_ends_as_in_a_folder(
    endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_cluster: None
) -> None:
    folder = Store.open(tmp_path / "folder", "main", create=True)
    jobs = {
        model: sweeping.digits_job(folder, tmp_path / "cache", model=model, paired_fraction=1.0, epochs=EPOCHS)
        for model in ("nn", "mvae")
    }
    for job in jobs.values():
        words: list[Message] = []
        run(replace(job, checkpoint_every=3600.0), words.append)
        assert words[-1].done, words[-1].details
    at = uri(endpoint, "bucket/sweep")
    store = Store.open(at, "main", create=False)
    nn = store.results.path(jobs["nn"].key, "accuracy-v1")
    nn.write_bytes(on_disk(folder.results.path(jobs["nn"].key, "accuracy-v1")).read_bytes()[:100])
    checkpoints = store.checkpoints(jobs["mvae"].key)

    def epoch() -> int:
        time.sleep(0.3)  # all processes share the one server process
        return max((int(path[:6]) for path in checkpoints.folder.listing() if path.endswith(MANIFEST)), default=0)

    with sweeping.place() as here:
        typed = (*SWEEP, "--storage", at, "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
        drivers = [here.start(*typed), here.start(*typed)]
        while all(driver.process.poll() is None for driver in drivers):
            time.sleep(0.1)
        refused, holder = sorted(drivers, key=lambda driver: driver.process.poll() is None)
        ended = refused.ended()
        assert ended.code == BAD_INPUT, ended
        assert "'main' is in use by process" in ended.err
        holder.until(lambda: epoch() >= 3, "a few epochs")
        tree = holder.tree()
        holder.kill()
        for process in tree:  # Ray's processes outlive the driver for a while, and would save more checkpoints
            kill(process)
        assert jobs["mvae"].key not in numbers(store.results), "the trial had finished before the kill"
        newest = checkpoints.latest()
        assert newest is not None and isinstance(newest.path, RemotePath)
        (newest.path / MANIFEST).write_bytes(b"{")
        resumed = here.run(*typed)
    assert resumed.code == COMPLETE, resumed.err
    results = {result.key: result for result in store.results}
    assert numbers(store.results) == numbers(folder.results)
    attempts = results[jobs["mvae"].key].provenance["attempts"]
    assert [attempt["from_epoch"] for attempt in attempts] == [0, newest.epoch - 1]
    assert (nn.parent / f"{nn.name}.bad").exists()
    found = checkpoints.latest()
    assert found is not None and found.final and found.epoch == EPOCHS

    before = (store.folder / "results").listing() | (store.folder / "checkpoints").listing()
    assert command(at, tmp_path) == COMPLETE
    assert command(at, tmp_path, "--report") == COMPLETE
    assert (store.folder / "results").listing() | (store.folder / "checkpoints").listing() == before
    printed = capsys.readouterr()
    assert "MVAE" in printed.out and "hidden" not in printed.out + printed.err
    assert json.loads(nn.read_bytes())["metrics"] == dict(results[jobs["nn"].key].metrics)
    assert (tmp_path / "mlartifacts").is_dir()
