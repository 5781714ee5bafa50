"""Runs a job in a trial's process: trains or resumes the trial, computes its measures, writes its results.

This module does not use Ray: the engine calls `run` in a Tune trial. A kill at any moment is harmless, because files
are written in this order: checkpoint, pictures, parts of a long measure, result. Files that are no longer needed are
deleted last.
"""

import platform
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from mvae.data import Kind, load
from mvae.data.dataset import all_sentences, has_views
from mvae.data.examples import Dataset
from mvae.evaluation.measures import Host, compute
from mvae.evaluation.samples import conditional_grids, sample_grids, sample_words
from mvae.evaluation.sheets import save_png
from mvae.evaluation.translation import translation_tables
from mvae.evaluation.vision import figures
from mvae.models import arm
from mvae.models.cvae import CVAE
from mvae.models.multimodal import Multimodal
from mvae.plugins import load as load_plugins
from mvae.plugins import made_by
from mvae.refusal import Refusal
from mvae.storage.clock import CLOCK, Clock
from mvae.storage.files import Damaged, remedy
from mvae.training.loop import THREADS, NonFiniteLoss, best_epoch, train
from mvae.trial import TRAINING_VERSION, Trial
from mvae.workers import ALONE, Workers
from sweeps.store.provenance import Attempts
from sweeps.store.results import Result
from sweeps.store.trained import trained_model
from sweeps.table.markdown import word_tables
from sweeps.trials.messages import REPORT_EVERY, TRANSLATIONS, Job, Message, Repeats
from sweeps.trials.parts import PartFiles
from sweeps.trials.speed import speed_of_one, speeds


def run(job: Job, send: Callable[[Message], None], clock: Clock = CLOCK) -> None:
    """Runs a job to its end. Sends a failure instead of raising it, so that the process can run the next job."""
    try:
        _run(job, send, ALONE, "cuda" if job.gpus else "cpu", clock)
    except Exception as error:
        if not (isinstance(error, OSError | Damaged) and _finished_by_another(job)):
            diverged = isinstance(error, NonFiniteLoss)
            send(Message(failed=_why(error, job), details=traceback.format_exc(), diverged=diverged))
            return
    send(_DONE)


def run_as_one_of(job: Job, send: Callable[[Message], None], workers: Workers, device: str) -> None:
    """Runs a job in one of several worker processes that have joined a torch.distributed process group.

    Args:
        send: called only in the process of rank 0.
        device: cpu, or cuda with the number of this process's GPU, for example cuda:1.
    Raises:
        Repeats: the job itself failed, in this or another process.
        Exception: another process was lost.
    """
    try:
        _run(job, send if workers.rank == 0 else lambda _: None, workers, device)
    except Exception as error:
        if _lost_a_worker(error):
            raise
        if not (isinstance(error, OSError | Damaged) and _finished_by_another(job)):
            raise Repeats(Message(failed=_why(error, job), details=traceback.format_exc())) from None
    if workers.rank == 0:
        send(_DONE)


def _lost_a_worker(error: Exception) -> bool:
    """Whether communication between workers failed. Communication fails in all workers if one worker is lost.

    gloo has no error type for this failure, so the error's message decides.
    """
    if isinstance(error, torch.distributed.DistError):
        return True
    text = str(error).lower()
    return type(error) is RuntimeError and any(word in text for word in ("gloo", "nccl", "connection", "peer"))


_DONE = Message(epoch=1, epochs=1, done=True)


def _why(error: Exception, job: Job) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename or job.store.folder}{remedy(error)}"
    return " ".join(str(error).split()) or type(error).__name__


def _finished_by_another(job: Job) -> bool:
    """Whether all results of the job exist. Another process may have written them and deleted our checkpoints."""
    try:
        return all(job.store.results.read(job.key, measure.token) is not None for measure in job.measures)
    except OSError:
        return False


