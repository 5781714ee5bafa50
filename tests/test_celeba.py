"""CelebA: reads its layout, converts its images, and resumes a killed conversion."""

from __future__ import annotations

import functools
import io
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.celeba import CLAIM, rate
from benchmarks.celeba_layout import write_faces
from mvae import data
from mvae.data import progress
from mvae.data.faces import celeba, celeba_files, pictures
from mvae.data.faces.celeba import ATTRIBUTES
from mvae.data.faces.celeba_files import IMAGES
from mvae.data.faces.celeba_lists import PARTITION_LIST
from mvae.refusal import Refusal
from tests.celeba_files import edit, lists, own_cache, root, zipped
from tests.crashes import files_below
from tests.tiny_mnist import everything, truncate

__all__ = ["own_cache", "root"]

COUNT = 2000
SPLIT_SIZES = {"train": 1668, "validation": 166, "test": 166}

PAPERS_18 = (
    "Bald, Bangs, Black_Hair, Blond_Hair, Brown_Hair, Bushy_Eyebrows, Eyeglasses, Gray_Hair, Heavy_Makeup, Male, "
    "Mouth_Slightly_Open, Mustache, Pale_Skin, Receding_Hairline, Smiling, Straight_Hair, Wavy_Hair, Wearing_Hat"
)

CONVERTS_SLOWLY = """
import sys, time
from pathlib import Path
from mvae.data.faces import celeba, celeba_files, pictures
from mvae.data import progress
pictures.BLOCK = 100
read = celeba_files.Files.read_image
def slowly(files, name, made):
    time.sleep(0.002)
    return read(files, name, made)
celeba_files.Files.read_image = slowly
if __name__ == "__main__":
    celeba.prepare(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with 2,000 faces in CelebA's layout. Read only."""
    root = tmp_path_factory.mktemp("many-faces")
    write_faces(root, COUNT)
    return root


def by_hand(path: Path) -> np.ndarray:
    """Converts a 178x218 JPEG to the stored picture."""
    with Image.open(path) as image:
        small = image.resize((64, 78), Image.Resampling.BILINEAR).crop((0, 7, 64, 71))
    return np.asarray(small).transpose(2, 0, 1)


def test_images_attributes_and_partitions_are_read_from_the_files(many: Path, cache: Path) -> None:
    names, rows, partitions = lists(many)
    dataset = data.load("celeba", many, cache)
    for number, split in enumerate(data.SPLITS):
        images, values = getattr(dataset, split).values
        files = [name for name, part in partitions if part == str(number)]
        assert len(images) == len(values) == len(files) == SPLIT_SIZES[split]
        assert images.shape[1:] == (3, 64, 64) and images.dtype == values.dtype == torch.uint8
        for place in range(0, len(files), 20):
            np.testing.assert_array_equal(images[place].numpy(), by_hand(many / "celeba" / IMAGES / files[place]))
        said = {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}
        expected = [[int(said[file][name] == "1") for name in PAPERS_18.split(", ")] for file in files]
        assert values.tolist() == expected
    assert data.training_examples("celeba", many) == SPLIT_SIZES["train"]


def test_the_18_attributes_are_the_papers_in_its_order_jointly_or_separately(many: Path, cache: Path) -> None:
    assert ", ".join(ATTRIBUTES) == PAPERS_18
    one, each = (data.load(name, many, cache) for name in ("celeba", "celeba19"))
    assert one.modalities[1].attributes == ATTRIBUTES
    assert [modality.name for modality in each.modalities] == ["image", *ATTRIBUTES]
    for split in data.SPLITS:
        (images, values), (same_images, *columns) = getattr(one, split).values, getattr(each, split).values
        assert torch.equal(images, same_images)
        assert torch.equal(values, torch.stack(columns, dim=1))
    assert one.fingerprint != each.fingerprint


def test_images_are_decoded_once_for_both_data_sets(
    root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.load("celeba", root, own_cache)
    monkeypatch.setattr(celeba_files, "read_block", lambda *_: pytest.fail("decoded again"))
    assert len(data.load("celeba19", root, own_cache).train) == 20


def test_partitions_need_not_be_contiguous(root: Path, own_cache: Path) -> None:
    def shuffle(lines: list[str]) -> None:
        lines[:] = [f"{line.split()[0]} {place % 3}" for place, line in enumerate(lines)]

    edit(root, PARTITION_LIST, shuffle)
    dataset = data.load("celeba", root, own_cache)
    for number, split in enumerate(data.SPLITS):
        for place, image in enumerate(getattr(dataset, split).values[0]):
            path = root / "celeba" / IMAGES / f"{3 * place + number + 1:06}.jpg"
            np.testing.assert_array_equal(image.numpy(), by_hand(path))


def test_zips_give_the_same_data_set_as_the_folder(many: Path, cache: Path, tmp_path: Path) -> None:
    zipped(many, tmp_path / "zips")
    one = data.load("celeba", many, cache)
    other = data.load("celeba", tmp_path / "zips", tmp_path / "another-cache")
    assert one.fingerprint == other.fingerprint
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(everything(one), everything(other), strict=True))


