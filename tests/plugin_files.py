"""Plug-in files for tests: the examples of docs/extend, modified copies, and their raw data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mvae import plugins
from tests.sweeping import ROOT

EXAMPLES = ROOT / "docs" / "examples"
IMAGES = EXAMPLES / "my_images.py"
MEAN = EXAMPLES / "mvae_mean.py"
TABLE = EXAMPLES / "my_table.py"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with the example's raw file."""
    return write_images(tmp_path / "raw")


def write_images(folder: Path) -> Path:
    """Writes the raw file as docs/extend/data-set.md does."""
    folder.mkdir()
    digits = load_digits()
    np.savez(folder / "my_images.npz", images=digits.images * 15, labels=digits.target)
    return folder


def load(*paths: Path) -> None:
    plugins.load(plugins.read(paths))


def written(folder: Path, text: str, name: str = "own.py") -> Path:
    """Writes a plug-in file."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def changed(folder: Path, example: Path, *replacements: tuple[str, str]) -> Path:
    """Writes an example with some of its text replaced."""
    text = example.read_text(encoding="utf-8")
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return written(folder, text, example.name)
