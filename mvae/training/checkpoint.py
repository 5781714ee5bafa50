"""Checkpoints of one trial: complete or absent, whatever was killed, and never deleted by another attempt.

    <folder>/<epoch>-<attempt>/model.pt, training.pt     torch.save, read back with weights_only=True
    <folder>/<epoch>-<attempt>/manifest.json             written last: sizes, sha256, epoch, metric history

A folder whose manifest is missing, or does not verify, is no checkpoint. The folder of the trial is named by its
content key; each attempt at the trial (a process) writes under its own id, so that one which was given up for dead and
comes back cannot touch the work of its successor. All of it holds for folders and for objects of a store alike.
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
_IN_THE_MAKING = 600.0
"""Seconds since its last file, by the storage's clock and ours, for which a checkpoint without a manifest may still get
one, where no lock keeps others from finishing the trial meanwhile."""
_log = logging.getLogger(__name__)
_reported: set[Place] = set()
"""Damaged checkpoints that this process has named already."""


class Checkpoints:
    """The checkpoints of one trial, read by anyone and written by one attempt.

    Args:
        folder: of the trial; made at the first `save`.
        attempt: id of this attempt, unique, a simple token.
        keep: how many of its own checkpoints an attempt keeps while the trial runs.
    """

    def __init__(self, folder: AnyPlace, attempt: str, keep: int = 2, clock: Clock = CLOCK) -> None:
        assert _FOLDER.fullmatch(f"000000-{attempt}"), f"attempt {attempt!r} is not a simple token"
        assert keep >= 1, "an attempt that keeps no checkpoint loses its work"
        self.folder = place(folder)
        self.attempt = attempt
        self.keep = keep
        self._clock = clock
        self._lock_of_the_end = self.folder / "final"

    def latest(self, *, digests: bool = True) -> Checkpoint | None:
        """The newest valid checkpoint of any attempt: highest epoch, of equal ones the last written.

        A damaged one is passed over with a warning; one that its owner deletes meanwhile is not damaged, so look again.

        Args:
            digests: read every file and check its sha256; else the manifest and the sizes alone, for who only wants to
                know of it (`load` checks the file that it loads in any case).
        """
        nothing = 0
        while nothing < self.folder.looks:
            with suppress(FileNotFoundError):
                newest = self._newest_of(self._newest_first(self.folder.listing()), digests)
                if newest is not None:
                    return newest
                nothing += 1
        return None

    def save(
        self, epoch: int, files: Mapping[str, Any], history: Sequence[Record], provenance: Mapping[str, Any]
    ) -> Checkpoint:
        """Write a checkpoint, then delete this attempt's older ones. What is saved survives kill -9 and power cuts.

        An attempt that saves an epoch again keeps what it has.

        Args:
            epoch: finished epochs.
            files: file name to what torch.save shall write there: tensors and plain values, nested as you like.
            history: one record a finished epoch.
            provenance: what may differ between attempts; "device" is read again by others.
        Raises:
            OSError: disk full, folder gone (another attempt finished the trial). Nothing half-written is left behind.
        """
        import torch

        assert MODEL in files, f"a checkpoint without {MODEL}"
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
            _check_not_deleted(checkpoint)
        except BaseException:
            _remove(path)
            raise
        complete = self._newest_first(self.folder.listing())
        for older in [folder for folder in complete if folder.name.partition("-")[2] == self.attempt][self.keep :]:
            _remove(older)
        return checkpoint

    def load(self, checkpoint: Checkpoint, name: str, map_location: str | torch.device = "cpu") -> Any:
        """What was saved under this name.

        Raises:
            Damaged: the file is not what the manifest says.
        """
        assert name in checkpoint.files, f"{checkpoint.path} has no {name}, it has {', '.join(checkpoint.files)}"
        import torch

        return torch.load(io.BytesIO(_fetched(checkpoint, name)), map_location=map_location, weights_only=True)

    def keep_final_weights(self) -> Checkpoint | None:
        """Once the result is written: keep the weights of the newest checkpoint, delete all else of every attempt.

        Safe to call again, and to be killed in: what was left over goes the next time. Does nothing, and returns None,
        where there is no checkpoint or where one newer than the newest valid one is damaged.

        Two attempts at once delete nothing that the other keeps, without locks too: each deletes only what the listing
        shows from which it chose. Of two complete checkpoints all choose the same one, and one that may be in the
        making is left alone. So the last that finishes keeps what the others keep, or its own.
        """
        if not self.folder.is_dir():
            return None
        with self._lock_of_the_end.lock():
            while True:
                with suppress(FileNotFoundError):
                    return self._keep_newest()

    def _keep_newest(self) -> Checkpoint | None:
        found = self.folder.listing()
        complete = self._newest_first(found)
        newest = self._newest_of(complete, digests=True)
        if newest is None or any(_epoch(folder) > newest.epoch for folder in complete):
            return None
        for other in list(self.folder.iterdir()):
            a_checkpoint = _FOLDER.fullmatch(other.name) and other != newest.path
            if a_checkpoint and (other in complete or self._is_abandoned(other, found)):
                _remove(other)
        final = _stripped(newest)
        _check_not_deleted(final)
        return final

    def _is_abandoned(self, folder: Place, found: Mapping[str, Version]) -> bool:
        """Whether a checkpoint that has no manifest in the listing gets none any more."""
        if self._lock_of_the_end.has_locks():
            return True  # its writer finds out that files are gone (`_check_not_deleted`)
        changed = [version.changed for path, version in found.items() if path.startswith(f"{folder.name}/")]
        return self._clock.time() - max(changed, default=math.inf) / 1e9 > _IN_THE_MAKING

    def _newest_of(self, folders: Sequence[Place], digests: bool) -> Checkpoint | None:
        """The first that is valid; who comes upon one that is damaged is told.

        Raises:
            FileNotFoundError: one was deleted meanwhile, by its owner or by whoever finished the trial.
        """
        for folder in folders:
            try:
                return _verified(folder, digests)
            except Damaged as error:
                if not (folder / MANIFEST).exists():
                    raise FileNotFoundError(f"{folder} was deleted meanwhile") from None
                if folder not in _reported:
                    _reported.add(folder)
                    _log.warning("a damaged checkpoint is passed over: %s", error)
        return None

    def _newest_first(self, found: Mapping[str, Version]) -> list[Place]:
        """Folders with a manifest, valid or not, by epoch, time of the weights, and name: of equal ones the last first.

        A store's time is coarse, and the manifest is written again at the end: this order is the same whoever asks,
        when.
        """
        names = [path.removesuffix(f"/{MANIFEST}") for path in found if path.endswith(f"/{MANIFEST}")]
        weights = {name: found.get(f"{name}/{MODEL}", Version(0, 0)) for name in names if _FOLDER.fullmatch(name)}
        in_order = sorted(weights, key=lambda name: (_epoch(self.folder / name), weights[name].changed, name))
        return [self.folder / name for name in reversed(in_order)]


def _epoch(folder: Place) -> int:
    return int(folder.name.partition("-")[0])


def _write(path: Place, content: Any) -> StoredFile:
    """Write one file. Serialised in memory, so that a failing disk gives OSError."""
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
    """Raise FileNotFoundError if another attempt finished the trial meanwhile, and deleted the files."""
    for name in checkpoint.files:
        (checkpoint.path / name).version()


def _verified(folder: Place, digests: bool = True) -> Checkpoint:
    """The checkpoint in this folder, every file's size checked, and its digest if `digests`.

    Raises:
        Damaged: no manifest, or one that the files do not match.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] != _FORMAT:
            raise Damaged(f"{path} has format {manifest['format']!r}, this version reads {_FORMAT}")
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
        raise Damaged(f"{path} does not belong to its folder")
    for name in checkpoint.files:
        _verify(checkpoint, name, digests)
    return checkpoint


