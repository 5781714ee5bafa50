"""Where a sweep's state lies: the folder of one name under the storage folder, and what is in it.

    <root>/<name>/namespace        a UUID, made once: tells this name's MLflow runs from those of any other storage
    <root>/<name>/lease.json       one driver a name (sweeps/store/lease.py)
    <root>/<name>/results/         sweeps/store/results.py
    <root>/<name>/checkpoints/     mvae/training/checkpoint.py, one folder a key
    <root>/<name>/artifacts/       pictures that a trial wants shown, one folder a key
    <root>/<name>/measuring/       finished parts of long measures (sweeps/trials/parts.py), until they are written
    <root>/<name>/errors/          tracebacks of trials that failed, <key>.txt, until they succeed
    <root>/<name>/plugins/         those that its trials ran with, in every state that they had
    <root>/<name>/reports/         tables and plots, one folder a sweep; .made_of/: see sweeps/table/files.py
    <root>/<name>/mirrored/        that MLflow holds everything (sweeps/tracking/reconciled.py), one file a sweep

MLflow's default database and artifacts lie beside the names, under <root>. The root is a folder, or a URI of a store
of objects (mvae/storage/objects.py), which cannot hold that database.
"""

from __future__ import annotations

import platform
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mvae.refusal import Refusal
from mvae.storage.objects import place
from mvae.storage.place import AnyPlace, Place
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
            return "" if self.path.impatient.read_bytes() == self.text.encode() else "another file is there"
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
    def open(cls, root: AnyPlace | str, name: str, *, create: bool) -> Store:
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
        store = cls(root=place(root), name=name)
        try:
            if create:
                store.folder.mkdir(parents=True, exist_ok=True)
            why = store.folder.why_unusable()
        except OSError as error:
            raise store._unwritable(error) from None
        if why:
            raise Refusal(f"--storage {store.root} {why}")
        if create:
            store.check_writable()
        return store

    def check_writable(self) -> None:
        """Refuse a storage that could not be made or written, without making anything that stays.

        Raises:
            Refusal: one line.
        """
        try:
            self.folder.nearest().prove_writable()
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> Refusal:
        right = "correct it, or let this machine reach it" if self.root.is_remote else "choose a folder that can"
        return Refusal(f"--storage {self.root} cannot be written ({error.strerror}): {right}")

    @property
    def folder(self) -> Place:
        return self.root / self.name

    @property
    def results(self) -> Results:
        return Results(self.folder / "results")

    @property
    def reports(self) -> Place:
        return self.folder / "reports"

    def checkpoints(self, key: str, attempt: str = "reader") -> Checkpoints:
        """Checkpoints of the trial with this key; who only reads needs no attempt id."""
        return Checkpoints(self.folder / "checkpoints" / key, attempt)

    def begun(self) -> set[str]:
        """Keys whose trials have a folder for checkpoints, with or without one in it."""
        folder = self.folder / "checkpoints"
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def artifacts(self, key: str) -> Place:
        return self.folder / "artifacts" / key

    def measuring(self, key: str) -> Place:
        return self.folder / "measuring" / key

    def traceback(self, key: str) -> Place:
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
        path.create(f"{uuid.uuid4()}\n".encode())
        text = path.read_bytes().decode(errors="replace").strip()
        try:
            return str(uuid.UUID(text))
        except ValueError:
            raise Refusal(
                f"{path} holds {text[:40]!r}, not the UUID that names the MLflow runs: restore or delete it"
            ) from None

    @contextmanager
    def mark(self) -> Iterator[Mark]:
        """Something written into the storage for as long as the block lasts, for other machines to look for."""
        mark = Mark(self.folder.nearest() / f".mvae-mark-{uuid.uuid4().hex}", str(uuid.uuid4()))
        mark.path.write_bytes(mark.text.encode())
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
            found = (self.folder / "namespace").read_bytes().decode().strip()
        except OSError as error:
            found = error.strerror or "it cannot be read"
        if found != namespace:
            raise Refusal(
                f"{platform.node()} does not see the sweep's storage in {self.folder} ({found}): storage must be a"
                " folder that every machine mounts, or an object store"
            )
