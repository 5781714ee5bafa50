"""Views of a face predicted from other views: PSNR, SSIM and both baselines equal closed forms and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from mvae.data import source
from mvae.data.examples import Dataset, Split
from mvae.data.faces.vision import MODALITIES, grayscale, hidden_half, obscured, watermark, watermarked
from mvae.evaluation import vision
from mvae.evaluation.measurable import check_measurable
from mvae.evaluation.measures import compute
from mvae.evaluation.vision import figures, make, psnr, ssim, vision_metrics
from mvae.evaluation.vision_tasks import FIGURES, TASKS, chroma
from mvae.measure import VISION
from mvae.models.mvae import MVAE, build_mvae
from mvae.refusal import Refusal
from mvae.streams import global_stream
from mvae.trial import Trial

TRIAL = Trial.create(dataset="vision_faces", model="mvae", latents=4, image_network="dcgan", epochs=1)
VIEWS = tuple(modality.view for modality in MODALITIES)


def split_of(images: torch.Tensor, edges: torch.Tensor, masks: torch.Tensor) -> Split:
    return Split((images, images, edges, masks, images, images), views=VIEWS)


def dataset_of(train: Split, test: Split) -> Dataset:
    return Dataset("vision_faces", MODALITIES, "0" * 64, train, train, test)


@pytest.fixture(scope="module")
def model() -> MVAE:
    """An untrained model in evaluation mode."""
    with global_stream(0, "initialisation"):
        return build_mvae(TRIAL, MODALITIES).eval()


@pytest.fixture
def some() -> Dataset:
    """Noise of different brightness: 6 examples to train on, 7 to test."""
    generator = torch.Generator().manual_seed(0)

    def noise(count: int, channels: int) -> torch.Tensor:
        bright = torch.rand(count, channels, 1, 1, generator=generator)
        return (torch.rand(count, channels, 64, 64, generator=generator) * bright * 255).byte()

    def split(count: int) -> Split:
        binary = [(noise(count, 1) > 60) * torch.tensor(255, dtype=torch.uint8) for _ in range(2)]
        return split_of(noise(count, 3), *binary)

    return dataset_of(split(6), split(7))


def flat(count: int, *colour: int) -> Split:
    """Single-colour images, without edges and with an empty mask."""
    images = torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(count, 3, 64, 64).contiguous()
    return split_of(images, *(torch.zeros(count, 1, 64, 64, dtype=torch.uint8) for _ in range(2)))


def decibels(squared_error: float) -> float:
    return -10 * math.log10(squared_error)


def test_psnr_of_a_constant_shift_has_a_closed_form_and_equal_images_have_100() -> None:
    truth = torch.rand(3, 3, 64, 64)
    found = psnr(truth + torch.tensor([0.1, 0.01, 0.0])[:, None, None, None], truth)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([20, 40, 100], abs=1e-3)


def test_ssim_equals_scikit_images_with_gaussian_windows() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed (the extra vision)")
    from skimage.data import astronaut
    from skimage.metrics import structural_similarity

    photograph: np.ndarray = astronaut()  # type: ignore[no-untyped-call]
    image = np.asarray(Image.fromarray(photograph).resize((64, 64))).transpose(2, 0, 1) / 255
    random = np.random.default_rng(0)
    others = [image, np.clip(image + random.normal(0, 0.1, image.shape), 0, 1), image[:, ::-1], np.zeros_like(image)]
    found = ssim(torch.from_numpy(np.stack(others)), torch.from_numpy(image).expand(4, -1, -1, -1))
    for other, value in zip(others, found.tolist(), strict=True):
        settings = {"data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False, "channel_axis": 0}
        expected: float = structural_similarity(other, image, **settings)  # type: ignore[no-untyped-call]
        assert value == pytest.approx(expected, abs=1e-10)
    assert found[0] == pytest.approx(1)


def test_chroma_is_pillows_cb_and_cr_and_zero_for_grey_images() -> None:
    random = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    found = chroma(torch.from_numpy(random).permute(2, 0, 1)[None].float() / 255).view(2, 64, 64) * 255 + 128
    expected = np.asarray(Image.fromarray(random).convert("YCbCr")).transpose(2, 0, 1)[1:]
    assert np.abs(found.numpy() - expected).max() < 1.05  # Pillow truncates
    grey = torch.rand(2, 1, 64, 64).expand(-1, 3, -1, -1)
    torch.testing.assert_close(chroma(grey), torch.zeros(2, 2 * 64 * 64), rtol=0, atol=1e-6)


def test_the_baselines_of_flat_images_have_closed_forms(model: MVAE) -> None:
    """Training images of (100, 50, 200), test images of (255, 0, 51)."""
    found = vision_metrics(model, dataset_of(flat(3, 100, 50, 200), flat(2, 255, 0, 51)))
    red, green, blue = 1.0, 0.0, 0.2
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    apart = ((red - 100 / 255) ** 2 + (green - 50 / 255) ** 2 + (blue - 200 / 255) ** 2) / 3
    grey = ((red - luma) ** 2 + (green - luma) ** 2 + (blue - luma) ** 2) / 3
    energy = (red**2 + green**2 + blue**2) / 3
    under = 0.36 * ((1 - red) ** 2 + (1 - green) ** 2 + (1 - blue) ** 2) / 3
    coloured = ((0.564 * (blue - luma)) ** 2 + (0.713 * (red - luma)) ** 2) / 2
    marked = watermark().double().mean().item()
    expected = {
        "psnr_mean/reconstruction": decibels(apart),
        "psnr_mean/colour": decibels(apart),
        "psnr_mean/fill_in-hidden": decibels(apart),
        "psnr_mean/watermark-marked": decibels(apart),
        "psnr_input/colour": decibels(grey),
        "psnr_input/colour-cbcr": decibels(coloured),
        "psnr_input/fill_in": decibels(energy / 2),
        "psnr_input/fill_in-hidden": decibels(energy),
        "psnr_input/watermark": decibels(under * marked),
        "psnr_input/watermark-marked": decibels(under),
        "psnr_input/edges_from_image": decibels(luma**2),
        "psnr_mean/edges": 100.0,
        "psnr_mean/mask": 100.0,
        "test/empty_masks": 1.0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)


def test_every_metric_is_the_mean_of_a_plain_loop_over_the_examples(
    model: MVAE, some: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision, "ROWS", 3)
    found = vision_metrics(model, some)
    names = [modality.name for modality in MODALITIES]
    mean = {
        name: some.train.values[names.index(name)].double().mean(0)[None].float() / 255
        for name in ("image", "edges", "mask")
    }
    expected: dict[str, list[float]] = {}
    for number in range(len(some.test)):
        views = {name: some.test.take(m, torch.tensor([number])) for m, name in enumerate(names)}
        for task in TASKS:
            q = model.infer_at({names.index(name): views[name] for name in task.given})
            with torch.no_grad():
                ours = torch.sigmoid(model.decode(names.index(task.target), q.mean))
            if task.name == "fill_in":
                ours = torch.cat([views["image"][..., :32], ours[..., 32:]], dim=-1)
            answers = {"": ours, "_mean": mean[task.target]}
            if task.name in ("colour", "fill_in", "watermark"):
                answers["_input"] = views[task.given[0]].expand(-1, 3, -1, -1)
            elif task.name.endswith("from_image"):
                answers["_input"] = views["grayscale"]
            for whose, answer in answers.items():
                truth = views[task.target]
                expected.setdefault(f"psnr{whose}/{task.name}", []).append(
                    decibels(float((answer.double() - truth.double()).square().mean()))
                )
                expected.setdefault(f"ssim{whose}/{task.name}", []).append(float(ssim(answer, truth)))
    for name, values in expected.items():
        assert found[name] == pytest.approx(sum(values) / 7, abs=1e-6), name
    parts = {f"psnr{whose}/{part}" for whose in ("", "_input", "_mean") for part in PARTS}
    assert found.keys() == expected.keys() | parts | {"test/empty_masks"}
    assert all(math.isfinite(value) for value in found.values())


PARTS = ("colour-cbcr", "fill_in-hidden", "watermark-marked")


def test_only_the_hidden_or_marked_part_of_an_image_counts() -> None:
    truth = torch.rand(2, 3, 64, 64)
    parts = {task.name: task.part for task in TASKS if task.part is not None}
    for name, pixels, view in (("fill_in", hidden_half(), obscured), ("watermark", watermark(), watermarked)):
        part = parts[name]
        assert part is not None
        wrong_elsewhere = torch.where(pixels, truth, 1 - truth)
        assert psnr(part.extract(wrong_elsewhere), part.extract(truth)).tolist() == [100, 100]
        whole = (view(truth).double() - truth.double()).square().mean((1, 2, 3))
        of_part = 10 ** (-psnr(part.extract(view(truth)), part.extract(truth)) / 10)
        torch.testing.assert_close(of_part * pixels.double().mean(), whole, rtol=1e-6, atol=0)


def test_a_task_sees_only_the_views_it_is_given(model: MVAE, some: Dataset) -> None:
    names = [modality.name for modality in MODALITIES]
    views = {name: some.test.take(m, torch.arange(2)) for m, name in enumerate(names)}
    for task in TASKS:
        alone = make(model, task, {name: views[name] for name in task.given})
        beside = {name: view if name in task.given else view * math.nan for name, view in views.items()}
        assert torch.equal(make(model, task, beside), alone), task.name
    colour, fill_in = (next(task for task in TASKS if task.name == name) for name in ("colour", "fill_in"))
    assert colour.given == ("grayscale",) and torch.equal(views["grayscale"], grayscale(views["image"]))
    assert torch.equal(make(model, fill_in, views)[..., :32], views["image"][..., :32])


def test_a_figure_shows_the_truth_or_the_damaged_image_above_the_models_output(model: MVAE, some: Dataset) -> None:
    sheets = figures(model, some.test)
    assert sheets.keys() == FIGURES.keys()
    rows = {"figure-7": 6, "figure-8": 3, "figure-9": 3, "figure-10": 3, "edges-and-mask-from-image": 5}
    views = {m.name: some.test.take(number, torch.arange(7)) for number, m in enumerate(MODALITIES)}
    made = {task.name: make(model, task, views) for task in TASKS}

    def shown(name: str, row: int, column: int) -> torch.Tensor:
        return sheets[name].pixels[:, row * 65 : row * 65 + 64, column * 65 : column * 65 + 64]

    for name, count in rows.items():
        assert sheets[name].pixels.shape == (3, count * 65 - 1, 7 * 65 - 1), name
    expected = {
        "figure-7": ("image", "=reconstruction", "edges", "=edges", "mask", "=mask"),
        "figure-8": ("grayscale", "=colour", "image"),
        "figure-9": ("obscured", "=fill_in", "image"),
        "figure-10": ("watermark", "=watermark", "image"),
        "edges-and-mask-from-image": ("image", "edges", "=edges_from_image", "mask", "=mask_from_image"),
    }
    for name, content in expected.items():
        for row, what in enumerate(content):
            of_last = (made[what[1:]] if what.startswith("=") else views[what])[6]
            torch.testing.assert_close(shown(name, row, 6), of_last.expand(3, -1, -1), msg=f"{name}, {what}")
    mended = ("input", "reconstruction", "ground truth")
    assert all(sheets[name].rows == mended for name in ("figure-8", "figure-9", "figure-10"))
    views_made = tuple(f"{view}: {which}" for view in ("edges", "mask") for which in ("ground truth", "reconstruction"))
    assert sheets["figure-7"].rows == ("image: ground truth", "image: reconstruction", *views_made)
    assert sheets["edges-and-mask-from-image"].rows == ("input", *views_made)


def test_the_vision_measure_is_refused_without_six_views_or_a_suitable_arm(model: MVAE, some: Dataset) -> None:
    with pytest.raises(Refusal, match=r"^arm vae has no vision: choose among mvae, mvae_q$"):
        check_measurable(VISION, "vae", some)
    with pytest.raises(Refusal, match=r"^digits has no edges and masks of faces to predict: choose among vision, "):
        check_measurable(VISION, "mvae", source("digits"))
    assert compute(VISION, model, TRIAL, some) == vision_metrics(model, some)


def test_a_model_of_several_images_predicts_the_first(model: MVAE, some: Dataset) -> None:
    images = some.test.take(0, torch.arange(3))
    assert torch.equal(model(images), model.decode(0, model.infer_at({0: images}).mean))
