"""A data set into memory: the first call converts the raw files to Arrow, later ones map what is there."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import torch

from mvae.data import arrow, content_fingerprint, default_cache, root_with_files, source
from mvae.data.checks import check_arrays, check_source
from mvae.data.dataset import Source
from mvae.data.examples import Dataset
from mvae.refusal import Refusal
from mvae.storage.files import Damaged, locked

log = logging.getLogger(__name__)


def load(name: str, data_root: Path | None = None, cache: Path | None = None, *, grey: bool = False) -> Dataset:
    """The data set, on the CPU, memory-mapped; made once under the cache folder, by one process, however many ask.

    A stored file that is cut short or corrupt is set aside as `.bad`, and made again, with a logged warning.

    Args:
        data_root: folder that holds the raw files. None: `default_data_root()`, filled by a download where possible.
        cache: folder for the Arrow files. None: `default_cache()`.
        grey: also load the grey values of the training images, from the data set that `Source.grey` names.
    Raises:
        Refusal: one line: unknown data set, raw files missing or damaged, a cache that cannot be written, no grey
            values.
    """
    found = source(name)
    root = root_with_files(found, data_root)
    mark = content_fingerprint(found, root, cache)
    folder = _folder(found, mark, cache)
    try:
        dataset = _stored(folder, found, mark) or _converted(folder, found, mark, root)
    except OSError as error:
        reason = error.strerror or error
        raise Refusal(
            f"the cache {folder.parent} cannot be used ({reason}): give --cache a folder with room"
        ) from error
    return _with_grey(dataset, found.grey, data_root, cache) if grey else dataset


def load_converted(name: str, mark: str, cache: Path | None = None) -> Dataset | None:
    """As `load`, where the cache holds the data set already, else None; nothing is made, and no raw file is read.

    Args:
        mark: its fingerprint.
    Raises:
        Refusal: unknown data set.
    """
    found = source(name)
    try:
        return _stored(_folder(found, mark, cache), found, mark)
    except OSError:
        return None


def _with_grey(dataset: Dataset, other: str, data_root: Path | None, cache: Path | None) -> Dataset:
    """The data set with grey values of its training images, the images of the data set `other`."""
    if not other:
        raise Refusal(f"{dataset.name} has no grey values to draw bits from")
    bits, grey = dataset.train, load(other, data_root, cache).train
    alike = bits.values[0].shape == grey.values[0].shape and len(bits.values) == len(grey.values)
    if not alike or not all(map(torch.equal, bits.values[1:], grey.values[1:])):
        raise Refusal(f"the training examples of {other} are not those of {dataset.name}: it has no grey values")
    return dataclasses.replace(dataset, train=dataclasses.replace(bits, grey=grey.values[0]))


def _folder(found: Source, mark: str, cache: Path | None) -> Path:
    of_code = f"-{found.code[:8]}" if found.code else ""
    return (cache or default_cache()).expanduser().absolute() / f"{found.name}-{mark[:16]}{of_code}"


def _stored(folder: Path, found: Source, mark: str) -> Dataset | None:
    try:
        return _read(folder, found, mark)
    except Damaged as damage:
        log.info("%s", damage)  # said aloud by the one process that makes it again
        return None


def _read(folder: Path, found: Source, mark: str) -> Dataset | None:
    stored = arrow.read(folder, None if found.made_of else (*found.modalities, *found.hidden), mark)
    if stored is None:
        return None
    shown = len(stored[0]) - len(found.hidden)
    splits = {name: split.hiding(shown) for name, split in stored[1].items()}
    return Dataset(name=found.name, modalities=stored[0][:shown], fingerprint=mark, **splits)


def _converted(folder: Path, found: Source, mark: str, root: Path) -> Dataset:
    with locked(folder):
        try:
            stored = _read(folder, found, mark)
        except Damaged as damage:
            log.warning("%s: set aside as .bad and made again", damage)
            arrow.discard(folder)
            stored = None
        if stored is None:
            log.info("converting %s to %s", found.name, folder)
            raw = found.prepare(root, folder.parent) if found.prepare else root
            modalities = found.made_of(raw) if found.made_of else found.modalities
            made = dataclasses.replace(found, modalities=modalities)
            check_source(made)
            arrays = found.convert(raw)
            check_arrays(made, arrays, found.examples(root))
            arrow.write(folder, arrays, (*modalities, *found.hidden), mark, described=found.made_of is not None)
            stored = _read(folder, found, mark)
    assert stored is not None, folder
    return stored
