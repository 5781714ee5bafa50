"""How fast a trial trains, and what its workers gain: measured while it runs, no part of what must be equal again."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import torch

from mvae.data.examples import Dataset
from mvae.models import arm
from mvae.streams import global_stream
from mvae.training.records import Record
from mvae.trial import Trial
from sweeps.planning.probe import seconds_a_step


def alone(trial: Trial, data: Dataset) -> float | None:
    """Examples a second that one worker trains on by itself, from a few steps with weights of their own; None where the
    whole batch is more than its GPU holds.

    Args:
        data: on the worker's device.
    """
    data = data.trained_on(trial.train_examples)
    try:
        with global_stream(trial.seed, "speed"):
            model = arm(trial.model).build(trial, data.modalities).to(data.train.values[0].device)
            seconds, _ = seconds_a_step(model, trial, data)
    except torch.cuda.OutOfMemoryError:
        model = None
        torch.cuda.empty_cache()
        return None
    return trial.batch_size / seconds


def speeds(records: Sequence[Record], workers: int, by_itself: float | None) -> dict[str, float]:
    """examples_per_second of the typical epoch; with the speed of one worker alone, scaling_efficiency too.

    Args:
        records: of this attempt's epochs; the first is left out where there are others, since it warms up.
        by_itself: from `alone`.
    """
    seen = [record["speed"]["examples_per_second"] for record in records if "speed" in record]
    if not seen:
        return {}
    typical = median(seen[1:] or seen)
    if by_itself is None:
        return {"examples_per_second": typical}
    return {
        "examples_per_second": typical,
        "examples_per_second_alone": by_itself,
        "scaling_efficiency": typical / (workers * by_itself),
    }
