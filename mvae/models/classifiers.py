"""The supervised baselines: NN and LOGREG, which see the labels (NN: or texts) of the paired set and nothing else."""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality, position
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
    """MVAE's image encoder up to and including its mean head, then MVAE's label or text decoder (section 8)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, target: Modality) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.likelihood = likelihood_of(target)

    def forward(self, image: Tensor) -> Tensor:
        """Label logits [n, C], or the text [n, L], from images [n, 1, H, W]."""
        if isinstance(self.decoder, TextDecoder):
            return self.transcribe(image)
        return at_least_float32(self.decoder(self.encoder(image)))

    def log_prob(self, image: Tensor, text: Tensor) -> Tensor:
        """log p(text | image) in nats, [n], of texts [n, L]."""
        return self.likelihood.log_prob(at_least_float32(self.decoder(self.encoder(image), text)), text)

    def transcribe(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The text [n, L] of each image: its likeliest tokens; drawn, where a generator is given."""
        return written(self.decoder, at_least_float32(self.encoder(image)), generator)


class NeuralNetworkLearner(PairedLearner):
    """Cross-entropy on the paired set."""

    model: NeuralNetwork

    def __init__(self, model: nn.Module, trial: Settings, data: Dataset, workers: Workers = ALONE) -> None:
        super().__init__(model, trial, data, workers)
        self.shown = _positions(data.modalities)

    def noise(self, rows: int, generator: torch.Generator) -> Tensor:
        """Nothing is drawn: zeros [n, 1]."""
        return torch.zeros(rows, 1, device=self.device)

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
    """One linear layer on pixels; classes that the fit never saw have a logit of minus infinity."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(prod(shape), classes)

    def forward(self, image: Tensor) -> Tensor:
        """Label logits [n, C] from images [n, 1, H, W]."""
        logits: Tensor = self.linear(image.flatten(1))
        return logits


def fit_logistic_regression(model: nn.Module, trial: Settings, data: Dataset) -> dict[str, float]:
    """Multinomial logistic regression with an L2 penalty (scikit-learn's defaults) on the paired set's pixels.

    Where the paired set holds one class only, that class is predicted.

    Returns:
        train/iterations, train/accuracy on the paired set.
    """
    assert isinstance(model, LogisticRegression)
    image, label = _positions(data.modalities)
    chosen = torch.from_numpy(paired_set(len(data.train), trial.paired_fraction, trial.seed, dataset=data.name))
    pixels = data.train.take(image, chosen.to(data.train.values[0].device)).flatten(1).cpu().numpy()
    labels = data.train.take(label, chosen.to(data.train.values[0].device)).cpu().numpy()
    fit = fit_linear(pixels, labels, len(model.linear.bias))
    with torch.no_grad():
        model.linear.weight.copy_(torch.from_numpy(fit.weight))
        model.linear.bias.copy_(torch.from_numpy(fit.bias))
        predicted = model(torch.from_numpy(pixels).to(model.linear.weight.device)).argmax(-1).cpu().numpy()
    return {"train/iterations": float(fit.iterations), "train/accuracy": float((predicted == labels).mean())}


def build_neural_network(trial: Settings, modalities: tuple[Modality, ...]) -> NeuralNetwork:
    """The classifier that a trial describes."""
    image, label = _positions(modalities)
    width = width_of(modalities)
    return NeuralNetwork(
        encoder_of(modalities[image], trial.image_network, width, trial.latents),
        decoder_of(modalities[label], trial.image_network, width, trial.latents, trial.decoder_hidden),
        modalities[label],
    )


def build_logistic_regression(_trial: Settings, modalities: tuple[Modality, ...]) -> LogisticRegression:
    """The logistic regression of a data set's images."""
    image, label = _positions(modalities)
    return LogisticRegression(modalities[image].shape, modalities[label].classes)


def _positions(modalities: tuple[Modality, ...]) -> tuple[int, int]:
    """Of the image, and of the label or text that is told from it."""
    texts = any(modality.kind is Kind.TEXT for modality in modalities)
    return position(modalities, Kind.IMAGE), position(modalities, Kind.TEXT if texts else Kind.LABEL)
