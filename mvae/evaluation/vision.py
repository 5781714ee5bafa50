"""Predicts views of faces from other views, as in Figures 7 to 10, and scores the predictions (supplement, section 10).

A task predicts one view from given views, for example from all six, from the grey image, or from the visible half. The
prediction is the mean of p(x_i|z) at z = the mean of q(z|given views), so the prediction is deterministic.

The metrics are PSNR and SSIM on the test split. There are two baselines: answer with the given view, and answer with
the mean of the training split. If a task changes only part of an image, the PSNR of that part is reported too.

Shapes: n examples, C channels, H height, W width, P values per example.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mvae.data.examples import Dataset, Split
from mvae.data.faces.vision import grayscale
from mvae.evaluation.accuracy import evaluated
from mvae.evaluation.sheets import Sheet
from mvae.evaluation.vision_tasks import ALL, FIGURES, TASKS, Task
from mvae.models.multimodal import Multimodal

ROWS = 100
"""Examples per pass. This number is fixed, so that the rounding of sums is the same on every machine."""
SHOWN = 8
"""Examples per figure, as in the paper."""

WINDOW, SPREAD = 11, 1.5
"""Side and standard deviation of SSIM's Gaussian window, in pixels (Wang et al., 2004)."""

OnProgress = Callable[[int, int], None]
"""Called during a measure with the number of finished examples and the total."""


def psnr(made: Tensor, truth: Tensor) -> Tensor:
    """Returns each example's peak signal-to-noise ratio in dB, 10 log10(1 / mean squared error): float64 [n].

    Values are capped at 100, which is also the value for identical images.

    Args:
        made, truth: [n, ...], with values in a range of length 1.
    """
    error = (made.double() - truth.double()).square().flatten(1).mean(1)
    return -10 * error.clamp(min=1e-10).log10()


def ssim(made: Tensor, truth: Tensor) -> Tensor:
    """Returns each example's structural similarity, float64 [n]: the mean over channels and over complete windows.

    The windows are Gaussian, as in Wang et al. (2004) and in scikit-image's `structural_similarity` with
    gaussian_weights.

    Args:
        made, truth: images [n, C, H, W] in [0, 1].
    """
    x, y = made.double(), truth.double()
    maps = torch.stack([x, y, x * x, y * y, x * y])
    means = _window(maps.shape[-2], maps).T @ (maps @ _window(maps.shape[-1], maps))
    mean_x, mean_y, xx, yy, xy = means.unbind()
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    one, two = 0.01**2, 0.03**2  # SSIM's constants for values from 0 to 1
    above = (2 * mean_x * mean_y + one) * (2 * cov + two)
    below = (mean_x**2 + mean_y**2 + one) * (var_x + var_y + two)
    return (above / below).flatten(1).mean(1)


