"""Small models and data sets that several tests share: every claim about the science, at a size that takes no time."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from mvae.data.dataset import Dataset, Kind, Modality, Split
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import MVAE, MVAEQ
from mvae.networks.normalisation import TermBatchNorm

IMAGE = Modality("image", Kind.IMAGE, (2, 2, 3))
LABEL = Modality("label", Kind.LABEL, (), classes=4)
COLOUR = Modality("colour", Kind.LABEL, (), classes=3)

LATENTS = 3
WIDTH = 7


class ConvolutionalDecoder(nn.Module):
    """To [n, 2, 2, 3] through a convolution and, if asked, a batch normalisation of images."""

    def __init__(self, *, normalised: bool) -> None:
        super().__init__()
        self.spread = nn.Sequential(nn.Linear(LATENTS, WIDTH * 6), nn.SiLU(), nn.Unflatten(1, (WIDTH, 2, 3)))
        self.norm = TermBatchNorm(WIDTH) if normalised else nn.Identity()
        self.paint = nn.Sequential(nn.SiLU(), nn.Conv2d(WIDTH, 2, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.paint(self.norm(self.spread(z)))
        return logits


def small_model(modalities: int, rule: type[Multimodal], *, normalised: bool, seed: int = 0) -> Multimodal:
    """An image and one or two labels, with small networks of the test's own, in float64."""

    def norm() -> nn.Module:
        return TermBatchNorm(WIDTH) if normalised else nn.Identity()

    chosen = (IMAGE, LABEL, COLOUR)[:modalities]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoders: list[nn.Module] = [
            nn.Sequential(nn.Flatten(), nn.Linear(12, WIDTH), norm(), nn.SiLU(), nn.Linear(WIDTH, 2 * LATENTS))
        ]
        decoders: list[nn.Module] = [ConvolutionalDecoder(normalised=normalised)]
        for modality in chosen[1:]:
            embedded = nn.Embedding(modality.classes, WIDTH)
            encoders.append(nn.Sequential(embedded, norm(), nn.SiLU(), nn.Linear(WIDTH, 2 * LATENTS)))
            hidden = nn.Linear(LATENTS, WIDTH)
            decoders.append(nn.Sequential(hidden, norm(), nn.SiLU(), nn.Linear(WIDTH, modality.classes)))
        model = rule(chosen, encoders, decoders, LATENTS).double()
        for module in model.modules():
            if isinstance(module, TermBatchNorm):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.train()


RULES: dict[str, type[Multimodal]] = {"mvae": MVAE, "mvae_q": MVAEQ}


def shortened(data: Dataset, train: int, validation: int = 50, test: int = 50) -> Dataset:
    """The first examples of each split."""

    def cut(split: Split, size: int) -> Split:
        return Split(tuple(value[:size] for value in split.values))

    return dataclasses.replace(
        data, train=cut(data.train, train), validation=cut(data.validation, validation), test=cut(data.test, test)
    )


def with_labels(data: Dataset, labels: np.ndarray) -> Dataset:
    """The same training images with other labels."""
    image, label = data.train.values
    return dataclasses.replace(data, train=Split((image, torch.from_numpy(labels).to(label.dtype))))
