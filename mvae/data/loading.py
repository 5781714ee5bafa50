"""Loads a data set into memory: the first call converts the raw files to Arrow, later calls map the Arrow files."""

import dataclasses
import logging
from pathlib import Path

import torch

from mvae.data import arrow
from mvae.data.checks import check_arrays, check_source
from mvae.data.dataset import Source
from mvae.data.examples import Dataset
from mvae.data.lookup import content_fingerprint, root_with_files, source
from mvae.data.manifest import folder_of
from mvae.refusal import Refusal
from mvae.storage.files import Damaged, locked, remedy

log = logging.getLogger(__name__)


def load(name: str, data_root: Path | None = None, cache: Path | None = None, *, grey: bool = False) -> Dataset:
    """Returns a data set on the CPU, memory-mapped. The first call converts it: one process works, all others wait.

    If an Arrow file is truncated or corrupt, logs a warning, renames the converted files to `.bad` and converts again.

    Args:
        data_root: folder with the raw files. If None, uses `default_data_root()` and downloads missing files into it.
        cache: folder for the Arrow files. If None, `default_cache()` is used.
        grey: also load the grey values of the training images, from the data set named in `Source.grey`.
    Raises:
        Refusal: the data set is unknown, raw files are missing or damaged, the cache is unusable, or the data set has
            no grey values.
    """
    found = source(name)
    root = root_with_files(found, data_root)
    fingerprint = content_fingerprint(found, root, cache)
    folder = folder_of(found, fingerprint, cache)
    try:
        dataset = _stored(folder, found, fingerprint) or _converted(folder, found, fingerprint, root)
    except OSError as error:
        raise Refusal(
            f"cannot use the cache {folder.parent} ({error.strerror or error}): "
            f"give --cache a writable folder with free space{remedy(error)}"
        ) from error
    return _with_grey(dataset, found.grey, data_root, cache) if grey else dataset


def load_converted(name: str, fingerprint: str, cache: Path | None = None) -> Dataset | None:
    """Returns a data set if its Arrow files are in the cache, undamaged, else None. Does not read the raw files.

    Raises:
        Refusal: unknown data set.
    """
    found = source(name)
    try:
        return _stored(folder_of(found, fingerprint, cache), found, fingerprint)
    except OSError:
        return None


def _with_grey(dataset: Dataset, other: str, data_root: Path | None, cache: Path | None) -> Dataset:
    if not other:
        raise Refusal(f"{dataset.name} has no grey values to draw bits from: use --binarisation fixed")
    bits, grey = dataset.train, load(other, data_root, cache).train
    same_shapes = bits.values[0].shape == grey.values[0].shape and len(bits.values) == len(grey.values)
    if not same_shapes or not all(map(torch.equal, bits.values[1:], grey.values[1:])):
        raise Refusal(
            f"{other} cannot provide the grey values of {dataset.name}, because the training examples differ:"
            " use --binarisation fixed"
        )
    return dataclasses.replace(dataset, train=dataclasses.replace(bits, grey=grey.values[0]))


def _stored(folder: Path, found: Source, fingerprint: str) -> Dataset | None:
    try:
        return _read(folder, found, fingerprint)
    except Damaged as damage:
        log.info("%s", damage)  # the process that converts again logs a warning
        return None


def _read(folder: Path, found: Source, fingerprint: str) -> Dataset | None:
    stored = arrow.read(folder, None if found.made_of else (*found.modalities, *found.hidden), fingerprint)
    if stored is None:
        return None
    shown = len(stored[0]) - len(found.hidden)
    splits = {name: split.hiding(shown) for name, split in stored[1].items()}
    return Dataset(name=found.name, modalities=stored[0][:shown], fingerprint=fingerprint, **splits)


def _converted(folder: Path, found: Source, fingerprint: str, root: Path) -> Dataset:
    with locked(folder):
        try:
            stored = _read(folder, found, fingerprint)
        except Damaged as damage:
            log.warning("%s; renaming the converted files to .bad and converting again", damage)
            arrow.discard(folder)
            stored = None
        if stored is None:
            log.info("converting %s to %s", found.name, folder)
            raw = found.prepare(root, folder.parent) if found.prepare else root
            exact = dataclasses.replace(found, modalities=found.made_of(raw)) if found.made_of else found
            check_source(exact)
            arrays = found.convert(raw)
            check_arrays(exact, arrays, found.examples(root))
            stored_modalities = (*exact.modalities, *found.hidden)
            arrow.write(folder, arrays, stored_modalities, fingerprint, described=found.made_of is not None)
            stored = _read(folder, found, fingerprint)
    assert stored is not None, folder
    return stored
