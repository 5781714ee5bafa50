"""Small models and data sets shared by several tests."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from mvae.data.dataset import Defaults, Kind, Modality, Source
from mvae.data.examples import Dataset, Split
from mvae.models.multimodal import Multimodal, decoder_of, encoder_of, single_attributes
from mvae.models.mvae import MVAE, MVAEQ
from mvae.networks.attribute import AttributeDecoders, AttributeEncoders
from mvae.networks.normalisation import TermBatchNorm

IMAGE = Modality("image", Kind.IMAGE, (2, 2, 3))
LABEL = Modality("label", Kind.LABEL, (), classes=4)
COLOUR = Modality("colour", Kind.LABEL, (), classes=3)
PHOTO = Modality("image", Kind.IMAGE, (3, 64, 64))
SEVERAL = Modality("attributes", Kind.ATTRIBUTES, (18,), attributes=tuple("abcdefghijklmnopqr"))
"""CelebA's second modality; `PHOTO` is its first."""

LATENTS = 3
WIDTH = 7


class ConvolutionalDecoder(nn.Module):
    """Decodes to [n, 2, 2, 3] through a convolution, optionally with batch normalisation of images."""

    def __init__(self, *, normalised: bool) -> None:
        super().__init__()
        self.spread = nn.Sequential(nn.Linear(LATENTS, WIDTH * 6), nn.SiLU(), nn.Unflatten(1, (WIDTH, 2, 3)))
        self.norm = TermBatchNorm(WIDTH) if normalised else nn.Identity()
        self.paint = nn.Sequential(nn.SiLU(), nn.Conv2d(WIDTH, 2, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.paint(self.norm(self.spread(z)))
        return logits


def small_model(modalities: int, rule: type[Multimodal], *, normalised: bool, seed: int = 0) -> Multimodal:
    """A model of an image and one or two labels, with small networks, in float64."""

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
        _give_norms_a_past(model)
    return model.train()


def many_model(
    modalities: tuple[Modality, ...], rule: type[Multimodal], *, image_network: str | None = None, seed: int = 0
) -> Multimodal:
    """A model of modalities that end in single attributes, in float64, with the networks of Figures 1 to 4.

    The latent dimension is `LATENTS`. Without an image network's name the image is 2x2x3, with small networks and batch
    normalisation.
    """
    apart = modalities[: single_attributes(modalities).start]
    count = len(modalities) - len(apart)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoders: list[nn.Module] = []
        decoders: list[nn.Module] = []
        for modality in apart:
            if modality.kind is Kind.IMAGE and image_network is None:
                hidden = [nn.Linear(12, WIDTH), TermBatchNorm(WIDTH), nn.SiLU()]
                encoders.append(nn.Sequential(nn.Flatten(), *hidden, nn.Linear(WIDTH, 2 * LATENTS)))
                decoders.append(ConvolutionalDecoder(normalised=True))
            else:
                encoders.append(encoder_of(modality, image_network or "", WIDTH, 2 * LATENTS))
                decoders.append(decoder_of(modality, image_network or "", WIDTH, LATENTS, 2))
        stacked = AttributeEncoders(count, WIDTH, 2 * LATENTS), AttributeDecoders(count, WIDTH, LATENTS, 2)
        model = rule(modalities, encoders, decoders, LATENTS, stacked if count else None).double()
        _give_norms_a_past(model)
    return model.train()


def _give_norms_a_past(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, TermBatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def single(count: int) -> tuple[Modality, ...]:
    """The given number of single attributes."""
    return tuple(Modality(f"attribute_{a}", Kind.ATTRIBUTE, (), classes=2) for a in range(count))


MANY = (IMAGE, *single(18))
"""An image and 18 single attributes."""


def made_up(name: str, modalities: tuple[Modality, ...], defaults: Defaults, examples: int) -> Source:
    """A data set without files, whose conversion gives nothing: tests make its examples."""
    return Source(
        name=name,
        modalities=modalities,
        defaults=defaults,
        split_rule="made up",
        version=1,
        check=lambda _root: None,
        digest=lambda _root: "none",
        examples=lambda _root: examples,
        convert=lambda _root: {},
    )


TINY_19 = made_up(
    name="tiny19",
    modalities=(Modality("image", Kind.IMAGE, (1, 4, 4)), *single(18)),
    defaults=Defaults(
        latents=4,
        epochs=3,
        image_network="mlp",
        image_networks=("mlp",),
        batch_size=20,
        pairing="proportional",
        k=1,
    ),
    examples=70,
)
"""A made-up data set of 19 modalities. A test that creates a trial on it must add it to `mvae.data.DATASETS`."""


def tiny_19(n: int = 70) -> Dataset:
    """Examples of `TINY_19`: noise, in which later attributes are more often 1."""
    draw = np.random.default_rng(19)

    def split(size: int) -> Split:
        image = torch.from_numpy(draw.integers(0, 256, (size, 1, 4, 4), dtype=np.uint8))
        held = draw.random((size, 18)) < np.linspace(0.1, 0.9, 18)
        return Split((image, *(torch.from_numpy(column.astype(np.uint8)) for column in held.T)))

    return Dataset("tiny19", TINY_19.modalities, "0" * 64, split(n), split(20), split(20))


RULES: dict[str, type[Multimodal]] = {"mvae": MVAE, "mvae_q": MVAEQ}


def shortened(data: Dataset, train: int, validation: int = 50, test: int = 50) -> Dataset:
    """The first examples of each split."""

    def cut(split: Split, size: int) -> Split:
        return Split(tuple(value[:size] for value in split.values))

    return dataclasses.replace(
        data, train=cut(data.train, train), validation=cut(data.validation, validation), test=cut(data.test, test)
    )


def with_labels(data: Dataset, labels: np.ndarray) -> Dataset:
    """The data set with other training labels."""
    image, label = data.train.values
    return dataclasses.replace(data, train=Split((image, torch.from_numpy(labels).to(label.dtype))))
