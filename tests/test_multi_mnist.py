"""MultiMNIST: how canvases and texts are composed, and that equal raw files give equal bytes."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from mvae import data
from mvae.data.dataset import SPLITS
from mvae.data.mnist import mnist, multi_mnist
from mvae.data.mnist.multi_mnist import SEED, VOCABULARY, compose, shrink
from mvae.data.sentences.text import characters, text_of
from tests.corpora import tokens_of
from tests.tiny_mnist import everything, flip_a_byte, write_idx, write_tiny

VERSION_1 = "16ca32728e8452e56cabfc7af4e64d00d714b44e6999cf6130e78dbbe8002cfe"
"""Digest of a composition of made-up digits."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a tiny MNIST."""
    write_tiny(tmp_path / "root")
    return tmp_path / "root"


class Composed(NamedTuple):
    images: np.ndarray
    texts: np.ndarray
    collisions: int


def composed(images: np.ndarray, labels: np.ndarray | None = None) -> Composed:
    labels = np.arange(len(images)) % 10 if labels is None else labels
    return Composed(*compose(images, labels.astype(np.uint8), np.random.Philox(key=SEED)))


def with_counts(texts: np.ndarray) -> np.ndarray:
    return np.asarray((texts != 10).sum(axis=1))


def test_a_downscaled_pixel_is_the_mean_over_the_area_it_covers() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    fine = images.repeat(3, axis=1).repeat(3, axis=2).astype(int)  # 84x84: a multiple of both sizes
    means = fine.reshape(5, 21, 4, 21, 4).mean(axis=(2, 4))
    np.testing.assert_array_equal(shrink(images), np.floor(means + 0.5))


def test_a_canvas_is_the_maximum_of_digits_pasted_at_the_four_places() -> None:
    images = np.random.default_rng(1).integers(0, 256, (60, 1, 28, 28), dtype=np.uint8)
    made = composed(images, np.zeros(60))
    words = np.random.Philox(key=SEED).random_raw(300).tolist()
    for i in range(60):
        canvas = np.zeros((50, 50), np.uint8)
        count, *digits = words[5 * i : 5 * i + 5]
        for (top, left), digit in list(zip([(4, 4), (4, 23), (23, 4), (23, 23)], digits, strict=True))[: count % 5]:
            small = shrink(images[digit % 60])[0]
            for y in range(21):
                for x in range(21):
                    canvas[top + y, left + x] = max(canvas[top + y, left + x], small[y, x])
        np.testing.assert_array_equal(made.images[i, 0], canvas)


def test_digits_and_text_come_from_the_matching_split(tmp_path: Path) -> None:
    grey = {
        "train": np.arange(1, 61),
        "t10k": np.arange(101, 113),
    }  # each digit is one grey value that identifies its class
    for part, values in grey.items():
        images = np.broadcast_to(values[:, None, None], (len(values), 28, 28)).astype(np.uint8)
        write_idx(tmp_path / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", images, compressed=False)
        write_idx(tmp_path / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", (values % 10).astype(np.uint8), False)
    arrays = multi_mnist.convert(tmp_path)
    greys = {"train": range(1, 51), "validation": range(51, 61), "test": range(101, 113)}
    for split in SPLITS:
        images, texts = arrays[split]
        assert len(images) == len(texts) == len(greys[split])
        for canvas, text in zip(images[:, 0], texts, strict=True):
            corners = [int(canvas[y, x]) for y, x in ((4, 4), (4, 43), (43, 4), (43, 43))]
            shown = [grey for grey in corners if grey]
            assert corners[: len(shown)] == shown, "places fill up from the top left"
            assert set(shown) <= set(greys[split])
            assert text.tolist() == tokens_of("".join(str(grey % 10) for grey in shown))


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, root: Path) -> None:
    first, second = (data.load("multi_mnist", root, tmp_path / cache) for cache in ("one", "two"))
    for ours, theirs in zip(everything(first), everything(second), strict=True):
        assert torch.equal(ours, theirs)
    images = np.random.default_rng(1).integers(0, 256, (60, 1, 28, 28), dtype=np.uint8)
    other, _, _ = compose(images, np.zeros(60, np.uint8), np.random.Philox(key=SEED + 1))
    assert not np.array_equal(composed(images, np.zeros(60)).images, other)


def test_the_converted_bytes_are_unchanged_since_version_1() -> None:
    images = (np.arange(40 * 784, dtype=np.int64) * 7919 % 256).astype(np.uint8).reshape(40, 1, 28, 28)
    made = composed(images)
    digest = hashlib.sha256(made.images.tobytes() + made.texts.tobytes()).hexdigest()
    assert multi_mnist.MULTI_MNIST.version == 1
    assert digest == VERSION_1, "stored values changed: raise version"


def test_a_changed_raw_file_is_another_data_set(root: Path) -> None:
    before = data.fingerprint("multi_mnist", root)
    assert before != data.fingerprint("mnist", root)
    flip_a_byte(root / "MNIST" / "raw" / "t10k-images-idx3-ubyte")
    assert data.fingerprint("multi_mnist", root) != before


def test_counts_of_digits_and_the_digits_themselves_are_uniform() -> None:
    texts = composed(np.zeros((5000, 1, 28, 28), np.uint8)).texts
    shares = np.bincount(with_counts(texts), minlength=5) / 5000
    assert shares.shape == (5,)
    assert np.abs(shares - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 5000)
    digits = np.bincount(texts[texts != 10], minlength=10) / (texts != 10).sum()
    assert np.abs(digits - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / 10_000)


def test_the_number_of_collisions_equals_a_plain_loop() -> None:
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (60, 1, 28, 28), dtype=np.uint8) * (random.random((60, 1, 28, 28)) < 0.02)
    made = composed(images.astype(np.uint8))
    words = np.random.Philox(key=SEED).random_raw(60 * 5).reshape(60, 5)
    small = multi_mnist.shrink(images[:, 0].astype(np.uint8))
    collided = 0
    for word in words:
        inked: set[tuple[int, int]] = set()
        met = False
        for place in range(int(word[0] % 5)):
            top, left = multi_mnist.PLACES[place]
            rows, columns = np.nonzero(small[int(word[1 + place] % 60)])
            drawn = {(int(top + row), int(left + column)) for row, column in zip(rows, columns, strict=True)}
            met = met or bool(inked & drawn)
            inked |= drawn
        collided += met
    assert made.collisions == collided
    assert 0 < collided < 60


