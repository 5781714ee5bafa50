"""A simple MVAE to compare with: a loop over the ELBO terms, a DataLoader, and torch's default Adam.

Each term encodes the modalities that it conditions on, and multiplies the experts by the textbook formula. The term
decodes every modality, but uses only the reconstructions of the modalities that it conditions on. The authors' released
code works like this. The loop imports nothing from `mvae/`, so it has none of our improvements. Its networks equal ours
layer by layer (supplement, Figures 1 and 2).

There are two ways to load data: `in_memory` converts all images beforehand, and OneByOne works like torchvision's data
sets.

The activation and both cross-entropies have two implementations. RELEASED writes out their formulas, as was usual when
the paper appeared. MODERN uses torch's functions, as is usual today.

Shapes: B batch, D latents, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

LATENTS = 64
CLASSES = 10
LABEL_WEIGHT = 1.0
TERMS = (("image", "label"), ("image",), ("label",))


class Swish(nn.Module):
    """x * sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


def written_out_pixels(logits: Tensor, image: Tensor) -> Tensor:
    """Returns the binary cross-entropy of each pixel."""
    return torch.clamp(logits, 0) - logits * image + torch.log(1 + torch.exp(-torch.abs(logits)))


def written_out_label(logits: Tensor, label: Tensor) -> Tensor:
    """Returns the cross-entropy of each row, computed with one-hot targets."""
    one_hot = torch.zeros_like(logits).scatter(1, label.unsqueeze(1), 1)
    return -(one_hot * torch.log_softmax(logits + 1e-6, dim=1)).sum(1)


@dataclass(frozen=True)
class Hand:
    """Implementations of the activation and of both cross-entropies."""

    activation: Callable[[], nn.Module]
    pixels: Callable[[Tensor, Tensor], Tensor]
    label: Callable[[Tensor, Tensor], Tensor]


RELEASED = Hand(Swish, written_out_pixels, written_out_label)
MODERN = Hand(
    nn.SiLU,
    lambda logits, image: F.binary_cross_entropy_with_logits(logits, image, reduction="none"),
    lambda logits, label: F.cross_entropy(logits, label, reduction="none"),
)


def dense(hand: Hand, *widths: int) -> nn.Sequential:
    """Returns linear layers with the activation between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), hand.activation()]
    return nn.Sequential(*layers[:-1])


def networks(image_network: str, hand: Hand) -> tuple[nn.ModuleDict, nn.ModuleDict]:
    """Returns the encoders and decoders of 28x28 images and labels. `image_network` is `mlp` or `dcgan`."""
    if image_network == "mlp":
        image_encoder = nn.Sequential(nn.Flatten(), dense(hand, 784, 512, 512, 2 * LATENTS))
        image_decoder = nn.Sequential(dense(hand, LATENTS, 512, 512, 784), nn.Unflatten(1, (1, 28, 28)))
    else:
        image_encoder = nn.Sequential(
            nn.Conv2d(1, 64, 4, 2, 1, bias=False),
            hand.activation(),
            nn.Conv2d(64, 128, 4, 2, 1, bias=False),
            hand.activation(),
            nn.Flatten(),
            dense(hand, 128 * 7 * 7, 512, 2 * LATENTS),
        )
        image_decoder = nn.Sequential(
            dense(hand, LATENTS, 512, 128 * 7 * 7),
            hand.activation(),
            nn.Unflatten(1, (128, 7, 7)),
            nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
            hand.activation(),
            nn.ConvTranspose2d(64, 1, 4, 2, 1, bias=False),
        )
    label_encoder = nn.Sequential(nn.Embedding(CLASSES, 512), hand.activation(), dense(hand, 512, 512, 2 * LATENTS))
    label_decoder = dense(hand, LATENTS, 512, 512, CLASSES)
    return (
        nn.ModuleDict({"image": image_encoder, "label": label_encoder}),
        nn.ModuleDict({"image": image_decoder, "label": label_decoder}),
    )


class PlainMvae(nn.Module):
    """An MVAE of images and labels. Its product of experts includes the prior."""

    def __init__(self, image_network: str, hand: Hand) -> None:
        super().__init__()
        self.encoders, self.decoders = networks(image_network, hand)

    def forward(self, given: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Returns the reconstructions of every modality, and mean and log-variance [B, D] of q(z | given)."""
        some = next(iter(given.values()))
        prior = torch.zeros(len(some), LATENTS, device=some.device)
        means, log_vars = [prior], [prior]
        for name, value in given.items():
            mean, log_var = self.encoders[name](value).chunk(2, dim=1)
            means.append(mean)
            log_vars.append(log_var)
        mean, log_var = product_of_experts(torch.stack(means), torch.stack(log_vars))
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)
        return {name: decoder(z) for name, decoder in self.decoders.items()}, mean, log_var


def product_of_experts(mean_EBD: Tensor, log_var_EBD: Tensor, eps: float = 1e-8) -> tuple[Tensor, Tensor]:
    """Returns mean and log-variance [B, D] of the product of Gaussian experts, by the textbook formula."""
    precision = 1.0 / (torch.exp(log_var_EBD) + eps)
    variance = 1.0 / precision.sum(0)
    return (mean_EBD * precision).sum(0) * variance, torch.log(variance + eps)


def elbo_loss(model: PlainMvae, hand: Hand, batch: dict[str, Tensor], beta: float) -> Tensor:
    """Returns the sum of the terms' negative ELBOs. Each ELBO is a mean over the batch."""
    total = torch.zeros((), device=batch["image"].device)
    for names in TERMS:
        rebuilt, mean, log_var = model({name: batch[name] for name in names})
        loss = -0.5 * beta * (1 + log_var - mean.pow(2) - log_var.exp()).sum(1)
        if "image" in names:
            loss = loss + hand.pixels(rebuilt["image"], batch["image"]).flatten(1).sum(1)
        if "label" in names:
            loss = loss + LABEL_WEIGHT * hand.label(rebuilt["label"], batch["label"])
        total = total + loss.mean()
    return total


def in_memory(images: Tensor, labels: Tensor) -> TensorDataset:
    """Returns a data set in memory, with images converted to floats. This is the faster of the two ways to load data.

    Args:
        images: uint8 [N, 1, 28, 28].
        labels: [N].
    """
    return TensorDataset(images.float() / 255, labels.long())


class OneByOne(Dataset[Any]):
    """Examples as in torchvision's MNIST with ToTensor: each access converts bytes to a picture, then to floats."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        from torchvision.transforms import ToTensor  # only this contender needs this import, which takes seconds

        self.images, self.labels, self.transform = images.squeeze(1), labels, ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.images[index].numpy())
        return self.transform(picture), int(self.labels[index])


class PlainTraining:
    """Runs the plain training loop a few steps at a time."""

    def __init__(self, image_network: str, examples: Dataset[Any], batch_size: int, hand: Hand) -> None:
        """Prepares training. An example is an image, float32 [1, 28, 28] in [0, 1], and its label."""
        self.hand = hand
        self.model = PlainMvae(image_network, hand)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.loader = DataLoader(examples, batch_size=batch_size, shuffle=True)
        self._batches = self._forever()

    def run(self, steps: int) -> float:
        """Takes the given number of steps. Returns their mean loss, which a simple loop would print."""
        self.model.train()
        losses = []
        for _ in range(steps):
            image, label = next(self._batches)
            loss = elbo_loss(self.model, self.hand, {"image": image, "label": label}, beta=0.5)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    def _forever(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader
