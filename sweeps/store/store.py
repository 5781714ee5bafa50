"""Where a sweep's state lies: the folder of one name under the storage folder, and what is in it.

    <root>/<name>/namespace        a UUID, made once: tells this name's MLflow runs from those of any other storage
    <root>/<name>/lease.json       one driver a name (sweeps/store/lease.py)
    <root>/<name>/results/         sweeps/store/results.py
    <root>/<name>/checkpoints/     mvae/training/checkpoint.py, one folder a key
    <root>/<name>/artifacts/       pictures that a trial wants shown, one folder a key
    <root>/<name>/measuring/       finished parts of long measures (sweeps/trials/parts.py), until they are written
    <root>/<name>/errors/          tracebacks of trials that failed, <key>.txt, until they succeed
    <root>/<name>/plugins/         those that its trials ran with, in every state that they had
    <root>/<name>/reports/         tables and plots, one folder a sweep
    <root>/<name>/mirrored/        that MLflow holds everything (sweeps/tracking/reconciled.py), one file a sweep

MLflow's default database and artifacts lie beside the names, under <root>. The root is a folder, or a URI of a store
of objects (mvae/storage/objects.py), which cannot hold that database.
"""

from __future__ import annotations

import platform
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mvae.refusal import Refusal
from mvae.storage.files import locked, write_atomically
from mvae.storage.objects import Place, RemotePath, place
from mvae.storage.patience import FIRST_LOOK
from mvae.training.checkpoint import Checkpoints
from sweeps.store.results import Results

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TAKEN = ("mlartifacts", "mlruns", "mlflow.db")
"""What MLflow keeps beside the names."""


@dataclass(frozen=True)
class Mark:
    """A file by which one machine finds out whether it sees what another wrote."""

    path: Place
    text: str

    def why_unseen(self) -> str:
        """Empty where this machine reads what was written, else why not."""
        try:
            path = self.path
            read = path.read_bytes(FIRST_LOOK) if isinstance(path, RemotePath) else path.read_bytes()
            return "" if read == self.text.encode() else "another file is there"
        except OSError as error:
            return error.strerror or str(error)


@dataclass(frozen=True)
class Store:
    """The state of one name. A plain value: it may be sent to other processes, and makes folders when written to."""

    root: Place
    """The storage folder, absolute, or the store of objects."""
    name: str
    """Sweeps of one name share trials."""

    @classmethod
    def open(cls, root: Place | str, name: str, *, create: bool) -> Store:
        """The store of this name.

        Args:
            root: the storage folder, made absolute here (trial processes have working directories of their own), or
                a URI.
            name: a simple token.
            create: make the folders and prove that they can be written; else touch nothing, whether it exists or not.
        Raises:
            Refusal: one line: a name that is no token, a root that is no folder or cannot be written, a store that
                cannot be reached.
        """
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise Refusal(
                f"--name {name!r} cannot name a folder here: use up to 64 letters, digits, '.', '_' and '-', "
                f"beginning with a letter or digit, and none of {', '.join(_TAKEN)}"
            )
        store = cls(root=root if isinstance(root, RemotePath) else place(str(root)), name=name)
        if isinstance(store.root, RemotePath):
            _check_reachable(store.root)
            if create:
                store.check_writable()
        elif create:
            try:
                store.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unwritable(store.root, error) from None
            store.check_writable()
        else:
            nearest = store._nearest()
            if not nearest.is_dir():
                raise Refusal(f"--storage {store.root} is no folder: {nearest} is a file; choose a folder")
        return store

    def check_writable(self) -> None:
        """Refuse a storage that could not be made or written, without making anything that stays.

        Raises:
            Refusal: one line.
        """
        _prove_writable(self._nearest(), self.root)

    @property
    def folder(self) -> Place:
        """The folder of this name."""
        return self.root / self.name

    @property
    def results(self) -> Results:
        """The finished trials' results."""
        return Results(self.folder / "results")

    @property
    def reports(self) -> Place:
        """Folder for reports, one folder a sweep in it."""
        return self.folder / "reports"

    def checkpoints(self, key: str, attempt: str = "reader") -> Checkpoints:
        """Checkpoints of the trial with this key; who only reads needs no attempt id."""
        return Checkpoints(self.folder / "checkpoints" / key, attempt)

    def begun(self) -> set[str]:
        """Keys whose trials have a folder for checkpoints, with or without one in it."""
        folder = self.folder / "checkpoints"
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def artifacts(self, key: str) -> Place:
        """Folder for what the trial with this key wants shown."""
        return self.folder / "artifacts" / key

    def measuring(self, key: str) -> Place:
        """Folder for the finished parts of long measures of the trial with this key."""
        return self.folder / "measuring" / key

    def traceback(self, key: str) -> Place:
        """File for the traceback of the trial with this key, which is there as long as its last attempt failed."""
        return self.folder / "errors" / f"{key}.txt"

    def plugin(self, name: str, digest: str) -> Place:
        """File for a plug-in in the state that its digest names."""
        return self.folder / "plugins" / f"{digest[:16]}-{name}"

    def mirrored(self, sweep: str) -> Place:
        """File for the record that MLflow holds everything of this sweep."""
        return self.folder / "mirrored" / f"{sweep}.json"

    def namespace(self) -> str:
        """The UUID of this name, made at the first call; the same for every process and for ever.

        Raises:
            Refusal: the file was changed by hand.
        """
        path = self.folder / "namespace"  # on a store without locks its maker holds the lease
        if not path.exists():
            with locked(path):
                if not path.exists():
                    write_atomically(path, f"{uuid.uuid4()}\n".encode())
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        try:
            return str(uuid.UUID(text))
        except ValueError:
            raise Refusal(
                f"{path} holds {text[:40]!r}, not the UUID that names the MLflow runs: restore or delete it"
            ) from None

    @contextmanager
    def mark(self) -> Iterator[Mark]:
        """Something written into the storage for as long as the block lasts, for other machines to look for."""
        mark = Mark(self._nearest() / f".mvae-mark-{uuid.uuid4().hex}", str(uuid.uuid4()))
        write_atomically(mark.path, mark.text.encode())
        try:
            yield mark
        finally:
            mark.path.unlink(missing_ok=True)

    def check_is(self, namespace: str) -> None:
        """Refuses a folder that only looks like the storage: another machine's own of the same path.

        Args:
            namespace: the UUID that the driver reads; empty where there is no other machine.
        Raises:
            Refusal: one line.
        """
        if not namespace:
            return
        try:
            found = (self.folder / "namespace").read_text(encoding="utf-8").strip()
        except OSError as error:
            found = error.strerror or "it cannot be read"
        if found != namespace:
            raise Refusal(
                f"{platform.node()} does not see the sweep's storage in {self.folder} ({found}): storage must be a"
                " folder that every machine mounts, or an object store"
            )

    def _nearest(self) -> Place:
        """The folder of this name, or what there is of the way to it.

        In a store that is the root: what is deleted below a name leaves it behind as an empty folder.
        """
        if isinstance(self.root, RemotePath):
            return self.root
        folder = self.root / self.name
        return next(path for path in (folder, *folder.parents) if path.exists())


def _check_reachable(root: RemotePath) -> None:
    try:
        if not root.bucket_exists():
            raise Refusal(f"--storage {root} cannot be written (no bucket {root.root}): make it, or choose another")
    except OSError as error:
        raise _unwritable(root, error) from None


def _prove_writable(folder: Place, root: Place) -> None:
    """Write a file without a name: permissions alone say little, where root asks or the file system is special.

    An object has a name, but one that nobody else writes.
    """
    try:
        if isinstance(folder, RemotePath):
            probe_object = folder / f".mvae-probe-{uuid.uuid4().hex}"
            probe_object.write_bytes(b"probe")
            probe_object.unlink()
            return
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
    except OSError as error:
        raise _unwritable(root, error) from None


def _unwritable(root: Place, error: OSError) -> Refusal:
    right = "correct it, or let this machine reach it" if isinstance(root, RemotePath) else "choose a folder that can"
    return Refusal(f"--storage {root} cannot be written ({error.strerror}): {right}")
