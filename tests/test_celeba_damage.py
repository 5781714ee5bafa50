"""Damaged, missing or changed files of CelebA: an error names the file, or the files make another data set."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mvae import data
from mvae.data.faces import pictures
from mvae.data.faces.celeba_files import IMAGES
from mvae.data.faces.celeba_lists import ATTRIBUTE_LIST, PARTITION_LIST
from mvae.refusal import Refusal
from tests.celeba_files import edit, own_cache, root, zipped
from tests.tiny_mnist import empty, truncate

__all__ = ["own_cache", "root"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_names_a_truncated_image_in_every_process(
    root: Path, own_cache: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "BLOCK", 8)
    monkeypatch.setattr(pictures, "cores", lambda: workers)
    truncate(root / "celeba" / IMAGES / "000017.jpg")
    with pytest.raises(Refusal, match=r"img_align_celeba/000017.jpg is damaged \(image file is truncated.*fetch it"):
        data.load("celeba", root, own_cache)
    assert not list(own_cache.glob("celeba-*/manifest.json"))


def scribble(path: Path) -> None:
    path.write_bytes(b"<html>quota exceeded</html>")


def as_png(path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (178, 218)).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize("damage", [empty, scribble, as_png])
def test_an_error_names_an_image_that_is_no_jpeg(root: Path, own_cache: Path, damage: Callable[[Path], None]) -> None:
    damage(root / "celeba" / IMAGES / "000005.jpg")
    with pytest.raises(Refusal, match=r"img_align_celeba/000005.jpg is not a JPEG image: fetch it again"):
        data.load("celeba", root, own_cache)


def test_a_missing_image_is_named_before_anything_is_decoded(root: Path, own_cache: Path) -> None:
    (root / "celeba" / IMAGES / "000003.jpg").unlink()
    (root / "celeba" / IMAGES / "000009.jpg").unlink()
    with pytest.raises(
        Refusal,
        match=r"^2 of the 24 images in list_eval_partition.txt are missing \(the first is .*000003.jpg\): fetch",
    ):
        data.load("celeba", root, own_cache)
    assert not own_cache.exists()


def test_a_wrong_byte_in_a_zip_is_detected_and_its_image_named(root: Path, tmp_path: Path, own_cache: Path) -> None:
    zipped(root, tmp_path / "zips")
    archive = tmp_path / "zips" / "celeba" / f"{IMAGES}.zip"
    content = bytearray(archive.read_bytes())
    content[content.find(b"000007.jpg") + 3000] ^= 1
    archive.write_bytes(content)
    with pytest.raises(Refusal, match=r"img_align_celeba.zip/img_align_celeba/000007.jpg is damaged \(Bad CRC-32"):
        data.load("celeba", tmp_path / "zips", own_cache)


def test_an_error_names_a_truncated_zip(root: Path, tmp_path: Path, own_cache: Path) -> None:
    zipped(root, tmp_path / "zips")
    truncate(tmp_path / "zips" / "celeba" / f"{IMAGES}.zip")
    with pytest.raises(Refusal, match=r"img_align_celeba.zip is not a complete zip file .*: fetch it again"):
        data.load("celeba", tmp_path / "zips", own_cache)


@pytest.mark.parametrize("name", [IMAGES, ATTRIBUTE_LIST, PARTITION_LIST])
def test_missing_files_are_named_with_the_expected_layout_and_their_source(root: Path, name: str) -> None:
    path = root / "celeba" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(data.MissingFiles) as raised:
        data.load("celeba", root)
    assert f"celeba has no {name} (or its zip): the data root must hold celeba/ with" in str(raised.value)
    assert "download them yourself from the authors' page" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (ATTRIBUTE_LIST, lambda lines: lines.pop(), r"begins with a count of 24 images, but lists 23: fetch this file"),
        (
            PARTITION_LIST,
            lambda lines: lines.pop(),
            r"lists 24 images, but list_eval_partition.txt lists 23: fetch both",
        ),
        (ATTRIBUTE_LIST, lambda lines: lines.pop(0), r"must begin with a count and the names of the attributes"),
        (
            ATTRIBUTE_LIST,
            lambda lines: lines.__setitem__(1, lines[1].replace("Bald", "Blad")),
            r"has a column Blad, which is not one of CelebA's 40 attributes",
        ),
        (
            ATTRIBUTE_LIST,
            lambda lines: lines.__setitem__(1, lines[1].replace("Wearing_Hat", "Young")),
            r"has no column Wearing_Hat: CelebA's 40 attributes are expected",
        ),
        (
            ATTRIBUTE_LIST,
            lambda lines: lines.__setitem__(7, lines[7][:-2] + "0"),
            r"list_attr_celeba.txt, line 8 must hold a file name and 40 values of 1 or -1",
        ),
        (
            ATTRIBUTE_LIST,
            lambda lines: lines.__setitem__(7, lines[7] + " 1"),
            r"list_attr_celeba.txt, line 8 must hold a file name and 40 values of 1 or -1",
        ),
        (
            PARTITION_LIST,
            lambda lines: lines.__setitem__(2, "000003.jpg 7"),
            r"list_eval_partition.txt, line 3 must hold a file name and 0, 1 or 2",
        ),
        (PARTITION_LIST, lambda lines: lines.__setitem__(1, lines[0]), r"lists an image twice"),
        (
            PARTITION_LIST,
            lambda lines: lines.__setitem__(slice(None), [f"{line[:-1]}0" for line in lines]),
            r"lists no validation image",
        ),
        (
            ATTRIBUTE_LIST,
            lambda lines: lines.__setitem__(slice(2, 4), reversed(lines[2:4])),
            r"image 1 is 000002.jpg in .*list_attr_celeba.txt, but 000001.jpg in list_eval_partition.txt",
        ),
    ],
)
def test_a_damaged_list_gives_a_one_line_error(
    root: Path, own_cache: Path, name: str, change: Callable[[list[str]], object], message: str
) -> None:
    edit(root, name, change)
    with pytest.raises(Refusal, match=message) as raised:
        data.load("celeba", root, own_cache)
    assert "\n" not in str(raised.value)


def test_changed_lists_or_a_changed_image_make_another_data_set(root: Path, own_cache: Path) -> None:
    before = data.fingerprint("celeba", root, own_cache)
    path = root / "celeba" / IMAGES / "000024.jpg"
    path.write_bytes(path.read_bytes() + b"\0")
    assert (changed := data.fingerprint("celeba", root, own_cache)) != before
    edit(root, ATTRIBUTE_LIST, lambda lines: lines.__setitem__(2, lines[2].replace(" 1", "-1")))
    assert data.fingerprint("celeba", root, own_cache) != changed
    (root / "celeba" / IMAGES / "notes.txt").write_text("not listed", encoding="utf-8")
    assert data.fingerprint("celeba", root, own_cache) != before
