"""Trains a digit classifier on the real images of one modality, in order to judge generated images.

The classifier learns from hidden labels, which no other model sees.

Network, as in the published studies: convolutions C-10-20 (kernel 4, stride 2, padding 1), dropout 0.5, FC 980-128-10
for 28x28 images, ReLU between.

Shapes: n images, F = 128 features.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.data import source
from mvae.data.dataset import Modality
from mvae.data.examples import Dataset, Split
from mvae.models.arm import Settings
from mvae.models.elbo import Loss
from mvae.models.learners import Batch, ImageLearner
from mvae.refusal import Refusal
from mvae.workers import ALONE, Workers

FEATURES = 128


class Judge(nn.Module):
    """Classifies images [n, C, H, H]."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        side = shape[1] // 2 // 2
        self.features = nn.Sequential(
            nn.Conv2d(shape[0], 10, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(10, 20, 4, 2, 1),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(20 * side * side, FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Returns class logits [n, classes] for images [n, C, H, H]."""
        logits: Tensor = self.head(self.features(image))
        return logits


def judged(trial: Settings, modalities: tuple[Modality, ...]) -> int:
    """Returns the position of the modality on whose images the trial's classifier trains.

    Raises:
        Refusal: the data set has no such modality, or no hidden label.
    """
    names, wanted = [modality.name for modality in modalities], trial.own_value("modality")
    if not source(trial.dataset).hidden:
        raise Refusal(f"arm judge needs a data set with a hidden label, and {trial.dataset} has none: use arm nn")
    if wanted not in names:
        raise Refusal(f"unknown modality {wanted!r}: {trial.dataset} has {', '.join(names)}; choose one of these")
    return names.index(wanted)


class JudgeLearner(ImageLearner):
    """Trains a Judge by cross-entropy on all training images of one modality."""

    model: Judge

    def __init__(self, model: nn.Module, trial: Settings, data: Dataset, workers: Workers = ALONE) -> None:
        super().__init__(model, trial, data, workers)
        self.shown = (judged(trial, data.modalities),)

    def batches(self, epoch: int) -> Iterator[Batch]:
        for index in self.indices(epoch):
            chosen = torch.from_numpy(np.ascontiguousarray(self.workers.share(index))).to(self.device)
            values = self.split.take(self.shown[0], chosen), labels(self.split, chosen)
            yield Batch(values, chosen.new_zeros(len(chosen), 1), len(index))

    def loss(self, batch: Batch, step: int | Tensor) -> Loss:
        image, label = batch.values
        total = F.cross_entropy(self.model(image), label, reduction="sum") / batch.rows
        return Loss(total, {"log_likelihood_label": -total.detach()})


def labels(split: Split, rows: Tensor) -> Tensor:
    """Returns the hidden labels of the given rows: int64 [n]."""
    return split.hidden[0].index_select(0, rows).long()


@torch.no_grad()
def judge_accuracy(model: nn.Module, m: int, split: Split) -> float:
    """Returns a classifier's accuracy on a split's real images of modality m. The model must be in evaluation mode."""
    right = [(model(split.take(m, rows)).argmax(-1) == labels(split, rows)).sum() for rows in split.passes()]
    return int(torch.stack(right).sum()) / len(split)


def watch_accuracy(model: nn.Module, trial: Settings, data: Dataset) -> dict[str, float]:
    """Returns the metric validation/accuracy, measured on the real images of the validation set."""
    return {"validation/accuracy": judge_accuracy(model, judged(trial, data.modalities), data.validation)}


def build_judge(trial: Settings, modalities: tuple[Modality, ...]) -> Judge:
    """Builds the classifier that a trial describes."""
    shape = modalities[judged(trial, modalities)].shape
    return Judge(shape, source(trial.dataset).hidden[0].classes)
