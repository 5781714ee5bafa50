"""The supervised baselines: NN and LOGREG, which see the labels of the paired set and nothing else (section 8)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.data.dataset import Dataset, Kind, Modality
from mvae.data.supervision import paired_batches, paired_set
from mvae.models.arm import IDENTITY, NETWORKS, OPTIMISED, Arm
from mvae.models.multimodal import at_least_float32, decoder_of, encoder_of, width_of
from mvae.objective import Loss

if TYPE_CHECKING:
    from mvae.trial import Trial

LOGREG_ITERATIONS = 1000
"""Most L-BFGS iterations of LOGREG; scikit-learn's default of 100 stops early on 50,000 images."""


class NeuralNetwork(nn.Module):
    """MVAE's image encoder up to and including its mean head, then MVAE's label decoder (section 8)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, image: Tensor) -> Tensor:
        """Label logits [n, C] from images [n, 1, H, W]."""
        return at_least_float32(self.decoder(self.encoder(image)))


class NeuralNetworkLearner:
    """Cross-entropy on the paired set, which is cycled through an epoch as long as every other arm's."""

    def __init__(self, model: nn.Module, trial: Trial, data: Dataset) -> None:
        self.model, self.trial, self.split = model, trial, data.train
        self.image, self.label = _positions(data.modalities)
        self.paired = paired_set(len(data.train), trial.paired_fraction, trial.seed, dataset=data.name)
        self.steps_per_epoch = -(-len(data.train) // trial.batch_size)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        trial, device = self.trial, self.split.values[0].device
        for index in paired_batches(len(self.split), self.paired, trial.batch_size, trial.seed, epoch):
            chosen = torch.from_numpy(index).to(device)
            yield self.split.take(self.image, chosen), self.split.take(self.label, chosen)

    def loss(self, batch: tuple[Tensor, Tensor], step: int) -> Loss:
        image, label = batch
        total = F.cross_entropy(self.model(image), label)
        return Loss(total, {"log_likelihood_label": -total.detach()})


class LogisticRegression(nn.Module):
    """One linear layer on pixels; classes that the fit never saw have a logit of minus infinity."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(prod(shape), classes)

    def forward(self, image: Tensor) -> Tensor:
        """Label logits [n, C] from images [n, 1, H, W]."""
        logits: Tensor = self.linear(image.flatten(1))
        return logits


def fit_logistic_regression(model: nn.Module, trial: Trial, data: Dataset) -> dict[str, float]:
    """Multinomial logistic regression with an L2 penalty (scikit-learn's defaults) on the paired set's pixels.

    Where the paired set holds one class only, that class is predicted.

    Returns:
        train/iterations, train/accuracy on the paired set.
    """
    from sklearn.linear_model import LogisticRegression as Fit
    from threadpoolctl import threadpool_limits

    assert isinstance(model, LogisticRegression)
    image, label = _positions(data.modalities)
    chosen = torch.from_numpy(paired_set(len(data.train), trial.paired_fraction, trial.seed, dataset=data.name))
    pixels = data.train.take(image, chosen.to(data.train.values[0].device)).flatten(1).cpu().numpy()
    labels = data.train.take(label, chosen.to(data.train.values[0].device)).cpu().numpy()
    classes = np.unique(labels)
    weight = np.zeros(tuple(model.linear.weight.shape))
    bias = np.full(len(weight), -np.inf)
    iterations = 0
    if len(classes) == 1:
        bias[classes[0]] = 0.0
    else:
        fit = Fit(max_iter=LOGREG_ITERATIONS)
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit.fit(pixels.astype(np.float64), labels)
        iterations = int(np.max(fit.n_iter_))
        if len(classes) == 2:
            weight[classes[1]], bias[classes[1]] = fit.coef_[0], fit.intercept_[0]
            bias[classes[0]] = 0.0
        else:
            weight[classes], bias[classes] = fit.coef_, fit.intercept_
    with torch.no_grad():
        model.linear.weight.copy_(torch.from_numpy(weight))
        model.linear.bias.copy_(torch.from_numpy(bias))
        predicted = model(torch.from_numpy(pixels).to(model.linear.weight.device)).argmax(-1).cpu().numpy()
    return {"train/iterations": float(iterations), "train/accuracy": float((predicted == labels).mean())}


def build_neural_network(trial: Trial, modalities: tuple[Modality, ...]) -> NeuralNetwork:
    """The NN that a trial describes."""
    image, label = _positions(modalities)
    width = width_of(modalities)
    return NeuralNetwork(
        encoder_of(modalities[image], trial.image_network, width, trial.latents),
        decoder_of(modalities[label], trial.image_network, width, trial.latents, trial.decoder_hidden),
    )


def build_logistic_regression(_trial: Trial, modalities: tuple[Modality, ...]) -> LogisticRegression:
    """The LOGREG that a trial describes."""
    image, label = _positions(modalities)
    return LogisticRegression(modalities[image].shape, modalities[label].classes)


def _positions(modalities: tuple[Modality, ...]) -> tuple[int, int]:
    kinds = [modality.kind for modality in modalities]
    return kinds.index(Kind.IMAGE), kinds.index(Kind.LABEL)


NN_ARM = Arm("nn", "NN", IDENTITY | OPTIMISED | NETWORKS, build_neural_network, learner=NeuralNetworkLearner)
LOGREG_ARM = Arm("logreg", "LOGREG", IDENTITY, build_logistic_regression, fit=fit_logistic_regression)
