"""Cells of Table 4 on this machine: the trials of the pack, trained by the ordinary loop, several processes at a time.

A step of these networks keeps a GPU busy for a fraction of its time, so processes share it. Each takes the next trial
that is not done until the time is up; what it is at then is kept as a checkpoint in the scratch folder, and a call that
finds it there goes on with it.
"""

from __future__ import annotations

import multiprocessing
import queue
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_runs.pack import MEASURE, METRIC, Pack, PackedTrial
from benchmarks.gpu_runs.pack import read as read_pack
from benchmarks.timing import machine
from mvae.evaluation.accuracy import label_accuracy
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import THREADS, Progress, best_epoch, train
from sweeps.store.provenance import Attempts

CHECKPOINT_EVERY = 30.0
"""Seconds; what a process loses at most when the time is up."""


class OutOfTime(Exception):
    """The deadline passed before the trial's last epoch."""


def run_cells(
    pack: Pack,
    wanted: Sequence[PackedTrial],
    *,
    scratch: Path,
    device: torch.device,
    deadline: float,
    processes: int,
    done: Callable[[dict[str, Any]], None],
    failed: Callable[[str], None],
) -> None:
    """Trains the wanted trials, in order, until `deadline` (on the wall clock, seconds).

    Args:
        scratch: for checkpoints of trials that are under way.
        processes: how many at a time; 1 works in this process.
        done: called with each result as it is there.
        failed: called with a line about each trial that failed.
    """
    if processes == 1:
        for word in worked_off(pack, iter(wanted), scratch, device, deadline):
            _pass_on(word, done, failed)
        return
    context = multiprocessing.get_context("spawn")
    todo: Queue[PackedTrial] = context.Queue()
    words: Queue[Any] = context.Queue()
    for one in wanted:
        todo.put(one)
    workers = [
        context.Process(target=_worker, args=(pack.folder, todo, words, scratch, str(device), deadline), daemon=True)
        for _ in range(min(processes, len(wanted)))
    ]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers) or not words.empty():
        try:
            _pass_on(words.get(timeout=1.0), done, failed)
        except queue.Empty:
            continue
    for number, worker in enumerate(workers):
        if worker.exitcode:
            failed(f"process {number} for cells ended with code {worker.exitcode}")


def worked_off(
    pack: Pack, wanted: Iterator[PackedTrial], scratch: Path, device: torch.device, deadline: float
) -> Iterator[dict[str, Any] | str]:
    """Results one by one, or a line about a trial that failed; ends at the deadline."""
    for one in wanted:
        if time.time() >= deadline:
            return
        try:
            yield trained_cell(one, pack, scratch, device, deadline)
        except OutOfTime:
            return
        except Exception as error:  # a cell that fails must not take the others with it; its line says why
            yield f"cell {one.key}: {type(error).__name__}: {' '.join(str(error).split())}"


def trained_cell(
    packed: PackedTrial, pack: Pack, scratch: Path, device: torch.device, deadline: float = float("inf")
) -> dict[str, Any]:
    """One trial's result, in the form of a result file.

    Raises:
        OutOfTime: the deadline came first; the last checkpoint is in the scratch folder.
    """
    trial, data = packed.trial, pack.load(packed.trial.dataset, device)
    attempt = uuid.uuid4().hex[:12]
    checkpoints = Checkpoints(scratch / packed.key, attempt)
    attempts = Attempts(attempt, device.type, checkpoints.latest(), time.time())

    def heard(progress: Progress) -> None:
        if progress.epoch < progress.epochs and time.time() >= deadline:
            raise OutOfTime

    trained = train(
        trial,
        data,
        checkpoints,
        provenance=attempts.for_checkpoint,
        heard=heard,
        checkpoint_every=CHECKPOINT_EVERY,
    )
    began = time.time()
    accuracy = label_accuracy(trained.model, data.modalities, data.test)
    metrics = {METRIC: accuracy, **best_epoch(trained.history)}
    checkpoints.keep_final_weights()
    about = {
        "made_by": "benchmarks/gpu",
        "machine": machine(),
        "git": pack.git,
        **attempts.for_result(trained.checkpoint, data.fingerprint, pack.training_version, began),
    }
    return {
        "key": packed.key,
        "measure": MEASURE,
        "trial": packed.fields,
        "metrics": metrics,
        "provenance": about,
        "history": list(trained.history),
    }


def _pass_on(word: Any, done: Callable[[dict[str, Any]], None], failed: Callable[[str], None]) -> None:
    if isinstance(word, str):
        failed(word)
    else:
        done(word)


def _worker(
    folder: Path, todo: Queue[PackedTrial], words: Queue[Any], scratch: Path, device: str, deadline: float
) -> None:
    """The body of a process: imports anew, so it takes the pack by its folder."""

    def wanted() -> Iterator[PackedTrial]:
        while True:
            try:
                yield todo.get(timeout=2.0)
            except queue.Empty:
                return

    torch.set_num_threads(THREADS)
    for word in worked_off(read_pack(folder), wanted(), scratch, torch.device(device), deadline):
        words.put(word)
