"""What section 10 of the supplement shows of six views of a face: as pictures (Figures 7 to 10), and as numbers.

A task makes one view of others: of all six, of the grey image, of the half that is seen, of the image under a mark, of
the image alone. What is made is the mean of p(x_i|z) at z = the mean of q(z|given), so nothing here is drawn at random.
PSNR and SSIM on the test split stand beside two plain baselines: what was given, taken as the answer, and the mean of
the training split. Where a task changes a part of an image alone, that part has numbers of its own.

Shapes: n examples, C channels, H height, W width, P numbers of an example.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mvae.data.examples import Dataset, Split
from mvae.data.faces.vision import MODALITIES, grayscale, hidden_half, watermark
from mvae.evaluation.accuracy import evaluated
from mvae.evaluation.sheets import Sheet
from mvae.models.multimodal import Multimodal

ROWS = 100
"""Examples a pass; sums do not depend on the machine's memory that way."""
SHOWN = 8
"""Examples of a figure, as in the paper."""

BLUE, RED = 0.564, 0.713
"""Scale of B - Y to Cb, of R - Y to Cr (ITU-R BT.601): each then spans 1."""
WINDOW, SPREAD = 11, 1.5
"""Side and standard deviation of SSIM's Gaussian window in pixels (Wang and others, 2004)."""

Heard = Callable[[int, int], None]
"""Told, while a measure is computed, how many examples are done and of how many."""


@dataclass(frozen=True)
class Part:
    """The part of an image that a task changes."""

    name: str
    label: str
    of: Callable[[Tensor], Tensor]
    """[n, P] of images [n, C, H, W]."""


@dataclass(frozen=True)
class Task:
    """One view made of others."""

    name: str
    """Ends its metrics' names: psnr/colour."""
    label: str
    """Heads its row of a table."""
    target: str
    given: tuple[str, ...]
    part: Part | None = None
    keep: Tensor | None = None
    """Pixels that stay as they were given, boolean [H, W]; None: all are made."""


def chroma(image: Tensor) -> Tensor:
    """Cb and Cr of images [n, 3, H, W] in [0, 1], as [n, 2 H W], each from -0.5 to 0.5 (ITU-R BT.601)."""
    luma = grayscale(image)
    return torch.cat([BLUE * (image[:, 2:] - luma), RED * (image[:, :1] - luma)], dim=1).flatten(1)


def pixels(where: Tensor, image: Tensor) -> Tensor:
    """Some pixels of images, [n, P], by a mask, boolean [H, W]."""
    return image[:, :, where.to(image.device)].flatten(1)


ALL = tuple(modality.name for modality in MODALITIES)

TASKS = (
    Task("reconstruction", "image from all six", "image", ALL),
    Task("edges", "edges from all six", "edges", ALL),
    Task("mask", "mask from all six", "mask", ALL),
    Task("colour", "colour from grey", "image", ("grayscale",), Part("cbcr", "Cb and Cr", chroma)),
    Task(
        *("fill_in", "right half from left", "image", ("obscured",)),
        Part("hidden", "hidden half", partial(pixels, hidden_half())),
        keep=~hidden_half(),
    ),
    Task(
        "watermark",
        "watermark removed",
        "image",
        ("watermark",),
        Part("marked", "marked pixels", partial(pixels, watermark())),
    ),
    Task("edges_from_image", "edges from image", "edges", ("image",)),
    Task("mask_from_image", "mask from image", "mask", ("image",)),
)
"""Figure 7 is the first three, Figures 8 to 10 the next; the paper shows no edges or masks of the image alone."""

FIGURES = {
    "figure-7": ("reconstruction", "edges", "mask"),
    "figure-8": ("colour",),
    "figure-9": ("fill_in",),
    "figure-10": ("watermark",),
    "edges-and-mask-from-image": ("edges_from_image", "mask_from_image"),
}


def psnr(made: Tensor, truth: Tensor) -> Tensor:
    """Peak signal to noise of each example in dB, 10 log10(1 / mean squared error): float64 [n].

    At most 100, the usual limit, which two equal images have.

    Args:
        made, truth: [n, ...] in a range of length 1.
    """
    error = (made.double() - truth.double()).square().flatten(1).mean(1)
    return -10 * error.clamp(min=1e-10).log10()


