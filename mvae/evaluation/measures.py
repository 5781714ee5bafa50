"""The measures: what is computed from a trial's final model, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from mvae.data.dataset import Dataset
from mvae.evaluation.accuracy import label_accuracy
from mvae.trial import ACCURACY, Measure, Trial

Compute = Callable[[nn.Module, Trial, Dataset], dict[str, float]]


def _accuracy(model: nn.Module, _trial: Trial, data: Dataset) -> dict[str, float]:
    return {ACCURACY.metric: label_accuracy(model, data.modalities, data.test)}


COMPUTES: dict[Measure, Compute] = {ACCURACY: _accuracy}


def compute(measure: Measure, model: nn.Module, trial: Trial, data: Dataset) -> dict[str, float]:
    """The numbers of one measure, equal bit for bit whenever they are computed again."""
    return COMPUTES[measure](model, trial, data)
