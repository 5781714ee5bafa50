"""Predicts labels by logistic regression on the features of a model trained without labels (VAE, RBM)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, position
from mvae.data.examples import Dataset, Split
from mvae.evaluation.accuracy import evaluated
from mvae.measure import Measure
from mvae.models.logistic import fit_linear
from mvae.supervision import paired_set
from mvae.trial import Trial

IMAGES_PER_PASS = 1000


def readout_accuracy(measure: Measure, model: nn.Module, trial: Trial, data: Dataset) -> dict[str, float]:
    """Fits a logistic regression to `model(image)` of the paired set and predicts the labels of the test images.

    The measure's fraction and the trial's seed determine the paired set. So all arms with the same seed use the
    same set. If the paired set has only one class, this class is predicted for every image.

    Returns:
        test/accuracy, and train/accuracy on the paired set. Both names include the fraction.
    Raises:
        Refusal: the fraction keeps fewer than two pairs.
    """
    image, label = position(data.modalities, Kind.IMAGE), position(data.modalities, Kind.LABEL)
    paired = paired_set(len(data.train), measure.parameter("f"), trial.seed, dataset=data.name)
    kept = torch.from_numpy(paired).to(data.train.values[label].device)
    features = _features(model, data.train, image, torch.split(kept, IMAGES_PER_PASS))
    labels = data.train.take(label, kept).cpu().numpy()
    fit = fit_linear(features, labels, data.modalities[label].classes)
    predicted = fit.predict(_features(model, data.test, image, data.test.passes(IMAGES_PER_PASS)))
    return {
        measure.metric: float((predicted == data.test.values[label].cpu().numpy()).mean()),
        measure.metric.replace("test/", "train/"): float((fit.predict(features) == labels).mean()),
    }


@torch.no_grad()
def _features(model: nn.Module, split: Split, image: int, passes: Sequence[Tensor]) -> np.ndarray:
    with evaluated(model):
        return np.concatenate([model(split.take(image, rows)).cpu().numpy() for rows in passes])
