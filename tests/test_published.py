"""Files of the wrong data set or part are refused, and files that differ from the published ones are described."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.celeba_layout import write_faces
from mvae import data
from mvae.data.faces.celeba_files import IMAGES
from mvae.data.mnist import known_files
from mvae.data.mnist.known_files import COUNTS, DIGESTS
from mvae.data.mnist.mnist import FILES
from mvae.refusal import Refusal
from pipelines.weak_supervision import Options, sweep
from sweeps.cli.options import read
from sweeps.main import COMPLETE, INCOMPLETE, main
from sweeps.store.store import Store
from tests.tiny_mnist import write_tiny

RAW = Path("/data/MNIST/raw")
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES


def refused(digests: dict[str, str], folder: str = "MNIST") -> str:
    with pytest.raises(Refusal) as refusal:
        known_files.refuse_misplaced(RAW, folder, digests)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_published_files_and_unknown_files_are_accepted() -> None:
    for folder, digests in DIGESTS.items():
        assert tuple(digests) == FILES
        known_files.refuse_misplaced(RAW, folder, digests)
        known_files.refuse_misplaced(RAW, folder, {**digests, TRAIN_IMAGES: "own"})
    known_files.refuse_misplaced(RAW, "MNIST", {name: f"own {name}" for name in FILES})


def test_files_of_another_data_set_are_refused_in_either_folder() -> None:
    said = f"{RAW}/{TRAIN_IMAGES} is FashionMNIST's {TRAIN_IMAGES}: put MNIST's file there, or move FashionMNIST's "
    assert refused(DIGESTS["FashionMNIST"]).startswith(f"{said}files to")
    assert refused(DIGESTS["FashionMNIST"]).endswith("FashionMNIST/raw and use --dataset fashion_mnist")
    mixed = {**DIGESTS["MNIST"], TEST_LABELS: DIGESTS["FashionMNIST"][TEST_LABELS]}
    assert f"{TEST_LABELS} is FashionMNIST's {TEST_LABELS}: put MNIST's file there" in refused(mixed)
    assert "is MNIST's" in refused(DIGESTS["MNIST"], "FashionMNIST")


def test_training_files_in_place_of_test_files_are_refused() -> None:
    known = DIGESTS["MNIST"]
    swapped = {**known, TEST_IMAGES: known[TRAIN_IMAGES], TEST_LABELS: known[TRAIN_LABELS]}
    said = f"{TEST_IMAGES} is MNIST's {TRAIN_IMAGES} under another name: put MNIST's {TEST_IMAGES} there"
    assert said in refused(swapped)
    own = {TRAIN_IMAGES: "a", TRAIN_LABELS: "b", TEST_IMAGES: "a", TEST_LABELS: "b"}
    assert f"{TEST_IMAGES} holds the images of {TRAIN_IMAGES}: put the test images there" in refused(own)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mnist", "binary_mnist", "multi_mnist", "mnist19"])
def test_fashion_mnist_files_in_the_mnist_folder_are_recognised(name: str, real_data: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in FILES:
        (raw / file).symlink_to(real_data / "MNIST" / "raw" / file)
    assert data.fingerprint(name, tmp_path) == data.fingerprint(name, real_data)
    assert data.facts_about(name, tmp_path) == ()
    (raw / TEST_LABELS).unlink()
    fashion = (real_data / "FashionMNIST" / "raw" / TEST_LABELS).read_bytes()
    (raw / f"{TEST_LABELS}.gz").write_bytes(gzip.compress(fashion, 1))
    with pytest.raises(Refusal, match=rf"{TEST_LABELS} is FashionMNIST's {TEST_LABELS}: put MNIST's file there"):
        data.load(name, tmp_path, tmp_path / "cache")


@pytest.mark.real_data
def test_the_published_counts_match_the_published_files(real_data: Path) -> None:
    from mvae.data.mnist.mnist import read_idx

    for folder, counts in COUNTS.items():
        for file, expected in zip((TRAIN_LABELS, TEST_LABELS), counts, strict=True):
            assert tuple(np.bincount(read_idx(real_data / folder / "raw" / file)).tolist()) == expected


def test_the_users_own_files_are_compared_with_the_published_ones(tiny_root: Path) -> None:
    (said,) = data.facts_about("mnist", tiny_root)
    assert said.startswith(f"mnist: 4 of 4 files in {tiny_root}/MNIST/raw differ from the published MNIST (train-")
    assert said.endswith(": 60 training and 12 test examples (published: 60,000 and 10,000)")


def test_another_data_set_of_the_same_size_is_recognised_by_its_class_counts() -> None:
    flat, mnist = COUNTS["FashionMNIST"], COUNTS["MNIST"]
    kmnist = known_files.described(RAW, "MNIST", list(FILES), *flat)
    said = "60,000 training and 10,000 test examples as published, but other numbers per class"
    assert kmnist.endswith(f"{said}, the same as FashionMNIST's")
    relabelled = known_files.described(RAW, "MNIST", [TRAIN_LABELS], (6000,) * 10, mnist[1])
    assert relabelled.endswith(said)
    redrawn = known_files.described(RAW, "MNIST", [TRAIN_IMAGES], *mnist)
    assert redrawn == (
        f"1 of 4 files in {RAW} differ from the published MNIST ({TRAIN_IMAGES}): as many examples per class"
        " as published, but other content"
    )


def test_plan_and_report_say_how_the_files_differ_from_the_published_ones(
    tiny_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = (
        "--data-root",
        str(tiny_root),
        "--storage",
        str(tmp_path / "storage"),
        "--cache",
        str(tmp_path / "cache"),
    )
    asked = ["--dataset", "mnist", "--arms", "nn", "--fractions", "1", "--seeds", "0", *folders]
    Store.open(tmp_path / "storage", "main", create=True)
    for last, code in (("--plan", COMPLETE), ("--report", INCOMPLETE)):
        options = read(Options, [*asked, last])
        assert main(lambda options=options: sweep(options), options) == code  # type: ignore[misc]
        assert "60 training and 12 test examples (published: 60,000 and 10,000)" in " ".join(
            capfd.readouterr().out.split()
        )


@pytest.mark.parametrize("name", ["celeba", "vision"])
def test_missing_or_unaligned_celeba_files_are_described(name: str, tmp_path: Path) -> None:
    write_faces(tmp_path, 24)
    said = f"{name}: {tmp_path}/celeba holds 20, 2, 2 images for training, validation and test (published: "
    assert data.facts_about(name, tmp_path) == (f"{said}162,770, 19,867, 19,962)",)
    Image.new("RGB", (409, 687)).save(tmp_path / "celeba" / IMAGES / "000001.jpg")
    assert "000001.jpg has 409x687 pixels (published, aligned: 178x218)" in data.facts_about(name, tmp_path)[0]


def test_training_files_copied_over_the_test_files_are_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path, "FashionMNIST")
    raw = tmp_path / "FashionMNIST" / "raw"
    for train, test in ((TRAIN_IMAGES, TEST_IMAGES), (TRAIN_LABELS, TEST_LABELS)):
        shutil.copy(raw / train, raw / test)
    with pytest.raises(Refusal, match=re.escape(f"{raw / TEST_IMAGES} holds the images of {TRAIN_IMAGES}: put")):
        data.fingerprint("fashion_mnist", tmp_path)


def test_a_damaged_first_image_of_celeba_is_refused_by_name(tmp_path: Path) -> None:
    write_faces(tmp_path, 24)
    image = tmp_path / "celeba" / IMAGES / "000001.jpg"
    image.write_bytes(b"no image")
    with pytest.raises(Refusal, match=f"{image}.*fetch it again"):
        data.facts_about("celeba", tmp_path)
