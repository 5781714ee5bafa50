"""Image grids: what is where on them, and that they come out the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mvae.data import Dataset, load
from mvae.evaluation.samples import grid, sample_grids, save_png
from mvae.models import arm
from mvae.models.multimodal import Multimodal
from mvae.trial import Trial


@pytest.fixture(scope="module")
def digits(cache: Path) -> Dataset:
    return load("digits", cache=cache)


@pytest.fixture
def model(digits: Dataset) -> Multimodal:
    torch.manual_seed(0)
    built = arm("mvae").build(Trial.create(dataset="digits", model="mvae"), digits.modalities)
    assert isinstance(built, Multimodal)
    return built


def tiles(sheet: Tensor, size: int = 8, gap: int = 1) -> list[list[Tensor]]:
    """A grid cut up again into its rows of images."""
    step = size + gap
    return [
        [sheet[:, top : top + size, left : left + size] for left in range(0, sheet.shape[2], step)]
        for top in range(0, sheet.shape[1], step)
    ]


def test_a_grid_holds_its_images_in_reading_order_with_gaps_between() -> None:
    images = torch.rand(5, 1, 2, 3)
    sheet = grid(images, columns=3, gap=2)
    assert sheet.shape == (1, 2 * 2 + 2, 3 * 3 + 2 * 2)
    assert torch.equal(sheet[:, :2, :3], images[0])
    assert torch.equal(sheet[:, :2, 10:], images[2])
    assert torch.equal(sheet[:, 4:, 5:8], images[4])
    assert sheet[:, 2:4].eq(0.5).all()
    assert sheet[:, 4:, 10:].eq(0.5).all()


def test_the_grids_are_images_in_0_to_1_of_the_size_of_their_contents(model: Multimodal, digits: Dataset) -> None:
    grids = sample_grids(model, digits.test, seed=0)
    assert {name: tuple(sheet.shape) for name, sheet in grids.items()} == {
        "reconstructions": (1, 2 * 9 - 1, 16 * 9 - 1),
        "image_given_label": (1, 10 * 9 - 1, 8 * 9 - 1),
        "prior": (1, 8 * 9 - 1, 8 * 9 - 1),
    }
    for sheet in grids.values():
        assert sheet.min() >= 0
        assert sheet.max() <= 1


def test_reconstructions_are_the_test_images_above_what_their_posterior_means_decode_to(
    model: Multimodal, digits: Dataset
) -> None:
    truth, rebuilt = tiles(sample_grids(model, digits.test, seed=0)["reconstructions"])
    images = digits.test.take(0, torch.arange(16))
    mean, log_var = model.encoders[0](images).chunk(2, -1)
    expected = torch.sigmoid(model.decoders[0](mean / (1 + log_var.exp())))
    torch.testing.assert_close(torch.stack(truth), images)
    torch.testing.assert_close(torch.stack(rebuilt), expected)


def test_each_row_of_images_given_a_label_is_of_one_class(model: Multimodal, digits: Dataset) -> None:
    with torch.no_grad():  # labels that say exactly where z is, and a decoder that paints z
        model.encoders[1].layers = torch.nn.Identity()
        model.encoders[1].embedding = torch.nn.Embedding(10, 32)
        model.encoders[1].embedding.weight[:, :16] = torch.arange(10.0).view(-1, 1)
        model.encoders[1].embedding.weight[:, 16:] = -15.0
        model.decoders[0] = Painter()
    rows = tiles(sample_grids(model, digits.test, seed=0)["image_given_label"])
    means = torch.tensor([[float(torch.logit(tile).mean()) for tile in row] for row in rows])
    torch.testing.assert_close(means, torch.arange(10.0).view(-1, 1).expand(-1, 8), atol=0.02, rtol=0)


class Painter(torch.nn.Module):
    """Paints the first latent all over the image."""

    def forward(self, z: Tensor) -> Tensor:
        return z[:, :1, None, None].expand(-1, 1, 8, 8)


def test_grids_of_one_seed_are_equal_and_of_another_differ(model: Multimodal, digits: Dataset) -> None:
    one, same, other = (sample_grids(model, digits.test, seed) for seed in (3, 3, 4))
    for name in one:
        assert torch.equal(one[name], same[name])
    assert not torch.equal(one["prior"], other["prior"])
    assert not torch.equal(one["image_given_label"], other["image_given_label"])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_saved_picture_reads_back_as_the_grid(channels: int, tmp_path: Path) -> None:
    sheet = torch.rand(channels, 4, 5)
    path = tmp_path / "new folder" / "grid.png"
    save_png(sheet, path, scale=3)
    pixels = np.asarray(Image.open(path)).reshape(12, 15, channels)
    expected = (sheet.permute(1, 2, 0) * 255).round().numpy()
    assert (pixels[::3, ::3] == expected).all()
    assert (pixels[2::3, 1::3] == expected).all()
