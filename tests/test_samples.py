"""Image grids: the contents of each place, and reproducible grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mvae.data import Dataset, Kind, Modality, Split, load, source
from mvae.evaluation.samples import conditional_grids, sample_grids, sample_words
from mvae.evaluation.sheets import LINE, PADDING, Sheet, grid, labelled, save_png
from mvae.evaluation.words import WordTable
from mvae.models import arm
from mvae.models.cvae import CVAE
from mvae.models.multimodal import Multimodal
from mvae.storage.objects import place
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


def tiles(sheet: Sheet, size: int = 8, gap: int = 1) -> list[list[Tensor]]:
    """Splits a sheet's grid into its rows of images."""
    step, pixels = size + gap, sheet.pixels
    return [
        [pixels[:, top : top + size, left : left + size] for left in range(0, pixels.shape[2], step)]
        for top in range(0, pixels.shape[1], step)
    ]


def test_a_grid_holds_its_images_in_reading_order_with_gaps() -> None:
    images = torch.rand(5, 1, 2, 3)
    sheet = grid(images, columns=3, gap=2)
    assert sheet.shape == (1, 2 * 2 + 2, 3 * 3 + 2 * 2)
    assert torch.equal(sheet[:, :2, :3], images[0])
    assert torch.equal(sheet[:, :2, 10:], images[2])
    assert torch.equal(sheet[:, 4:, 5:8], images[4])
    assert sheet[:, 2:4].eq(0.5).all()
    assert sheet[:, 4:, 10:].eq(0.5).all()


def test_grids_are_images_in_0_to_1_with_the_size_of_their_contents(model: Multimodal, digits: Dataset) -> None:
    grids = sample_grids(model, digits.test, seed=0)
    assert {name: tuple(sheet.pixels.shape) for name, sheet in grids.items()} == {
        "reconstructions": (1, 2 * 9 - 1, 16 * 9 - 1),
        "image_given_label": (1, 10 * 9 - 1, 8 * 9 - 1),
        "prior": (1, 8 * 9 - 1, 8 * 9 - 1),
    }
    for sheet in grids.values():
        assert sheet.pixels.min() >= 0
        assert sheet.pixels.max() <= 1


def test_test_images_are_above_the_reconstructions_from_their_posterior_means(
    model: Multimodal, digits: Dataset
) -> None:
    truth, rebuilt = tiles(sample_grids(model, digits.test, seed=0)["reconstructions"])
    images = digits.test.take(0, torch.arange(16))
    mean, log_var = model.encoders[0](images).chunk(2, -1)
    expected = torch.sigmoid(model.decoders[0](mean / (1 + log_var.exp())))
    torch.testing.assert_close(torch.stack(truth), images)
    torch.testing.assert_close(torch.stack(rebuilt), expected)


def test_each_row_of_images_given_a_label_has_one_class(model: Multimodal, digits: Dataset) -> None:
    with torch.no_grad():  # labels that reveal z, and a decoder that paints z
        model.encoders[1].layers = torch.nn.Identity()
        model.encoders[1].embedding = torch.nn.Embedding(10, 32)
        model.encoders[1].embedding.weight[:, :16] = torch.arange(10.0).view(-1, 1)
        model.encoders[1].embedding.weight[:, 16:] = -15.0
        model.decoders[0] = Painter()
    rows = tiles(sample_grids(model, digits.test, seed=0)["image_given_label"])
    means = torch.tensor([[float(torch.logit(tile).mean()) for tile in row] for row in rows])
    torch.testing.assert_close(means, torch.arange(10.0).view(-1, 1).expand(-1, 8), atol=0.02, rtol=0)


class Painter(torch.nn.Module):
    """Paints the whole image with the first latent."""

    def forward(self, z: Tensor) -> Tensor:
        return z[:, :1, None, None].expand(-1, 1, 8, 8)


