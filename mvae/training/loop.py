"""Defines the training loop, with checkpoints and exact resume.

The loop runs in a single process, in a Tune trial, or in each Ray Train worker.

The loop saves state only at the end of an epoch, and every random stream restarts with each epoch. So a killed and
resumed run gives the same numbers, bit for bit, as an uninterrupted run. The loop reports an epoch's metrics only after
a checkpoint of that epoch is complete.
"""

import math
import time
from collections.abc import Callable, Container, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mvae.data.dataset import ATTRIBUTE_KINDS, all_sentences
from mvae.data.examples import Dataset
from mvae.evaluation.accuracy import evaluated, prediction_accuracy
from mvae.evaluation.attributes import validation_attribute_metrics
from mvae.evaluation.measurable import has_accuracy
from mvae.evaluation.translation import validation_translation_metrics
from mvae.measure import on_validation, watched_of
from mvae.models import arm
from mvae.models.arm import Settings
from mvae.models.elbo import Loss
from mvae.models.multimodal import Multimodal
from mvae.networks.normalisation import keep_exchanges_out_of_graphs, share_statistics
from mvae.streams import global_stream
from mvae.training.checkpoint import Checkpoints
from mvae.training.data_parallel import DataParallel
from mvae.training.optimiser import optimiser_of
from mvae.training.records import MODEL, Checkpoint, Record
from mvae.training.saving import Saving
from mvae.training.steps import Steps, steps_of
from mvae.training.usage import Usage
from mvae.workers import ALONE, Workers

THREADS = 1
"""CPU threads per trial, whatever the environment says, so that a laptop and a cluster give the same numbers."""

REMEDY = "the last checkpoint is kept; lower the learning rate or a likelihood weight"

CALLED_OFF_AFTER = 600.0
"""Seconds after an expected stop until the stop counts as cancelled, and checkpoints become less frequent again."""

LOOKS = 8
"""Number of equal parts into which the epochs are divided. `train` calls `look` after each part except the last."""


class NonFiniteLoss(ArithmeticError):
    """The loss or a weight became nan or infinite. The message names the epoch, the step and the modality."""


@dataclass
class Progress:
    """The progress of a running trial, reported by `train` after each epoch."""

    epoch: int
    """Number of finished epochs."""
    epochs: int
    committed: list[Record] = field(default_factory=list)
    """Records that are in a complete checkpoint and that no earlier `Progress` contained."""


@dataclass(frozen=True)
class Trained:
    """A trained module in evaluation mode, its complete history, and the checkpoint that contains both."""

    model: nn.Module
    history: list[Record]
    checkpoint: Checkpoint


