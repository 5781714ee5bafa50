"""The tracker: carries views from the driver to MLflow in a thread of its own, and never holds training up.

The driver says what it knows (`update`) and goes on. The thread writes the newest view of each key, and where the
tracking store cannot be written it says so once, tries again every minute, and then brings everything up to date, since
what it writes is always the difference between the store and the views. MLflow is imported in the thread, so that
`--plan` and bad input answer at once.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from mvae.refusal import Refusal
from mvae.remote import Place
from sweeps.view import RunView, Status, SweepView

if TYPE_CHECKING:
    from sweeps.tracking import LoadModel, Mirror

CHECK_SECONDS = 5.0
"""How long a server may take to answer the one request before the start."""
CHECK_LIMIT = 8.0
"""The same with looking up its name, which no timeout covers."""
RETRY_SECONDS = 60.0
CLOSING_RETRY_SECONDS = 2.0
SQLITE_MAGIC = b"SQLite format 3\0"
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Databases that MLflow can write without a server of its own, and their ports."""

View = TypeVar("View", RunView, SweepView)


def default_uri(storage: Place) -> str:
    """The tracking URI of those who have no server: one SQLite file in the storage folder.

    In a store of objects there can be none: `place_of_artifacts` refuses it, before anything starts.
    """
    return f"sqlite:///{storage.absolute() if isinstance(storage, Path) else storage}/mlflow.db"


def tracking_uri(uri: str) -> str:
    """The URI as MLflow takes it: a SQLite file's path made absolute, no slash after a server's.

    Raises:
        Refusal: it is not a URI that MLflow takes.
    """
    scheme = uri.split(":", 1)[0].split("+", 1)[0] if "://" in uri else ""
    path = sqlite_path(uri)
    if path is not None:
        return uri if _in_a_store(uri) else f"sqlite:///{path.absolute()}"
    if scheme in ("http", "https", "databricks", *DATABASES) or uri == "databricks":
        return uri.rstrip("/")
    raise Refusal(
        f"tracking URI {shown(uri)} is not one that MLflow takes: write http://HOST:PORT for a server "
        f"or sqlite:////ABSOLUTE/PATH/mlflow.db for a file"
    )


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite tracking URI, None for any other URI."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)) if uri.startswith(prefix) and len(uri) > len(prefix) else None


def _in_a_store(uri: str) -> bool:
    return uri.startswith("sqlite:///") and "://" in uri.removeprefix("sqlite:///")


def place_of_artifacts(uri: str, storage: Place) -> Place | None:
    """Where MLflow keeps artifacts, beside the results or beside its own database; None where its server decides.

    Args:
        uri: from `tracking_uri`.
    Raises:
        Refusal: the database would have to lie in a store of objects; a package that MLflow needs is missing.
    """
    if _in_a_store(uri):
        raise Refusal(
            f"--storage {uri.removeprefix('sqlite:///').removesuffix('/mlflow.db')} cannot hold MLflow's database: give"
            " --tracking-uri (or MLFLOW_TRACKING_URI) a server, http://HOST:5000, or sqlite:////ABSOLUTE/mlflow.db"
        )
    if uri.startswith(("http", "databricks")):
        return None
    path = sqlite_path(uri)
    if isinstance(storage, Path):
        return storage.absolute() / "mlartifacts"
    if path is not None:
        return path.parent / "mlartifacts"
    package = {"s3": "boto3", "gs": "google.cloud.storage"}.get(storage.scheme, "")
    if package and not _installed(package):
        raise Refusal(
            f"--tracking-uri {shown(uri)} keeps artifacts in {storage}, for which MLflow needs {package}: install it"
            ", or give an MLflow server, http://HOST:5000"
        )
    return storage / "mlartifacts"


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def check(uri: str) -> None:
    """Answer within 10 seconds whether the tracking store can be used: one request, no retries, nothing made.

    Raises:
        Refusal: it cannot; the line says what is wrong and what would be right.
    """
    path = sqlite_path(uri)
    if path is not None:
        _check_sqlite(path)
        return
    asks = _ask if uri.startswith(("http://", "https://")) else _ask_database if "://" in uri else None
    if asks is not None and not uri.startswith("databricks"):
        outcome: list[str] = []
        request = threading.Thread(target=lambda: outcome.append(asks(uri)), daemon=True)
        request.start()
        request.join(CHECK_LIMIT)
        wrong = outcome[0] if outcome else f"did not answer within {CHECK_LIMIT:.0f} s"
        if wrong:
            raise Refusal(
                f"tracking server {shown(uri)} {wrong}: start it, correct --tracking-uri or $MLFLOW_TRACKING_URI, "
                f"or leave both out for a file in the storage folder"
            )


