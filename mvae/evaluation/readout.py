"""The read-out: how well a label can be told from the features of a model that never saw one (VAE, RBM)."""

import numpy as np
import torch
from torch import nn

from mvae.data.dataset import Kind, position
from mvae.data.examples import Dataset, Split
from mvae.evaluation.accuracy import evaluated
from mvae.measure import Measure
from mvae.models.logistic import fit_linear
from mvae.supervision import paired_set
from mvae.trial import Trial

ROWS = 1000
"""Images a pass."""


def readout_accuracy(measure: Measure, model: nn.Module, trial: Trial, data: Dataset) -> dict[str, float]:
    """Fits a logistic regression on `model(image)` of the paired set, and tells the test images' labels by it.

    The paired set is that of the measure's fraction and the trial's seed, so other arms of the seed see the same one.
    Where it holds one class only, that class is predicted.

    Returns:
        Under names that carry the fraction: test/accuracy, and train/accuracy on the paired set itself.
    Raises:
        Refusal: the fraction keeps fewer than two pairs.
    """
    image, label = position(data.modalities, Kind.IMAGE), position(data.modalities, Kind.LABEL)
    kept = paired_set(len(data.train), measure.parameter("f"), trial.seed, dataset=data.name)
    features, labels = _features(model, data.train, image, kept), _labels(data.train, label, kept)
    fit = fit_linear(features, labels, data.modalities[label].classes)
    test = np.arange(len(data.test))
    predicted = fit.predict(_features(model, data.test, image, test))
    return {
        measure.metric: float((predicted == _labels(data.test, label, test)).mean()),
        measure.metric.replace("test/", "train/"): float((fit.predict(features) == labels).mean()),
    }


@torch.no_grad()
def _features(model: nn.Module, split: Split, image: int, index: np.ndarray) -> np.ndarray:
    """Float32 [n, F], in evaluation mode; the module's mode is put back."""
    chosen = torch.from_numpy(index).to(split.values[image].device)
    with evaluated(model):
        return np.concatenate([model(split.take(image, rows)).cpu().numpy() for rows in torch.split(chosen, ROWS)])


def _labels(split: Split, label: int, index: np.ndarray) -> np.ndarray:
    return np.asarray(split.take(label, torch.from_numpy(index).to(split.values[label].device)).cpu())
