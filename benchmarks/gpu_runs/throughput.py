"""Measures images per second of training steps, for one model or for M models in lockstep.

Steps run eagerly, compiled, or as CUDA graphs. A step with a batch of 100 counts as 100 images, for any number of ELBO
terms. Times are wall times between two device synchronisations. The result is the median over blocks of steps.
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
    """Length of a measurement."""

    steps: int
    """Steps per block."""
    blocks: int


THOROUGH = Effort(steps=300, blocks=5)
QUICK = Effort(steps=3, blocks=3)


@dataclass
class Setting:
    """A model on a device, ready for training."""

    model: nn.Module
    learner: Learner
    trial: Any
    device: torch.device
    models: int = 1
    """Number of models trained in lockstep."""

    @property
    def samples(self) -> int:
        """Images per step."""
        return int(self.models * self.trial.batch_size)

    @classmethod
    def of(cls, packed: PackedTrial, pack: Pack, device: torch.device) -> Setting:
        """Builds the model and the learner of a packed trial as `mvae.training.loop.train` does."""
        trial, data = packed.trial, pack.load(packed.trial.dataset, device)
        chosen = arm(trial.model)
        assert chosen.learner is not None
        with global_stream(trial.seed, "initialisation"):
            model = chosen.build(trial, data.modalities)
        model.to(device)
        return cls(model, chosen.learner(model, trial, data), trial, device)


def samples_a_second(run: Callable[[int], object], setting: Setting, effort: Effort) -> float:
    """Times `run(steps)`. Returns images per second, the median over blocks."""
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
    """Runs the training loop a few steps at a time."""

    def __init__(self, setting: Setting, way: type[Steps]) -> None:
        optimizer = Adam(setting.model.parameters(), lr=setting.trial.learning_rate, fused=True)
        self.few = FewSteps(setting.learner)
        self.taken = way(self.few, setting.model, optimizer, setting.trial)

    def __call__(self, steps: int) -> None:
        """Takes the given number of steps."""
        self.few.steps = steps
        training._train_epoch(self.taken, 0)


def eager(setting: Setting, effort: Effort) -> dict[str, float]:
    """Times the training loop with eager steps, which launch their kernels one by one."""
    return {"eager": samples_a_second(Blocks(setting, Steps), setting, effort)}


def compiled(setting: Setting, effort: Effort) -> dict[str, float]:
    """Times the training loop with networks compiled by torch.compile, like a trial with `compile`."""
    training.compile_networks(setting.model)
    return {"compiled": eager(setting, effort)["eager"]}


def graphed(setting: Setting, effort: Effort) -> dict[str, float]:
    """Times the training loop with recorded steps, and the repetition of one recorded step.

    The repetition makes no batches, so its speed is an upper bound.
    """
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
"""Ways to run a step, the most reliable first."""


class Together(ElboLearner):
    """Trains a stacked model on the joined batches of M learners. The loss is the sum of the learners' losses."""

    def __init__(self, model: MVAE, learners: list[ElboLearner]) -> None:
        vars(self).update(vars(learners[0]))  # all learners share weights, annealing and batch size
        self.model, self.learners = model, learners

    def batches(self, epoch: int) -> Iterator[ElboBatch]:
        """Yields the joined batches of all learners. Computes the layout once, because all steps share it."""
        plan: Layout | None = None
        for parts in zip(*(learner.batches(epoch) for learner in self.learners), strict=True):
            batch = lockstep.joined(parts, plan)
            plan = batch.plan
            yield batch


def together(packed: PackedTrial, pack: Pack, models: int, device: torch.device) -> Setting:
    """Builds M models of one trial with different seeds, and stacks them into one model."""
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
