"""Estimates the time of a trial from a few of its steps, for `--plan`, if no similar trial has finished yet.

On a CPU, a probe measures the processor time of several short blocks of steps and takes the median. Other programs
hardly change processor time. They increase the elapsed time, and sweeps/planning/load.py measures this increase.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mvae.data import load, load_converted, source
from mvae.data.examples import Dataset
from mvae.evaluation.measures import compute
from mvae.measure import Measure
from mvae.models import arm
from mvae.models.arm import Learner
from mvae.refusal import Refusal
from mvae.supervision import paired_set
from mvae.training.loop import compile_networks, validated
from mvae.training.optimiser import optimiser_of
from mvae.training.steps import EAGER_STEPS, steps_of
from mvae.trial import Trial
from mvae.workers import ALONE
from sweeps.planning.plan import Fingerprints, fingerprint_of
from sweeps.planning.times import Probed

BLOCKS = 5
"""Number of blocks of timed steps."""
BLOCK_STEPS, BLOCK_SECONDS = 20, 0.2
"""A block ends after this many steps or seconds, whichever comes first."""
WARM_UP = EAGER_STEPS + 2
"""Number of steps before timing begins. From then on, a GPU replays recorded steps."""
LONG_ENOUGH = 10.0
"""Seconds of timed steps after which the probe starts no further block."""
FITTED = 2000
"""Maximum number of pairs to which a probe fits a closed-form arm. The time is scaled to the trial's pairs."""
FIRST, MEASURED_EXAMPLES = 2, 12
"""Numbers of test examples on which a probe computes the likelihood: first to warm up, then to measure the time."""


@dataclass(frozen=True)
class StepTimes:
    """Median times of a training step over the blocks, in seconds."""

    wall: float
    """Elapsed time."""
    cpu: float
    """Processor time of this process."""
    steps_per_epoch: int


def probed(
    trial: Trial,
    measures: Sequence[Measure],
    fingerprints: Fingerprints,
    data_root: Path | None,
    cache: Path | None,
    device: str = "cpu",
) -> Probed | None:
    """Returns the time of a trial on one CPU thread or on the GPU, or None if the data set is not converted yet.

    The time covers all epochs with their validation. A data set whose conversion has no slow part (`Source.prepare`) is
    converted into the cache first.

    Args:
        measures: the measures to compute. Only the likelihood is timed; the others take little time.
        fingerprints: fingerprints of the trials' data sets.
        cache: folder of converted data sets.
        device: cpu or cuda. Closed-form arms are always fitted on the CPU.
    """
    data = converted(trial.dataset, fingerprints, data_root, cache)
    if data is None:
        return None
    data = data.trained_on(trial.train_examples).knowing(trial.vocabulary)
    # Dynamic binarisation needs grey values, which are not loaded. Drawing them would add only a few percent to an
    # epoch.
    trial = trial.with_(binarisation="fixed")
    torch.set_num_threads(1)
    chosen = arm(trial.model)
    model = chosen.build(trial, data.modalities)
    if chosen.fit is not None:
        return Probed(_seconds_of_fit(model, trial, data), {})
    of_processor = device == "cpu"
    clock = time.process_time if of_processor else time.perf_counter
    model, data = model.to(device), data.to(device)
    times = timed_steps(model, trial, data)
    each = times.cpu if of_processor else times.wall
    validation = _seconds(lambda: validated(model, trial, data), clock)
    seconds = trial.epochs * (each * times.steps_per_epoch + validation)
    likelihoods = [one for one in measures if one.name == "likelihood"]
    measuring = {one.name: _seconds_a_sample(one, model, trial, data, clock) for one in likelihoods}
    return Probed(seconds, measuring, of_processor)


def converted(name: str, fingerprints: Fingerprints, data_root: Path | None, cache: Path | None) -> Dataset | None:
    """Returns a data set from the cache. Converts a missing data set first, if the conversion takes only seconds.

    Returns None if the conversion would take longer or is refused."""
    data = load_converted(name, fingerprint_of(name, fingerprints), cache)
    if data is not None or source(name).prepare is not None:
        return data
    try:
        return load(name, data_root, cache)
    except Refusal:  # the command itself refuses, and says why
        return None


def _seconds_of_fit(model: nn.Module, trial: Trial, data: Dataset) -> float:
    fit = arm(trial.model).fit
    assert fit is not None
    pairs = len(paired_set(len(data.train), trial.paired_fraction, trial.seed, dataset=data.name))
    share = min(1.0, FITTED / pairs)
    few = trial.with_(paired_fraction=trial.paired_fraction * share)
    return _seconds(lambda: fit(model, few, data), time.process_time) / share


def _seconds_a_sample(
    measure: Measure, model: nn.Module, trial: Trial, data: Dataset, clock: Callable[[], float]
) -> float:
    """Returns the seconds that a likelihood measure takes to draw one sample for every test example."""

    def on(examples: int) -> object:
        return compute(measure, model, trial, replace(data, test=data.test.first(examples)))

    on(FIRST)
    few = min(MEASURED_EXAMPLES, len(data.test))
    return _seconds(lambda: on(few), clock) * len(data.test) / few / measure.parameter("s")


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    work()
    return clock() - began


def timed_steps(model: nn.Module, trial: Trial, data: Dataset) -> StepTimes:
    """Times training steps in blocks, including the creation of their batches.

    Args:
        model: model of an arm that is trained by steps. The probe changes its weights.
        data: data set on the model's device.
    """
    chosen = arm(trial.model)
    assert chosen.learner is not None
    learner = chosen.learner(model, trial, data)
    optimizer = optimiser_of(chosen, model, trial)
    if trial.compile:
        compile_networks(model)
    model.train()
    device = data.train.values[0].device
    take = steps_of(learner, model, optimizer, trial, data.modalities, ALONE)
    batches = enumerate(_endless(learner))

    def step() -> None:
        position, batch = next(batches)
        take(batch, position % (trial.epochs * learner.steps_per_epoch))
        if device.type == "cuda":
            torch.cuda.synchronize()

    wall, cpu = list[float](), list[float]()
    with take.running():
        for _ in range(WARM_UP):
            step()
        began = time.perf_counter()
        for _ in range(BLOCKS):
            block, block_cpu, steps = time.perf_counter(), time.process_time(), 0
            while steps < BLOCK_STEPS and (steps == 0 or time.perf_counter() - block < BLOCK_SECONDS):
                step()
                steps += 1
            wall.append((time.perf_counter() - block) / steps)
            cpu.append((time.process_time() - block_cpu) / steps)
            if time.perf_counter() - began > LONG_ENOUGH:
                break
    return StepTimes(statistics.median(wall), statistics.median(cpu), learner.steps_per_epoch)


def _endless(learner: Learner) -> Iterator[Any]:
    """Yields batches without end, because an epoch of a small data set is shorter than the probe."""
    for epoch in itertools.count():
        yield from learner.batches(epoch)