def _verify(checkpoint: Checkpoint, name: str, digest: bool = True) -> None:
    path, expected = checkpoint.path / name, checkpoint.files[name]
    try:
        size = path.version().size
        if size != expected.bytes:
            raise Damaged(f"{path} has {size:,} bytes, its manifest says {expected.bytes:,}")
        if digest and path.digest() != expected.sha256:
            raise Damaged(f"{path} does not have the sha256 that its manifest says")
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror})") from error


def _fetched(checkpoint: Checkpoint, name: str) -> bytes:
    """A file's bytes, which are what the manifest says.

    Raises:
        Damaged: they are not, or cannot be read.
    """
    path, expected = checkpoint.path / name, checkpoint.files[name]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror})") from error
    if len(data) != expected.bytes or hashlib.sha256(data).hexdigest() != expected.sha256:
        raise Damaged(f"{path} does not have the size and sha256 that its manifest says")
    return data


def _stripped(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its weights alone. The manifest goes first: at no moment does it list a file that is gone."""
    final = replace(checkpoint, files={MODEL: checkpoint.files[MODEL]}, final=True)
    if not checkpoint.final:
        _write_manifest(final)
    for file in final.path.iterdir():
        if file.name not in (MODEL, MANIFEST):
            file.unlink(missing_ok=True)
    return final


def _remove(folder: Place) -> None:
    """Delete a checkpoint, the manifest first: killed half-way, it is no checkpoint rather than a damaged one."""
    (folder / MANIFEST).unlink(missing_ok=True)
    folder.remove_tree()