def ssim(made: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each example, float64 [n], mean over channels and over windows that lie inside.

    Gaussian windows as in Wang and others (2004); scikit-image's `structural_similarity` with gaussian_weights.

    Args:
        made, truth: images [n, C, H, W] in [0, 1].
    """
    x, y = made.double(), truth.double()
    maps = torch.stack([x, y, x * x, y * y, x * y])
    means = _window(maps.shape[-2], maps).T @ (maps @ _window(maps.shape[-1], maps))
    mean_x, mean_y, xx, yy, xy = means.unbind()
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    one, two = 0.01**2, 0.03**2  # for values from 0 to 1
    above = (2 * mean_x * mean_y + one) * (2 * cov + two)
    below = (mean_x**2 + mean_y**2 + one) * (var_x + var_y + two)
    return (above / below).flatten(1).mean(1)


def _window(size: int, like: Tensor) -> Tensor:
    """Takes a line of `size` pixels to its Gaussian means, as a matrix [size, size - 10]: faster than a convolution."""
    place = (torch.arange(size)[:, None] - torch.arange(WINDOW // 2, size - WINDOW // 2)).to(like)
    weights = torch.exp(-(place**2) / (2 * SPREAD**2)).masked_fill(place.abs() > WINDOW // 2, 0.0)
    return weights / weights.sum(0)


def make(model: Multimodal, task: Task, views: dict[str, Tensor]) -> Tensor:
    """A task's target [n, C, H, W] in [0, 1] of the given views, each [n, C', H, W], by a module that evaluates."""
    target = ALL.index(task.target)
    q = model.infer_at({ALL.index(name): views[name] for name in task.given})
    made = model.likelihoods[target].mean(model.decode(target, q.mean))
    if task.keep is None:
        return made
    return torch.where(task.keep.to(made.device), views[task.given[0]], made)


def given_as_answer(task: Task, views: dict[str, Tensor]) -> Tensor | None:
    """The one view that is given, in the target's channels; None where all are, the truth among them."""
    if len(task.given) > 1:
        return None
    given, channels = views[task.given[0]], len(views[task.target][0])
    return grayscale(given) if channels < given.shape[1] else given.expand(-1, channels, -1, -1)


@torch.no_grad()
def vision_metrics(model: Multimodal, data: Dataset, heard: Heard = lambda _done, _of: None) -> dict[str, float]:
    """What is measured on the test split, each number a mean over its examples.

    Returns:
        psnr/<task> and ssim/<task> of what the model makes; the same of the baselines as psnr_input/..., ssim_input/...
        (where one view is given) and psnr_mean/..., ssim_mean/...; psnr/<task>-<part> and so on of the part that a task
        changes; test/empty_masks, the share of examples in which no face was found.
    """
    means = {name: _mean(data.train, ALL.index(name)) for name in dict.fromkeys(task.target for task in TASKS)}
    totals: dict[str, Tensor] = {}
    with evaluated(model):
        for views, done in _views(data.test):
            for task in TASKS:
                truth = views[task.target]
                answers = {
                    "": make(model, task, views),
                    "_input": given_as_answer(task, views),
                    "_mean": means[task.target].expand_as(truth),
                }
                for whose, answer in answers.items():
                    if answer is None:
                        continue
                    found = {f"psnr{whose}/{task.name}": psnr(answer, truth)}
                    found[f"ssim{whose}/{task.name}"] = ssim(answer, truth)
                    if task.part is not None:
                        parts = task.part.of(answer), task.part.of(truth)
                        found[f"psnr{whose}/{task.name}-{task.part.name}"] = psnr(*parts)
                    for name, values in found.items():
                        totals[name] = totals.get(name, values.new_zeros(())) + values.sum()
            empty = (~views["mask"].flatten(1).any(1)).double().sum()
            totals["test/empty_masks"] = totals.get("test/empty_masks", torch.zeros_like(empty)) + empty
            heard(done, len(data.test))
    return {name: float(total) / len(data.test) for name, total in totals.items()}


@torch.no_grad()
def figures(model: Multimodal, split: Split) -> dict[str, Sheet]:
    """The first examples of a split as the paper shows them: sheets of images [., 3, H, W], a column an example.

    Where something is to be mended, its row is followed by what the model makes of it, and by the truth; else the truth
    is followed by what the model makes.
    """
    views, _ = next(_views(split, min(SHOWN, len(split))))
    tasks = {task.name: task for task in TASKS}
    sheets = {}
    with evaluated(model):
        for name, names in FIGURES.items():
            rows: list[tuple[str, Tensor]] = []
            if name == "edges-and-mask-from-image":
                rows.append(("input", views["image"]))
            for task in (tasks[each] for each in names):
                rows += _figure_rows(task, make(model, task, views), views)
            images = torch.cat([row.expand(-1, 3, -1, -1) for _, row in rows])
            title = ", ".join(tasks[each].label for each in names)
            words = tuple(word for word, _ in rows)
            sheets[name] = Sheet(images, len(views["image"]), title[:1].upper() + title[1:], words)
    return sheets


def _figure_rows(task: Task, made: Tensor, views: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    truth = views[task.target]
    if task.part is not None:
        return [("input", views[task.given[0]]), ("reconstruction", made), ("ground truth", truth)]
    return [(f"{task.target}: ground truth", truth), (f"{task.target}: reconstruction", made)]


def _views(split: Split, rows: int = ROWS) -> Iterator[tuple[dict[str, Tensor], int]]:
    """All views of the examples, some at a time, and how many examples that makes so far."""
    for index in split.passes(rows):
        yield {name: split.take(m, index) for m, name in enumerate(ALL)}, int(index[-1]) + 1


def _mean(split: Split, m: int) -> Tensor:
    """The mean example of a stored modality, float32 [C, H, W] in [0, 1]."""
    values = split.values[m]
    assert not split.views or split.views[m] is None
    total = values.new_zeros(values.shape[1:], dtype=torch.int64)
    for start in range(0, len(values), ROWS):
        total += values[start : start + ROWS].sum(0, dtype=torch.int64)
    return (total.double() / (255 * len(values))).float()
