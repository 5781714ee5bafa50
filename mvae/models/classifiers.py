"""Defines the supervised baselines NN and LOGREG. Both train only on the paired set.

The paired set holds images with their labels. On a data set with texts, NN trains on images with their texts.
"""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality, first_input, position
from mvae.data.examples import Dataset
from mvae.models.arm import Settings
from mvae.models.elbo import Loss
from mvae.models.learners import Batch, PairedLearner
from mvae.models.likelihoods import Text, likelihood_of
from mvae.models.logistic import fit_linear
from mvae.models.multimodal import at_least_float32, decoder_of, encoder_of, width_of, written
from mvae.networks.text import TextDecoder
from mvae.supervision import paired_set
from mvae.workers import ALONE, Workers


class NeuralNetwork(nn.Module):
    """A classifier: the MVAE's image encoder, then the MVAE's label or text decoder (section 8).

    The encoder outputs only a mean.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, target: Modality) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.likelihood = likelihood_of(target)

    def forward(self, image: Tensor) -> Tensor:
        """Returns label logits [n, C] or texts [n, L] for images [n, 1, H, W]."""
        if isinstance(self.decoder, TextDecoder):
            return self.transcribe(image)
        return at_least_float32(self.decoder(self.encoder(image)))

    def log_prob(self, image: Tensor, text: Tensor) -> Tensor:
        """Returns log p(text | image) in nats, [n], for texts [n, L]."""
        return self.likelihood.log_prob(at_least_float32(self.decoder(self.encoder(image), text)), text)

    def transcribe(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Generates a text for each image, [n, L]: greedily, or by sampling if a generator is given."""
        return written(self.decoder, at_least_float32(self.encoder(image)), generator)


class NeuralNetworkLearner(PairedLearner):
    """Trains a NeuralNetwork by cross-entropy on the paired set."""

    model: NeuralNetwork

    def __init__(self, model: nn.Module, trial: Settings, data: Dataset, workers: Workers = ALONE) -> None:
        super().__init__(model, trial, data, workers)
        self.shown = _image_and_target(data.modalities)

    def noise(self, rows: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(rows, 1, device=self.device)  # the loss uses no noise

    def loss(self, batch: Batch, step: int | Tensor) -> Loss:
        image, label = batch.values
        if isinstance(self.model.likelihood, Text):
            total = -self.workers.mean(self.model.log_prob(image, label), batch.rows)
            return Loss(total, {"log_likelihood_text": -total.detach()})
        if self.workers.alone:
            total = F.cross_entropy(self.model(image), label)
        else:
            total = F.cross_entropy(self.model(image), label, reduction="sum") / batch.rows
        return Loss(total, {"log_likelihood_label": -total.detach()})


class LogisticRegression(nn.Module):
    """One linear layer on pixels. The logit of a class without training examples is minus infinity."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(prod(shape), classes)

    def forward(self, image: Tensor) -> Tensor:
        """Returns label logits [n, C] for images [n, 1, H, W]."""
        logits: Tensor = self.linear(image.flatten(1))
        return logits


def fit_logistic_regression(model: nn.Module, trial: Settings, data: Dataset) -> dict[str, float]:
    """Fits a multinomial logistic regression with an L2 penalty (scikit-learn's defaults) to the paired set's pixels.

    If the paired set contains only one class, the model always predicts that class.

    Returns:
        The metrics train/iterations and train/accuracy, measured on the paired set.
    """
    assert isinstance(model, LogisticRegression)
    image, label = _image_and_target(data.modalities)
    paired = torch.from_numpy(paired_set(len(data.train), trial.paired_fraction, trial.seed, dataset=data.name))
    pixels = data.train.take(image, paired.to(data.train.values[0].device)).flatten(1).cpu().numpy()
    labels = data.train.take(label, paired.to(data.train.values[0].device)).cpu().numpy()
    fit = fit_linear(pixels, labels, len(model.linear.bias))
    with torch.no_grad():
        model.linear.weight.copy_(torch.from_numpy(fit.weight))
        model.linear.bias.copy_(torch.from_numpy(fit.bias))
        predicted = model(torch.from_numpy(pixels).to(model.linear.weight.device)).argmax(-1).cpu().numpy()
    return {"train/iterations": float(fit.iterations), "train/accuracy": float((predicted == labels).mean())}


def build_neural_network(trial: Settings, modalities: tuple[Modality, ...]) -> NeuralNetwork:
    """Builds the untrained model of the arm NN."""
    image, target = _image_and_target(modalities)
    width = width_of(modalities)
    return NeuralNetwork(
        encoder_of(modalities[image], trial.image_network, width, trial.latents),
        decoder_of(modalities[target], trial.image_network, width, trial.latents, trial.decoder_hidden),
        modalities[target],
    )


def build_logistic_regression(_trial: Settings, modalities: tuple[Modality, ...]) -> LogisticRegression:
    """Builds the untrained model of the arm LOGREG."""
    image, label = _image_and_target(modalities)
    return LogisticRegression(modalities[image].shape, modalities[label].classes)


def _image_and_target(modalities: tuple[Modality, ...]) -> tuple[int, int]:
    """Returns the positions of the input image and of the target: the text, or the label if there is no text."""
    texts = any(modality.kind is Kind.TEXT for modality in modalities)
    return first_input(modalities), position(modalities, Kind.TEXT if texts else Kind.LABEL)
