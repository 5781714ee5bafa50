"""PolyMNIST tuples: one class in five handwritings and on five backgrounds, the same in every process."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mvae import data
from mvae.data.dataset import MissingFiles
from mvae.data.polymnist.composing import composed, handwritings
from mvae.data.polymnist.polymnist import FOLDER, MODALITIES, _enlarged, picture_files
from mvae.refusal import Refusal

RAMP = np.arange(40 * 50 * 3, dtype=np.uint64).reshape(40, 50, 3).astype(np.uint8)


def digits(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Random grey digits and their classes."""
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (count, 28, 28), dtype=np.uint8), draw.integers(0, 4, count, dtype=np.uint8)


def test_every_modality_of_a_tuple_shows_a_digit_of_its_class_and_every_digit_is_shown_once() -> None:
    _, labels = digits()
    chosen = handwritings(labels, "train", MODALITIES)
    assert (labels[chosen] == labels[:, None]).all()
    assert all(sorted(column) == list(range(len(labels))) for column in chosen.T)
    assert len({tuple(column) for column in chosen.T}) == MODALITIES
    assert (handwritings(labels, "test", MODALITIES) != chosen).any()


def test_the_background_is_inverted_under_the_digit_alone() -> None:
    images, labels = digits()
    *pictures, classes = composed(images, labels, [RAMP] * MODALITIES, "train")
    assert (classes == labels).all()
    chosen = handwritings(labels, "train", MODALITIES)
    for m, picture in enumerate(pictures):
        assert picture.shape == (len(labels), 3, 28, 28) and picture.dtype == np.uint8
        ink = images[chosen[:, m]] > 128
        plain = np.where(ink[:, None], 255 - picture, picture)
        for one in plain[:5]:  # a crop of the ramp: red, green and blue differ by 1, neighbours by 3
            assert ((one[1].astype(int) - one[0]) % 256 == 1).all()
            assert ((one[0, :, 1:].astype(int) - one[0, :, :-1]) % 256 == 3).all()


def test_embedded_polymnist_is_the_same_on_every_machine(tmp_path: Path) -> None:
    made = data.load("polymnist_digits", cache=tmp_path)
    assert [len(split) for split in (made.train, made.validation, made.test)] == [5188, 250, 250]
    assert [modality.name for modality in made.modalities] == ["m0", "m1", "m2", "m3", "m4"]
    content = hashlib.sha256(b"".join(value.numpy().tobytes() for value in made.train.values))
    assert content.hexdigest()[:16] == "bf17bad946bacba7"
    assert made.train.hidden[0].shape == (5188,)
    assert made.trained_on(10).train.hidden[0].shape == (10,)


def test_a_data_root_without_five_backgrounds_is_refused(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "one.png").touch()
    with pytest.raises(MissingFiles, match=r"holds 1 pictures: put 5 there .*polymnist_free"):
        picture_files(tmp_path)


def test_a_background_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    from mvae.data.polymnist.polymnist import pictures

    (tmp_path / "one.png").write_bytes(b"no picture")
    with pytest.raises(Refusal, match=r"one\.png is not a picture"):
        pictures([tmp_path / "one.png"])


def test_digits_are_enlarged_by_linear_interpolation_with_a_margin() -> None:
    draw = np.random.default_rng(1).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    made = _enlarged(draw)
    assert made.shape == (3, 28, 28)
    assert (made[:, 3:27:3, 3:27:3] == draw).all(), "a digit's own pixels are at the centres of 3x3 blocks"
    between = (2 * draw[:, 3, 4].astype(int) + draw[:, 3, 5]) / 3
    assert (np.abs(made[:, 12, 16] - between) < 1).all()
    assert made[:, 0].max() == 0 and made[:, :, -1].max() == 0
