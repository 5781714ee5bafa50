"""Estimates the time of a trial from a few of its steps, for `--plan`, if no similar trial has finished yet."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from mvae.data import load_converted
from mvae.data.examples import Dataset
from mvae.models import arm
from mvae.supervision import paired_set
from mvae.training.loop import compile_networks, validated
from mvae.training.optimiser import optimiser_of
from mvae.training.steps import EAGER_STEPS, steps_of
from mvae.trial import Trial
from mvae.workers import ALONE
from sweeps.planning.plan import Fingerprints, fingerprint_of

STEPS = 20
"""Maximum number of timed steps."""
WARM_UP = EAGER_STEPS + 2
"""Number of steps before timing begins. From then on, a GPU replays recorded steps."""
LONG_ENOUGH = 5.0
"""Seconds of timed steps after which the probe stops early."""
FITTED = 2000
"""Maximum number of pairs to which a probe fits a closed-form arm. The time is scaled to the trial's pairs."""


def probed_seconds(trial: Trial, fingerprints: Fingerprints, cache: Path | None, device: str = "cpu") -> float | None:
    """Returns the seconds of a trial on one CPU thread or on the GPU; None if the data set is not converted yet.

    The time covers all epochs with their validation.

    Args:
        fingerprints: fingerprints of the trials' data sets.
        cache: folder of converted data sets. The probe does not write there.
        device: cpu or cuda. Closed-form arms are always fitted on the CPU.
    """
    data = load_converted(trial.dataset, fingerprint_of(trial.dataset, fingerprints), cache)
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
        pairs = len(paired_set(len(data.train), trial.paired_fraction, trial.seed, dataset=data.name))
        share = min(1.0, FITTED / pairs)
        began = time.perf_counter()
        chosen.fit(model, trial.with_(paired_fraction=trial.paired_fraction * share), data)
        return (time.perf_counter() - began) / share
    model, data = model.to(device), data.to(device)
    each, steps = seconds_a_step(model, trial, data)
    began = time.perf_counter()
    validated(model, trial, data)
    validation = time.perf_counter() - began
    return trial.epochs * (each * steps + validation)


def seconds_a_step(model: nn.Module, trial: Trial, data: Dataset) -> tuple[float, int]:
    """Returns the seconds per training step in a single process, and the number of steps per epoch.

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
    times = [time.perf_counter()]
    with take.running():
        for step, batch in zip(range(WARM_UP + STEPS), learner.batches(0), strict=False):
            take(batch, step)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter())
            if step > WARM_UP and times[-1] - times[WARM_UP] > LONG_ENOUGH:
                break
    done = len(times) - 1
    warm = min(WARM_UP, done - 1)
    return (times[-1] - times[warm]) / (done - warm), learner.steps_per_epoch
