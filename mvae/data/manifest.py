"""Finds a converted data set in the cache and checks its files. Does not import torch.

arrow.py describes the files and writes them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvae.data.dataset import SPLITS, Source
from mvae.data.lookup import default_cache, fingerprint, source
from mvae.storage.files import Damaged, sha256_cached

FORMAT = 1
"""Version of the layout of the files; not part of the fingerprint. Data in another layout are converted again."""

NAME = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """Manifest entry for the Arrow file of one split."""

    rows: int
    size: int
    """Size in bytes."""
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Content of a manifest: one entry per split, and the modalities if they depend on the raw files."""

    splits: dict[str, Entry]
    modalities: list[dict[str, Any]] | None
    """The fields of each modality, as JSON stores them. None if the modalities do not depend on the raw files."""


def folder_of(found: Source, fingerprint: str, cache: Path | None) -> Path:
    """Returns the folder of a converted data set. The folder may not exist yet.

    Args:
        cache: the cache folder. If None, `default_cache()` is used.
    """
    code = f"-{found.code[:8]}" if found.code else ""
    return (cache or default_cache()).expanduser().absolute() / f"{found.name}-{fingerprint[:16]}{code}"


def file_of(folder: Path, split: str) -> Path:
    """Returns the path of a split's Arrow file."""
    return folder / f"{split}.arrow"


def read(folder: Path, fingerprint: str) -> Manifest | None:
    """Returns the manifest, or None if the folder has no manifest. Does not check the Arrow files.

    Raises:
        Damaged: the manifest is invalid, or belongs to another format or data set.
    """
    path = folder / NAME
    try:
        stored = json.loads(path.read_bytes())
        matches = stored["format"] == FORMAT and stored["fingerprint"] == fingerprint
        manifest = Manifest({split: Entry(**stored["splits"][split]) for split in SPLITS}, stored.get("modalities"))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path} is not a valid manifest ({type(error).__name__}: {error})") from error
    if not matches:
        raise Damaged(f"{path} belongs to another format or data set")
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Checks the files' sizes at every call, and their digests once per process.

    Raises:
        Damaged: a file is missing, or does not match the manifest.
    """
    for split, entry in manifest.splits.items():
        path = file_of(folder, split)
        try:
            size = path.stat().st_size
            if size != entry.size:
                raise Damaged(f"{path} has {size:,} bytes instead of {entry.size:,}")
            if sha256_cached(path) != entry.sha256:
                raise Damaged(f"{path} does not match the sha256 in its manifest")
        except FileNotFoundError as error:
            raise Damaged(f"{error.filename} is missing") from error


def is_converted(name: str, data_root: Path | None = None, cache: Path | None = None) -> bool:
    """Whether the cache holds all converted files of a data set, undamaged, so that `load` need not convert it.

    Raises:
        Refusal: same as `fingerprint`.
    """
    found = source(name)
    mark = fingerprint(name, data_root, cache)
    folder = folder_of(found, mark, cache)
    try:
        stored = read(folder, mark)
        if stored is not None:
            check_files(folder, stored)
    except (Damaged, OSError):  # `load` warns about damage, and refuses a cache that cannot be used
        return False
    return stored is not None
