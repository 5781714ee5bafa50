"""Figures 7 to 10: six views of a face, each reconstructed from others.

Type    python pipelines/vision.py                                     # 1,500 drawn faces, 3.5 minutes of a core
        python pipelines/vision.py --dataset vision_faces              # 5,000 drawn faces, half an hour of a core
        python pipelines/vision.py --dataset vision --preset paper     # CelebA, on a GPU
        python pipelines/vision.py --images FOLDER-OF-FACES

Paper   supplement, section 10: MVAE on CelebA with image, grey image, edges, facial landmarks, half of the image, and
        the image under a watermark; 250 latents, batches of 50, Adam 1e-4, 100 epochs, beta annealed over 20
        epochs.
        Figure 7 reconstructs image, edges and mask from all six views. Figure 8 colours the grey image, Figure 9
        completes the hidden half, Figure 10 removes the watermark. The paper has only pictures; we added PSNR and SSIM.
Expect  figure-7.png to figure-10.png in the report. One line each for colour, hidden half and watermark says whether
        the model restores the missing part better than two baselines: the unchanged input, and the mean image.
Runs    --preset demo: vision_faces_small (1,500 drawn faces), MLP networks, every ELBO term reconstructs all six
        views, 4 epochs, learning rate 1e-3, batches of 20
        --preset demo --dataset vision_faces: 5,000 drawn faces, 8 epochs, batches of 50
        --preset paper: the paper's settings, with the DCGAN of CelebA
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar

from pydantic import model_validator

from mvae.data import source
from mvae.data.faces.vision import VISION_FACES_SMALL, VISION_IMAGES
from mvae.data.registry import names_of
from mvae.evaluation.measurable import check_measurable
from mvae.evaluation.vision_tasks import FIGURES, TASKS, Task
from mvae.measure import VISION
from mvae.refusal import Refusal
from mvae.settings import Targets
from mvae.trial import Trial
from sweeps.cli.options import CommonOptions
from sweeps.cli.shared import Preset, arms_for, folder_as_data_set
from sweeps.cli.values import Folder, Token, Whole, Written
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
"""Maps each column heading to the prefix of its metric names."""


class Options(CommonOptions):
    """Vision"""

    offers: ClassVar = {"dataset": names_of("views"), "arms": arms_for(VISION)}

    dataset: Token = "vision_faces_small"
    """Data set: {names}. vision is CelebA, vision_images is the folder of --images; the other data sets are
    drawn and need no files."""
    images: Folder | None = None
    """Folder of face images, including its subfolders. Replaces --dataset."""
    targets: Annotated[Targets | None, Written("own|all")] = None
    """Views that an ELBO term reconstructs: own (only its inputs) or all (default: the preset's)."""
    k: Whole | None = None

    @model_validator(mode="before")
    @classmethod
    def _images_are_a_data_set(cls, typed: Any) -> Any:
        conflict = "--images replaces the data set: leave --dataset {} out"
        return folder_as_data_set(typed, "images", VISION_IMAGES.name, conflict)


def preset(options: Options) -> Preset:
    """Returns the preset of the chosen data set. The demo is shortest on vision_faces_small."""
    if options.preset == "paper":
        return Preset()
    length = {"epochs": 4, "batch_size": 20} if options.dataset == VISION_FACES_SMALL.name else {"epochs": 8}
    return Preset(trial={**length, "image_network": quick_network(options.dataset), "learning_rate": 1e-3})


def trials(options: Options) -> Iterator[Trial]:
    """Yields one trial per arm and seed.

    Raises:
        Refusal: the data set does not have the six views, or the arm cannot be trained on them.
    """
    chosen = preset(options).under(options)
    targets = options.targets or ("own" if options.preset == "paper" else "all")
    for token in chosen.arms:
        check_measurable(VISION, token, source(options.dataset))
        yield from chosen.trials(options, token, targets=targets)


def task_rows(task: Task) -> dict[str, dict[str, str]]:
    """Maps each row title of a task to the metric of each column.

    If the task changes only a part of the image, that part has its own row. The input is a baseline only if the task
    has a single input view.
    """
    single = len(task.given) == 1
    offered = {column: name for column, name in COLUMNS.items() if single or not name.endswith("_input")}
    rows = {task.label: {column: f"{name}/{task.name}" for column, name in offered.items()}}
    if task.part is not None:
        rows[part_title(task)] = {
            column: f"{name}/{task.name}-{task.part.name}"
            for column, name in offered.items()
            if name.startswith("psnr")
        }
    return rows


def part_title(task: Task) -> str:
    """Returns the row title of the part that a task changes; empty if the task changes the whole image."""
    return "" if task.part is None else f"{task.label}: {task.part.label}"


def cells(options: Options) -> tuple[Cell, ...]:
    """Returns the cells. Rows are tasks, and columns are PSNR and SSIM of the model and the baselines.

    All cells of an arm and seed share a trial.

    Raises:
        Refusal: same as `trials`.
    """
    every_trial = tuple(trials(options))
    several = len({trial.model for trial in every_trial}) > 1
    return tuple(
        Cell(
            row=_row(label, trial, several),
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
        for label, metrics in task_rows(task).items()
        for trial in every_trial
        if column in metrics
    )


def _row(label: str, trial: Trial, several: bool) -> str:
    return f"{arm_title(trial.model, trial.dataset)} {label}" if several else label


def statements(report: Report, grid: tuple[Cell, ...]) -> Iterator[str]:
    """Yields a line per task that changes a part of the image: whether the model beats both baselines on the part."""
    models = {cell.trial.model: cell.trial for cell in grid}
    for trial in models.values():
        for part in filter(None, map(part_title, TASKS)):
            row = _row(part, trial, len(models) > 1)
            ours, given, mean = (report.mean(row, column) for column in (OURS, INPUT, MEAN))
            if ours is not None and given is not None and mean is not None:
                verdict = "better than both" if ours > max(given, mean) else "not better than both"
                yield f"{row}: PSNR {ours:.2f} dB (input {given:.2f}, mean image {mean:.2f}): {verdict}."


def pictures(report: Report, store: Store) -> Pictures:
    """Returns each arm's figures, drawn by the final model of the arm's first seed."""
    found: dict[str, Callable[[], bytes]] = {}
    arms = {entry.arm: entry.runs[0] for entry in reversed(report.in_order())}
    for number, (token, run) in enumerate(reversed(arms.items())):
        for name in FIGURES:
            drawn = store.artifacts(run.key) / f"{name}.png"
            if run.value is not None and drawn.is_file():
                found[f"{name}.png" if number == 0 else f"{name}-{token}.png"] = drawn.read_bytes
    return found


def sweep(options: Options) -> Sweep:
    """Returns the table and the figures that the options ask for.

    Raises:
        Refusal: unknown arm or data set, data set without the six views, or missing --images.
    """
    if options.dataset == VISION_IMAGES.name and "data_root" not in options.model_fields_set:
        raise Refusal(f"{VISION_IMAGES.name} reads a folder of images: name the folder with --images FOLDER")
    title = f"Figures 7 to 10 on {options.dataset}"
    grid = cells(options)
    return Sweep(
        f"vision-{options.dataset}",
        title,
        grid,
        remarks=remarks(grid, network_given=options.image_network is not None),
        axis="of test images",
        heading=f"{title}: PSNR in dB and SSIM of the model, of the unchanged input, and of the mean image",
        source="supplement, section 10, Figures 7 to 10",
        statements=lambda report: statements(report, grid),
        pictures=lambda report, _: pictures(report, Store.open(options.storage, options.name, create=False)),
    )


if __name__ == "__main__":
    start(Options, sweep)