def test_grids_are_equal_for_one_seed_and_differ_between_seeds(model: Multimodal, digits: Dataset) -> None:
    one, same, other = (sample_grids(model, digits.test, seed) for seed in (3, 3, 4))
    for name in one:
        assert torch.equal(one[name].images, same[name].images)
    assert not torch.equal(one["prior"].images, other["prior"].images)
    assert not torch.equal(one["image_given_label"].images, other["image_given_label"].images)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_saved_sheet_without_words_is_read_back_as_its_grid(channels: int, tmp_path: Path) -> None:
    sheet = Sheet(torch.rand(4, channels, 4, 5), columns=2)
    path = tmp_path / "new folder" / "grid.png"
    save_png(sheet, place(path), scale=3)
    pixels = np.asarray(Image.open(path)).reshape(27, 33, channels)
    expected = (sheet.pixels.permute(1, 2, 0) * 255).round().numpy()
    assert (pixels[::3, ::3] == expected).all()
    assert (pixels[2::3, 1::3] == expected).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_words_are_left_of_their_row_or_above_it_and_cover_no_image(channels: int) -> None:
    sheet = Sheet(torch.rand(9, channels, 20, 20), 3, "A title", ("input", "a reconstruction", "input"))
    picture = np.asarray(labelled(sheet, 2)).reshape(-1, labelled(sheet, 2).width, channels)
    body = (sheet.pixels.permute(1, 2, 0) * 255).round().numpy().repeat(2, 0).repeat(2, 1)
    top, left = (picture.shape[axis] - body.shape[axis] for axis in (0, 1))
    assert (picture[top:, left:] == body).all(), "the images are complete, in the lower right corner"
    ink = np.any(picture < 128, axis=-1, keepdims=True)[..., 0]
    assert ink[:top].any() and top == LINE + PADDING + PADDING // 2
    rows = [ink[top + row * 42 : top + row * 42 + 40, :left] for row in range(3)]
    assert all(row.any() for row in rows) and not ink[top + 40 : top + 42, :left].any()
    assert (rows[0] == rows[2]).all() and rows[1].sum() > rows[0].sum(), "each row has its own words"
    assert not ink[top:, left - PADDING + 1 : left].any(), "words do not overlap images"


def test_long_words_are_wrapped_and_cut_to_the_height_of_their_row() -> None:
    words = "given " + ", ".join(f"attribute {number}" for number in range(40))
    one = Sheet(torch.ones(1, 1, 20, 20), 1, rows=(words,))
    two = Sheet(torch.ones(2, 1, 20, 20), 1, rows=(words, words))
    short, tall = np.asarray(labelled(one, 2)), np.asarray(labelled(two, 2))
    assert short.shape[1] < 40 + 24 * 10, "a label takes at most 24 characters across"
    assert (short == tall[:40]).all(), "a label stays within its row"


def test_every_sheet_labels_its_rows(model: Multimodal, digits: Dataset) -> None:
    sheets = sample_grids(model, digits.test, seed=0)
    assert sheets["reconstructions"].rows == ("input", "reconstruction")
    assert sheets["image_given_label"].rows == tuple(f"given label {label}" for label in range(10))
    assert sheets["prior"].rows == () and "prior" in sheets["prior"].title
    built = arm("cvae").build(Trial.create(dataset="digits", model="cvae"), digits.modalities)
    assert isinstance(built, CVAE)
    labels = digits.test.take(1, torch.arange(8))
    given = conditional_grids(built, digits.test, seed=0)["image_given_label"]
    assert given.rows == tuple(f"given label {int(label)}" for label in labels)


def test_rows_given_attributes_are_named_after_the_present_ones() -> None:
    apart, together = (of_attributes(layout) for layout in ("apart", "together"))
    rows = sample_grids(*apart, seed=0)["image_given_attribute"].rows
    assert rows == ("given bald", "given hat", "given smile")
    rows = sample_grids(*together, seed=0)["image_given_attributes"].rows
    assert rows[:4] == ("given no attribute", "given bald, smile", "given hat", "given no attribute")


def table(words: Sequence[WordTable], head: str) -> list[list[str]]:
    """Cells of the table whose heading starts with this text."""
    (found,) = (one for one in words if one.heading.startswith(head))
    return [list(row) for row in found.rows]


def test_the_words_are_the_test_labels_and_the_models_predictions(model: Multimodal, digits: Dataset) -> None:
    rows = table(sample_words(model, digits.test, seed=0), "label given image")
    truth = digits.test.take(1, torch.arange(16))
    likeliest = model(digits.test.take(0, torch.arange(16))).argmax(-1)
    assert [row[:2] for row in rows] == [[str(int(t)), str(int(g))] for t, g in zip(truth, likeliest, strict=True)]
    assert all(row[2] in "0123456789" for row in rows)


def test_labels_sampled_from_the_prior_are_at_the_places_of_their_images(model: Multimodal, digits: Dataset) -> None:
    model.decoders[0] = Painter()
    model.decoders[1] = Sign()
    images = tiles(sample_grids(model, digits.test, seed=5)["prior"])
    labels = table(sample_words(model, digits.test, seed=5), "label of the prior")
    assert len(labels) == len(images) == 8
    for tile_row, label_row in zip(images, labels, strict=True):
        for tile, label in zip(tile_row, label_row, strict=True):
            assert label == ("1" if float(tile.mean()) > 0.5 else "0")


