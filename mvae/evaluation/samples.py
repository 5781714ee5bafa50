"""Samples of a trained model, to look at: reconstructions, each modality given the other, and the prior, both at once.

`sample_grids` are pictures; `sample_words` says in Markdown what the model reads in them, labels or texts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mvae.data.dataset import Kind, Modality, Split
from mvae.data.text import text_of
from mvae.gaussian import Gaussian
from mvae.models.cvae import CVAE
from mvae.models.multimodal import Multimodal, written
from mvae.streams import torch_generator

ROWS = 8
"""Images a class or a row of a grid."""


@torch.no_grad()
def sample_grids(model: Multimodal, split: Split, seed: int) -> dict[str, Tensor]:
    """Named grids [C, H, W] in [0, 1], drawn with the trial's seed.

    Returns:
        reconstructions: test images above their reconstruction from q(z | image);
        image_given_label: a row a class, z ~ q(z | label), where the model has labels; or, of texts,
        image_given_text: a row a test example, its image first and then images by z ~ q(z | its text);
        prior: z ~ N(0, I), the same z as in `sample_words`.
    """
    model.eval()
    image = model.index(Kind.IMAGE)
    device = split.values[image].device
    noise = torch_generator(seed, "samples", 0, device)

    def drawn(q: Gaussian) -> Tensor:
        z = q.rsample(torch.randn(q.mean.shape, generator=noise, device=device))
        return model.likelihoods[image].mean(model.decode(image, z))

    truth = split.take(image, _shown(split))
    rebuilt = model.likelihoods[image].mean(model.decode(image, model.infer({image: truth}).mean))
    grids = {"reconstructions": grid(torch.cat([truth, rebuilt]), len(truth))}
    if Kind.TEXT in {modality.kind for modality in model.modalities}:
        text = model.index(Kind.TEXT)
        texts = split.take(text, _shown(split)[:ROWS])
        of_text = drawn(model.infer({text: texts.repeat_interleave(ROWS - 1, dim=0)}))
        rows = torch.cat([truth[:ROWS, None], of_text.view(len(texts), ROWS - 1, *truth.shape[1:])], dim=1)
        grids["image_given_text"] = grid(rows.flatten(0, 1), ROWS)
    elif Kind.LABEL in {modality.kind for modality in model.modalities}:
        label = model.index(Kind.LABEL)
        labels = torch.arange(model.modalities[label].classes, device=device).repeat_interleave(ROWS)
        grids["image_given_label"] = grid(drawn(model.infer({label: labels})), ROWS)
    of_prior = model.likelihoods[image].mean(model.decode(image, _prior(model, seed, device)))
    return {**grids, "prior": grid(of_prior, ROWS)}


@torch.no_grad()
def conditional_grids(model: CVAE, split: Split, seed: int) -> dict[str, Tensor]:
    """What a CVAE has to show, as in `sample_grids`: reconstructions, and images given x2 with z ~ N(0, I).

    Returns:
        reconstructions: test images above their reconstruction from the mean of q(z | image, x2);
        image_given_<x2>: a row a test example, its image first and then images by its x2.
    """
    model.eval()
    device = split.values[0].device
    truth, given = (split.take(m, _shown(split)) for m in (0, 1))
    repeated = given[:ROWS].repeat_interleave(ROWS - 1, dim=0)
    images = model.likelihood.mean(model.decode(_prior(model, seed, device)[: len(repeated)], repeated))
    rows = torch.cat([truth[:ROWS, None], images.view(-1, ROWS - 1, *truth.shape[1:])], dim=1)
    return {
        "reconstructions": grid(torch.cat([truth, model(truth, given)]), len(truth)),
        f"image_given_{model.modalities[1].name}": grid(rows.flatten(0, 1), ROWS),
    }


@torch.no_grad()
def sample_words(model: Multimodal, split: Split, seed: int) -> str:
    """What x2 the model gives, label or text, as Markdown; empty where it has neither.

    For each image of the grid `reconstructions` the truth, the likeliest x2 at the mean of q(z | image), and one that
    is drawn from p(x2 | z) with z ~ q(z | image). For each image of the grid `prior` an x2 drawn at the same z.
    """
    others = [m for m, modality in enumerate(model.modalities) if modality.kind in (Kind.LABEL, Kind.TEXT)]
    if not others:
        return ""
    model.eval()
    image, other = model.index(Kind.IMAGE), others[0]
    device = split.values[image].device
    noise = torch_generator(seed, "sampled words", 0, device)
    rows = _shown(split)
    q = model.infer({image: split.take(image, rows)})
    z = q.rsample(torch.randn(q.mean.shape, generator=noise, device=device))
    columns = (split.take(other, rows), _emitted(model, other, q.mean, None), _emitted(model, other, z, noise))
    modality = model.modalities[other]
    given = zip(*(_words(modality, values) for values in columns), strict=True)
    of_prior = _words(modality, _emitted(model, other, _prior(model, seed, device), noise))
    sheet = [" | ".join(of_prior[start : start + ROWS]) for start in range(0, len(of_prior), ROWS)]
    return "\n".join(
        [
            f"### {modality.name} given image (of `reconstructions`, left to right)",
            "",
            "| truth | likeliest | drawn |",
            "|---|---|---|",
            *(f"| {truth} | {likeliest} | {drawn} |" for truth, likeliest, drawn in given),
            "",
            f"### {modality.name} of the prior (laid out as `prior`)",
            "",
            "|" + "   |" * ROWS,
            "|" + "---|" * ROWS,
            *(f"| {line} |" for line in sheet),
            "",
        ]
    )


def _shown(split: Split) -> Tensor:
    """Positions of the examples that are shown: the first two rows' worth, or as many as there are."""
    return torch.arange(min(ROWS * 2, len(split)), device=split.values[0].device)


def _prior(model: Multimodal | CVAE, seed: int, device: torch.device) -> Tensor:
    noise = torch_generator(seed, "prior samples", 0, device)
    return torch.randn(ROWS * ROWS, model.latents, generator=noise, device=device)


def _emitted(model: Multimodal, m: int, z: Tensor, generator: torch.Generator | None) -> Tensor:
    """Labels [n] or texts [n, L] at z [n, D]: the likeliest ones, or drawn where a generator is given."""
    if model.modalities[m].kind is Kind.TEXT:
        return written(model.decoders[m], z, generator)
    logits = model.decode(m, z)
    return logits.argmax(-1) if generator is None else model.likelihoods[m].sample(logits, generator)


def _words(modality: Modality, values: Tensor) -> list[str]:
    """Each value as a reader wants it: a label's number; a text's characters, a dash where it has none."""
    if modality.kind is Kind.LABEL:
        return [str(int(value)) for value in values]
    return [text_of(row, modality.classes) or "-" for row in values.tolist()]


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
