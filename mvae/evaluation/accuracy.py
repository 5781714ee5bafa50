"""Accuracy of predicting the label from the image (supplement section 8, Tables 4 and 5)."""

from __future__ import annotations

import torch
from torch import nn

from mvae.data.dataset import Kind, Modality, Split

ROWS = 1000
"""Images a pass."""


@torch.no_grad()
def label_accuracy(model: nn.Module, modalities: tuple[Modality, ...], split: Split) -> float:
    """Share of a split's images whose label has the largest logit in `model(image)`.

    A multimodal VAE predicts at z = the mean of q(z|x1). Always in float32, in evaluation mode; the module's mode is
    put back.
    """
    kinds = [modality.kind for modality in modalities]
    image, label = kinds.index(Kind.IMAGE), kinds.index(Kind.LABEL)
    device = split.values[image].device
    was_training = model.training
    model.eval()
    right = 0
    for start in range(0, len(split), ROWS):
        rows = torch.arange(start, min(start + ROWS, len(split)), device=device)
        right += int((model(split.take(image, rows)).argmax(-1) == split.take(label, rows)).sum())
    model.train(was_training)
    return right / len(split)
