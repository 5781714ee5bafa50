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
from torch import nn

from benchmarks.gpu_runs import lockstep
from benchmarks.gpu_runs.pack import Pack, PackedTrial
from benchmarks.timing import FewSteps
from mvae.models import arm
from mvae.models.arm import Learner
from mvae.models.layout import Layout
from mvae.models.mvae import MVAE, ElboBatch, ElboLearner
from mvae.streams import global_stream
from mvae.training import loop as training
from mvae.training.optimiser import Adam
from mvae.training.steps import EAGER_STEPS, RecordedSteps, Steps


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
        """As `mvae.training.loop.train` sets it up."""
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


class Blocks:
    """The training loop, a few steps at a time."""

    def __init__(self, setting: Setting, way: type[Steps]) -> None:
        optimizer = Adam(setting.model.parameters(), lr=setting.trial.learning_rate, fused=True)
        self.few = FewSteps(setting.learner)
        self.taken = way(self.few, setting.model, optimizer, setting.trial)

    def __call__(self, steps: int) -> None:
        """So many steps of the loop."""
        self.few.steps = steps
        training._train_epoch(self.taken, 0)


def eager(setting: Setting, effort: Effort) -> dict[str, float]:
    """The training loop, kernel by kernel."""
    return {"eager": samples_a_second(Blocks(setting, Steps), setting, effort)}


def compiled(setting: Setting, effort: Effort) -> dict[str, float]:
    """The training loop with its networks through torch.compile, as a trial with `compile` does it."""
    training.compile_networks(setting.model)
    return {"compiled": eager(setting, effort)["eager"]}


def graphed(setting: Setting, effort: Effort) -> dict[str, float]:
    """The training loop with its steps recorded, as it is on a GPU; and a record alone, on the same batch again and
    again: the upper end."""
    blocks = Blocks(setting, RecordedSteps)
    assert isinstance(blocks.taken, RecordedSteps)
    blocks(EAGER_STEPS + 1)
    fed = samples_a_second(blocks, setting, effort)
    graph = next(iter(blocks.taken.recorded.values())).graph

    def replay(steps: int) -> None:
        for _ in range(steps):
            graph.replay()

    return {"graphed": fed, "replayed": samples_a_second(replay, setting, effort)}


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


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
