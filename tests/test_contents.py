"""Data sets of many files: their content identifies them, each file is read once, and old keys are listed."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.celeba_layout import write_faces
from mvae import data
from mvae.data import contents
from mvae.data.faces import vision
from mvae.data.faces.celeba_files import IMAGES
from mvae.data.faces.celeba_lists import ATTRIBUTE_LIST, PARTITION_LIST
from tests.celeba_files import zipped
from tests.tiny_mnist import flip_a_byte

KEPT = {
    "digits": "c888244705a2653fc0fb7819a9c441957cd994d8fc8e231aaaad1853eeb3a091",
    "faces": "289a614ea805c3a51f0ce8e33ce55912dce4de857a8c3edaeecb8f6dafd8b4cc",
    "faces19": "ed666ddadccfc6a4f925b712564871cbaf0b4a901e9d199ce0f7541628732ce6",
    "vision_faces": "9787f19d0e23c50176c97fa8a0385ff5683e10bc07bfe72b727584f193add72b",
    "vision_faces_small": "6c08332c3a7d92bb1f4a5b0cef3635ba6c943222079b998614efac32eded5be6",
}
OF_FILES = {
    "mnist": "17eeb15094f959648c28e6853f56d25c3cc2920e08196e466b32e5eaa81c0c36",
    "binary_mnist": "bb613f57eae46bc1bc8443d6e1d76d0552d7899510cb49d52eb8b4d233c17bc9",
    "fashion_mnist": "b815f33230e5db7c064a150308cf6d4e74f5c6e05a128651e8dc878c680ec00c",
    "multi_mnist": "9e2b43a93ac6aca37b400f8e96fc0f054202c0ff0b06c3243ebbda4bbd412db8",
    "mnist19": "c15b17c329e6dbb82806f7c49d4404847747e092f9a4a32a6fed28dc14f56123",
}
"""Fingerprints that existed before contents were hashed. These data sets keep their fingerprints."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirteen 64x64 BMPs of equal size in bytes."""
    root = tmp_path / "images"
    root.mkdir()
    for number, pixels in enumerate(noise()):
        Image.fromarray(pixels).save(root / f"{number:02}.bmp")
    return root