class Sign(torch.nn.Module):
    """Predicts label 1 if the first latent is positive, otherwise label 0."""

    def forward(self, z: Tensor) -> Tensor:
        logits = torch.full((len(z), 10), -1000.0)
        logits[torch.arange(len(z)), (z[:, 0] > 0).long()] = 0.0
        return logits


def test_the_words_of_a_text_are_its_characters_and_a_dash_for_none() -> None:
    trial = Trial.create(dataset="multi_mnist", model="mvae", latents=4)
    modalities = source("multi_mnist").modalities
    built = arm("mvae").build(trial, modalities)
    assert isinstance(built, Multimodal)
    texts = torch.tensor([[3, 1, 10, 10, 10], [10, 10, 10, 10, 10]], dtype=torch.uint8).repeat(8, 1)
    split = Split((torch.zeros(16, *modalities[0].shape, dtype=torch.uint8), texts))
    assert [row[0] for row in table(sample_words(built, split, seed=0), "text given image")] == ["31", "-"] * 8


def test_a_cvae_shows_test_images_next_to_images_given_their_labels(digits: Dataset) -> None:
    built = arm("cvae").build(Trial.create(dataset="digits", model="cvae"), digits.modalities)
    assert isinstance(built, CVAE)
    built.decoder = ConditionPainter()
    grids = conditional_grids(built, digits.test, seed=0)
    truth, _ = tiles(grids["reconstructions"])
    rows = tiles(grids["image_given_label"])
    images, labels = (digits.test.take(m, torch.arange(16)) for m in (0, 1))
    torch.testing.assert_close(torch.stack(truth), images)
    for row, image, label in zip(rows, images, labels, strict=False):
        torch.testing.assert_close(row[0], image)
        for tile in row[1:]:
            torch.testing.assert_close(float(torch.logit(tile).mean()), float(label), atol=1e-3, rtol=0)


class ConditionPainter(torch.nn.Module):
    """Paints the whole image with the label in the one-hot condition."""

    def forward(self, joined: Tensor) -> Tensor:
        return joined[:, -10:].argmax(-1).float()[:, None, None, None].expand(-1, 1, 8, 8)


@pytest.mark.parametrize("token", ["mvae", "cvae"])
def test_a_small_split_is_shown_completely(token: str, digits: Dataset) -> None:
    few = Split(tuple(value[:5] for value in digits.test.values))
    built = arm(token).build(Trial.create(dataset="digits", model=token), digits.modalities)
    if isinstance(built, CVAE):
        grids = conditional_grids(built, few, seed=0)
        assert len(tiles(grids["image_given_label"])) == 5
    else:
        assert isinstance(built, Multimodal)
        grids = sample_grids(built, few, seed=0)
        assert len(table(sample_words(built, few, seed=0), "label given image")) == 5
    assert [len(row) for row in tiles(grids["reconstructions"])] == [5, 5]


# Attributes


