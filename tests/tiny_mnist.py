"""MNIST's raw files in miniature for tests of data sets, a server of them, and ways to damage a file."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import types
from pathlib import Path

import numpy as np
import torch

from mvae.data.dataset import SPLITS
from mvae.data.examples import Dataset

COUNTS = {"train": 60, "t10k": 12}


def write_idx(path: Path, values: np.ndarray, compressed: bool) -> None:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    content = header + values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if compressed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def write_tiny(
    root: Path, folder: str = "MNIST", *, compressed: bool = False, counts: dict[str, int] = COUNTS
) -> dict[str, np.ndarray]:
    """Writes 72 random images in MNIST's layout: 50 to train, 10 to validate, 12 to test. Returns the arrays."""
    rng = np.random.default_rng(7)
    written: dict[str, np.ndarray] = {}
    for part, count in counts.items():
        written[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        written[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, count, dtype=np.uint8)
    for name, values in written.items():
        write_idx(root / folder / "raw" / name, values, compressed)
    return written


def torchvision_at(*mirrors: str, served: Path | None = None) -> types.ModuleType:
    """Replaces torchvision: MNIST and FashionMNIST are at these addresses.

    Args:
        mirrors: addresses that end with a slash.
        served: data root whose packed MNIST the addresses serve; None if they serve nothing.
    """
    module = types.ModuleType("torchvision")
    names = [f"{part}-{kind}-ubyte.gz" for part in COUNTS for kind in ("images-idx3", "labels-idx1")]
    content = {name: b"" if served is None else (served / "MNIST" / "raw" / name).read_bytes() for name in names}
    known = types.SimpleNamespace(
        mirrors=mirrors,
        resources=[(name, hashlib.md5(packed, usedforsecurity=False).hexdigest()) for name, packed in content.items()],
    )
    module.datasets = types.SimpleNamespace(MNIST=known, FashionMNIST=known)  # type: ignore[attr-defined]
    return module


def everything(dataset: Dataset) -> list[torch.Tensor]:
    return [value for split in SPLITS for value in getattr(dataset, split).values]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")