def _check_sqlite(path: Path) -> None:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:  # permissions alone say little where root asks
            probe.write(b"probe")
    except OSError:
        raise Refusal(
            f"tracking database {path}: {folder} is not a folder that can be written; name one that can"
        ) from None
    if not path.exists():
        return
    if not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
        raise Refusal(f"tracking database {path} is not a file that can be read and written: name another")
    with path.open("rb") as file:
        head = file.read(len(SQLITE_MAGIC))
    if head not in (b"", SQLITE_MAGIC):
        raise Refusal(f"tracking database {path} is not a SQLite file: move it away and it is rebuilt from storage")


def _ask(uri: str) -> str:
    """What is wrong with the server at `uri`, in words that go after its name; "" where all is well."""
    parts = urlsplit(uri)
    address = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
    request = Request(f"{address}/api/2.0/mlflow/experiments/search?max_results=1")  # noqa: S310  http by `check`
    user = parts.username or os.environ.get("MLFLOW_TRACKING_USERNAME")
    if user:
        password = parts.password or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urlopen(request, timeout=CHECK_SECONDS) as reply:  # noqa: S310
            json.load(reply)
    except HTTPError as error:
        return f"refused the request ({error.code} {error.reason})"
    except TimeoutError:
        return f"did not answer within {CHECK_SECONDS:.0f} s"
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            return f"did not answer within {CHECK_SECONDS:.0f} s"
        return f"cannot be reached ({error.reason})"
    except ValueError:
        return "is not an MLflow server"
    except OSError as error:
        return f"cannot be reached ({error})"
    return ""


