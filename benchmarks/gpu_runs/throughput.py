"""Samples a second of a training step: the loop itself, compiled, as one CUDA graph; of one model and of M in lockstep.

A sample is an image of the stream: a step of batch 100 counts 100, whatever its number of terms. Times are wall time,
with the device waited for at both ends, the median over blocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu_runs import lockstep
from benchmarks.gpu_runs.pack import Pack, PackedTrial
from benchmarks.timing import FewSteps
from mvae import training
from mvae.models import arm
from mvae.models.arm import Learner
from mvae.models.mvae import MVAE, ElboBatch, ElboLearner
from mvae.objective import Layout, Loss, negative_elbo
from mvae.optimiser import Adam
from mvae.streams import global_stream

WARM_UP = 11
"""Steps before a CUDA graph is captured, as torch's notes on graphs ask for."""


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    steps: int
    """Of a block."""
    blocks: int


THOROUGH = Effort(steps=300, blocks=5)
QUICK = Effort(steps=3, blocks=3)


@dataclass
class Setting:
    """A model about to be trained, on a device."""

    model: nn.Module
    learner: Learner
    trial: Any
    device: torch.device
    models: int = 1
    """How many are trained in lockstep."""

    @property
    def samples(self) -> int:
        """Of a step."""
        return int(self.models * self.trial.batch_size)

    @classmethod
    def of(cls, packed: PackedTrial, pack: Pack, device: torch.device) -> Setting:
        """As `mvae.training.train` sets it up."""
        trial, data = packed.trial, pack.load(packed.trial.dataset, device)
        chosen = arm(trial.model)
        assert chosen.learner is not None
        with global_stream(trial.seed, "initialisation"):
            model = chosen.build(trial, data.modalities)
        model.to(device)
        return cls(model, chosen.learner(model, trial, data), trial, device)


def samples_a_second(run: Callable[[int], object], setting: Setting, effort: Effort) -> float:
    """Median over blocks."""
    run(2)
    speeds = []
    for _ in range(effort.blocks):
        _wait(setting.device)
        began = time.perf_counter()
        run(effort.steps)
        _wait(setting.device)
        speeds.append(effort.steps * setting.samples / (time.perf_counter() - began))
    return median(speeds)


def eager(setting: Setting, effort: Effort) -> dict[str, float]:
    """The training loop as it is."""
    optimizer = Adam(setting.model.parameters(), lr=setting.trial.learning_rate, fused=True)
    few = FewSteps(setting.learner)

    def run(steps: int) -> None:
        few.steps = steps
        training._train_epoch(few, setting.model, optimizer, setting.trial, 0)

    return {"eager": samples_a_second(run, setting, effort)}


def compiled(setting: Setting, effort: Effort) -> dict[str, float]:
    """The training loop with its networks through torch.compile, as a trial with `compile` does it."""
    training.compile_networks(setting.model)
    return {"compiled": eager(setting, effort)["eager"]}


class Graphed:
    """One whole step, loss, gradients and Adam, as a CUDA graph with its inputs in place.

    Raises:
        RuntimeError: the step cannot be captured on this device.
    """

    def __init__(self, setting: Setting, batches: Iterator[Any]) -> None:
        self.setting, self.batches = setting, batches
        first = next(batches)
        self.inputs = [part.clone() for part in tensors(first)]
        self.batch = _with_tensors(first, self.inputs)
        self.beta = torch.zeros((), device=setting.device)
        self.position = 0
        # Adam's own step counts and rates must lie on the device to be part of a graph.
        self.optimizer = torch.optim.Adam(
            setting.model.parameters(), lr=setting.trial.learning_rate, fused=True, capturable=True
        )
        setting.model.train()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._step()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self.graph):
            self.loss = self._step()

    def fed(self, steps: int) -> None:
        """Steps on the loop's own batches, with the annealing's beta."""
        for _, batch in zip(range(steps), self.batches, strict=False):
            for place, value in zip(self.inputs, tensors(batch), strict=True):
                place.copy_(value, non_blocking=True)
            if isinstance(self.setting.learner, ElboLearner):
                annealing = self.setting.learner.annealing
                self.beta.fill_(annealing.beta(self.position % annealing.total_steps))
            self.position += 1
            self.graph.replay()

    def replayed(self, steps: int) -> None:
        """The graph alone, on the same batch again and again."""
        for _ in range(steps):
            self.graph.replay()

    def _step(self) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss()
        loss.total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.total

    def _loss(self) -> Loss:
        learner = self.setting.learner
        if not isinstance(learner, ElboLearner):
            return learner.loss(self.batch, 0)
        assert isinstance(self.setting.model, MVAE)
        return negative_elbo(
            self.setting.model,
            self.batch.plan,
            self.batch.values,
            self.batch.noise,
            beta=self.beta,
            weights=learner.weights,
            batch_size=self.setting.trial.batch_size,
        )


def graphed(setting: Setting, effort: Effort) -> dict[str, float]:
    """Samples a second with the loop's batches, and of the graph alone."""
    step = Graphed(setting, FewSteps(setting.learner).forever())
    fed = samples_a_second(step.fed, setting, effort)
    if not torch.isfinite(step.loss):
        raise RuntimeError("the graphed step's loss is not finite")
    return {"graphed": fed, "replayed": samples_a_second(step.replayed, setting, effort)}


WAYS: dict[str, Callable[[Setting, Effort], dict[str, float]]] = {
    "eager": eager,
    "graphed": graphed,
    "compiled": compiled,
}
"""Ways to run a step, the surest first."""


class Together(ElboLearner):
    """M learners' steps as one, for their stacked model: the loss is theirs, summed."""

    def __init__(self, model: MVAE, learners: list[ElboLearner]) -> None:
        vars(self).update(vars(learners[0]))  # weights, annealing and batch size are the same for all
        self.model, self.learners = model, learners

    def batches(self, epoch: int) -> Iterator[ElboBatch]:
        """Each learner's own batches, joined; the plan, equal for all steps, is made once."""
        plan: Layout | None = None
        for parts in zip(*(learner.batches(epoch) for learner in self.learners), strict=True):
            batch = lockstep.joined(parts, plan)
            plan = batch.plan
            yield batch


def together(packed: PackedTrial, pack: Pack, models: int, device: torch.device) -> Setting:
    """M models of a trial that differ in their seeds, as one."""
    settings = [
        Setting.of(PackedTrial(packed.key, {**packed.fields, "seed": seed}), pack, device) for seed in range(models)
    ]
    parts = [setting.model for setting in settings if isinstance(setting.model, MVAE)]
    learners = [setting.learner for setting in settings if isinstance(setting.learner, ElboLearner)]
    model = lockstep.stacked(parts, packed.trial.batch_size).to(device)
    return Setting(model, Together(model, learners), packed.trial, device, models)


def tensors(batch: Any) -> list[Tensor]:
    """The tensors of a batch that differ from step to step, always in the same order."""
    return [*batch.values, batch.noise] if isinstance(batch, ElboBatch) else list(batch)


def _with_tensors(batch: Any, parts: list[Tensor]) -> Any:
    if isinstance(batch, ElboBatch):
        return ElboBatch(batch.plan, tuple(parts[:-1]), parts[-1])
    return tuple(parts)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
