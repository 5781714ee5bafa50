"""The storage of one name: the folder <root>/<name>, which holds the state of its sweeps.

    <root>/<name>/namespace        a UUID, made once; marks the MLflow runs of this name
    <root>/<name>/lease.json       ensures that only one driver works on the name (sweeps/store/lease.py)
    <root>/<name>/results/         results, one file per key and measure (sweeps/store/results.py)
    <root>/<name>/checkpoints/     checkpoints, one folder per key (mvae/training/checkpoint.py)
    <root>/<name>/artifacts/       pictures for MLflow, one folder per key
    <root>/<name>/measuring/       finished parts of long measures that still run (sweeps/trials/parts.py)
    <root>/<name>/errors/          tracebacks of failed trials, <key>.txt, deleted when the trial succeeds
    <root>/<name>/plugins/         <digest>-<file name>: all versions of the plug-ins that trials ran with
    <root>/<name>/reports/         tables and plots, one folder per sweep; .made_of/: see sweeps/table/files.py
    <root>/<name>/sweeps/          <sweep>.json: the keys of each sweep (sweeps/store/lists.py)
    <root>/<name>/mirrored/        <sweep>.json: states that MLflow holds the sweep (sweeps/tracking/reconciled.py)

MLflow's default database and artifacts are under <root>, next to <name>. The root is a folder, or a URI of object
storage (mvae/storage/objects.py). Object storage cannot hold MLflow's database.
"""

from __future__ import annotations

import platform
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mvae.refusal import Refusal
from mvae.storage.clock import CLOCK, Clock
from mvae.storage.files import remedy
from mvae.storage.objects import place
from mvae.storage.place import AnyPlace, Place
from mvae.training.checkpoint import Checkpoints
from sweeps.store.results import Results

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RESERVED = ("mlartifacts", "mlruns", "mlflow.db")
"""Names of MLflow's files under the root, which are not allowed as storage names."""


@dataclass(frozen=True)
class Mark:
    """A file that the driver writes. Other machines read the file to check that they see the driver's storage."""

    path: Place
    text: str

    def why_unseen(self) -> str:
        """Why this machine cannot see the driver's file, or "" if it can."""
        try:
            return "" if self.path.impatient.read_bytes() == self.text.encode() else "the file has other content"
        except OSError as error:
            return error.strerror or str(error)


@dataclass(frozen=True)
class Store:
    """The storage of one name. A Store can be sent to other processes. Folders are created at the first write."""

    root: Place
    """Absolute path of the storage folder, or URI of object storage."""
    name: str
    """Name of the storage. Sweeps with the same name share trials."""

    @classmethod
    def open(cls, root: AnyPlace | str, name: str, *, create: bool) -> Store:
        """Checks that the storage of a name can be used, and returns its Store.

        Args:
            root: storage folder, or URI of object storage. The path is made absolute, because trial processes run in
                other working directories.
            name: letters, digits, '.', '_' and '-'.
            create: whether to create the folder and check that files can be written. If False, nothing is written.
        Raises:
            Refusal: the name is invalid, the root is not a folder or cannot be written, or the object storage cannot
                be reached.
        """
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise Refusal(
                f"--name {name!r} is not a valid name: use up to 64 letters, digits, '.', '_' and '-', beginning with a"
                f" letter or digit; {', '.join(RESERVED)} are reserved"
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
        """Checks that the storage folder can be created and written. Leaves no files behind.

        Raises:
            Refusal: the folder cannot be created or written.
        """
        try:
            self.folder.nearest().prove_writable()
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> Refusal:
        if full := remedy(error):
            return Refusal(
                f"--storage {self.root} cannot be written ({error.strerror}){full}, or choose another folder"
            )
        do = "correct the URI, or give this machine access" if self.root.is_remote else "choose another folder"
        return Refusal(f"--storage {self.root} cannot be written ({error.strerror}): {do}")

    @property
    def folder(self) -> Place:
        return self.root / self.name

    @property
    def results(self) -> Results:
        return Results(self.folder / "results")

    @property
    def reports(self) -> Place:
        return self.folder / "reports"

    def checkpoints(self, key: str, attempt: str = "reader", clock: Clock = CLOCK) -> Checkpoints:
        """Returns the checkpoints of a trial. Only a writer needs an attempt id."""
        return Checkpoints(self.folder / "checkpoints" / key, attempt, clock=clock)

    def begun(self) -> set[str]:
        """Returns the keys of all trials that have a checkpoint folder. The folder may be empty."""
        folder = self.folder / "checkpoints"
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def artifacts(self, key: str) -> Place:
        return self.folder / "artifacts" / key

    def measuring(self, key: str) -> Place:
        return self.folder / "measuring" / key

    def traceback(self, key: str) -> Place:
        return self.folder / "errors" / f"{key}.txt"

    def plugin(self, name: str, digest: str) -> Place:
        return self.folder / "plugins" / f"{digest[:16]}-{name}"

    def list_of(self, sweep: str) -> Place:
        return self.folder / "sweeps" / f"{sweep}.json"

    def mirrored(self, sweep: str) -> Place:
        return self.folder / "mirrored" / f"{sweep}.json"

    def namespace(self) -> str:
        """Returns the UUID of this name. The first call creates it; after that it never changes.

        Raises:
            Refusal: the file does not contain a UUID, for example because a user edited the file.
        """
        path = self.folder / "namespace"  # without locks, only the holder of the lease makes this file
        path.create(f"{uuid.uuid4()}\n".encode())
        text = path.read_bytes().decode(errors="replace").strip()
        try:
            return str(uuid.UUID(text))
        except ValueError:
            raise Refusal(
                f"{path} contains {text[:40]!r} instead of the UUID that marks the MLflow runs: restore or delete the"
                " file"
            ) from None

    @contextmanager
    def mark(self) -> Iterator[Mark]:
        """Writes a file for other machines into the storage, and deletes the file when the `with` block ends."""
        mark = Mark(self.folder.nearest() / f".mvae-mark-{uuid.uuid4().hex}", str(uuid.uuid4()))
        mark.path.write_bytes(mark.text.encode())
        try:
            yield mark
        finally:
            mark.path.unlink(missing_ok=True)

    def check_is(self, namespace: str) -> None:
        """Checks that the storage's path leads to the driver's storage on this machine too, and not to a local disk.

        Args:
            namespace: UUID of the driver's storage. If empty, nothing is checked.
        Raises:
            Refusal: the path leads to another folder.
        """
        if not namespace:
            return
        try:
            found = (self.folder / "namespace").read_bytes().decode().strip()
        except OSError as error:
            found = error.strerror or "it cannot be read"
        if found != namespace:
            raise Refusal(
                f"{platform.node()} does not see the sweep's storage in {self.folder} ({found}): use a folder that"
                " every machine mounts, or an object store"
            )