@pytest.mark.parametrize(
    ("size", "small", "corner"),
    [((178, 218), (64, 78), (0, 7)), ((300, 150), (128, 64), (32, 0)), ((40, 50), (64, 80), (0, 8))],
)
def test_images_are_scaled_to_a_short_side_of_64_and_centre_cropped(
    size: tuple[int, int], small: tuple[int, int], corner: tuple[int, int]
) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    left, top = corner
    expected = image.resize(small, Image.Resampling.BILINEAR).crop((left, top, left + 64, top + 64))
    np.testing.assert_array_equal(pictures.square(image), np.asarray(expected).transpose(2, 0, 1))
    grey = pictures.square(image.convert("L"))
    assert grey.shape == (3, 64, 64) and (grey[0] == grey[2]).all()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are found in /proc")
def test_a_killed_conversion_resumes_with_the_unfinished_blocks_and_leaves_no_process(
    many: Path, cache: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "convert.py"
    script.write_text(CONVERTS_SLOWLY, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, script, many, own_cache],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    wait_for(lambda: len(list(own_cache.glob("*/*.done"))) >= 4)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    wait_for(lambda: not any(runs(child) for child in children))

    marks = {path: path.stat().st_mtime_ns for path in own_cache.glob("*/*.done")}
    assert 4 <= len(marks) < 20
    read: list[str] = []
    read_image = celeba_files.Files.read_image

    def noted(files: celeba_files.Files, name: str, made: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
        read.append(name)
        return read_image(files, name, made)

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "BLOCK", 100)
        patch.setattr(pictures, "cores", lambda: 1)
        patch.setattr(celeba_files.Files, "read_image", noted)
        folder = celeba.prepare(many, own_cache)
    finished = {int(path.name[:6]) for path in marks}
    assert sorted(read) == [
        f"{1 + start + place:06}.jpg" for start in range(0, COUNT, 100) if start not in finished for place in range(100)
    ]
    assert {path: path.stat().st_mtime_ns for path in marks} == marks
    assert not list(own_cache.rglob("*.tmp"))
    unbroken = celeba.prepare(many, cache)  # converted by this process, because it is one block
    np.testing.assert_array_equal(pictures.mapped(folder, COUNT), pictures.mapped(unbroken, COUNT))


def wait_for(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.01)


def runs(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_picture_file_of_the_wrong_length_is_converted_again(root: Path, own_cache: Path) -> None:
    folder = celeba.prepare(root, own_cache)
    whole = np.array(pictures.mapped(folder, 24))
    truncate(folder / pictures.PICTURES)
    np.testing.assert_array_equal(pictures.mapped(celeba.prepare(root, own_cache), 24), whole)


def test_converting_celeba_never_writes_to_the_data_root(root: Path, own_cache: Path) -> None:
    before = files_below(root)
    data.load("celeba", root, own_cache)
    assert files_below(root) == before


def test_a_conversion_process_that_dies_gives_a_one_line_error(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "BLOCK", 1)
    monkeypatch.setattr(pictures, "cores", lambda: 2)
    with pytest.raises(Refusal, match=r"^a process that makes pictures was killed .*: run the command again"):
        pictures.make(own_cache, 2, lambda start, stop: functools.partial(os._exit, 3), beside={}, what="pictures")


def test_a_terminal_shows_a_progress_bar_and_other_outputs_log_lines(
    root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(pictures, "BLOCK", 12)
    monkeypatch.setattr(pictures, "cores", lambda: 1)
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, "mvae"):
        with monkeypatch.context() as patch:
            patch.setenv("TERM", "xterm")
            patch.setattr(sys, "stderr", terminal := Terminal())
            celeba.prepare(root, own_cache / "terminal")
        assert "CelebA's images" in terminal.getvalue() and "24/24" in terminal.getvalue()
        assert not caplog.messages
        celeba.prepare(root, own_cache / "log")
    read = ["CelebA's attributes: 1 of 1", "reading CelebA's images: 24 of 24"]
    assert [message.partition(",")[0] for message in caplog.messages] == [
        *read,
        "CelebA's images: 12 of 24",
        "CelebA's images: 24 of 24",
    ]


def test_one_core_converts_half_the_rate_required_of_two(many: Path) -> None:
    assert rate(many, cpu_time=True) > CLAIM / 2
