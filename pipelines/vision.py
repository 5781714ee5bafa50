"""Figures 7 to 10: six views of a face, and each of them made of others.

Paper   supplement, section 10: MVAE on CelebA with image, grey image, edges, facial landmarks, half of the image, and
        the image under a watermark; 250 latents, batches of 50, Adam 1e-4, 100 epochs, beta annealed over 20. Shown:
        image, edges and mask of all six (Figure 7), colour of the grey image (8), the hidden half (9), the watermark
        removed (10). Pictures alone; the PSNR and SSIM of the table here are ours, beside two plain baselines
Expect  figure-7.png to figure-10.png in the report, and a line for each of colour, hidden half and watermark that says
        whether what changed comes out better than what was given and than the mean image
Runs    --preset demo: vision_faces_small (1,500 faces drawn here), MLP networks, every ELBO term reconstructs all six,
        4 epochs at 1e-3 in batches of 20: about 3.5 minutes of one CPU core
        --preset demo --dataset vision_faces: 5,000 faces, 8 epochs in batches of 50, about half an hour of one core
        --preset paper: the paper's own numbers on the DCGAN of CelebA, where a GPU is wanted
Type    python pipelines/vision.py
        python pipelines/vision.py --dataset vision_faces
        python pipelines/vision.py --dataset vision --preset paper
        python pipelines/vision.py --images FOLDER-OF-FACES
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import model_validator

from mvae.data import source
from mvae.data.faces.vision import VISION_FACES_SMALL, VISION_IMAGES
from mvae.evaluation.measurable import check_measurable
from mvae.evaluation.vision import FIGURES, TASKS, Task
from mvae.measure import VISION
from mvae.refusal import Refusal
from mvae.settings import Targets
from mvae.trial import Trial
from sweeps.cli.options import CommonOptions
from sweeps.cli.shared import Preset, folder_as_data_set
from sweeps.cli.values import Folder, Token, Whole
from sweeps.start import start
from sweeps.store.store import Store
from sweeps.sweep import Cell, Sweep
from sweeps.table.files import Pictures, Report
from sweeps.table.protocol import remarks
from sweeps.table.quantities import arm_title, quick_network

OURS, INPUT, MEAN = "PSNR", "PSNR of the input", "PSNR of the mean"
COLUMNS = {
    OURS: "psnr",
    INPUT: "psnr_input",
    MEAN: "psnr_mean",
    "SSIM": "ssim",
    "SSIM of the input": "ssim_input",
    "SSIM of the mean": "ssim_mean",
}
"""Heading to what its metrics' names begin with."""


class Options(CommonOptions):
    """Vision"""

    dataset: Token = "vision_faces_small"
    """Six views of a face: vision (CelebA), vision_faces, vision_faces_small (drawn here), vision_images (--images)."""
    images: Folder | None = None
    """Any folder of face images, at any depth, in place of a data set's files."""
    targets: Targets | None = None
    """What an ELBO term reconstructs: own, what it conditions on, or all (default: the preset's)."""
    k: Whole | None = None
    """Random subsets of the six views a step (default: the data set's)."""

    @model_validator(mode="before")
    @classmethod
    def _images_are_a_data_set(cls, typed: Any) -> Any:
        otherwise = "--images is a data set of its own: leave --dataset {} out"
        return folder_as_data_set(typed, "images", VISION_IMAGES.name, otherwise)


def preset(options: Options) -> Preset:
    """The preset for a data set: the paper's settings, or a demo that is short on the small data set."""
    if options.preset == "paper":
        return Preset()
    demo = {"epochs": 8, "image_network": quick_network(options.dataset), "learning_rate": 1e-3}
    small = {"epochs": 4, "batch_size": 20} if options.dataset == VISION_FACES_SMALL.name else {}
    return Preset(trial={**demo, **small})


def trials(options: Options) -> Iterator[Trial]:
    """An arm and a seed each.

    Raises:
        Refusal: a data set without the six views, or an arm that does not know them.
    """
    chosen = preset(options).under(options)
    targets = options.targets or ("own" if options.preset == "paper" else "all")
    for token in chosen.arms:
        check_measurable(VISION, token, source(options.dataset))
        yield from chosen.trials(options, token, targets=targets)


