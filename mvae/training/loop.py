"""The one training loop, with its checkpoints and exact resume: used alone, in a Tune trial and in each Train worker.

State is saved at the end of an epoch only, and every random stream begins anew with each epoch, so a run that was cut
off and resumed gives the numbers of an unbroken one bit for bit. Metrics reach the caller after the checkpoint that
covers them is complete.
"""

import math
import time
from collections.abc import Callable, Container, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mvae.data.dataset import ATTRIBUTE_KINDS, Kind, Modality, all_sentences
from mvae.data.examples import Dataset
from mvae.evaluation.accuracy import evaluated, prediction_accuracy
from mvae.evaluation.attributes import validation_attribute_metrics
from mvae.evaluation.translation import directions, validation_translation_metrics
from mvae.models import arm
from mvae.models.arm import Settings
from mvae.models.elbo import Loss
from mvae.models.multimodal import Multimodal
from mvae.networks.normalisation import keep_exchanges_out_of_graphs, share_statistics
from mvae.streams import global_stream
from mvae.training.checkpoint import Checkpoints
from mvae.training.data_parallel import DataParallel
from mvae.training.optimiser import Adam
from mvae.training.records import Checkpoint, Record
from mvae.training.saving import Saving
from mvae.training.steps import Steps, steps_of
from mvae.workers import ALONE, Workers

THREADS = 1
"""CPU threads a trial, whatever the environment says: a laptop and a cluster then give the same numbers."""

REMEDY = "the last checkpoint stays: a lower learning rate or likelihood weight usually mends it"

LOOKS = 8
"""A trial is looked at when so many equal parts of its epochs are done, the last of them at its end."""


class NonFiniteLoss(ArithmeticError):
    """The loss became nan or infinite; the message names epoch, step and modality."""


@dataclass
class Progress:
    """What a caller hears of a running trial."""

    epoch: int
    """Epochs done."""
    epochs: int
    """Epochs in all."""
    committed: list[Record] = field(default_factory=list)
    """Records that a complete checkpoint has covered since the last call."""


