"""Data sets: stored values, search for raw files, and missing, damaged or shared files."""

from __future__ import annotations

import dataclasses
import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mvae import data
from mvae.data.dataset import NO_IMAGES, SPLITS, Kind, all_sentences, has_views
from mvae.data.mnist import digits, mnist
from mvae.data.mnist.binarisation import binarise
from mvae.data.registry import DECLARED
from mvae.refusal import Refusal
from tests.tiny_mnist import everything, flip_a_byte, torchvision_at, truncate, write_idx, write_tiny


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a tiny MNIST and FashionMNIST."""
    for folder in ("MNIST", "FashionMNIST"):
        write_tiny(tmp_path / "root", folder)
    return tmp_path / "root"


@pytest.fixture
def own_cache(tmp_path: Path) -> Path:
    """An empty cache that one test may damage."""
    return tmp_path / "cache"


@pytest.fixture
def no_internet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Replaces torchvision's addresses by a dead one; returns the empty default data root."""
    monkeypatch.setitem(sys.modules, "torchvision", torchvision_at("http://127.0.0.1:9/"))
    monkeypatch.setenv("MVAE_DATA", str(tmp_path / "default"))
    return tmp_path / "default"


# Stored values


def test_the_digits_are_scikit_learns_1797_images_in_three_disjoint_splits(cache: Path) -> None:
    from sklearn.datasets import load_digits

    dataset = data.load("digits", cache=cache)
    assert [len(getattr(dataset, split)) for split in SPLITS] == [1297, 250, 250]
    images = torch.cat([getattr(dataset, split).values[0] for split in SPLITS]).reshape(1797, 64)
    labels = torch.cat([getattr(dataset, split).values[1] for split in SPLITS])
    raw = load_digits()
    expected = np.rint(raw.data * 255 / 16).astype(np.uint8)
    ours = sorted((*image, label) for image, label in zip(images.tolist(), labels.tolist(), strict=True))
    assert ours == sorted((*image, label) for image, label in zip(expected.tolist(), raw.target.tolist(), strict=True))


def test_the_fingerprint_of_digits_hashes_the_images_that_scikit_learn_ships() -> None:
    from sklearn.datasets import load_digits

    raw = load_digits()
    assert digits.content_digest(raw.images, raw.target) == digits.CONTENT
    assert digits.content_digest(raw.images, raw.target[::-1]) != digits.CONTENT


def test_every_digit_class_is_in_every_split(cache: Path) -> None:
    dataset = data.load("digits", cache=cache)
    for split in SPLITS:
        assert set(getattr(dataset, split).values[1].tolist()) == set(range(10))


@pytest.mark.parametrize("compressed", [False, True])
def test_plain_and_gzip_raw_files_are_read_and_the_last_sixth_is_for_validation(
    tmp_path: Path, own_cache: Path, compressed: bool
) -> None:
    written = write_tiny(tmp_path / "root", compressed=compressed)
    dataset = data.load("mnist", tmp_path / "root", own_cache)
    images, labels = written["train-images-idx3-ubyte"][:, None], written["train-labels-idx1-ubyte"]
    expected = [images[:50], labels[:50], images[50:], labels[50:]]
    expected += [written["t10k-images-idx3-ubyte"][:, None], written["t10k-labels-idx1-ubyte"]]
    for value, raw in zip(everything(dataset), expected, strict=True):
        np.testing.assert_array_equal(value.numpy(), raw)


def test_loaded_images_are_in_0_to_1_and_loaded_labels_are_classes(root: Path, own_cache: Path) -> None:
    train = data.load("mnist", root, own_cache).train
    index = torch.tensor([3, 0, 3])
    images, labels = train.take(0, index), train.take(1, index)
    assert images.dtype == torch.float32
    assert images.shape == (3, 1, 28, 28)
    assert torch.equal(images, train.values[0][index].double().div(255).float())
    assert labels.dtype == torch.int64
    assert labels.tolist() == train.values[1][index].tolist()