def _ask_database(uri: str) -> str:
    """The same of a database: whether its driver is installed, and its port open."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
        url.get_dialect().import_dbapi()
        port = url.port or DATABASES[url.get_backend_name()]
        socket.create_connection((url.host or "localhost", port), timeout=CHECK_SECONDS).close()
    except ImportError as error:
        return f"needs a Python package that is not installed ({error})"
    except (ArgumentError, ValueError) as error:
        return f"is no address of a database ({error})"
    except OSError as error:
        return f"cannot be reached ({error})"
    return ""


def shown(text: str) -> str:
    """A URI, or words with URIs among them, without user and password."""
    return re.sub(r"://[^/@\s']*@", "://", text)


class Tracker:
    """Keeps MLflow up to date with the newest views, from `start` to `close`.

    `update` and `update_sweep` may be called from any thread, before `start` too, and never wait for MLflow.
    Give a view for every key of the sweep before `start`, done ones too: that is how what a dead driver left behind is
    put right, and how a deleted database is rebuilt.

    Args:
        uri: from `tracking_uri`.
        namespace: UUID of the storage name.
        experiment: groups all sweeps of the storage name in MLflow.
        sweep: the sweep that this driver runs.
        artifacts: from `place_of_artifacts`.
        load_model: called in the tracker's thread, once a finished key that has no model in MLflow.
        say: takes a line for the user; called in the tracker's thread.
        retry_seconds: between attempts while the store cannot be written.
    """

    def __init__(
        self,
        uri: str,
        *,
        namespace: str,
        experiment: str,
        sweep: SweepView,
        artifacts: Place | None,
        load_model: LoadModel,
        say: Callable[[str], None],
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._uri = uri
        self._namespace = namespace
        self._experiment = experiment
        self._artifacts = artifacts
        self._load_model = load_model
        self._say = say
        self._retry_seconds = retry_seconds
        self._changed = threading.Condition()
        self._sweep = sweep
        self._sweep_is_new = True
        self._views: dict[str, RunView] = {}
        self._waiting: dict[str, None] = {}  # keys whose newest view is not written, in the order they came
        self._closing = False
        self._written: set[str] = set()  # keys brought up to date, since the end began
        self._links: dict[str, str] | None = None  # of everything, once nothing waits
        self._given_up = False
        self._mirror: Mirror | None = None
        self._database: tuple[int, int] | None = None
        self._down = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)

    def start(self) -> None:
        """Begin to write; called again, it changes nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def update(self, view: RunView) -> None:
        """Say what is known of one key now; once the end has begun, nothing is said to be RUNNING."""
        with self._changed:
            view = _stopped(view) if self._closing else view
            if self._views.get(view.key) != view:
                self._views[view.key] = view
                self._waiting[view.key] = None
                self._changed.notify()

    def update_sweep(self, sweep: SweepView) -> None:
        """Say what is known of the sweep now; its report folder is looked at again."""
        with self._changed:
            self._sweep = sweep
            self._sweep_is_new = True
            self._changed.notify()

    def links(self, timeout: float) -> dict[str, str]:
        """Key to MLflow run, its page where there is a server; waits until all views are written, or cannot be.

        Args:
            timeout: seconds after which what is not known is left out.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._down or (self._links is not None and not self._waiting), timeout)
            return dict(self._links or {})

    def close(self, timeout: float = 60.0) -> bool:
        """Bring MLflow up to date, leave nothing RUNNING there, and stop; without a `start`, nothing.

        Args:
            timeout: seconds in which at least one more key must have been written, not only the same ones again; after
                as long without, it gives up.
        Returns:
            Whether MLflow holds everything. If not, which is said, the next command fills in what is missing.
        """
        if self._thread.ident is None:
            return False
        with self._changed:
            self._closing = True
            self._sweep, self._sweep_is_new = _stopped(self._sweep), True
            for key, view in self._views.items():
                self._views[key] = _stopped(view)
                self._waiting[key] = None
            self._written.clear()
            self._changed.notify()
        written = 0
        while not (complete := self._done.wait(timeout)) and len(self._written) > written:
            written = len(self._written)
        if not complete:
            self.give_up()
            self._say(f"MLflow at {shown(self._uri)} is behind; the same command fills in what is missing there")
        return complete

    def give_up(self) -> None:
        """Write nothing after what is being written now: somebody else writes, or will."""
        self._given_up = True

    def _work(self) -> None:
        while not self._given_up:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._waiting or self._sweep_is_new)
            written = self._write_all()
            with self._changed:
                if not written and self._closing:
                    self._changed.wait(CLOSING_RETRY_SECONDS)
                elif not written:
                    self._changed.wait_for(lambda: self._closing, self._retry_seconds)
                elif self._closing and not (self._waiting or self._sweep_is_new):
                    self._done.set()
                    return

    def _write_all(self) -> bool:
        """Write every view that waits. After an error the store is asked anew, and the view that failed comes last."""
        key: str | None = None
        try:
            mirror = self._open()
            while not self._given_up and (view := self._next()) is not None:
                key = view.key
                mirror.sync(view, self._sweep.name)
                self._written.add(key)
            key = None
            if self._given_up:
                return False
            with self._changed:
                sweep, self._sweep_is_new = self._sweep, False
            mirror.sync_sweep(sweep)
            with self._changed:
                self._links = mirror.links()
                self._changed.notify_all()
        except Exception as error:
            with self._changed:
                self._sweep_is_new = True
                others = {name: None for name in self._views if name != key}
                self._waiting = others if key is None else {**others, key: None}
            self._mirror = None
            if not self._down:
                self._say(
                    f"MLflow at {shown(self._uri)} cannot be written ({_first_line(error)}); "
                    f"training goes on, MLflow is tried again every {self._retry_seconds:.0f} s"
                )
            with self._changed:
                self._down = True
                self._changed.notify_all()
            return False
        if self._down:
            self._say(f"MLflow at {shown(self._uri)} can be written again and is up to date")
        self._down = False
        return True

    def _next(self) -> RunView | None:
        with self._changed:
            if not self._waiting:
                return None
            key = next(iter(self._waiting))
            del self._waiting[key]
            return self._views[key]

    def _open(self) -> Mirror:
        """The mirror in use, or a new one after an error or where somebody has deleted the database file."""
        path = sqlite_path(self._uri)
        if self._mirror is not None and (path is None or _identity(path) == self._database):
            return self._mirror
        from sweeps.tracking import Mirror, open_database

        uri = self._uri if path is None else open_database(path)
        self._database = None if path is None else _identity(path)
        mirror = Mirror(uri, self._namespace, self._experiment, self._artifacts, self._load_model, self._say)
        with self._changed:
            sweep, keys = self._sweep, list(self._views)
            self._waiting |= {key: None for key in keys if key not in self._waiting}
        mirror.adopt(sweep)
        mirror.settle(sweep.name, keys)
        self._mirror = mirror
        return mirror


def _stopped(view: View) -> View:
    """The view once its driver is gone."""
    return replace(view, status=Status.KILLED) if view.status is Status.RUNNING else view


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__
