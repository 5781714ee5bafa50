"""What a trial process does: train a job's trial or go on with it, compute its measures, write its results.

Free of Ray: the engine calls `run` in a Tune trial, a person may call it alone. The order of writing is what makes a
kill at any moment harmless: checkpoint, pictures, result, and only then the removal of what is no longer needed.
"""

from __future__ import annotations

import platform
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from mvae.checkpoint import Checkpoint, Record
from mvae.data import load
from mvae.data.dataset import Dataset
from mvae.evaluation.measures import compute
from mvae.evaluation.samples import sample_grids, save_png
from mvae.files import Damaged
from mvae.models import arm
from mvae.models.multimodal import Multimodal
from mvae.training import THREADS, Progress, Trained, train
from mvae.trial import TRAINING_VERSION, Measure, Trial
from sweeps.provenance import attempt_record, versions
from sweeps.results import Result
from sweeps.storage import Store

REPORT_EVERY = 1.0
"""Seconds between two words on a trial's progress; committed records are always passed on at once."""


@dataclass(frozen=True)
class Job:
    """One trial to run, with all that its process must know; plain values, so that it can be sent anywhere."""

    key: str
    trial: Trial
    measures: tuple[Measure, ...]
    """Those without a result."""
    store: Store
    data_root: Path | None = None
    cache: Path | None = None
    gpus: float = 0.0
    """GPUs of the trial: a share of one, or whole."""
    checkpoint_every: float = 60.0
    git: str = ""
    """Commit of the driver's code."""


@dataclass(frozen=True)
class Word:
    """What a trial process says to the driver."""

    epoch: int = 0
    epochs: int = 0
    committed: tuple[Record, ...] = ()
    """Records that a checkpoint newly covers."""
    done: bool = False
    failed: str = ""
    """One line: why the trial ended without a result."""
    details: str = ""
    """The traceback of a failure."""


def run(job: Job, say: Callable[[Word], None]) -> None:
    """Runs a job to its end; a failure is said, not raised, so that the process can go on with the next job."""
    try:
        _run(job, say)
    except Exception as error:
        if not (isinstance(error, OSError | Damaged) and _finished_by_another(job)):
            say(Word(failed=_why(error, job), details=traceback.format_exc()))
            return
    say(Word(epoch=1, epochs=1, done=True))


def _why(error: Exception, job: Job) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename or job.store.folder}"
    return " ".join(str(error).split()) or type(error).__name__


def _finished_by_another(job: Job) -> bool:
    """Whether every result is there: a dead driver's process outlived it, and cleared our checkpoints away."""
    try:
        return all(job.store.results.read(job.key, measure.token) is not None for measure in job.measures)
    except OSError:
        return False


def _run(job: Job, say: Callable[[Word], None]) -> None:
    torch.set_num_threads(THREADS)
    started = time.time()
    device = _device(job)
    data = _data(job.trial.dataset, job.data_root, job.cache, device)
    if job.trial.key(data.fingerprint) != job.key:
        raise ValueError(
            f"{platform.node()} computes another key for this trial than the driver: its data or its package differ;"
            " bring both to the driver's state"
        )
    attempt = uuid.uuid4().hex[:12]
    checkpoints = job.store.checkpoints(job.key, attempt)
    before = checkpoints.latest()
    this = attempt_record(attempt, device, before.epoch if before else 0, started)
    attempts = [*_attempts(before), this]

    def provenance() -> dict[str, Any]:
        this["seconds"] = time.time() - started
        return {"device": device, "attempts": attempts}

    trained = train(
        job.trial,
        data,
        checkpoints,
        provenance=provenance,
        heard=_throttled(say),
        checkpoint_every=job.checkpoint_every,
    )
    _draw(trained, job, data)
    for measure in job.measures:
        began = time.time()
        metrics = {**compute(measure, trained.model, job.trial, data), **_best(trained.history)}
        about = {
            "finished": time.time(),
            "measured_in_seconds": time.time() - began,
            "git": job.git,
            "host": platform.node(),
            "device": device,
            "device_name": this["device_name"],
            "threads": THREADS,
            "versions": versions(),
            "epochs": trained.checkpoint.epoch,
            "data": data.fingerprint,
            "training_version": TRAINING_VERSION,
            "mixed": len({(a["device"], a["torch"]) for a in attempts}) > 1,
            **_spent(attempts, provenance),
        }
        job.store.results.write(
            Result(job.key, measure.token, job.trial.model_dump(), metrics, about, list(trained.history))
        )
    checkpoints.keep_final_weights()


def _spent(attempts: list[dict[str, Any]], provenance: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    provenance()
    return {
        "attempts": attempts,
        "started": min(a["started"] for a in attempts),
        "seconds": sum(a["seconds"] for a in attempts),
    }


def _attempts(checkpoint: Checkpoint | None) -> list[dict[str, Any]]:
    return [dict(attempt) for attempt in checkpoint.provenance.get("attempts", [])] if checkpoint else []


def _device(job: Job) -> str:
    if not job.gpus:
        return "cpu"
    if not torch.cuda.is_available():
        raise ValueError(f"the trial was given {job.gpus:g} GPUs on {platform.node()}, where torch sees none")
    if job.gpus < 1:
        torch.cuda.set_per_process_memory_fraction(job.gpus)
    return "cuda"


@lru_cache(maxsize=2)
def _data(name: str, data_root: Path | None, cache: Path | None, device: str) -> Dataset:
    data = load(name, data_root, cache)
    return data if device == "cpu" else data.to(device)


def _throttled(say: Callable[[Word], None]) -> Callable[[Progress], None]:
    """Passes progress on, not more often than every REPORT_EVERY seconds unless records came with it."""
    last = 0.0

    def heard(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.committed or now - last >= REPORT_EVERY:
            last = now
            say(Word(progress.epoch, progress.epochs, tuple(progress.committed)))

    return heard


def _best(history: list[Record]) -> dict[str, float]:
    """The best validation accuracy and its epoch: logged, never put into a table."""
    scored = [(record["metrics"]["validation/accuracy"], -record["epoch"]) for record in history]
    if not scored:
        return {}
    value, epoch = max(scored)
    return {"best/validation_accuracy": value, "best/epoch": float(-epoch)}


def _draw(trained: Trained, job: Job, data: Dataset) -> None:
    """Grids of what a generative arm has learnt, as pictures beside its checkpoint."""
    if arm(job.trial.model).learner is None or not isinstance(trained.model, Multimodal):
        return
    for name, sheet in sample_grids(trained.model, data.test, job.trial.seed).items():
        save_png(sheet, job.store.artifacts(job.key) / f"{name}.png", scale=2 if sheet.shape[1] > 100 else 4)
