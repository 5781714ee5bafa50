"""A real process of tests/histories/test_real_processes.py: takes the lease, counts, writes checkpoints and results."""

from __future__ import annotations

import os
import threading
import time
import uuid
from pathlib import Path

from mvae.refusal import Refusal
from mvae.training.checkpoint import Checkpoints
from mvae.training.records import MODEL, Record
from sweeps.store.lease import Lease
from sweeps.store.results import Result, Results

KEYS = ("aa", "bb")
EPOCHS = 6
MEASURE = "accuracy-v1"


def step(count: int, digest: int) -> tuple[int, int]:
    return count + 1, (digest * 6364136223846793005 + count) % 2**48


def expected() -> dict[str, float]:
    count, digest = 0, 1
    for _ in range(EPOCHS):
        count, digest = step(count, digest)
    return {"test/count": float(count), "test/digest": float(digest)}


def train(folder: Path, key: str, lost: threading.Event) -> None:
    checkpoints = Checkpoints(folder / "checkpoints" / key, uuid.uuid4().hex[:12])
    newest = checkpoints.latest()
    count, digest, history = 0, 1, list[Record]()
    if newest is not None:
        state = checkpoints.load(newest, MODEL)
        count, digest, history = state["count"], state["digest"], list(newest.history)
    for epoch in range(len(history), EPOCHS):
        time.sleep(0.01)
        count, digest = step(count, digest)
        history.append(Record(epoch=epoch + 1, time=time.time(), metrics={}))
        checkpoints.save(epoch + 1, {MODEL: {"count": count, "digest": digest}}, history, {})
        if lost.is_set():
            return
    metrics = {"test/count": float(count), "test/digest": float(digest)}
    Results(folder / "results").write(Result(key, MEASURE, {}, metrics, {}, history))
    checkpoints.keep_final_weights()


def main(folder: Path) -> int:
    try:
        with Lease(folder, lambda _: None, renew_every=0.1, dead_after=0.6) as lease:
            results = Results(folder / "results")
            for key in KEYS:
                if results.read(key, MEASURE) is None and not lease.lost.is_set():
                    try:
                        train(folder, key, lease.lost)
                    except FileNotFoundError:  # another process has finished the trial
                        if results.read(key, MEASURE) is None:
                            raise
    except Refusal:
        return 2
    return 0


def alone(folder: Path) -> None:
    """Runs in a forked process."""
    code = 1
    try:
        code = main(folder)
    finally:
        os._exit(code)