def _window(size: int, like: Tensor) -> Tensor:
    """Returns a matrix [size, size - 10] that maps a line of `size` pixels to its Gaussian-window means.

    Multiplying by this matrix is faster than a convolution.
    """
    place = (torch.arange(size)[:, None] - torch.arange(WINDOW // 2, size - WINDOW // 2)).to(like)
    weights = torch.exp(-(place**2) / (2 * SPREAD**2)).masked_fill(place.abs() > WINDOW // 2, 0.0)
    return weights / weights.sum(0)


def make(model: Multimodal, task: Task, views: dict[str, Tensor]) -> Tensor:
    """Predicts a task's target [n, C, H, W] in [0, 1] from the given views, each [n, C', H, W].

    The model must be in evaluation mode.
    """
    target = ALL.index(task.target)
    q = model.infer_at({ALL.index(name): views[name] for name in task.given})
    made = model.likelihoods[target].mean(model.decode(target, q.mean))
    if task.keep is None:
        return made
    return torch.where(task.keep().to(made.device), views[task.given[0]], made)


def given_as_answer(task: Task, views: dict[str, Tensor]) -> Tensor | None:
    """Returns the given view as a baseline prediction, with the target's number of channels.

    Returns None if several views are given, because the given views then include the target.
    """
    if len(task.given) > 1:
        return None
    given, channels = views[task.given[0]], len(views[task.target][0])
    return grayscale(given) if channels < given.shape[1] else given.expand(-1, channels, -1, -1)


@torch.no_grad()
def vision_metrics(
    model: Multimodal, data: Dataset, on_progress: OnProgress = lambda _done, _total: None
) -> dict[str, float]:
    """Returns the vision metrics, each a mean over the test examples.

    Returns:
        - psnr/<task>, ssim/<task>: scores of the model's predictions.
        - psnr_input/<task>, ssim_input/<task>: scores of answering with the given view, if a task has only one.
        - psnr_mean/<task>, ssim_mean/<task>: scores of answering with the mean training image.
        - psnr/<task>-<part>, and likewise psnr_input and psnr_mean: PSNR of the part that a task changes.
        - test/empty_masks: share of examples in which no face was found.
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
                    found = {
                        f"psnr{whose}/{task.name}": psnr(answer, truth),
                        f"ssim{whose}/{task.name}": ssim(answer, truth),
                    }
                    if task.part is not None:
                        parts = task.part.extract(answer), task.part.extract(truth)
                        found[f"psnr{whose}/{task.name}-{task.part.name}"] = psnr(*parts)
                    for name, values in found.items():
                        totals[name] = totals.get(name, values.new_zeros(())) + values.sum()
            empty = (~views["mask"].flatten(1).any(1)).double().sum()
            totals["test/empty_masks"] = totals.get("test/empty_masks", torch.zeros_like(empty)) + empty
            on_progress(done, len(data.test))
    return {name: float(total) / len(data.test) for name, total in totals.items()}


@torch.no_grad()
def figures(model: Multimodal, split: Split) -> dict[str, Sheet]:
    """Returns sheets of the split's first examples as in the paper: images [., 3, H, W]. Each column is one example.

    The rows of a task that changes part of an image are the input, the prediction and the truth. The rows of other
    tasks are the truth and the prediction.
    """
    views, _ = next(_views(split, min(SHOWN, len(split))))
    tasks = {task.name: task for task in TASKS}
    sheets = {}
    with evaluated(model):
        for name, names in FIGURES.items():
            rows = [("input", views["image"])] if name == "edges-and-mask-from-image" else []
            for task in (tasks[each] for each in names):
                made, truth = make(model, task, views), views[task.target]
                if task.part is not None:
                    rows += [("input", views[task.given[0]]), ("reconstruction", made), ("ground truth", truth)]
                else:
                    rows += [(f"{task.target}: ground truth", truth), (f"{task.target}: reconstruction", made)]
            images = torch.cat([row.expand(-1, 3, -1, -1) for _, row in rows])
            title = ", ".join(tasks[each].label for each in names)
            labels = tuple(label for label, _ in rows)
            sheets[name] = Sheet(images, len(views["image"]), title[:1].upper() + title[1:], labels)
    return sheets


def _views(split: Split, rows: int = ROWS) -> Iterator[tuple[dict[str, Tensor], int]]:
    """Yields batches: all views of the next `rows` examples, and the number of examples yielded so far."""
    for index in split.passes(rows):
        yield {name: split.take(m, index) for m, name in enumerate(ALL)}, int(index[-1]) + 1


def _mean(split: Split, m: int) -> Tensor:
    """Returns the mean of a stored (not derived) modality over the examples, float32 [C, H, W] in [0, 1]."""
    values = split.values[m]
    assert not split.views or split.views[m] is None
    total = values.new_zeros(values.shape[1:], dtype=torch.int64)
    for start in range(0, len(values), ROWS):
        total += values[start : start + ROWS].sum(0, dtype=torch.int64)
    return (total.double() / (255 * len(values))).float()
