"""The on-disk form of a data set: one Arrow IPC file a split, memory-mapped without a copy.

    <cache>/<name>-<first 16 digits of the fingerprint>/train.arrow, validation.arrow, test.arrow, manifest.json

Each file is one record batch with one column a modality: a fixed-size list of uint8 for an image or a text, plain uint8
for a label, a large list of int32 for sentences, which Arrow keeps as all words and the offsets of the sentences; none
for a view, which is made of the first. So a column is one or two runs of bytes in the file, and all trials of a machine
share one copy of it in the page cache. The manifest, written last, says each file's size and sha256, and what the
modalities are where the raw files decide it: files without a manifest do not exist, and sizes are checked before
anything is mapped.
"""

import json
import math
import mmap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from mvae.data.dataset import SPLITS, Arrays, Kind, Modality
from mvae.data.examples import Split
from mvae.data.sentences.sentences import Sentences
from mvae.storage.files import Damaged, atomic_path, set_aside, sha256_cached, write_atomically

FORMAT = 1
"""Version of this layout. Another one on disk is made again; it is no part of the fingerprint."""

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class _Entry:
    """What the manifest says of one split's file."""

    rows: int
    size: int
    """Bytes."""
    sha256: str


def write(
    folder: Path, arrays: Arrays, modalities: tuple[Modality, ...], fingerprint: str, *, described: bool = False
) -> None:
    """Store a data set; each file appears whole, the manifest last. Call it under the folder's lock.

    Args:
        arrays: uint8, per split one array a modality, contiguous or not, [N, *shape]; ragged where it is sentences.
        described: the manifest says what the modalities are, for `read`.
    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    for abandoned in folder.glob(".*.tmp"):  # of a process that was killed while it held the lock
        abandoned.unlink()
    manifest: dict[str, Any] = {"format": FORMAT, "fingerprint": fingerprint, "splits": {}}
    if described:
        manifest["modalities"] = [asdict(modality) for modality in modalities]
    for split in SPLITS:
        path = _path(folder, split)
        batch = _record_batch(arrays[split], modalities, fingerprint)
        with (
            atomic_path(path) as temporary,
            temporary.open("xb") as file,
            pa.ipc.new_file(file, batch.schema) as writer,
        ):
            writer.write_batch(batch)
        entry = _Entry(rows=batch.num_rows, size=path.stat().st_size, sha256=sha256_cached(path))
        manifest["splits"][split] = asdict(entry)
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def read(
    folder: Path, modalities: tuple[Modality, ...] | None, fingerprint: str
) -> tuple[tuple[Modality, ...], dict[str, Split]] | None:
    """The modalities and the three splits, mapped; None where nothing was stored, or not to the end.

    Sizes are checked at every call, digests once a process.

    Args:
        modalities: None: those that the manifest describes.
    Raises:
        Damaged: a file is missing, or is not what the manifest says.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        known = manifest["format"] == FORMAT and manifest["fingerprint"] == fingerprint
        entries = {split: _Entry(**manifest["splits"][split]) for split in SPLITS}
        if modalities is None:
            modalities = tuple(_modality(**stored) for stored in manifest["modalities"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path} is not a manifest of ours ({type(error).__name__}: {error})") from error
    if not known:
        raise Damaged(f"{path} is of another format or data set")
    try:
        splits = {split: _read_split(_path(folder, split), modalities, entry) for split, entry in entries.items()}
    except FileNotFoundError as error:
        raise Damaged(f"{error.filename} is missing") from error
    return modalities, splits


def _modality(kind: str, **stored: Any) -> Modality:
    """A modality as the manifest describes it: JSON has lists for tuples."""
    tuples: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return Modality(kind=Kind(kind), **tuples)


def discard(folder: Path) -> None:
    """Set every file of a damaged data set aside, the manifest first. Call it under the folder's lock."""
    for path in (folder / MANIFEST, *(_path(folder, split) for split in SPLITS)):
        if path.exists():
            set_aside(path)


def dtype_of(modality: Modality) -> type[np.generic]:
    """Type in which the values of a modality that is not sentences are stored."""
    return np.float32 if modality.kind is Kind.VECTOR else np.uint8


def _path(folder: Path, split: str) -> Path:
    return folder / f"{split}.arrow"


def _record_batch(values: tuple[np.ndarray, ...], modalities: tuple[Modality, ...], fingerprint: str) -> pa.RecordBatch:
    columns: list[pa.Array] = []
    modalities = tuple(modality for modality in modalities if modality.view is None)
    for array, modality in zip(values, modalities, strict=True):
        if modality.sentences:
            columns.append(pa.array(array, pa.large_list(pa.int32())))
            continue
        assert array.dtype == dtype_of(modality) and array.shape[1:] == modality.shape, (modality.name, array.dtype)
        flat = pa.array(np.ascontiguousarray(array).reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(flat, math.prod(modality.shape)) if modality.shape else flat)
    shapes = json.dumps({modality.name: modality.shape for modality in modalities})
    batch = pa.RecordBatch.from_arrays(columns, names=[modality.name for modality in modalities])
    return batch.replace_schema_metadata({"fingerprint": fingerprint, "shapes": shapes, "format": str(FORMAT)})


def _read_split(path: Path, modalities: tuple[Modality, ...], entry: _Entry) -> Split:
    size = path.stat().st_size
    if size != entry.size:
        raise Damaged(f"{path} has {size:,} bytes instead of {entry.size:,}")
    if sha256_cached(path) != entry.sha256:
        raise Damaged(f"{path} does not have the digest it was written with")
    # Private pages: shared with all readers until someone writes, and then the file stays as it is. Arrow's own
    # read-only map would make torch warn of tensors that must not be written, and a write to one kills the process.
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    whole = pa.py_buffer(mapped)
    with pa.ipc.open_file(pa.BufferReader(whole)) as reader:
        if reader.num_record_batches != 1:
            raise Damaged(f"{path} holds {reader.num_record_batches} record batches instead of one")
        batch = reader.get_batch(0)
    values: list[Tensor] = []
    said: list[Sentences | None] = [None] * len(modalities)

    def mapped_as(dtype: type[np.generic], buffer: pa.Buffer | None, count: int) -> Tensor:
        assert buffer is not None
        return torch.from_numpy(np.frombuffer(mapped, dtype, count=count, offset=buffer.address - whole.address))

    for place, modality in enumerate(modalities):
        if modality.view is not None:
            values.append(values[0])
            continue
        column = batch.column(modality.name)
        if modality.sentences:
            _, offsets, _, words = column.buffers()
            ends = mapped_as(np.int64, offsets, entry.rows + 1)
            said[place] = Sentences(mapped_as(np.int32, words, int(ends[-1])), ends, modality.classes)
            values.append(ends.diff() + 1)
            continue
        assert column.null_count == 0
        content = column.buffers()[-1]  # the bytes themselves, behind the validity bitmaps
        stored = mapped_as(dtype_of(modality), content, entry.rows * math.prod(modality.shape))
        values.append(stored.reshape(entry.rows, *modality.shape))
    views = tuple(modality.view for modality in modalities)
    return Split(tuple(values), tuple(said) if any(said) else (), views if any(views) else ())
