"""Trains trials of Table 4 with the ordinary training loop, in several processes that share one GPU.

Sharing pays because a step of these networks uses only a part of the GPU. Until the deadline, each process takes the
next unfinished trial. A trial that the deadline interrupts leaves a checkpoint in the scratch folder. The next call
resumes the trial from its checkpoint.
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
"""Seconds between checkpoints. At the deadline, a process loses about this much training at most."""


class OutOfTime(Exception):
    """Raised if the deadline passes before the trial's last epoch."""


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
    """Trains the wanted trials in order until `deadline` (Unix seconds).

    Args:
        scratch: folder for checkpoints of unfinished trials.
        processes: number of concurrent processes; 1 trains in this process.
        done: called with each result as soon as its trial has finished.
        failed: called with one line of text about each failed trial or process.
    """
    if processes == 1:
        for outcome in train_until(pack, iter(wanted), scratch, device, deadline):
            _pass_on(outcome, done, failed)
        return
    context = multiprocessing.get_context("spawn")
    todo: Queue[PackedTrial] = context.Queue()
    outcomes: Queue[Any] = context.Queue()
    for one in wanted:
        todo.put(one)
    workers = [
        context.Process(target=_worker, args=(pack.folder, todo, outcomes, scratch, str(device), deadline), daemon=True)
        for _ in range(min(processes, len(wanted)))
    ]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers) or not outcomes.empty():
        try:
            _pass_on(outcomes.get(timeout=1.0), done, failed)
        except queue.Empty:
            continue
    for number, worker in enumerate(workers):
        if worker.exitcode:
            failed(f"training process {number} exited with code {worker.exitcode}")


def train_until(
    pack: Pack, wanted: Iterator[PackedTrial], scratch: Path, device: torch.device, deadline: float
) -> Iterator[dict[str, Any] | str]:
    """Trains trials until the deadline. Yields each result, or one line of text about a failed trial."""
    for one in wanted:
        if time.time() >= deadline:
            return
        try:
            yield trained_cell(one, pack, scratch, device, deadline)
        except OutOfTime:
            return
        except Exception as error:  # a failing cell must not stop the others; the yielded line gives the reason
            yield f"cell {one.key}: {type(error).__name__}: {' '.join(str(error).split())}"


def trained_cell(
    packed: PackedTrial, pack: Pack, scratch: Path, device: torch.device, deadline: float = float("inf")
) -> dict[str, Any]:
    """Trains one trial and measures its accuracy. Returns the contents of its result file.

    Raises:
        OutOfTime: the deadline passed; the last checkpoint is in the scratch folder.
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


def _pass_on(outcome: Any, done: Callable[[dict[str, Any]], None], failed: Callable[[str], None]) -> None:
    if isinstance(outcome, str):
        failed(outcome)
    else:
        done(outcome)


def _worker(
    folder: Path, todo: Queue[PackedTrial], outcomes: Queue[Any], scratch: Path, device: str, deadline: float
) -> None:
    """Runs in a new process: trains trials from the queue until it is empty or the deadline passes."""

    def wanted() -> Iterator[PackedTrial]:
        while True:
            try:
                yield todo.get(timeout=2.0)
            except queue.Empty:
                return

    torch.set_num_threads(THREADS)
    for outcome in train_until(read_pack(folder), wanted(), scratch, torch.device(device), deadline):
        outcomes.put(outcome)