def test_a_collision_is_a_canvas_with_a_pixel_drawn_by_two_digits(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    white = np.full((500, 1, 28, 28), 255, np.uint8)
    full = composed(white)
    assert full.collisions == (with_counts(full.texts) >= 2).sum() > 0
    framed = white.copy()
    framed[:, :, :2] = framed[:, :, -2:] = framed[..., :2] = framed[..., -2:] = 0
    assert composed(framed).collisions == 0, "boxes share two pixels, of which a frame of 2/1.3 leaves one each"
    with caplog.at_level(logging.INFO):
        arrays = multi_mnist.convert(root)
    noise = int((with_counts(arrays["train"][1]) >= 2).sum())
    assert f"digits overlap on {noise} of 50 train images" in caplog.text


def test_texts_round_trip_through_their_tokens(root: Path) -> None:
    for split in SPLITS:
        texts = multi_mnist.convert(root)[split][1]
        for row in texts.tolist():
            assert tokens_of(text_of(row, VOCABULARY)) == row
            assert row[-1] == 10
    for text in ("", "7", "0123", "9999"):
        assert text_of(tokens_of(text), VOCABULARY) == text
    assert tokens_of("07") == [0, 7, 10, 10, 10]
    assert text_of([3, 1, 10, 4, 10], VOCABULARY) == "31", "tokens after the stop do not count"


def test_a_text_ends_at_its_first_stop_token() -> None:
    texts = torch.tensor([[10, 3, 3], [1, 10, 3], [1, 2, 10], [1, 2, 3]])
    expected = [[False, False, False], [True, False, False], [True, True, False], [True, True, True]]
    assert characters(texts, 12).tolist() == expected


def test_a_stored_text_is_loaded_as_integers(tmp_path: Path, root: Path) -> None:
    train = data.load("multi_mnist", root, tmp_path / "cache").train
    assert train.values[1].dtype == torch.uint8
    index = torch.tensor([3, 0, 3])
    texts = train.take(1, index)
    assert texts.dtype == torch.int64
    assert texts.tolist() == multi_mnist.convert(root)["train"][1][[3, 0, 3]].tolist()
    assert train.take(0, index).max() <= 1


@pytest.mark.real_data
def test_the_real_multi_mnist_has_the_papers_splits_and_few_collisions(real_data: Path, cache: Path) -> None:
    dataset = data.load("multi_mnist", real_data, cache)
    assert [len(getattr(dataset, split)) for split in SPLITS] == [50_000, 10_000, 10_000]
    assert data.training_examples("multi_mnist", real_data) == 50_000
    for split in SPLITS:
        counts = np.bincount(with_counts(getattr(dataset, split).values[1].numpy()), minlength=5)
        assert np.abs(counts / counts.sum() - 0.2).max() < 0.02
    images, labels = mnist.convert(real_data, "MNIST", binary=False)["train"]
    made = composed(images, labels)
    assert 0 < made.collisions < 0.02 * len(images)
    assert torch.equal(dataset.train.values[0], torch.from_numpy(made.images))
