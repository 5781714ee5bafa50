"""Stores data sets on disk: one Arrow IPC file per split, memory-mapped without a copy.

    <cache>/<name>-<first 16 digits of the fingerprint>/train.arrow, validation.arrow, test.arrow, manifest.json

Each file is one record batch with one column per stored modality:

    image, attributes         fixed-size list of uint8
    vector                    fixed-size list of float32
    attribute                 uint8
    label                     uint8; int16 or int32 if there are more than 256 classes
    text                      fixed-size list of the same type as a label
    sentences                 large list of int32: all words, and the offset of each sentence
    view                      no column: computed from the first modality

So a column is one or two contiguous runs of bytes, and all trials on a machine share one copy in the page cache.

The manifest is written last. The manifest records the size and sha256 of each file. If the modalities depend on the raw
files, the manifest also records the modalities. Files without a manifest are ignored. Sizes are checked before
anything is mapped.
"""

import json
import math
import mmap
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from mvae.data.dataset import SPLITS, Arrays, Kind, Modality, stored_type
from mvae.data.examples import Split
from mvae.data.manifest import FORMAT, Entry, check_files, file_of
from mvae.data.manifest import NAME as MANIFEST
from mvae.data.manifest import read as read_manifest
from mvae.data.sentences.sentences import Sentences
from mvae.storage.files import Damaged, atomic_path, set_aside, sha256_cached, write_atomically


def write(
    folder: Path, arrays: Arrays, modalities: tuple[Modality, ...], fingerprint: str, *, described: bool = False
) -> None:
    """Stores a data set: each file atomically, the manifest last. The caller must hold the folder's lock.

    Args:
        arrays: for each split, one array [N, *shape] per stored modality, contiguous or not. `stored_type` gives
            its type. Sentences are a ragged array.
        described: whether to store the modalities in the manifest, so that `read` can return them.
    Raises:
        OSError: the disk is full or the folder is not writable.
    """
    for abandoned in folder.glob(".*.tmp"):  # left by a process that was killed while holding the lock
        abandoned.unlink()
    manifest: dict[str, Any] = {"format": FORMAT, "fingerprint": fingerprint, "splits": {}}
    if described:
        manifest["modalities"] = [asdict(modality) for modality in modalities]
    for split in SPLITS:
        path = file_of(folder, split)
        batch = _record_batch(arrays[split], modalities, fingerprint)
        with (
            atomic_path(path) as temporary,
            temporary.open("xb") as file,
            pa.ipc.new_file(file, batch.schema) as writer,
        ):
            writer.write_batch(batch)
        entry = Entry(rows=batch.num_rows, size=path.stat().st_size, sha256=sha256_cached(path))
        manifest["splits"][split] = asdict(entry)
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def read(
    folder: Path, modalities: tuple[Modality, ...] | None, fingerprint: str
) -> tuple[tuple[Modality, ...], dict[str, Split]] | None:
    """Returns the modalities and the three memory-mapped splits, or None if the folder has no manifest.

    Checks the files' sizes at every call, and their digests once per process.

    Args:
        modalities: modalities of the data set. If None, they are read from the manifest.
    Raises:
        Damaged: a file is missing, or does not match the manifest.
    """
    manifest = read_manifest(folder, fingerprint)
    if manifest is None:
        return None
    check_files(folder, manifest)
    if modalities is None:
        try:
            modalities = tuple(_modality(**stored) for stored in manifest.modalities or [{}])
        except (ValueError, TypeError) as error:
            raise Damaged(f"{folder / MANIFEST} is not a valid manifest ({type(error).__name__}: {error})") from error
    try:
        splits = {
            split: _read_split(file_of(folder, split), modalities, entry) for split, entry in manifest.splits.items()
        }
    except FileNotFoundError as error:
        raise Damaged(f"{error.filename} is missing") from error
    return modalities, splits


def _modality(kind: str, **stored: Any) -> Modality:
    # JSON stores tuples as lists.
    tuples: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return Modality(kind=Kind(kind), **tuples)


def discard(folder: Path) -> None:
    """Renames a damaged data set's files to `.bad`, the manifest first. The caller must hold the folder's lock."""
    for path in (folder / MANIFEST, *(file_of(folder, split) for split in SPLITS)):
        if path.exists():
            set_aside(path)


def _record_batch(values: tuple[np.ndarray, ...], modalities: tuple[Modality, ...], fingerprint: str) -> pa.RecordBatch:
    modalities = tuple(modality for modality in modalities if modality.view is None)
    columns: list[pa.Array] = []
    for array, modality in zip(values, modalities, strict=True):
        if modality.sentences:
            columns.append(pa.array(array, pa.large_list(pa.int32())))
        else:
            assert array.dtype == stored_type(modality) and array.shape[1:] == modality.shape, (
                f"{modality.name}: {array.dtype} of shape {array.shape}"
            )
            flat, size = pa.array(np.ascontiguousarray(array).reshape(-1)), math.prod(modality.shape)
            columns.append(pa.FixedSizeListArray.from_arrays(flat, size) if modality.shape else flat)
    shapes = json.dumps({modality.name: modality.shape for modality in modalities})
    batch = pa.RecordBatch.from_arrays(columns, names=[modality.name for modality in modalities])
    return batch.replace_schema_metadata({"fingerprint": fingerprint, "shapes": shapes, "format": str(FORMAT)})


def _read_split(path: Path, modalities: tuple[Modality, ...], entry: Entry) -> Split:
    # ACCESS_COPY: processes share the pages until one of them writes, and no write reaches the file. With Arrow's own
    # read-only map, torch would warn about read-only tensors, and a write to such a tensor would kill the process.
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    whole = pa.py_buffer(mapped)
    with pa.ipc.open_file(pa.BufferReader(whole)) as reader:
        if reader.num_record_batches != 1:
            raise Damaged(f"{path} holds {reader.num_record_batches} record batches instead of one")
        batch = reader.get_batch(0)
    values: list[Tensor] = []
    sentences: list[Sentences | None] = [None] * len(modalities)

    def mapped_as(dtype: DTypeLike, buffer: pa.Buffer | None, count: int) -> Tensor:
        assert buffer is not None
        return torch.from_numpy(np.frombuffer(mapped, dtype, count=count, offset=buffer.address - whole.address))

    for position, modality in enumerate(modalities):
        if modality.view is not None:
            values.append(values[0])
        elif modality.sentences:
            _, offsets, _, words = batch.column(modality.name).buffers()
            ends = mapped_as(np.int64, offsets, entry.rows + 1)
            sentences[position] = Sentences(mapped_as(np.int32, words, int(ends[-1])), ends, modality.classes)
            values.append(ends.diff() + 1)
        else:
            column = batch.column(modality.name)
            assert column.null_count == 0
            content = column.buffers()[-1]  # the values, after the validity bitmaps
            flat = mapped_as(stored_type(modality), content, entry.rows * math.prod(modality.shape))
            values.append(flat.reshape(entry.rows, *modality.shape))
    views = tuple(modality.view for modality in modalities)
    return Split(tuple(values), tuple(sentences) if any(sentences) else (), views if any(views) else ())