def test_moving_a_data_set_to_a_device_keeps_its_stored_type(root: Path, own_cache: Path) -> None:
    dataset = data.load("mnist", root, own_cache)
    moved = dataset.to("meta")
    assert {value.device.type for value in everything(moved)} == {"meta"}
    assert {value.dtype for value in everything(moved)} == {torch.uint8}
    assert moved.fingerprint == dataset.fingerprint


def test_binary_pixels_are_white_with_the_probability_of_their_grey_value() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8), 20_000).reshape(-1, 1, 16, 16)
    drawn = binarise(grey, np.random.Philox(key=1))
    assert set(np.unique(drawn)) == {0, 255}
    share = (drawn.reshape(256, -1) == 255).mean(axis=1)
    assert share[0] == 0
    assert share[255] == 1
    p = np.arange(256) / 255
    assert np.all(np.abs(share - p) <= 5 * np.sqrt(p * (1 - p) / 20_000) + 1e-4)


def test_binary_pixels_are_equal_in_every_conversion_and_differ_between_images(tmp_path: Path, root: Path) -> None:
    first, second = (data.load("binary_mnist", root, tmp_path / cache) for cache in ("one", "two"))
    for ours, theirs in zip(everything(first), everything(second), strict=True):
        assert torch.equal(ours, theirs)
    grey = np.full((2, 1, 28, 28), 128, np.uint8)
    drawn = binarise(grey, np.random.Philox(key=1))
    assert not np.array_equal(drawn[0], drawn[1])


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mnist", "binary_mnist", "fashion_mnist"])
def test_the_real_data_sets_have_the_papers_splits(name: str, real_data: Path, cache: Path) -> None:
    dataset = data.load(name, real_data, cache)
    assert [len(getattr(dataset, split)) for split in SPLITS] == [50_000, 10_000, 10_000]
    assert data.training_examples(name, real_data) == 50_000
    counts = torch.bincount(dataset.test.values[1].long())
    assert counts.tolist() == [1000] * 10 if name == "fashion_mnist" else counts.sum() == 10_000
    if name == "mnist":
        assert dataset.train.values[1][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        assert dataset.train.values[0].double().mean().div(255).item() == pytest.approx(0.1307, abs=5e-4)


# Fingerprints


def test_equal_content_has_equal_fingerprints_anywhere_compressed_or_not(tmp_path: Path) -> None:
    write_tiny(tmp_path / "plain")
    write_tiny(tmp_path / "gzip", compressed=True)
    assert data.fingerprint("mnist", tmp_path / "plain") == data.fingerprint("mnist", tmp_path / "gzip")


def test_content_data_set_and_transform_change_the_fingerprint(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [data.fingerprint(name, root) for name in ("mnist", "binary_mnist", "digits")]
    newer = dataclasses.replace(data.DATASETS["mnist"], version=data.DATASETS["mnist"].version + 1)
    with monkeypatch.context() as patch:
        patch.setitem(data.DATASETS, "mnist", newer)
        seen.append(data.fingerprint("mnist", root))
    flip_a_byte(root / "MNIST" / "raw" / "t10k-images-idx3-ubyte")
    seen.append(data.fingerprint("mnist", root))
    assert len(set(seen)) == len(seen)


def test_a_fingerprint_needs_no_cache_and_equals_the_loaded_datas(root: Path, own_cache: Path) -> None:
    mark = data.fingerprint("mnist", root)
    assert not own_cache.exists()
    assert data.load("mnist", root, own_cache).fingerprint == mark


def test_training_examples_are_counted_without_converting(root: Path, own_cache: Path) -> None:
    assert data.training_examples("mnist", root) == 50 == len(data.load("mnist", root, own_cache).train)
    assert data.training_examples("digits") == 1297


# Where raw files are looked for


def test_an_unknown_data_set_is_refused_with_a_list_of_known_ones() -> None:
    with pytest.raises(
        Refusal, match=r"unknown data set 'mnst': choose one of digits, mnist, binary_mnist, fashion_mni"
    ):
        data.load("mnst")


def test_a_data_root_without_the_files_is_an_error_even_with_a_warm_cache(
    root: Path, own_cache: Path, tmp_path: Path
) -> None:
    data.load("mnist", root, own_cache)
    with pytest.raises(Refusal, match=r"elsewhere/MNIST/raw has no train-images-idx3-ubyte .* must hold MNIST/raw/"):
        data.load("mnist", tmp_path / "elsewhere", own_cache)
    assert not (tmp_path / "elsewhere").exists()


def test_a_data_root_is_never_written_to(root: Path, own_cache: Path) -> None:
    before = sorted(root.rglob("*"))
    for name in ("mnist", "binary_mnist", "fashion_mnist"):
        data.load(name, root, own_cache)
    assert sorted(root.rglob("*")) == before


def test_the_default_data_root_comes_from_the_environment_or_the_home_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/elsewhere/someone")
    monkeypatch.setenv("MVAE_DATA", "/somewhere/data")
    assert data.default_data_root() == Path("/somewhere/data")
    assert data.default_cache() == Path("/elsewhere/someone/.cache/mvae")
    monkeypatch.delenv("MVAE_DATA")
    assert data.default_data_root() == Path("/elsewhere/someone/.cache/mvae")


def test_files_missing_from_the_default_root_are_downloaded_once(
    no_internet: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = tmp_path / "served"
    write_tiny(served, compressed=True)
    there = torchvision_at(f"{(served / 'MNIST' / 'raw').as_uri()}/", served=served)
    monkeypatch.setitem(sys.modules, "torchvision", there)
    assert len(data.load("fashion_mnist", cache=own_cache).train) == 50
    assert sorted(path.name for path in (no_internet / "FashionMNIST" / "raw").iterdir()) == sorted(mnist.FILES)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    data.load("fashion_mnist", cache=own_cache)


@pytest.mark.parametrize("torchvision", ["offline", "missing"])
def test_without_files_and_internet_a_one_line_error_says_what_to_do(
    no_internet: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, torchvision: str
) -> None:
    if torchvision == "missing":
        monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(
        Refusal, match=r"default/MNIST/raw has no MNIST, and downloading it failed .*--data-root"
    ) as refused:
        data.load("mnist", cache=own_cache)
    assert "\n" not in str(refused.value)
    assert not any(path.is_dir() for path in no_internet.iterdir())


# Damaged raw files


def rewritten(root: Path, name: str, content: bytes) -> None:
    (root / "MNIST" / "raw" / name).write_bytes(content)


def test_an_error_names_a_truncated_raw_file(root: Path, own_cache: Path) -> None:
    truncate(root / "MNIST" / "raw" / "train-images-idx3-ubyte")
    with pytest.raises(
        Refusal, match=r"train-images-idx3-ubyte is damaged: its header says 47,040 bytes, but 46,940 follow"
    ):
        data.load("mnist", root, own_cache)


def test_an_error_names_a_raw_file_in_another_format(root: Path, own_cache: Path) -> None:
    rewritten(root, "t10k-labels-idx1-ubyte", b"<html>not found</html>")
    with pytest.raises(Refusal, match="t10k-labels-idx1-ubyte is not an idx file"):
        data.load("mnist", root, own_cache)


def test_an_error_names_a_truncated_gzip_file(tmp_path: Path, own_cache: Path) -> None:
    write_tiny(tmp_path / "root", compressed=True)
    truncate(tmp_path / "root" / "MNIST" / "raw" / "train-images-idx3-ubyte.gz")
    with pytest.raises(Refusal, match=r"train-images-idx3-ubyte.gz is not a complete gzip file"):
        data.load("mnist", tmp_path / "root", own_cache)


def test_an_error_names_a_file_that_is_no_gzip(tmp_path: Path, own_cache: Path) -> None:
    write_tiny(tmp_path / "root", compressed=True)
    raw = tmp_path / "root" / "MNIST" / "raw"
    name = "train-images-idx3-ubyte"
    packed = (raw / f"{name}.gz").read_bytes()
    for content, message in (
        (b"<html>quota exceeded</html>", rf"{name}\.gz is not a complete gzip file .*: fetch it again"),
        (gzip.compress(packed), rf"{name}\.gz is not an idx file of bytes: fetch it again"),  # compressed twice
        (b"", rf"{name}\.gz is not an idx file of bytes: fetch it again"),
    ):
        (raw / f"{name}.gz").write_bytes(content)
        with pytest.raises(Refusal, match=message) as refused:
            data.load("mnist", tmp_path / "root", own_cache)
        assert "\n" not in str(refused.value)
    (raw / name).write_bytes(packed)  # a compressed file with the name of an uncompressed file
    with pytest.raises(Refusal, match=rf"{name} is not an idx file of bytes: fetch it again"):
        data.load("mnist", tmp_path / "root", own_cache)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("t10k-images-idx3-ubyte", np.zeros((12, 32, 32), np.uint8), "replace it with a file of 28x28 images"),
        ("t10k-labels-idx1-ubyte", np.zeros(11, np.uint8), "11 labels for 12 images"),
        ("t10k-labels-idx1-ubyte", np.full(12, 10, np.uint8), "use labels from 0 to 9"),
        (
            "t10k-labels-idx1-ubyte",
            np.zeros((12, 10), np.uint8),
            r"of shape \(12, 10\): replace it with a file of one label per image",
        ),
        ("train-images-idx3-ubyte", np.zeros((3, 28, 28), np.uint8), "labels for 3 images"),
    ],
)
def test_pixel_and_label_values_invalid_for_mnist_are_refused(
    root: Path, own_cache: Path, name: str, values: np.ndarray, message: str
) -> None:
    write_idx(root / "MNIST" / "raw" / name, values, compressed=False)
    with pytest.raises(Refusal, match=message):
        data.load("mnist", root, own_cache)
    assert not list(own_cache.glob("mnist-*/*"))
    if "label per image" in message:
        with pytest.raises(Refusal, match=message):
            data.facts_about("mnist", root)


def test_every_data_set_declaration_is_consistent() -> None:
    for name, source in data.DATASETS.items():
        assert source.name == name
        assert source.defaults.image_network in source.defaults.image_networks
        if all(modality.sentences for modality in source.modalities):
            assert {modality.kind for modality in source.modalities} == {Kind.TEXT} and len(source.modalities) == 2
            assert source.defaults.image_networks == (NO_IMAGES,) and source.made_of is not None
            continue
        if source.hidden:
            assert {(one.kind, one.shape, one.likelihood) for one in source.modalities} == {
                (Kind.IMAGE, (3, 28, 28), "laplace")
            }
            continue
        image, *others = source.modalities
        assert (image.name, image.kind) == ("image", Kind.IMAGE) and image.view is None
        if source.name.startswith("vision"):
            assert {(other.kind, other.shape[1:]) for other in others} == {(Kind.IMAGE, image.shape[1:])}
            assert len({other.name for other in others}) == len(others) == 5
        elif len(others) == 1:
            assert others[0].name == others[0].kind in ("label", "text", "attributes")
            assert others[0].kind is not Kind.ATTRIBUTES or others[0].shape == (len(others[0].attributes),)
        else:
            assert {(other.kind, other.shape, other.classes) for other in others} == {(Kind.ATTRIBUTE, (), 2)}
            assert len({other.name for other in others}) == len(others) == 18


@pytest.mark.parametrize("name", DECLARED)
def test_help_knows_what_each_data_sets_examples_are(name: str) -> None:
    modalities = data.source(name).modalities
    kinds = " ".join(dict.fromkeys(modality.kind.value for modality in modalities))
    assert DECLARED[name][1] == (
        "sentences" if all_sentences(modalities) else "views" if has_views(modalities) else kinds
    )
    assert data.source(name).name == name
