"""Writes, verifies, finds and deletes the checkpoints of one trial.

    <folder>/<epoch>-<attempt>/model.pt, training.pt     torch.save, read back with weights_only=True
    <folder>/<epoch>-<attempt>/manifest.json             written last: sizes, sha256, epoch, metric history

A kill at any moment leaves a checkpoint complete or absent. A folder without a valid manifest is not a checkpoint.

The trial's folder is named after its content key. Each attempt at the trial is a process and writes under its own id. A
process that seemed dead may continue after the next attempt has started. Even then, the process cannot overwrite
checkpoints of the next attempt.

Checkpoints work the same way in folders and in object storage.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mvae.storage.clock import CLOCK, Clock
from mvae.storage.files import Damaged
from mvae.storage.objects import place
from mvae.storage.place import AnyPlace, Place, Version
from mvae.training.records import MANIFEST, MODEL, Checkpoint, Record, StoredFile

if TYPE_CHECKING:
    import torch

_FOLDER = re.compile(r"(\d{6,})-([A-Za-z0-9][A-Za-z0-9._-]*)")
_FORMAT = 1
_ABANDONED_AFTER = 600.0
"""Seconds without a new file after which an incomplete checkpoint counts as abandoned, on storage without locks.

The times of files come from the storage, the present time from this machine.
"""
_log = logging.getLogger(__name__)
_reported: set[Place] = set()
"""Damaged checkpoints that this process has already warned about."""


class Checkpoints:
    """The checkpoints of one trial. Any process may read all of them. Each attempt writes only its own checkpoints.

    Args:
        folder: the trial's folder. The first `save` creates the folder.
        attempt: unique id of this attempt; letters, digits, dots, dashes and underscores.
        keep: number of this attempt's own checkpoints that are kept while the trial runs.
    """

    def __init__(self, folder: AnyPlace, attempt: str, keep: int = 2, clock: Clock = CLOCK) -> None:
        assert _FOLDER.fullmatch(f"000000-{attempt}"), f"invalid attempt id {attempt!r}"
        assert keep >= 1, "an attempt must keep at least one checkpoint"
        self.folder = place(folder)
        self.attempt = attempt
        self.keep = keep
        self._clock = clock
        self._final_lock = self.folder / "final"

    def latest(self, *, digests: bool = True) -> Checkpoint | None:
        """Returns the valid checkpoint of the highest epoch, from any attempt.

        If several attempts have a checkpoint of this epoch, returns the one written last. Skips damaged checkpoints
        with a warning. If a checkpoint is deleted during the search, the search restarts.

        Args:
            digests: whether to read every file and check its sha256. If not, checks only the manifest and file sizes.
                `load` always checks the file that it loads.
        """
        empty_searches = 0
        while empty_searches < self.folder.looks:
            with suppress(FileNotFoundError):
                newest = self._first_valid(self._newest_first(self.folder.listing()), digests)
                if newest is not None:
                    return newest
                empty_searches += 1
        return None

    def save(
        self, epoch: int, files: Mapping[str, Any], history: Sequence[Record], provenance: Mapping[str, Any]
    ) -> Checkpoint:
        """Writes a checkpoint, then deletes this attempt's older ones. The checkpoint survives kill -9 and power cuts.

        If this attempt already has a valid checkpoint of the epoch, returns that checkpoint.

        Args:
            epoch: number of finished epochs.
            files: the content of each file by name, for torch.save: tensors and plain values, nested to any depth.
            history: one record per finished epoch.
            provenance: facts that may differ between attempts, for example "device", which `Checkpoint.device` returns.
        Raises:
            OSError: the disk is full, or another attempt finished the trial and deleted files of this checkpoint.
                The incomplete checkpoint is then deleted, unless the other attempt kept this checkpoint's weights.
        """
        import torch

        assert MODEL in files, f"checkpoint has no {MODEL}"
        path = self.folder / f"{epoch:06d}-{self.attempt}"
        if path.exists():
            try:
                return _verified(path)
            except Damaged:
                _remove(path)
        try:
            stored = {name: _write(path / name, content) for name, content in files.items()}
            checkpoint = Checkpoint(
                path=path,
                epoch=epoch,
                attempt=self.attempt,
                files=stored,
                history=list(history),
                provenance={"torch_version": str(torch.__version__), **provenance},
                final=False,
            )
            _write_manifest(checkpoint)
        except BaseException:
            if not (path / MANIFEST).exists():  # a complete checkpoint stays: another attempt may already rely on it
                _remove(path)
            raise
        try:
            _check_not_deleted(checkpoint)
        except FileNotFoundError:
            if not _is_final(path):
                _remove(path)
            raise
        complete = self._newest_first(self.folder.listing())
        for older in [folder for folder in complete if folder.name.partition("-")[2] == self.attempt][self.keep :]:
            _remove(older)
        return checkpoint

    def load(self, checkpoint: Checkpoint, name: str, map_location: str | torch.device = "cpu") -> Any:
        """Returns the content that `save` wrote to this file.

        Raises:
            Damaged: the file cannot be read, or differs from the manifest in size or sha256.
        """
        assert name in checkpoint.files, f"{checkpoint.path} has no {name}; its files: {', '.join(checkpoint.files)}"
        import torch

        path, expected = checkpoint.path / name, checkpoint.files[name]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise Damaged(f"{path} cannot be read ({error.strerror})") from error
        if len(data) != expected.bytes or hashlib.sha256(data).hexdigest() != expected.sha256:
            raise Damaged(f"{path} does not match the size and sha256 in its manifest")
        return torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)

    def keep_final_weights(self) -> Checkpoint | None:
        """Keeps only the weights of the newest checkpoint and deletes all other files.

        Call this method once the trial has a result. If a kill interrupts the deletions, the next call deletes the
        remaining files. Deletes nothing and returns None in two cases: there is no checkpoint, or a checkpoint newer
        than the newest valid one is damaged.

        Several attempts may call this method at once, even on storage without locks:
        - Each attempt chooses from one listing and deletes only files in that listing.
        - Attempts that see the same complete checkpoints choose the same one.
        - No attempt deletes a checkpoint that another attempt may still be writing.
        """
        if not self.folder.is_dir():
            return None
        with self._final_lock.lock():
            while True:
                with suppress(FileNotFoundError):
                    return self._keep_newest()

    def _keep_newest(self) -> Checkpoint | None:
        found = self.folder.listing()
        complete = self._newest_first(found)
        newest = self._first_valid(complete, digests=True)
        if newest is None or any(_epoch(folder) > newest.epoch for folder in complete):
            return None
        for other in list(self.folder.iterdir()):
            is_checkpoint = _FOLDER.fullmatch(other.name) and other != newest.path
            if is_checkpoint and (other in complete or self._is_abandoned(other, found)):
                _remove(other)
        final = replace(newest, files={MODEL: newest.files[MODEL]}, final=True)
        if not newest.final:
            _write_manifest(final)  # before the deletions, so that the manifest never lists a missing file
        for file in final.path.iterdir():
            if file.name not in (MODEL, MANIFEST):
                file.unlink(missing_ok=True)
        _check_not_deleted(final)
        return final

    def _is_abandoned(self, folder: Place, found: Mapping[str, Version]) -> bool:
        """Whether a checkpoint without a manifest may be deleted because its writer has stopped."""
        if self._final_lock.has_locks():
            return True  # a writer that is still running notices the deletion (`_check_not_deleted`)
        changed = [version.changed for path, version in found.items() if path.startswith(f"{folder.name}/")]
        return self._clock.time() - max(changed, default=math.inf) / 1e9 > _ABANDONED_AFTER

    def _first_valid(self, folders: Sequence[Place], digests: bool) -> Checkpoint | None:
        """Returns the first valid checkpoint and warns about damaged ones.

        Raises:
            FileNotFoundError: another attempt deleted one of the checkpoints during the search.
        """
        for folder in folders:
            try:
                return _verified(folder, digests)
            except Damaged as error:
                if not (folder / MANIFEST).exists():
                    raise FileNotFoundError(f"{folder} was deleted by another attempt") from None
                if folder not in _reported:
                    _reported.add(folder)
                    _log.warning("skipping a damaged checkpoint: %s", error)
        return None

    def _newest_first(self, found: Mapping[str, Version]) -> list[Place]:
        """Returns the folders that have a manifest, newest first. Their contents are not checked.

        The folders are sorted by epoch, then by the time of the weights file, then by name. The manifest's time is not
        used, because `keep_final_weights` rewrites the manifest. The name breaks ties, because object storage has
        coarse times. So every attempt sees the same order.
        """
        names = [path.removesuffix(f"/{MANIFEST}") for path in found if path.endswith(f"/{MANIFEST}")]
        weights = {name: found.get(f"{name}/{MODEL}", Version(0, 0)) for name in names if _FOLDER.fullmatch(name)}
        in_order = sorted(weights, key=lambda name: (_epoch(self.folder / name), weights[name].changed, name))
        return [self.folder / name for name in reversed(in_order)]


def _epoch(folder: Place) -> int:
    return int(folder.name.partition("-")[0])


def _write(path: Place, content: Any) -> StoredFile:
    """Writes a file with torch.save. Serialises in memory first, so that a disk error is raised as OSError."""
    buffer = io.BytesIO()
    import torch

    torch.save(content, buffer)
    data = buffer.getbuffer()
    path.write_bytes(data)
    return StoredFile(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _write_manifest(checkpoint: Checkpoint) -> None:
    manifest = {
        "format": _FORMAT,
        "epoch": checkpoint.epoch,
        "attempt": checkpoint.attempt,
        "final": checkpoint.final,
        "files": {name: {"bytes": file.bytes, "sha256": file.sha256} for name, file in checkpoint.files.items()},
        "provenance": checkpoint.provenance,
        "history": checkpoint.history,
    }
    (checkpoint.path / MANIFEST).write_bytes(json.dumps(manifest).encode())


def _check_not_deleted(checkpoint: Checkpoint) -> None:
    """Raises FileNotFoundError if another attempt has finished the trial and deleted these files."""
    for name in checkpoint.files:
        (checkpoint.path / name).version()


def _is_final(folder: Place) -> bool:
    """Whether another attempt has finished the trial and kept the weights of this folder."""
    try:
        return bool(json.loads((folder / MANIFEST).read_bytes())["final"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _verified(folder: Place, digests: bool = True) -> Checkpoint:
    """Reads the checkpoint in a folder. Checks the size of every file and, if `digests` is set, the sha256.

    Raises:
        Damaged: the manifest is missing or invalid, or a file does not match the manifest.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] != _FORMAT:
            raise Damaged(f"{path} has format {manifest['format']!r}; this version reads format {_FORMAT}")
        checkpoint = Checkpoint(
            path=folder,
            epoch=int(manifest["epoch"]),
            attempt=str(manifest["attempt"]),
            files={
                name: StoredFile(bytes=int(file["bytes"]), sha256=str(file["sha256"]))
                for name, file in manifest["files"].items()
            },
            history=list(manifest["history"]),
            provenance=dict(manifest["provenance"]),
            final=bool(manifest["final"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    if checkpoint.epoch != _epoch(folder) or MODEL not in checkpoint.files:
        raise Damaged(f"{path} does not match its folder's name, or lists no {MODEL}")
    for name, expected in checkpoint.files.items():
        path = folder / name
        try:
            size = path.version().size
            if size != expected.bytes:
                raise Damaged(f"{path} has {size:,} bytes; its manifest says {expected.bytes:,}")
            if digests and path.digest() != expected.sha256:
                raise Damaged(f"{path} does not match the sha256 in its manifest")
        except OSError as error:
            raise Damaged(f"{path} cannot be read ({error.strerror})") from error
    return checkpoint


def _remove(folder: Place) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)  # first: a half-deleted checkpoint then counts as absent, not damaged
    folder.remove_tree()