def train(
    trial: Settings,
    data: Dataset,
    checkpoints: Checkpoints,
    *,
    provenance: Callable[[], dict[str, Any]] = dict,
    heard: Callable[[Progress], None] = lambda _: None,
    look: Callable[[nn.Module, int], None] = lambda _model, _epoch: None,
    checkpoint_every: float = 60.0,
    until: float | None = None,
    checkpoint_at: Container[int] = (),
    workers: Workers = ALONE,
    background: bool = False,
    test_curve: bool = False,
) -> Trained:
    """Trains a trial, resuming from its newest valid checkpoint.

    Args:
        data: data set on the device that trains.
        provenance: function that returns where and when the weights were made. Each checkpoint stores a new result of
            this function.
        heard: called after every epoch with the progress.
        look: called with the module in evaluation mode and the number of finished epochs, a few times during training
            (see `LOOKS`). `look` may draw pictures and must not change the module.
        checkpoint_every: seconds between checkpoints. Checkpoints are written only at the end of an epoch, and always
            after the last epoch.
        until: earliest Unix time in seconds at which this process will be stopped. The time between checkpoints shrinks
            to half of the time left, so that the stop loses only the unfinished epoch (`seconds_between`).
        checkpoint_at: epochs after which a checkpoint is written regardless of the time.
        workers: rank of this process and number of workers. All workers call this function within a torch.distributed
            process group. Only the first worker reads and writes checkpoints, validates, and calls `provenance`,
            `heard` and `look`.
        background: whether a thread writes the checkpoints while training continues.
        test_curve: whether to measure test accuracy after every epoch, as `diagnostic/test_accuracy`, if the arm
            predicts labels or texts. This metric influences nothing and never enters a table.
    Raises:
        NonFiniteLoss: the loss or a weight became nan or infinite. Every worker raises it. The last checkpoint is kept.
        Refusal: the trial asks for more training examples than the data set has, or the arm's own optimiser or schedule
            is invalid.
    """
    torch.set_num_threads(THREADS)
    torch.backends.cudnn.deterministic = True
    data = data.trained_on(trial.train_examples).knowing(trial.vocabulary)
    device = data.train.values[0].device
    chosen = arm(trial.model)
    with global_stream(trial.seed, "initialisation"):
        model = chosen.build(trial, data.modalities)
    model.to(device)
    last, weights, moments = workers.broadcast(
        _start(checkpoints, trial, "cpu" if workers.count > 1 else device, workers)
    )
    history: list[Record] = list(last.history) if last else []
    if last:
        model.load_state_dict(weights)
        if workers.first:
            heard(Progress(last.epoch, trial.epochs if chosen.fit is None else 1, list(history)))
    if chosen.fit is not None:
        assert workers.alone, "an arm that is fitted in closed form cannot use several workers"
        if last is None:
            metrics = {**chosen.fit(model, trial, data), **validated(model, trial, data)}
            history = [Record(epoch=1, time=time.time(), metrics=metrics)]
            last = checkpoints.save(1, {MODEL: model.state_dict()}, history, provenance())
            heard(Progress(1, 1, list(history)))
        return Trained(model.eval(), history, last)

    assert chosen.learner is not None
    assert (trial.fewest_workers or trial.workers) <= workers.count <= trial.workers, "wrong number of workers"
    learner = chosen.learner(model, trial, data, workers)
    optimizer = optimiser_of(chosen, model, trial)
    if moments is not None:
        optimizer.load_state_dict(moments)
    if trial.compile:
        compile_networks(model)
    if not workers.alone:
        if trial.sync_batchnorm:
            share_statistics(model, workers)
        learner = DataParallel(learner, model)
    steps = steps_of(learner, model, optimizer, trial, data.modalities, workers)
    looks = {-(-trial.epochs * i // LOOKS) for i in range(1, LOOKS)} - {trial.epochs}
    committed = len(history)
    usage = Usage(device)
    saved_at = time.monotonic()
    with closing(Saving(checkpoints, background=background)) as saving:
        for epoch in range(last.epoch if last else 0, trial.epochs):
            began = time.perf_counter()
            trained = _train_epoch(steps, epoch, workers)
            speed = {"examples_per_second": learner.steps_per_epoch * trial.batch_size / (time.perf_counter() - began)}
            workers.align(model.buffers())
            _check_finite(model, epoch)
            if not workers.first:
                continue
            metrics = {**trained, **learner.facts(), **validated(model, trial, data)}
            if test_curve and has_accuracy(trial.model, data.modalities):
                metrics["diagnostic/test_accuracy"] = prediction_accuracy(model, data.modalities, data.test)
            history.append(Record(epoch=epoch + 1, time=time.time(), metrics=metrics, speed=speed, system=usage()))
            if epoch + 1 in looks:
                look(model.eval(), epoch + 1)
            due = time.monotonic() - saved_at >= seconds_between(checkpoint_every, until) and not saving.busy
            if due or epoch + 1 == trial.epochs or epoch + 1 in checkpoint_at:
                state: dict[str, Any] = {MODEL: model.state_dict()}
                if epoch + 1 < trial.epochs:  # nothing resumes from the last epoch
                    state["training.pt"] = {"optimizer": optimizer.state_dict()}
                saving.save(epoch + 1, state, history, provenance())
                saved_at = time.monotonic()
            fresh: list[Record] = []
            if (complete := saving.complete(wait=epoch + 1 == trial.epochs)) is not None:
                last = complete
                fresh, committed = history[committed : last.epoch], last.epoch
            heard(Progress(epoch + 1, trial.epochs, fresh))
    last, history = workers.broadcast((last, history))
    assert last is not None
    return Trained(model.eval(), history, last)


def seconds_between(checkpoint_every: float, until: float | None) -> float:
    """Returns the seconds that must have passed since the last checkpoint before the next one is written.

    Returns at most half of the time left, so that the last epoch that ends before `until` is always saved. For
    `CALLED_OFF_AFTER` seconds after `until`, every epoch is saved.

    Args:
        checkpoint_every: seconds between checkpoints if no stop is near.
        until: earliest Unix time in seconds at which this process will be stopped, or None if no stop is planned.
    """
    left = math.inf if until is None else until - time.time()
    return checkpoint_every if left < -CALLED_OFF_AFTER else min(checkpoint_every, left / 2)


def _start(
    checkpoints: Checkpoints, trial: Settings, device: torch.device | str, workers: Workers
) -> tuple[Checkpoint | None, Any, Any]:
    """Returns the checkpoint to resume from, its weights, and the optimiser's state if epochs are left.

    Only the first worker searches for a checkpoint. The caller broadcasts the result to the other workers.
    """
    last = checkpoints.latest() if workers.first else None
    if last is None:
        return None, None, None
    weights = checkpoints.load(last, MODEL, map_location=device)
    if arm(trial.model).fit is not None or last.epoch >= trial.epochs:
        return last, weights, None
    return last, weights, checkpoints.load(last, "training.pt", map_location=device)["optimizer"]


def best_epoch(history: Sequence[Record]) -> dict[str, float]:
    """Returns the best validation accuracy and the first epoch that reached it. No table uses these two numbers."""
    watched = "validation/accuracy"
    scored = [(record["metrics"][watched], -record["epoch"]) for record in history if watched in record["metrics"]]
    if not scored:
        return {}
    value, epoch = max(scored)
    return {"best/validation_accuracy": value, "best/epoch": float(-epoch)}


def _train_epoch(steps: Steps, epoch: int, workers: Workers = ALONE) -> dict[str, float]:
    """Trains one epoch. Returns the loss and its parts as train/<part>, summed over workers and averaged over steps."""
    steps.model.train()
    learner = steps.learner
    every = 1 if steps.device.type == "cpu" and workers.alone else 50
    watch = _FiniteWatch(epoch, check_every=every, workers=workers)
    with global_stream(steps.trial.seed, workers.named("dropout"), epoch), steps.running():
        for position, batch in enumerate(learner.batches(epoch)):
            watch.note(steps(batch, epoch * learner.steps_per_epoch + position))
    return watch.means()


def _check_finite(model: nn.Module, epoch: int) -> None:
    """Raises NonFiniteLoss if a weight is not finite. The epoch's losses do not show a bad update in the last step."""
    broken = [name for name, value in model.state_dict().items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise NonFiniteLoss(
            f"the weights are not finite after the last step of epoch {epoch + 1} ({broken[0]}); {REMEDY}"
        )


class _FiniteWatch:
    """Collects the losses of each step on the device. Every `check_every` steps, checks that all losses are finite.

    With rare checks, the GPU need not wait for the CPU at every step. Every worker checks
    the sums of the losses over all workers.
    """

    def __init__(self, epoch: int, check_every: int, workers: Workers) -> None:
        self.epoch, self.check_every, self.workers = epoch, check_every, workers
        self.names: list[str] = []
        self.unseen: list[list[Tensor]] = []
        self.rows: list[list[float]] = []

    def note(self, loss: Loss) -> None:
        self.names = ["loss", *loss.parts]
        self.unseen.append([loss.total.detach(), *loss.parts.values()])
        if len(self.unseen) >= self.check_every:
            self._look()

    def means(self) -> dict[str, float]:
        self._look()
        means = torch.tensor(self.rows, dtype=torch.float64).mean(0).tolist()
        return {f"train/{name}": value for name, value in zip(self.names, means, strict=True)}

    def _look(self) -> None:
        if not self.unseen:
            return
        values = self.workers.add_(torch.stack([value.float() for row in self.unseen for value in row])).tolist()
        self.unseen.clear()
        for start in range(0, len(values), len(self.names)):
            row = values[start : start + len(self.names)]
            self.rows.append(row)
            if not all(map(math.isfinite, row)):
                parts = zip(self.names[1:], row[1:], strict=True)
                guilty = [name for name, value in parts if not math.isfinite(value)]
                raise NonFiniteLoss(
                    f"the loss is not finite at epoch {self.epoch + 1}, step {len(self.rows)}"
                    f" ({', '.join(guilty) or 'the weighted sum'}); {REMEDY}"
                )


def validated(model: nn.Module, trial: Settings, data: Dataset) -> dict[str, float]:
    """Returns an epoch's validation metrics, which do not influence training.

    Includes plug-ins' measures added with `watched=True`, computed on the validation split instead of the test split.
    Restores the model's former mode (training or evaluation).
    """
    metrics = _validated(model, trial, data)
    for own in watched_of(trial.model, trial.dataset):
        with evaluated(model):
            found = own.metrics_of(model, trial, replace(data, test=data.validation))
        metrics |= {on_validation(name): value for name, value in found.items()}
    return metrics


def _validated(model: nn.Module, trial: Settings, data: Dataset) -> dict[str, float]:
    chosen = arm(trial.model)
    if chosen.watch is not None:
        with evaluated(model):
            return chosen.watch(model, trial, data)
    kinds = {modality.kind for modality in data.modalities}
    metrics: dict[str, float] = {}
    if "translation" in chosen.measures and all_sentences(data.modalities):
        assert isinstance(model, Multimodal)
        return validation_translation_metrics(model, data)
    if has_accuracy(trial.model, data.modalities):
        metrics["validation/accuracy"] = prediction_accuracy(model, data.modalities, data.validation)
    if "attributes" in chosen.measures and kinds & ATTRIBUTE_KINDS:
        assert isinstance(model, Multimodal)
        metrics |= validation_attribute_metrics(model, data)
    return metrics


def compile_networks(model: nn.Module) -> None:
    """Compiles each network in place with torch.compile. Parameters and their names do not change."""
    keep_exchanges_out_of_graphs()
    for child in model.children():
        for network in child if isinstance(child, nn.ModuleList) else [child]:
            network.compile()
