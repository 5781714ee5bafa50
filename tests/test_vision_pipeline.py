"""The pipeline of Figures 7 to 10: its trials and its report."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mvae import data
from mvae.data.faces import vision
from mvae.evaluation.vision_tasks import FIGURES
from mvae.measure import VISION
from mvae.trial import Trial
from pipelines.vision import Options, cells, sweep
from sweeps.cli.options import read
from sweeps.main import COMPLETE, main
from sweeps.store.results import Result
from sweeps.store.store import Store
from tests.pipelines_run import run

SMALL = "vision_faces_small"

PARTS = ("colour from grey: Cb and Cr", "right half from left: hidden half", "watermark removed: marked pixels")
ROWS = (
    *("image from all six", "edges from all six", "mask from all six", "colour from grey", PARTS[0]),
    *("right half from left", PARTS[1], "watermark removed", PARTS[2], "edges from image", "mask from image"),
)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(data.DATASETS, SMALL, vision.describe_faces(SMALL, count=36))


def test_rows_are_tasks_and_columns_are_the_quantities_of_one_trial() -> None:
    grid = cells(read(Options, ()))
    assert tuple(dict.fromkeys(cell.row for cell in grid)) == ROWS
    assert list(dict.fromkeys(str(cell.column) for cell in grid)) == [
        *("PSNR", "PSNR of the input", "PSNR of the mean", "SSIM", "SSIM of the input", "SSIM of the mean")
    ]
    assert len({cell.trial for cell in grid}) == 1 and {cell.measure for cell in grid} == {VISION}
    shown = {(cell.row, cell.column): cell.quantity for cell in grid}
    assert shown["colour from grey: Cb and Cr", "PSNR of the input"] == "psnr_input/colour-cbcr"
    assert shown["mask from image", "SSIM of the mean"] == "ssim_mean/mask_from_image"
    assert ("image from all six", "PSNR of the input") not in shown, "the truth is among what it is given"
    assert not any(row in PARTS and str(column).startswith("SSIM") for row, column in shown)


def test_the_paper_preset_has_the_settings_of_section_1() -> None:
    (trial,) = {cell.trial for cell in cells(read(Options, ("--dataset", "vision", "--preset", "paper")))}
    assert trial == Trial.create(
        dataset="vision",
        model="mvae",
        image_network="dcgan",
        latents=250,
        batch_size=50,
        learning_rate=1e-4,
        epochs=100,
        annealing_share=0.2,
        k=1,
        targets="own",
        pairing="proportional",
    )


def test_command_line_options_override_the_preset() -> None:
    typed = ("--epochs", "3", "--learning-rate", "0.01", "--image-network", "dcgan", "--targets", "own", "-k", "0")
    (trial,) = {cell.trial for cell in cells(read(Options, typed))}
    assert (trial.epochs, trial.learning_rate, trial.image_network, trial.targets, trial.k) == (
        *(3, 0.01, "dcgan", "own", 0),
    )


def test_more_drawn_faces_get_the_settings_used_in_the_documents() -> None:
    (trial,) = {cell.trial for cell in cells(read(Options, ("--dataset", "vision_faces")))}
    assert trial.key(data.fingerprint("vision_faces")) == "576cb9d7aead9aec", "the key must be the one in docs/results"


def test_a_folder_of_images_is_its_own_data_set(tmp_path: Path) -> None:
    options = read(Options, ("--images", str(tmp_path)))
    assert (options.dataset, options.data_root) == ("vision_images", tmp_path)
    assert read(Options, ("--images", str(tmp_path), "--plan")).data_root == tmp_path


@pytest.mark.usefixtures("no_cluster")
def test_results_of_a_folder_identified_by_names_and_sizes_are_listed_but_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(13):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.bmp")
    asked = ("--images", str(folder), "--storage", str(tmp_path / "storage"), "--cache", str(tmp_path / "cache"))
    (trial,) = {cell.trial for cell in cells(read(Options, asked))}
    former = data.former_fingerprint("vision_images", folder)
    assert former is not None
    result = Result(trial.key(former), VISION.token, trial.model_dump(), {"psnr/image": 20.0}, {}, [])
    Store.open(tmp_path / "storage", "main", create=True).results.write(result)
    assert run("vision", *asked, "--plan") == COMPLETE
    said = " ".join(capsys.readouterr().out.split())
    assert "1 trial: 0 done, 0 partial, 1 missing" in said
    why = "superseded and not read, because that release did not check the contents of the data set's files"
    assert f"{why}: {trial.key(former)}.{VISION.token}.json" in said


@pytest.mark.usefixtures("no_cluster")
def test_the_report_has_the_figures_and_says_which_tasks_beat_both_baselines(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made-up numbers: the mean image beats ours only on the watermark's pixels."""
    asked = ("--storage", str(storage), "--arms", "mvae,mvae_q", "--seeds", "0-1")
    options = read(Options, (*asked, "--report"))
    store = Store.open(storage, "main", create=True)
    mark = data.fingerprint(SMALL)
    for cell in cells(options):
        key = cell.trial.key(mark)
        metrics = {other.quantity: 10.0 for other in cells(options)}
        metrics |= {name: 20.0 + cell.trial.seed for name in metrics if name.startswith("psnr/")}
        metrics |= {"psnr_mean/watermark-marked": 30.0, "psnr/mask": 15.0 + (cell.trial.model == "mvae_q")}
        store.results.write(Result(key, VISION.token, cell.trial.model_dump(), metrics, {}, []))
        for name in FIGURES:
            path = Path(str(store.artifacts(key))) / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{name} of {cell.trial.model} {cell.trial.seed}".encode())
    assert main(lambda: sweep(options), options) == COMPLETE
    printed = " ".join(capsys.readouterr().out.split())
    for line in (
        "MVAE6 colour from grey: Cb and Cr: PSNR 20.50 dB (input 10.00, mean image 10.00): better than both.",
        "MVAE6 right half from left: hidden half: PSNR 20.50 dB (input 10.00, mean image 10.00): better than both.",
        "MVAE6 watermark removed: marked pixels: PSNR 20.50 dB (input 10.00, mean image 30.00): not better than both",
    ):
        assert line in printed
    assert "no published table" not in printed and "supplement" not in printed
    folder = Path(str(store.reports)) / f"vision-{SMALL}"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in FIGURES:
        assert files[f"{name}.png"] == f"{name} of mvae 0".encode()
        assert files[f"{name}-mvae_q.png"] == f"{name} of mvae_q 0".encode()
    contrasts = [line for line in files["table.md"].decode().splitlines() if line.startswith("| **MVAE-Q6 ")]
    compared = [line for line in contrasts if " - MVAE6 " in line]
    assert len(compared) == len(ROWS)
    (mask,) = (line for line in compared if "MVAE-Q6 mask from all six - MVAE6 mask from all six" in line)
    assert "+1.000" in mask


@pytest.mark.usefixtures("no_cluster")
def test_a_report_without_results_is_incomplete_and_has_no_figures(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store.open(storage, "main", create=True)
    assert run("vision", "--storage", str(storage), "--report") == 1
    assert "better than both" not in capsys.readouterr().out
    assert not list(storage.rglob("figure-*.png"))
