"""Every way of packing CelebA's files gives the same data set, or a refusal that says what is wrong."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvae import data
from mvae.data.faces.celeba_files import IMAGES
from mvae.data.faces.celeba_lists import ATTRIBUTE_LIST, PARTITION_LIST
from mvae.refusal import Refusal
from tests.celeba_files import edit, lists, root

__all__ = ["root"]

LISTS = (ATTRIBUTE_LIST, PARTITION_LIST)


def with_byte_order_marks(place: Path) -> None:
    for name in LISTS:
        (place / name).write_text((place / name).read_text(encoding="utf-8"), encoding="utf-8-sig")


def as_utf_16(place: Path) -> None:
    for name in LISTS:
        (place / name).write_text((place / name).read_text(encoding="utf-8"), encoding="utf-16")


def with_windows_line_ends(place: Path) -> None:
    for name in LISTS:
        (place / name).write_bytes((place / name).read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")


def with_old_macs_line_ends(place: Path) -> None:
    for name in LISTS:
        (place / name).write_bytes((place / name).read_bytes().replace(b"\n", b"\r"))


def in_a_nested_folder(place: Path) -> None:
    inner = place / IMAGES / IMAGES
    os.rename(place / IMAGES, place / "inner")
    (place / IMAGES).mkdir()
    os.rename(place / "inner", inner)


def in_a_zip_with_a_mac_folder(place: Path) -> None:
    with zipfile.ZipFile(place / f"{IMAGES}.zip", "w") as archive:
        for path in sorted((place / IMAGES).iterdir()):
            archive.write(path, f"{IMAGES}/{IMAGES}/{path.name}")
            archive.writestr(f"__MACOSX/{IMAGES}/{path.name}", b"resource fork")
    shutil.rmtree(place / IMAGES)


def with_csv_lists(place: Path) -> None:
    """Converts the lists to CSV, as on Kaggle."""
    names, rows, partitions = lists(place.parent)
    texts = {
        "list_attr_celeba.csv": [["image_id", *names], *rows],
        "list_eval_partition.csv": [["image_id", "partition"], *partitions],
    }
    for name, words in texts.items():
        (place / name).write_text("".join(",".join(row) + "\n" for row in words), encoding="utf-8")
    for name in LISTS:
        (place / name).unlink()


def as_kaggle(place: Path) -> None:
    with_csv_lists(place)
    in_a_nested_folder(place)


def with_zipped_csv_lists(place: Path) -> None:
    with_csv_lists(place)
    for path in place.glob("*.csv"):
        with zipfile.ZipFile(place / f"{path.name}.zip", "w") as archive:
            archive.write(path, path.name)
        path.unlink()


@pytest.mark.parametrize(
    "pack",
    [
        with_byte_order_marks,
        as_utf_16,
        with_windows_line_ends,
        with_old_macs_line_ends,
        in_a_nested_folder,
        in_a_zip_with_a_mac_folder,
        with_csv_lists,
        with_zipped_csv_lists,
        as_kaggle,
    ],
)
def test_files_packed_in_another_way_are_the_same_data_set(
    root: Path, tmp_path: Path, pack: Callable[[Path], None]
) -> None:
    before = data.load("celeba", root, tmp_path / "one")
    pack(root / "celeba")
    after = data.load("celeba", root, tmp_path / "other")
    assert after.fingerprint == before.fingerprint
    for split in data.SPLITS:
        for ours, theirs in zip(getattr(after, split).values, getattr(before, split).values, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("named", ["jpg", "png"])
def test_png_images_are_found_if_the_lists_say_jpg_or_png(root: Path, tmp_path: Path, named: str) -> None:
    place = root / "celeba"
    before = data.load("celeba", root, tmp_path / "one")
    for path in sorted((place / IMAGES).iterdir()):
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))
        path.unlink()
    if named == "png":
        for name in LISTS:
            edit(root, name, lambda lines: lines.__setitem__(slice(None), [x.replace(".jpg", ".png") for x in lines]))
    after = data.load("celeba", root, tmp_path / "other")
    assert after.fingerprint != before.fingerprint
    np.testing.assert_array_equal(after.train.values[0].numpy(), before.train.values[0].numpy())


def test_images_with_upper_case_extensions_are_found(root: Path) -> None:
    before = data.fingerprint("celeba", root)
    for path in (root / "celeba" / IMAGES).iterdir():
        path.rename(path.with_suffix(".JPG"))
    assert data.fingerprint("celeba", root) == before


def test_one_image_in_two_formats_is_refused_and_both_are_named(root: Path) -> None:
    Image.new("RGB", (178, 218)).save(root / "celeba" / IMAGES / "000001.png")
    with pytest.raises(Refusal, match=r"holds 000001\.jpg twice, as 000001\.(jpg|png) and 000001\.(jpg|png)"):
        data.fingerprint("celeba", root)


def test_a_zip_with_two_image_folders_is_refused_and_both_are_named(root: Path, tmp_path: Path) -> None:
    place = root / "celeba"
    with zipfile.ZipFile(place / f"{IMAGES}.zip", "w") as archive:
        for inner in (IMAGES, "img_celeba"):
            for path in sorted((place / IMAGES).iterdir()):
                archive.write(path, f"{inner}/{path.name}")
    shutil.rmtree(place / IMAGES)
    with pytest.raises(Refusal, match=r"\.zip holds 000001\.jpg twice, as img_align_celeba/.* and img_celeba/"):
        data.fingerprint("celeba", root, tmp_path)


def test_a_folder_with_two_image_folders_is_refused_and_both_are_named(root: Path, tmp_path: Path) -> None:
    place = root / "celeba" / IMAGES
    shutil.copytree(place, place / "copy")
    with pytest.raises(Refusal, match=r"celeba holds 000001\.jpg twice, as 000001\.jpg and copy/000001\.jpg: keep"):
        data.fingerprint("celeba", root, tmp_path)


def test_images_split_over_several_folders_are_found(root: Path, tmp_path: Path) -> None:
    before = data.fingerprint("celeba", root, tmp_path)
    place = root / "celeba" / IMAGES
    for number, path in enumerate(sorted(place.iterdir())):
        part = place / f"part-{number % 3}"
        part.mkdir(exist_ok=True)
        os.rename(path, part / path.name)
    assert data.fingerprint("celeba", root, tmp_path) == before


def test_a_damaged_csv_list_gives_a_one_line_error(root: Path, tmp_path: Path) -> None:
    place = root / "celeba"
    with_csv_lists(place)
    path = place / "list_attr_celeba.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("000005.jpg,", "000005.jpg,2,", 1), encoding="utf-8")
    with pytest.raises(Refusal, match=r"list_attr_celeba\.csv, line 6 must hold a file name and 40 values of 1 or -1"):
        data.load("celeba", root, tmp_path)


def test_an_error_names_a_broken_link_among_the_images(root: Path, tmp_path: Path) -> None:
    path = root / "celeba" / IMAGES / "000005.jpg"
    path.unlink()
    path.symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(Refusal, match=r"000005\.jpg cannot be read: No such file"):
        data.fingerprint("celeba", root, tmp_path)
