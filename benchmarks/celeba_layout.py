"""Writes the drawn faces of mvae/data/faces/faces.py in CelebA's layout, for a benchmark and for tests."""

import json
import shutil
from pathlib import Path

import numpy as np

from mvae.data.faces.celeba_files import FOLDER, IMAGES
from mvae.data.faces.celeba_lists import ATTRIBUTE_LIST, COLUMNS, PARTITION_LIST
from mvae.data.faces.faces import SEED, VERSION, columns, drawn, draws, partitions
from mvae.refusal import Refusal
from mvae.storage.files import locked, write_atomically

QUALITY = 92
"""Quality of the JPEG files."""
MARK = "faces.json"
"""File that describes the folder's contents; written last."""


def write_faces(root: Path, count: int, seed: int = SEED) -> None:
    """Draws `count` faces and writes them in CelebA's layout to `<root>/celeba/`.

    The folder gets its final name after all files are written. Leftovers of an interrupted call are deleted first. If
    the folder already contains the same faces, it is not changed.

    Raises:
        Refusal: `count` is too small, or the folder exists and contains something else.
        OSError: the disk is full or the folder cannot be written.
    """
    parts, folder = partitions(count), root / FOLDER
    description = json.dumps({"version": VERSION, "seed": seed, "count": count}).encode()
    with locked(folder):
        if folder.exists():
            mark = folder / MARK
            if mark.is_file() and mark.read_bytes() == description:
                return
            raise Refusal(f"{folder} exists, but without these {count:,} faces: choose a folder without {FOLDER}/")
        growing = root / f".{FOLDER}.growing"
        shutil.rmtree(growing, ignore_errors=True)
        (growing / IMAGES).mkdir(parents=True)
        names = [f"{number:06}.jpg" for number in range(1, count + 1)]
        for start in range(0, count, 500):
            stop = min(count, start + 500)
            for name, face in zip(names[start:stop], drawn(seed, start, stop), strict=True):
                face.save(growing / IMAGES / name, quality=QUALITY)
        has = columns(draws(seed, 0, count))
        signs = np.where(np.stack([has[name] for name in COLUMNS], axis=1), " 1", "-1")
        rows = [f"{name} {' '.join(row)}" for name, row in zip(names, signs.tolist(), strict=True)]
        write_atomically(growing / ATTRIBUTE_LIST, "\n".join([str(count), " ".join(COLUMNS), *rows, ""]).encode())
        split = [f"{name} {part}\n" for name, part in zip(names, parts, strict=True)]
        write_atomically(growing / PARTITION_LIST, "".join(split).encode())
        write_atomically(growing / MARK, description)
        growing.rename(folder)
