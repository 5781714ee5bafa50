"""CelebA's files for tests: 24 drawn faces in CelebA's layout, and ways to edit or zip them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.celeba_layout import write_faces
from mvae.data.faces.celeba_files import IMAGES
from mvae.data.faces.celeba_lists import ATTRIBUTE_LIST, PARTITION_LIST


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with 24 faces that a test may damage."""
    write_faces(tmp_path / "root", 24)
    return tmp_path / "root"


@pytest.fixture
def own_cache(tmp_path: Path) -> Path:
    return tmp_path / "own-cache"


def lists(root: Path) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Column names, and the words of each line of both lists."""
    _, names, *rows = (root / "celeba" / ATTRIBUTE_LIST).read_text(encoding="utf-8").splitlines()
    partitions = (root / "celeba" / PARTITION_LIST).read_text(encoding="utf-8").splitlines()
    return names.split(), [row.split() for row in rows], [row.split() for row in partitions]


def zipped(root: Path, to: Path) -> None:
    """Copies the data set, with all files in zips."""
    (to / "celeba").mkdir(parents=True)
    with zipfile.ZipFile(to / "celeba" / f"{IMAGES}.zip", "w") as archive:
        archive.mkdir(IMAGES)
        for path in sorted((root / "celeba" / IMAGES).iterdir()):
            archive.write(path, f"{IMAGES}/{path.name}")
    for name, archive_name in ((ATTRIBUTE_LIST, f"{ATTRIBUTE_LIST}.zip"), (PARTITION_LIST, "list_eval_partition.zip")):
        with zipfile.ZipFile(to / "celeba" / archive_name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(root / "celeba" / name, name)


def edit(root: Path, name: str, change: Callable[[list[str]], object]) -> None:
    path = root / "celeba" / name
    lines = path.read_text(encoding="utf-8").splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