def _run(job: Job, send: Callable[[Message], None], workers: Workers, device: str, clock: Clock = CLOCK) -> None:
    torch.set_num_threads(THREADS)
    started = clock.time()
    load_plugins(job.plugins)
    job.store.check_is(job.namespace)
    _take(device, job.gpus)
    data = _data(job.trial.dataset, job.data_root, job.cache, device, job.trial.needs_grey)
    if job.trial.key(data.fingerprint) != job.key:
        raise Refusal(
            f"{platform.node()} computes another key for this trial than the driver, because its data or"
            f" package differ from the driver's: copy the driver's data and package to {platform.node()}"
        )
    data = data.knowing(job.trial.vocabulary)
    attempt = uuid.uuid4().hex[:12]
    checkpoints = job.store.checkpoints(job.key, attempt, clock)
    before = checkpoints.latest() if workers.rank == 0 else None
    by_itself = speed_of_one(job.trial, data) if job.speeds and workers.first and not workers.alone else None
    throttled = _Throttled(send, clock)
    attempts = Attempts(
        attempt,
        device.partition(":")[0],
        before,
        started,
        workers.count,
        elastic=job.trial.fewest_workers is not None,
        plugins=made_by(job.trial),
        clock=clock,
    )
    trained = train(
        job.trial,
        data,
        checkpoints,
        provenance=attempts.for_checkpoint,
        heard=lambda progress: throttled(
            Message(progress.epoch, progress.epochs, tuple(progress.committed)), at_once=bool(progress.committed)
        ),
        look=lambda model, epoch: _draw(model, job, data, f"epoch-{epoch:04d}"),
        checkpoint_every=job.checkpoint_every,
        until=job.until,
        checkpoint_at=job.checkpoint_at,
        workers=workers,
        background=workers.count > 1,
        test_curve=job.test_curve,
    )
    if workers.rank > 0:
        return
    _draw(trained.model, job, data)
    attempts.for_checkpoint()
    fresh = trained.history[before.epoch if before else 0 :]
    gained = {"speed": speeds(fresh, workers.count, by_itself)} if job.speeds else {}
    epoch = trained.checkpoint.epoch
    for measure in job.measures:
        began = clock.time()
        parts = PartFiles(job.store.measuring(job.key), measure.token, trained.checkpoint, attempts.device)
        host = Host(
            lambda done, of: throttled(Message(epoch, epoch, measured=done / of)),
            parts,
            lambda other: _finished(job, other, data),
        )
        metrics = compute(measure, trained.model, job.trial, data, host) | best_epoch(trained.history)
        about = {
            "git": job.git,
            **gained,
            **attempts.for_result(trained.checkpoint, data.fingerprint, TRAINING_VERSION, began),
        }
        job.store.results.write(
            Result(job.key, measure.token, job.trial.model_dump(), metrics, about, list(trained.history))
        )
        parts.remove()
    checkpoints.keep_final_weights()


def _finished(job: Job, trial: Trial, data: Dataset) -> nn.Module:
    """Loads the model of another finished trial on the same data set.

    Raises:
        Refusal: the trial has no model yet.
    """
    found = trained_model(job.store, trial.key(data.fingerprint), trial, data.modalities)
    if found is None:
        raise Refusal(
            f"the {arm(trial.model).title} trial {trial.key(data.fingerprint)}, which this measure needs, has no"
            " checkpoint: run the same command again"
        )
    return found


def _take(device: str, share: float) -> None:
    """Selects this process's device. A process with `share` of a GPU may use 0.9 x `share` of the GPU's memory."""
    if device == "cpu":
        return
    if not torch.cuda.is_available():
        raise Refusal(
            f"the trial got {share:g} GPUs on {platform.node()}, but torch finds no GPU there: install a CUDA build of"
            " torch on that machine, or give --gpus-per-trial 0"
        )
    torch.cuda.set_device(torch.device(device).index or 0)
    if share < 1:
        # CUDA itself needs the rest of the share, a few hundred MB per process.
        torch.cuda.set_per_process_memory_fraction(0.9 * share)


@lru_cache(maxsize=2)
def _data(name: str, data_root: Path | None, cache: Path | None, device: str, grey: bool) -> Dataset:
    data = load(name, data_root, cache, grey=grey)
    return data if device == "cpu" else data.to(device)


@dataclass
class _Throttled:
    """Sends all messages marked `at_once`, and at most one other message per REPORT_EVERY seconds."""

    send: Callable[[Message], None]
    clock: Clock
    last: float = 0.0

    def __call__(self, message: Message, *, at_once: bool = False) -> None:
        if at_once or self.clock.monotonic() - self.last >= REPORT_EVERY:
            self.last = self.clock.monotonic()
            self.send(message)


def _draw(model: nn.Module, job: Job, data: Dataset, moment: str = "") -> None:
    """Writes samples of a generative arm, as pictures and text, into the trial's folder of artifacts.

    Args:
        moment: name of a subfolder, for example epoch-0005, or "" for the final samples.
    """
    seed, words = job.trial.seed, ""
    folder = job.store.artifacts(job.key) / moment
    if isinstance(model, Multimodal) and all_sentences(model.modalities):
        (folder / TRANSLATIONS).write_bytes(word_tables(translation_tables(model, data.test, seed)).encode())
        return
    if all(modality.kind is not Kind.IMAGE for modality in data.modalities):
        return
    if isinstance(model, Multimodal):
        grids, words = sample_grids(model, data.test, seed), word_tables(sample_words(model, data.test, seed))
        if has_views(data.modalities):
            grids |= figures(model, data.test)
    elif isinstance(model, CVAE):
        grids = conditional_grids(model, data.test, seed)
    else:
        return
    for name, sheet in grids.items():
        save_png(sheet, folder / f"{name}.png")
    if words:
        (folder / "words.md").write_bytes(words.encode())
