"""mnist19: meaning and threshold of each attribute; everything else equals MNIST."""

from __future__ import annotations

import hashlib
import statistics
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from mvae import data
from mvae.data.dataset import SPLITS, Arrays, Kind
from mvae.data.mnist import mnist
from mvae.data.mnist.mnist19 import (
    ATTRIBUTES,
    CHUNK,
    MNIST19,
    QUANTITIES,
    attributes,
    euler_number,
    holes,
    measure,
    slant,
    stroke_width,
    symmetry,
    thresholds,
)
from tests.tiny_mnist import everything, flip_a_byte, write_idx, write_tiny

VERSION_1 = "2736711542428dc50e7ff1f4aa61d0979ab20790ff7282a8d1e63c2ef3b5e393"
"""Digest of the attributes of made-up digits."""

HALVED = [name for name in QUANTITIES if name != "has_hole"]

SHAPES = {  # pieces, holes, drawing
    "nothing": (0, 0, "..."),
    "a dot": (1, 0, "#"),
    "two dots": (2, 0, "#.#"),
    "dots that touch at a corner are one piece": (1, 0, "#. .#"),
    "a bar": (1, 0, "###"),
    "a ring": (1, 1, "### #.# ###"),
    "a ring that only corners close": (1, 1, ".#. #.# .#."),
    "a ring that lacks a corner is closed": (1, 1, "### #.# ##."),
    "an arch": (1, 0, "### #.# #.#"),
    "an eight": (1, 2, "### #.# ### #.# ###"),
    "holes that touch at a corner are two": (1, 2, "#### #.## ##.# ####"),
    "a ring around a dot": (2, 1, "##### #...# #.#.# #...# #####"),
    "a ring around a ring": (2, 2, "####### #.....# #.###.# #.#.#.# #.###.# #.....# #######"),
    "a ring and a dot": (2, 1, "###.. #.#.# ###.."),
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with a tiny MNIST of noise; registers mnist19."""
    monkeypatch.setitem(data.DATASETS, "mnist19", MNIST19)
    write_tiny(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture(scope="module")
def real(real_data: Path) -> Arrays:
    """mnist19 from the real MNIST."""
    return MNIST19.convert(real_data)


def noise(count: int = 40) -> np.ndarray:
    """Noise from sparse to dense, with any number of pieces and holes, uint8 [N, 1, 28, 28]."""
    rng = np.random.default_rng(3)
    dense = rng.random((count, 1, 28, 28)) < np.linspace(0.01, 0.99, count)[:, None, None, None]
    return np.where(dense, rng.integers(128, 256, dense.shape), rng.integers(0, 128, dense.shape)).astype(np.uint8)


def drawn(*pictures: str, top: int = 4, left: int = 4) -> np.ndarray:
    """Pictures of '#' and '.' in the corner of 28x28, rows separated by spaces: uint8 [N, 1, 28, 28]."""
    images = np.zeros((len(pictures), 1, 28, 28), np.uint8)
    for image, picture in zip(images, pictures, strict=True):
        for row, line in enumerate(picture.split()):
            for column, pixel in enumerate(line):
                image[0, top + row, left + column] = 255 * (pixel == "#")
    return images


def pieces_and_holes(ink: np.ndarray) -> tuple[int, int]:
    pieces = ndimage.label(ink, np.ones((3, 3)))[1]
    return pieces, ndimage.label(~np.pad(ink, 1))[1] - 1


def slow(image: np.ndarray) -> dict[str, float]:
    """Each quantity of one image with ink (uint8 [28, 28]), from a list of its pixels."""
    inked = {(r, c) for r in range(28) for c in range(28) if image[r, c] >= 128}
    rows, columns = [r for r, _ in inked], [c for _, c in inked]
    row, column = statistics.fmean(rows), statistics.fmean(columns)
    spread = statistics.fmean([(r - row) ** 2 for r in rows])
    shear = statistics.fmean([(r - row) * (c - column) for r, c in inked])
    perimeter = euler = 0.0
    for r in range(-1, 28):
        for c in range(-1, 28):
            window = [(r + y, c + x) in inked for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))]
            if sum(window) in (1, 3):
                perimeter += 0.5**0.5
                euler += 0.25 if sum(window) == 1 else -0.25
            elif window in ([True, False, False, True], [False, True, True, False]):
                perimeter += 2**0.5
                euler -= 0.5
            elif sum(window) == 2:
                perimeter += 1
    return {
        "thick": 2 * len(inked) / perimeter,
        "slanted": -shear / spread if spread else 0,
        "wide": statistics.fmean([(c - column) ** 2 for c in columns]),
        "tall": spread,
        "has_hole": 1 - euler,
        "heavy_above": (min(rows) + max(rows)) / 2 - row,
        "symmetric": sum((r, min(columns) + max(columns) - c) in inked for r, c in inked) / len(inked),
        "heavy_right": column - (min(columns) + max(columns)) / 2,
    }


def assert_quantities_are_slow(images: np.ndarray) -> None:
    ink = measure(images)
    expected = [slow(image) for image in images[:, 0]]
    for name, of in QUANTITIES.items():
        np.testing.assert_allclose(of(ink), [each[name] for each in expected], rtol=1e-12, atol=1e-12, err_msg=name)


def shown(picture: str, name: str) -> float:
    """The quantity behind an attribute, for a drawing."""
    return float(QUANTITIES[name](measure(drawn(picture)))[0])


@pytest.mark.parametrize("name", SHAPES)
def test_the_euler_number_of_a_drawing_is_its_pieces_minus_its_holes(name: str) -> None:
    pieces, inside, picture = SHAPES[name]
    image = drawn(picture)
    assert pieces_and_holes(image[0, 0] >= 128) == (pieces, inside)
    assert euler_number(measure(image)).tolist() == [pieces - inside]
    if pieces < 2:
        assert holes(measure(image)).tolist() == [inside]


def test_a_hole_at_the_edge_of_the_picture_counts_but_a_bay_does_not() -> None:
    images = np.full((2, 1, 28, 28), 255, np.uint8)
    images[0, 0, 1, 1] = images[1, 0, 0, 1] = 0
    assert holes(measure(images)).tolist() == [1, 0]


def test_the_euler_number_of_noise_agrees_with_component_labelling() -> None:
    counts = [pieces_and_holes(image >= 128) for image in noise(200)[:, 0]]
    assert {0, 1} < {inside for _, inside in counts} and max(pieces for pieces, _ in counts) > 20
    assert euler_number(measure(noise(200))).tolist() == [pieces - inside for pieces, inside in counts]


def test_every_quantity_equals_a_loop_over_pixels() -> None:
    assert_quantities_are_slow(noise())
    assert_quantities_are_slow(drawn(*(picture for _, _, picture in list(SHAPES.values())[1:])))


def test_pixels_from_128_on_are_ink() -> None:
    image = np.zeros((1, 1, 28, 28), np.uint8)
    image[0, 0, 5, 5:7] = 127, 128
    assert measure(image).area.tolist() == [1]


def test_chunked_computation_gives_the_same_quantities() -> None:
    images = noise(41)
    whole, once = measure(np.resize(images, (CHUNK + 41, 1, 28, 28))), measure(images)
    for of in QUANTITIES.values():
        np.testing.assert_array_equal(of(whole), np.resize(of(once), CHUNK + 41))


def test_zero_images_give_zero_quantities() -> None:
    nothing = measure(noise()[:0])
    assert all(of(nothing).shape == (0,) for of in QUANTITIES.values())


def test_the_thickness_of_a_long_stroke_is_its_width_in_any_direction() -> None:
    images = np.zeros((4, 1, 28, 28), np.uint8)
    images[0, 0, 1:27, 5:8] = images[1, 0, 5:8, 1:27] = 255
    for step in range(20):  # a stroke of 4 pixels per row at 45 degrees is 4 / sqrt(2) wide
        images[2, 0, 2 + step, 2 + step : 6 + step] = 255
    images[3] = images[2, :, :, ::-1]
    np.testing.assert_allclose(stroke_width(measure(images)), [3, 3, 8**0.5, 8**0.5], rtol=0.15)


def test_slant_is_the_shift_to_the_right_per_row_upwards() -> None:
    images = drawn("...# ..#. .#.. #...", "#... .#.. ..#. ...#", "# # # #", "..# ..# .#. .#. #.. #..", "####")
    np.testing.assert_allclose(slant(measure(images)), [1, -1, 0, 16 / 35, 0], atol=1e-12)


def test_wide_is_the_horizontal_spread_and_tall_the_vertical_spread() -> None:
    assert shown("#####", "wide") == shown("# # # # #", "tall") == 2
    assert shown("#####", "tall") == shown("# # # # #", "wide") == 0


def test_heavy_above_and_heavy_right_are_relative_to_the_digits_box() -> None:
    assert shown("### .#. .#.", "heavy_above") == 0.4
    assert shown(".#. .#. ###", "heavy_above") == -0.4
    assert shown("..# ### ..#", "heavy_right") == 0.4
    assert shown("#.. ### #..", "heavy_right") == -0.4
    moved = [measure(drawn("### .## .#.", top=top, left=left)) for top, left in ((0, 0), (9, 20), (25, 25))]
    for of in QUANTITIES.values():
        assert np.ptp(np.concatenate([of(ink) for ink in moved])) < 1e-12


def test_symmetry_is_the_share_covered_by_the_mirror_image() -> None:
    images = drawn(".#. #.# ### #.#", "#.. #.. ###", "## .#", "#. .#")
    np.testing.assert_allclose(symmetry(measure(images)), [1, 3 / 5, 2 / 3, 0])


def test_a_picture_without_ink_has_no_shape_attribute() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        blank = measure(np.full((2, 1, 28, 28), 127, np.uint8))
        assert all(of(blank).tolist() == [0, 0] for of in QUANTITIES.values())


def test_a_digit_at_the_median_is_not_above_it() -> None:
    ink = measure(drawn(*["### #.# ##."] * 3))
    made = attributes(np.zeros(3, np.uint8), ink, thresholds(ink))
    assert [name for name, holds in zip(ATTRIBUTES, made, strict=True) if holds.any()] == ["is_0", "has_hole"]


def test_the_modalities_are_the_image_the_label_bits_and_eight_shape_attributes() -> None:
    shape = ["thick", "slanted", "wide", "tall", "has_hole", "heavy_above", "symmetric", "heavy_right"]
    assert [each.name for each in MNIST19.modalities] == ["image", *(f"is_{label}" for label in range(10)), *shape]
    assert list(ATTRIBUTES) == [each.name for each in MNIST19.modalities[1:]]
    assert MNIST19.modalities[0] == mnist.MNIST.modalities[0]
    assert {(each.kind, each.shape, each.classes) for each in MNIST19.modalities[1:]} == {(Kind.ATTRIBUTE, (), 2)}


def test_pixels_and_splits_are_mnists_and_exactly_one_label_bit_is_set(tmp_path: Path, root: Path) -> None:
    ours, theirs = (data.load(name, root, tmp_path / "cache") for name in ("mnist19", "mnist"))
    for split in SPLITS:
        image, *bits = getattr(ours, split).values[:11]
        assert torch.equal(image, getattr(theirs, split).values[0])
        label = getattr(theirs, split).values[1].to(torch.int64)
        assert torch.equal(torch.stack(bits, dim=1), torch.nn.functional.one_hot(label, 10).to(torch.uint8))
    assert ours.train.take(18, torch.tensor([2, 0])).dtype == torch.int64
    assert data.training_examples("mnist19", root) == 50


def test_a_shape_attribute_is_a_quantity_above_the_training_median(root: Path) -> None:
    arrays = MNIST19.convert(root)
    quantity = {split: [slow(image) for image in arrays[split][0][:, 0]] for split in SPLITS}
    for place, name in enumerate(ATTRIBUTES[10:], 11):
        above = 0 if name == "has_hole" else statistics.median([each[name] for each in quantity["train"]])
        for split in SPLITS:
            gaps = [each[name] - above for each in quantity[split]]
            assert arrays[split][place].tolist() == [int(gap > 1e-12) for gap in gaps], (name, split)


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_changing_validation_or_test_images_changes_no_other_attribute(root: Path, held_out: str) -> None:
    before = MNIST19.convert(root)
    path = root / "MNIST" / "raw" / f"{'train' if held_out == 'validation' else 't10k'}-images-idx3-ubyte"
    images = mnist.read_idx(path).copy()
    images[-10:] = noise(10)[:, 0]
    write_idx(path, images, compressed=False)
    after = MNIST19.convert(root)
    for split in set(SPLITS) - {held_out}:
        for ours, theirs in zip(before[split], after[split], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    changed = [(before[held_out][place] != after[held_out][place]).any() for place in range(11, 19)]
    assert any(changed)


def test_the_same_raw_files_give_the_same_bytes(tmp_path: Path, root: Path) -> None:
    first, second = (data.load("mnist19", root, tmp_path / cache) for cache in ("one", "two"))
    for ours, theirs in zip(everything(first), everything(second), strict=True):
        assert torch.equal(ours, theirs)


def test_the_converted_bytes_are_unchanged_since_version_1() -> None:
    grey = (np.arange(40 * 784, dtype=np.int64) ** 2 * 7919 // 97 % 256).reshape(40, 1, 28, 28)
    lit = 135 + 3 * np.arange(40)[:, None, None, None]  # from nearly black to full noise
    ink = measure((grey * lit // 255).astype(np.uint8))
    made = attributes((np.arange(40) % 10).astype(np.uint8), ink, thresholds(ink))
    assert all(0 < each.sum() < 40 and each.dtype == np.uint8 for each in made)
    assert MNIST19.version == 1
    assert hashlib.sha256(np.stack(made).tobytes()).hexdigest() == VERSION_1, "stored values changed: raise version"


def test_a_changed_raw_file_is_another_data_set(root: Path) -> None:
    before = data.fingerprint("mnist19", root)
    assert before != data.fingerprint("mnist", root)
    flip_a_byte(root / "MNIST" / "raw" / "t10k-images-idx3-ubyte")
    assert data.fingerprint("mnist19", root) != before


@pytest.mark.real_data
def test_every_quantity_of_real_digits_equals_the_loop(real: Arrays) -> None:
    assert_quantities_are_slow(real["test"][0][::50])


@pytest.mark.real_data
def test_holes_of_real_digits_agree_with_labelling_except_for_some_digits_in_two_pieces(real: Arrays) -> None:
    images, has_hole = real["test"][0], real["test"][1 + ATTRIBUTES.index("has_hole")]
    pieces, inside = np.array([pieces_and_holes(image >= 128) for image in images[:, 0]]).T
    np.testing.assert_array_equal(euler_number(measure(images)), pieces - inside)
    np.testing.assert_array_equal(has_hole[pieces == 1], inside[pieces == 1] > 0)
    assert not has_hole[inside == 0].any()
    assert np.mean(has_hole != (inside > 0)) < 0.01


@pytest.mark.real_data
def test_each_median_halves_the_real_training_digits(real: Arrays, real_data: Path) -> None:
    digits = mnist.convert(real_data, "MNIST", binary=False)
    for split, count in zip(SPLITS, (50_000, 10_000, 10_000), strict=True):
        assert {len(each) for each in real[split]} == {count}
        np.testing.assert_array_equal(real[split][0], digits[split][0])
    shares = dict(zip(ATTRIBUTES, (float(each.mean()) for each in real["train"][1:]), strict=True))
    for name in HALVED:
        assert 0.499 <= shares[name] <= 0.5, (name, shares[name])
    assert 0.35 < shares["has_hole"] < 0.45


@pytest.mark.real_data
def test_zeros_and_eights_usually_have_holes_and_ones_and_sevens_do_not(real: Arrays) -> None:
    values = dict(zip(ATTRIBUTES, real["train"][1:], strict=True))
    share = [float(values["has_hole"][values[f"is_{label}"] == 1].mean()) for label in range(10)]
    assert min(share[0], share[8]) > 0.85 and max(share[1], share[7]) < 0.05
