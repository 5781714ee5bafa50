"""Image grids of a trained model, to look at: reconstructions, images from labels, images from the prior."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mvae.data.dataset import Kind, Split
from mvae.gaussian import Gaussian
from mvae.models.multimodal import Multimodal
from mvae.streams import torch_generator

ROWS = 8
"""Images a class or a row of a grid."""


@torch.no_grad()
def sample_grids(model: Multimodal, split: Split, seed: int) -> dict[str, Tensor]:
    """Named grids [C, H, W] in [0, 1], drawn with the trial's seed.

    Returns:
        reconstructions: test images above their reconstruction from q(z | image);
        image_given_label: a row a class, z ~ q(z | label);
        prior: z ~ N(0, I).
    """
    model.eval()
    image, label = model.index(Kind.IMAGE), model.index(Kind.LABEL)
    classes = model.modalities[label].classes
    device = split.values[image].device
    noise = torch_generator(seed, "samples", 0, device)

    def drawn(q: Gaussian) -> Tensor:
        z = q.rsample(torch.randn(q.mean.shape, generator=noise, device=device))
        return model.likelihoods[image].mean(model.decode(image, z))

    truth = split.take(image, torch.arange(ROWS * 2, device=device))
    rebuilt = model.likelihoods[image].mean(model.decode(image, model.infer({image: truth}).mean))
    labels = torch.arange(classes, device=device).repeat_interleave(ROWS)
    of_label = drawn(model.infer({label: labels}))
    origin = torch.zeros(ROWS * ROWS, model.latents, device=device)
    return {
        "reconstructions": grid(torch.cat([truth, rebuilt]), ROWS * 2),
        "image_given_label": grid(of_label, ROWS),
        "prior": grid(drawn(Gaussian(origin, origin)), ROWS),
    }


def grid(images: Tensor, columns: int, gap: int = 1) -> Tensor:
    """Images [n, C, H, W] laid out in rows of `columns`, `gap` pixels of 0.5 between: [C, H', W']."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    sheet = images.new_full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 0.5)
    for i in range(n):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = images[i]
    return sheet.clamp(0, 1)


def save_png(sheet: Tensor, path: Path, scale: int = 2) -> None:
    """Writes a grid as PNG, each pixel `scale` pixels wide."""
    from PIL import Image

    pixels = (sheet.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)
    pixels = np.repeat(np.repeat(pixels, scale, axis=0), scale, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(path)