def of_attributes(layout: str, n: int = 20) -> tuple[Multimodal, Split]:
    """A model of an image and three attributes, single or joint, and examples of noise."""
    names = ("bald", "hat", "smile")
    image = Modality("image", Kind.IMAGE, (1, 8, 8))
    together = Modality("attributes", Kind.ATTRIBUTES, (3,), attributes=names)
    apart = [Modality(name, Kind.ATTRIBUTE, (), classes=2) for name in names]
    torch.manual_seed(0)
    trial = Trial.create(dataset="digits", model="mvae")
    built = arm("mvae").build(trial, (image, *(apart if layout == "apart" else [together])))
    assert isinstance(built, Multimodal)
    images = torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8)
    values = torch.tensor([[0, 0, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.uint8).repeat(n, 1)[:n]
    return built, Split((images, *values.unbind(1)) if layout == "apart" else (images, values))


class Experts(torch.nn.Module):
    """The expert of attribute a is certain of z = a + 1 if a is present, and of z = -9 if a is absent."""

    def forward(self, values: Tensor, only: slice = slice(None)) -> Tensor:
        places = torch.arange(3.0)[only].view(1, -1, 1) + 1
        mean = torch.where(values.unsqueeze(-1) == 1, places, -9.0).expand(-1, -1, 16)
        return torch.cat([mean, torch.full_like(mean, -15.0)], dim=-1)


def test_each_row_of_images_given_an_attribute_has_that_attribute() -> None:
    built, split = of_attributes("apart")
    built.attribute_encoders = Experts()  # type: ignore[assignment]
    built.decoders[0] = Painter()
    grids = sample_grids(built, split, seed=0)
    assert set(grids) == {"reconstructions", "image_given_attribute", "prior"}
    rows = tiles(grids["image_given_attribute"])
    means = torch.tensor([[float(torch.logit(tile).mean()) for tile in row] for row in rows])
    torch.testing.assert_close(means, torch.arange(1.0, 4.0).view(-1, 1).expand(-1, 8), atol=0.02, rtol=0)


def test_joint_attributes_show_test_images_next_to_images_given_their_attributes() -> None:
    built, split = of_attributes("together")
    built.encoders[1] = CountEncoder()
    built.decoders[0] = Painter()
    grids = sample_grids(built, split, seed=0)
    assert set(grids) == {"reconstructions", "image_given_attributes", "prior"}
    for i, row in enumerate(tiles(grids["image_given_attributes"])):
        torch.testing.assert_close(row[0], split.take(0, torch.tensor([i]))[0])
        for tile in row[1:]:
            assert float(torch.logit(tile).mean()) == pytest.approx(float(split.values[1][i].sum()), abs=0.02)


class CountEncoder(torch.nn.Module):
    """An expert that is certain of z = number of present attributes."""

    def forward(self, values: Tensor) -> Tensor:
        mean = values.float().sum(-1, keepdim=True).expand(-1, 16)
        return torch.cat([mean, torch.full_like(mean, -15.0)], dim=-1)


class SignOfEach(torch.nn.Module):
    """Predicts attribute a if latent a is positive."""

    def forward(self, z: Tensor, only: slice = slice(None)) -> Tensor:
        if z.ndim == 2:
            return 1000 * z[:, :3]
        return 1000 * torch.stack([rows[:, a] for rows, a in zip(z, range(3)[only], strict=True)])


@pytest.mark.parametrize("layout", ["apart", "together"])
def test_the_words_of_attributes_are_the_names_of_present_ones(layout: str) -> None:
    built, split = of_attributes(layout)
    decoder = SignOfEach()
    if layout == "apart":
        built.attribute_decoders = decoder  # type: ignore[assignment]
    else:
        built.decoders[1] = decoder
    words = sample_words(built, split, seed=0)
    rows = table(words, "attributes given image")
    assert [row[0] for row in rows[:4]] == ["-", "bald, smile", "hat", "-"]
    mean = built.infer_at({0: split.take(0, torch.arange(16))}).mean
    names = ("bald", "hat", "smile")
    likeliest = [", ".join(names[a] for a in range(3) if z[a] > 0) or "-" for z in mean]
    assert [row[1] for row in rows] == likeliest
    assert len({row[2] for row in rows}) > 1
    built.decoders[0] = Painter()
    images = tiles(sample_grids(built, split, seed=0)["prior"])
    of_prior = table(words, "attributes of the prior")
    for tile_row, word_row in zip(images, of_prior, strict=True):
        for tile, word in zip(tile_row, word_row, strict=True):
            assert ("bald" in word) == (float(tile.mean()) > 0.5)


@pytest.mark.parametrize("layout", ["apart", "together"])
def test_a_small_split_with_attributes_is_shown_completely(layout: str) -> None:
    built, split = of_attributes(layout, n=5)
    assert [len(row) for row in tiles(sample_grids(built, split, seed=0)["reconstructions"])] == [5, 5]
    assert len(table(sample_words(built, split, seed=0), "attributes given image")) == 5


def test_a_cvae_shows_images_given_the_attributes_of_test_images() -> None:
    mvae, split = of_attributes("together")
    built = arm("cvae").build(Trial.create(dataset="digits", model="cvae"), mvae.modalities)
    assert isinstance(built, CVAE)
    assert set(conditional_grids(built, split, seed=0)) == {"reconstructions", "image_given_attributes"}


def test_a_vae_of_attribute_data_shows_only_images_and_no_words() -> None:
    mvae, split = of_attributes("apart")
    built = arm("vae").build(Trial.create(dataset="digits", model="vae"), mvae.modalities)
    assert isinstance(built, Multimodal)
    assert set(sample_grids(built, split, seed=0)) == {"reconstructions", "prior"}
    assert sample_words(built, split, seed=0) == ()
