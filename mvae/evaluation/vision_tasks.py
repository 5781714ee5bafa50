"""Defines the tasks of the vision experiment (supplement, section 10). Does not import torch at the top.

Shapes: n images, C channels, H height, W width, P pixels of a part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mvae.data.faces.vision import MODALITIES, grayscale, hidden_half, watermark

if TYPE_CHECKING:
    from torch import Tensor

BLUE, RED = 0.564, 0.713
"""Factors from B - Y to Cb and from R - Y to Cr (ITU-R BT.601). These factors give Cb and Cr a range of length 1."""


@dataclass(frozen=True)
class Part:
    """The part of an image that a task changes."""

    name: str
    label: str
    extract: Callable[[Tensor], Tensor]
    """Maps images [n, C, H, W] to the part's values [n, P]."""


@dataclass(frozen=True)
class Task:
    """A task: predict the view `target` from the views `given`."""

    name: str
    """Suffix of the task's metrics, for example psnr/colour."""
    label: str
    """Heading of the task's row in a table."""
    target: str
    given: tuple[str, ...]
    part: Part | None = None
    keep: Callable[[], Tensor] | None = None
    """Returns the mask, boolean [H, W], of pixels to copy from the given view. None: all pixels are predicted."""


def chroma(image: Tensor) -> Tensor:
    """Returns Cb and Cr (ITU-R BT.601) of images [n, 3, H, W] in [0, 1]: [n, 2 H W], in [-0.5, 0.5]."""
    import torch

    luma = grayscale(image)
    return torch.cat([BLUE * (image[:, 2:] - luma), RED * (image[:, :1] - luma)], dim=1).flatten(1)


def pixels(mask: Callable[[], Tensor], image: Tensor) -> Tensor:
    """Returns the pixels [n, P] of images [n, C, H, W] where the mask, boolean [H, W], is true."""
    return image[:, :, mask().to(image.device)].flatten(1)


def left_half() -> Tensor:
    """Returns the mask of the left half, which is not hidden: boolean [H, W]."""
    return ~hidden_half()


ALL = tuple(modality.name for modality in MODALITIES)

TASKS = (
    Task("reconstruction", "image from all six", "image", ALL),
    Task("edges", "edges from all six", "edges", ALL),
    Task("mask", "mask from all six", "mask", ALL),
    Task("colour", "colour from grey", "image", ("grayscale",), Part("cbcr", "Cb and Cr", chroma)),
    Task(
        *("fill_in", "right half from left", "image", ("obscured",)),
        Part("hidden", "hidden half", partial(pixels, hidden_half)),
        keep=left_half,
    ),
    Task(
        "watermark",
        "watermark removed",
        "image",
        ("watermark",),
        Part("marked", "marked pixels", partial(pixels, watermark)),
    ),
    Task("edges_from_image", "edges from image", "edges", ("image",)),
    Task("mask_from_image", "mask from image", "mask", ("image",)),
)
"""The first three tasks are Figure 7. The next three are Figures 8 to 10. The last two are not in the paper."""

FIGURES = {
    "figure-7": ("reconstruction", "edges", "mask"),
    "figure-8": ("colour",),
    "figure-9": ("fill_in",),
    "figure-10": ("watermark",),
    "edges-and-mask-from-image": ("edges_from_image", "mask_from_image"),
}
