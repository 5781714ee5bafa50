"""Accuracy of predicting the label or the text from the image (supplement section 8, Tables 4 and 5)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality, position
from mvae.data.examples import Split
from mvae.data.sentences.text import characters

# n images, N examples of a split, L tokens a row


def prediction_accuracy(model: nn.Module, modalities: tuple[Modality, ...], split: Split) -> float:
    """`text_accuracy` of the likeliest tokens where there are texts, `label_accuracy` elsewhere."""
    texts = Kind.TEXT in {modality.kind for modality in modalities}
    return (text_accuracy if texts else label_accuracy)(model, modalities, split)


@torch.no_grad()
def label_accuracy(model: nn.Module, modalities: tuple[Modality, ...], split: Split) -> float:
    """Share of a split's images whose label has the largest logit in `model(image)`.

    A multimodal VAE predicts at z = the mean of q(z|x1). Always in float32, in evaluation mode; the module's mode is
    put back.
    """
    image, label = position(modalities, Kind.IMAGE), position(modalities, Kind.LABEL)
    with evaluated(model):
        right = [model(split.take(image, rows)).argmax(-1) == split.take(label, rows) for rows in split.passes()]
    return int(torch.cat(right).sum()) / len(split)


@torch.no_grad()
def text_accuracy(
    model: nn.Module,
    modalities: tuple[Modality, ...],
    split: Split,
    generator: torch.Generator | None = None,
) -> float:
    """Share of a split's characters that `model.transcribe(image, generator)` has right, each at its place.

    Summed over the split, right characters over true ones: a text without characters counts nowhere, an empty
    prediction scores 0, and what a prediction has beyond the true end is neither right nor wrong.

    Args:
        generator: draws the predictions; None takes the likeliest tokens.
    """
    image, text = position(modalities, Kind.IMAGE), position(modalities, Kind.TEXT)
    classes = modalities[text].classes
    right = all_ = 0
    with evaluated(model):
        for rows in split.passes():
            guess = cast(Any, model).transcribe(split.take(image, rows), generator)
            matched, true = matches(guess, split.take(text, rows), classes)
            right, all_ = right + matched, all_ + true
    assert all_, "a split without a single character has no accuracy"
    return right / all_


def matches(guess: Tensor, truth: Tensor, classes: int) -> tuple[int, int]:
    """Characters of texts [n, L] that a guess [n, L] has at the same place, and how many there are in truth.

    What follows the first stop of either, of a vocabulary of `classes`, does not count.
    """
    true = characters(truth, classes)
    right = (guess == truth) & true & characters(guess, classes)
    return int(right.sum()), int(true.sum())


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; the module's own mode is put back."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