@pytest.fixture
def celeba_root(tmp_path: Path) -> Path:
    write_faces(tmp_path / "root", 24)
    return tmp_path / "root"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Records contents read for digests, in any order; newly written files count as settled."""
    read: list[bytes] = []
    digest = contents._digest

    def noted(content: bytes) -> str:
        read.append(content)
        return digest(content)

    monkeypatch.setattr(contents, "_digest", noted)
    monkeypatch.setattr(contents, "SETTLED_S", -60.0)
    return read


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (13, 64, 64, 3), dtype=np.uint8)


def fingerprint_of(name: str, digest: str) -> str:
    """Fingerprint that `mvae.data.fingerprint` makes of the digest of the raw files."""
    source = data.source(name)
    parts = {"name": name, "content": digest, "split": source.split_rule, "version": source.version}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def test_images_replaced_by_their_negatives_make_another_data_set_even_with_equal_names_and_sizes(
    folder: Path, tmp_path: Path
) -> None:
    before = data.fingerprint("vision_images", folder, tmp_path / "cache")
    sizes = [path.stat().st_size for path in sorted(folder.iterdir())]
    for number, pixels in enumerate(255 - noise()):
        Image.fromarray(pixels).save(folder / f"{number:02}.bmp")
    assert [path.stat().st_size for path in sorted(folder.iterdir())] == sizes
    assert data.fingerprint("vision_images", folder, tmp_path / "cache") != before


@pytest.mark.parametrize("name", ["celeba", "celeba19", "vision"])
def test_a_celeba_image_replaced_by_another_of_the_same_size_makes_another_data_set(
    celeba_root: Path, tmp_path: Path, name: str
) -> None:
    seen = [data.fingerprint(name, celeba_root, tmp_path / "cache")]
    flip_a_byte(celeba_root / "celeba" / IMAGES / "000007.jpg")
    seen.append(data.fingerprint(name, celeba_root, tmp_path / "cache"))
    zipped(celeba_root, tmp_path / "zips")
    assert data.fingerprint(name, tmp_path / "zips", tmp_path / "cache") == seen[1] != seen[0]


def test_a_file_rewritten_with_its_old_size_and_time_is_detected(
    folder: Path, tmp_path: Path, counted: list[bytes]
) -> None:
    before = data.fingerprint("vision_images", folder, tmp_path / "cache")
    counted.clear()
    path = folder / "05.bmp"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    flip_a_byte(path)
    os.utime(path, ns=times)
    assert data.fingerprint("vision_images", folder, tmp_path / "cache") != before
    assert counted == [path.read_bytes()], "the other twelve images must not be read again"


def test_a_second_fingerprint_reads_no_image_again_in_a_folder_or_a_zip(
    celeba_root: Path, folder: Path, tmp_path: Path, counted: list[bytes]
) -> None:
    zipped(celeba_root, tmp_path / "zips")
    for name, root, files in (
        ("vision_images", folder, 13),
        ("celeba", celeba_root, 25),
        ("celeba", tmp_path / "zips", 25),
    ):
        counted.clear()
        mark = data.fingerprint(name, root, tmp_path / "cache")
        assert len(counted) == files
        counted.clear()
        assert data.fingerprint(name, root, tmp_path / "cache") == mark
        assert not counted


def test_an_interrupted_first_pass_over_the_files_resumes(tmp_path: Path, counted: list[bytes]) -> None:
    names = [f"{number}.bin" for number in range(20)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    stamps = {name: contents.stamp(tmp_path / name) for name in names}
    read = functools.partial(contents.digests, tmp_path, stamps, cache=tmp_path / "cache", what="files")

    def broken(name: str) -> bytes:
        if name == "15.bin":
            raise ValueError("15.bin cannot be read")
        return name.encode()

    with pytest.raises(ValueError, match=r"15\.bin cannot be read"):
        read(read=broken)
    counted.clear()
    assert read(read=str.encode) == [hashlib.blake2b(name.encode(), digest_size=32).hexdigest() for name in names]
    assert len(counted) == 5


def test_the_digest_of_a_file_just_written_is_not_remembered(folder: Path, tmp_path: Path) -> None:
    data.fingerprint("vision_images", folder, tmp_path / "cache")
    (memory,) = (tmp_path / "cache" / "contents").glob("*.json")
    assert json.loads(memory.read_bytes())["files"] == {}


def test_the_digest_of_a_file_dated_in_the_future_is_remembered(
    folder: Path, tmp_path: Path, counted: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = time.time() + 1e6
    for path in folder.iterdir():
        os.utime(path, (ahead, ahead))
    monkeypatch.setattr(contents, "SETTLED_S", 0.0)
    time.sleep(0.05)
    data.fingerprint("vision_images", folder, tmp_path / "cache")
    counted.clear()
    data.fingerprint("vision_images", folder, tmp_path / "cache")
    assert counted == []


def damaged(cache: Path) -> None:
    for memory in (cache / "contents").glob("*.json"):
        memory.write_text('{"version": 1, "files": [', encoding="utf-8")


def no_folder(cache: Path) -> None:
    os.rename(cache, f"{cache}-before")
    cache.write_text("a file, where a folder is wanted", encoding="utf-8")


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("spoil", [damaged, no_folder])
def test_an_unusable_digest_cache_costs_only_time(folder: Path, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    mark = data.fingerprint("vision_images", folder, tmp_path / "cache")
    spoil(tmp_path / "cache")
    assert data.fingerprint("vision_images", folder, tmp_path / "cache") == mark


def test_drawn_and_shipped_data_sets_keep_their_fingerprints() -> None:
    assert {name: data.fingerprint(name) for name in KEPT} == KEPT


@pytest.mark.real_data
def test_the_mnist_family_keeps_its_fingerprints(real_data: Path) -> None:
    assert {name: data.fingerprint(name, real_data) for name in OF_FILES} == OF_FILES
    assert {name: data.former_fingerprint(name, real_data) for name in OF_FILES} == OF_FILES


def test_the_former_fingerprint_of_a_folder_hashes_its_names_and_sizes(folder: Path) -> None:
    lines = (f"{path.name} {path.stat().st_size}\n" for path in vision.images_of(folder))
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert data.former_fingerprint("vision_images", folder) == fingerprint_of("vision_images", digest)


def test_the_former_fingerprint_of_celeba_hashes_its_lists_names_and_sizes(celeba_root: Path, tmp_path: Path) -> None:
    place = celeba_root / "celeba"
    digest = hashlib.sha256()
    for name in (ATTRIBUTE_LIST, PARTITION_LIST):
        digest.update(hashlib.sha256((place / name).read_bytes()).digest())
    for path in sorted((place / IMAGES).iterdir()):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    expected = fingerprint_of("celeba", digest.hexdigest())
    assert data.former_fingerprint("celeba", celeba_root) == expected
    zipped(celeba_root, tmp_path / "zips")
    assert data.former_fingerprint("celeba", tmp_path / "zips") == expected