@dataclass(frozen=True)
class Trained:
    """A trained module in evaluation mode, its whole history and the checkpoint that holds both."""

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
    checkpoint_at: Container[int] = (),
    workers: Workers = ALONE,
    background: bool = False,
    test_curve: bool = False,
) -> Trained:
    """Trains a trial, or goes on from its newest valid checkpoint.

    Args:
        data: on the device that is to do the work.
        provenance: asked for at each checkpoint: what to keep beside the weights of where and when they were made.
        heard: called after every epoch; its records are those that a checkpoint newly covers.
        look: called with the module in evaluation mode, and the epochs done, at `LOOKS` times spread over training; it
            may draw pictures and must leave the module as it is.
        checkpoint_every: seconds after which the next end of an epoch is saved; the last epoch always is.
        checkpoint_at: epochs whose ends are saved whatever the time.
        workers: which of several processes this is; all of them call this function, within a process group of
            torch.distributed. The first alone reads and writes checkpoints, validates, and calls the functions above.
        background: checkpoints are written by a thread while training goes on.
        test_curve: also measure test accuracy after every epoch, as `diagnostic/test_accuracy`, if the arm predicts
            labels or texts; it influences nothing and is never a table's value.
    Raises:
        NonFiniteLoss: the loss became nan or infinite, at every worker; the last checkpoint stays.
        Refusal: the trial is to train on more examples than there are.
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
        assert workers.alone, "what is fitted in closed form has no steps to share"
        if last is None:
            metrics = {**chosen.fit(model, trial, data), **validated(model, trial, data)}
            history = [Record(epoch=1, time=time.time(), metrics=metrics)]
            last = checkpoints.save(1, {"model.pt": model.state_dict()}, history, provenance())
            heard(Progress(1, 1, list(history)))
        return Trained(model.eval(), history, last)

    assert chosen.learner is not None
    assert (trial.fewest_workers or trial.workers) <= workers.count <= trial.workers, "the key would name other workers"
    learner = chosen.learner(model, trial, data, workers)
    optimizer = Adam(model.parameters(), lr=trial.learning_rate, fused=True)
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
    saved_at = time.monotonic()
    with closing(Saving(checkpoints, background=background)) as saving:
        for epoch in range(last.epoch if last else 0, trial.epochs):
            began = time.perf_counter()
            trained = _train_epoch(steps, epoch, workers)
            rate = learner.steps_per_epoch * trial.batch_size / (time.perf_counter() - began)
            workers.align(model.buffers())
            _check_finite(model, epoch)
            if not workers.first:
                continue
            metrics = {**trained, **learner.facts(), **validated(model, trial, data)}
            if test_curve and _has_accuracy(trial.model, data.modalities):
                metrics["diagnostic/test_accuracy"] = prediction_accuracy(model, data.modalities, data.test)
            speed = {"examples_per_second": rate}
            history.append(Record(epoch=epoch + 1, time=time.time(), metrics=metrics, speed=speed))
            if epoch + 1 in looks:
                look(model.eval(), epoch + 1)
            due = time.monotonic() - saved_at >= checkpoint_every and not saving.busy
            if due or epoch + 1 == trial.epochs or epoch + 1 in checkpoint_at:
                state = {"model.pt": model.state_dict(), "training.pt": {"optimizer": optimizer.state_dict()}}
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


def _start(
    checkpoints: Checkpoints, trial: Settings, device: torch.device | str, workers: Workers
) -> tuple[Checkpoint | None, Any, Any]:
    """The checkpoint to go on from, its weights, and the optimiser's state where there are epochs to come: what the
    first worker finds, whatever the others would."""
    last = checkpoints.latest() if workers.first else None
    if last is None:
        return None, None, None
    weights = checkpoints.load(last, "model.pt", map_location=device)
    if arm(trial.model).fit is not None or last.epoch >= trial.epochs:
        return last, weights, None
    return last, weights, checkpoints.load(last, "training.pt", map_location=device)["optimizer"]


def best_epoch(history: Sequence[Record]) -> dict[str, float]:
    """The best validation accuracy of a history and its (first) epoch: logged, never put into a table."""
    watched = "validation/accuracy"
    scored = [(record["metrics"][watched], -record["epoch"]) for record in history if watched in record["metrics"]]
    if not scored:
        return {}
    value, epoch = max(scored)
    return {"best/validation_accuracy": value, "best/epoch": float(-epoch)}


def _train_epoch(steps: Steps, epoch: int, workers: Workers = ALONE) -> dict[str, float]:
    """One pass; returns the mean over steps of the loss and its parts, as train/<part>, of all workers together."""
    steps.model.train()
    learner = steps.learner
    every = 1 if steps.device.type == "cpu" and workers.alone else 50
    watch = _FiniteWatch(epoch, check_every=every, workers=workers)
    with global_stream(steps.trial.seed, workers.named("dropout"), epoch), steps.running():
        for position, batch in enumerate(learner.batches(epoch)):
            watch.note(steps(batch, epoch * learner.steps_per_epoch + position))
    return watch.means()


def _check_finite(model: nn.Module, epoch: int) -> None:
    """Refuses weights that the epoch's last step has spoilt, which no loss of that epoch shows."""
    broken = [name for name, value in model.state_dict().items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise NonFiniteLoss(
            f"the weights are not finite after the last step of epoch {epoch + 1} ({broken[0]}); {REMEDY}"
        )


class _FiniteWatch:
    """Keeps each step's loss and parts on the device and looks at them now and then, without a wait a step.

    Workers look at the same steps, of which each has a part, and see the same.
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
    """Validation metrics of an epoch: watched, logged, and without influence on any arm. The module's mode stays."""
    chosen = arm(trial.model)
    if chosen.watch is not None:
        with evaluated(model):
            return chosen.watch(model, trial, data)
    kinds = {modality.kind for modality in data.modalities}
    metrics: dict[str, float] = {}
    if "translation" in chosen.measures and all_sentences(data.modalities):
        assert isinstance(model, Multimodal)
        return validation_translation_metrics(model, data)
    if _has_accuracy(trial.model, data.modalities):
        metrics["validation/accuracy"] = prediction_accuracy(model, data.modalities, data.validation)
    if "attributes" in chosen.measures and kinds & ATTRIBUTE_KINDS:
        assert isinstance(model, Multimodal)
        metrics |= validation_attribute_metrics(model, data)
    return metrics


def _has_accuracy(token: str, modalities: tuple[Modality, ...]) -> bool:
    """Whether an arm predicts labels or texts that the data set has."""
    return arm(token).predicts and any(modality.kind in (Kind.LABEL, Kind.TEXT) for modality in modalities)


def validation_metrics(token: str, modalities: tuple[Modality, ...]) -> tuple[str, ...]:
    """The metrics of `validated` for an arm, by name; none where it validates nothing."""
    chosen, kinds = arm(token), {modality.kind for modality in modalities}
    if chosen.watch is not None:
        return (chosen.watched,) if chosen.watched else ()
    if "translation" in chosen.measures and all_sentences(modalities):
        return tuple(f"validation/log_likelihood_{name}" for name in directions(modalities))
    accuracy = _has_accuracy(token, modalities)
    attributes = "attributes" in chosen.measures and not kinds.isdisjoint(ATTRIBUTE_KINDS)
    of_attributes = ("validation/attribute_accuracy", "validation/attribute_balanced_accuracy")
    return ("validation/accuracy",) * accuracy + of_attributes * attributes


def compile_networks(model: nn.Module) -> None:
    """torch.compile of each network in place: parameters and their names stay as they are."""
    keep_exchanges_out_of_graphs()
    for child in model.children():
        for network in child if isinstance(child, nn.ModuleList) else [child]:
            network.compile()