def shown(task: Task) -> dict[str, dict[str, str]]:
    """The rows of a task: what it is called to a metric a column; the part that it changes has a row of its own."""
    one = len(task.given) == 1
    offered = {column: name for column, name in COLUMNS.items() if one or not name.endswith("_input")}
    rows = {task.label: {column: f"{name}/{task.name}" for column, name in offered.items()}}
    if task.part is not None:
        rows[changed(task)] = {
            column: f"{name}/{task.name}-{task.part.name}"
            for column, name in offered.items()
            if name.startswith("psnr")
        }
    return rows


def changed(task: Task) -> str:
    """What the row of the part that a task changes is called; empty if it changes none."""
    return "" if task.part is None else f"{task.label}: {task.part.label}"


def cells(options: Options) -> tuple[Cell, ...]:
    """Rows are tasks, columns PSNR and SSIM with those of the baselines; all cells of an arm and seed share a trial.

    Raises:
        Refusal: as `trials`.
    """
    made = tuple(trials(options))
    several = len({trial.model for trial in made}) > 1
    return tuple(
        Cell(
            row=heading(label, trial, several),
            column=column,
            trial=trial,
            measure=VISION,
            published=None,
            arm=trial.model,
            quantity=metrics[column],
            variant=arm_title(trial.model, trial.dataset),
        )
        for column in COLUMNS
        for task in TASKS
        for label, metrics in shown(task).items()
        for trial in made
        if column in metrics
    )


def heading(label: str, trial: Trial, several: bool) -> str:
    """A row's: with the arm, where there are several."""
    return f"{arm_title(trial.model, trial.dataset)} {label}" if several else label


def statements(report: Report, made: tuple[Trial, ...]) -> Iterator[str]:
    """Of each task that changes a part of the image: whether that part is better than both baselines."""
    models = {trial.model: trial for trial in made}
    for trial in models.values():
        for part in filter(None, map(changed, TASKS)):
            row = heading(part, trial, len(models) > 1)
            ours, given, mean = (report.mean(row, column) for column in (OURS, INPUT, MEAN))
            if ours is not None and given is not None and mean is not None:
                said = "better than both" if ours > max(given, mean) else "not better than both"
                yield f"{row}: {ours:.2f} dB, the input {given:.2f}, the mean image {mean:.2f}: {said}."


def pictures(report: Report, store: Store) -> Pictures:
    """The figures of each arm's first seed, as its trial drew them of its final model."""
    found: dict[str, Callable[[], bytes]] = {}
    arms = {entry.arm: entry.runs[0] for entry in reversed(report.in_order())}
    for number, (token, run) in enumerate(reversed(arms.items())):
        for name in FIGURES:
            drawn = store.artifacts(run.key) / f"{name}.png"
            if run.value is not None and drawn.is_file():
                found[f"{name}.png" if number == 0 else f"{name}-{token}.png"] = drawn.read_bytes
    return found


def sweep(options: Options) -> Sweep:
    """The table and the figures that the options ask for.

    Raises:
        Refusal: an unknown name, a data set without the six views, no folder of images.
    """
    if options.dataset == VISION_IMAGES.name and "data_root" not in options.model_fields_set:
        raise Refusal(f"{VISION_IMAGES.name} is made of any folder of images: give --images FOLDER")
    made = tuple(trials(options))
    title = f"Figures 7 to 10 on {options.dataset}"
    grid = cells(options)
    return Sweep(
        f"vision-{options.dataset}",
        title,
        grid,
        remarks=remarks(grid, network_given=options.image_network is not None),
        axis="of test images",
        heading=f"{title}: PSNR in dB and SSIM, with those of the input taken as the answer, and of the mean image",
        source="supplement, section 10, Figures 7 to 10",
        statements=lambda report: statements(report, made),
        pictures=lambda report, _: pictures(report, Store.open(options.storage, options.name, create=False)),
    )


if __name__ == "__main__":
    start(Options, sweep)
