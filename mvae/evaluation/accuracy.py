"""Computes the accuracy of predicting the label or the text from the image (supplement section 8, Tables 4 and 5).

`accuracy_from` computes the accuracy of predicting the label from other modalities, which the caller names.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality, first_input, position
from mvae.data.examples import Split
from mvae.data.sentences.text import characters
from mvae.models.multimodal import Multimodal

# n images, L tokens per row


def prediction_accuracy(model: nn.Module, modalities: tuple[Modality, ...], split: Split) -> float:
    """Returns `text_accuracy` with the likeliest tokens if the data set has texts, else `label_accuracy`."""
    texts = Kind.TEXT in {modality.kind for modality in modalities}
    return (text_accuracy if texts else label_accuracy)(model, modalities, split)


@torch.no_grad()
def label_accuracy(model: nn.Module, modalities: tuple[Modality, ...], split: Split) -> float:
    """Returns the share of a split's images for which the largest logit of `model(image)` is the true label's.

    A multimodal VAE predicts at z = the mean of q(z|x1). The model runs in float32 and in evaluation mode. Afterwards,
    the model's former mode is restored.
    """
    image, label = first_input(modalities), position(modalities, Kind.LABEL)
    with evaluated(model):
        right = [model(split.take(image, rows)).argmax(-1) == split.take(label, rows) for rows in split.passes()]
    return int(torch.cat(right).sum()) / len(split)


@torch.no_grad()
def accuracy_from(given: Sequence[str], model: Multimodal, split: Split) -> float:
    """Returns the share of a split's examples whose true label is the likeliest label according to `model.predict`.

    Args:
        given: names of the modalities to predict from.
    """
    names, label = [modality.name for modality in model.modalities], model.index(Kind.LABEL)
    right = []
    with evaluated(model):
        for rows in split.passes():
            values = {name: split.take(names.index(name), rows) for name in given}
            right.append(model.predict(label, values).argmax(-1) == split.take(label, rows))
    return int(torch.cat(right).sum()) / len(split)


@torch.no_grad()
def text_accuracy(
    model: nn.Module,
    modalities: tuple[Modality, ...],
    split: Split,
    generator: torch.Generator | None = None,
) -> float:
    """Returns the share of a split's characters that `model.transcribe(image, generator)` predicts correctly.

    A character is correct only at its own position. The share is taken over all characters of the split, so a text
    without characters has no influence. An empty prediction scores 0. Predicted characters beyond the end of the true
    text are ignored.

    Args:
        generator: generator for drawing the predictions at random. If None, the likeliest tokens are predicted.
    """
    image, text = first_input(modalities), position(modalities, Kind.TEXT)
    classes = modalities[text].classes
    correct = total = 0
    with evaluated(model):
        for rows in split.passes():
            guess = cast(Any, model).transcribe(split.take(image, rows), generator)
            matched, true = matches(guess, split.take(text, rows), classes)
            correct, total = correct + matched, total + true
    assert total, "the split's texts have no characters"
    return correct / total


def matches(guess: Tensor, truth: Tensor, classes: int) -> tuple[int, int]:
    """Returns the number of characters that were guessed correctly, and the number of characters of the true texts.

    A character is correct if `guess` and `truth` have the same character at its position. Tokens after the
    first stop token of a text do not count.

    Args:
        guess, truth: tokens of the guessed and of the true texts, [n, L].
        classes: size of the vocabulary.
    """
    true = characters(truth, classes)
    right = (guess == truth) & true & characters(guess, classes)
    return int(right.sum()), int(true.sum())


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Puts the model in evaluation mode within the block, then restores the model's former mode."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
