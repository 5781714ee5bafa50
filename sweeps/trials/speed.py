"""Training speed of a trial, and the gain from several workers. Speeds are not part of the reproducible numbers."""

from collections.abc import Sequence
from statistics import median

import torch

from mvae.data.examples import Dataset
from mvae.models import arm
from mvae.streams import global_stream
from mvae.training.records import Record
from mvae.trial import Trial
from sweeps.planning.probe import timed_steps


def speed_of_one(trial: Trial, data: Dataset) -> float | None:
    """Returns a single worker's training speed in examples per second, or None if a whole batch exceeds the GPU memory.

    Times a few training steps of a separate model, whose weights are discarded.

    Args:
        data: data set on the worker's device.
    """
    data = data.trained_on(trial.train_examples)
    try:
        with global_stream(trial.seed, "speed"):
            model = arm(trial.model).build(trial, data.modalities).to(data.train.values[0].device)
            seconds = timed_steps(model, trial, data).wall
    except torch.cuda.OutOfMemoryError:
        model = None
        torch.cuda.empty_cache()
        return None
    return trial.batch_size / seconds


def speeds(records: Sequence[Record], workers: int, by_itself: float | None) -> dict[str, float]:
    """Returns the median examples_per_second over epochs.

    If `by_itself` is known, the result also has examples_per_second_alone and scaling_efficiency.

    Args:
        records: records of this attempt's epochs. If there are several, the first epoch is left out, because it
            includes the warm-up.
        workers: number of workers.
        by_itself: result of `speed_of_one`.
    """
    measured = [record["speed"]["examples_per_second"] for record in records if "speed" in record]
    if not measured:
        return {}
    typical = median(measured[1:] or measured)
    if by_itself is None:
        return {"examples_per_second": typical}
    return {
        "examples_per_second": typical,
        "examples_per_second_alone": by_itself,
        "scaling_efficiency": typical / (workers * by_itself),
    }
