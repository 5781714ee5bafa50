"""The tracker: carries views from the driver to MLflow in a thread of its own, and never holds training up.

The driver says what it knows (`update`) and goes on. The thread writes the newest view of each key, and where the
tracking store cannot be written it says so once, tries again every minute, and then brings everything up to date, since
what it writes is always the difference between the store and the views. MLflow is imported in the thread, so that
`--plan` and bad input answer at once.
"""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mvae.refusal import Refusal
from mvae.storage.place import AnyPlace, Place
from sweeps.cli.tracking_uri import without_credentials
from sweeps.planning.state import TrialState
from sweeps.store.sqlite import Unusable, sqlite_path
from sweeps.tracking.database import OUT_OF_DATE, check_content, check_file, how_to_migrate
from sweeps.tracking.reconciled import Reconciled
from sweeps.tracking.server import ask, ask_database
from sweeps.tracking.view import RunView, SweepView

if TYPE_CHECKING:
    from sweeps.tracking.mirror import LoadModel, Mirror

CHECK_LIMIT = 8.0
"""Seconds for a server's answer with looking up its name, which no timeout covers."""
RETRY_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 20.0
"""Seconds that a closing tracker may take to check that MLflow holds everything, and to record it."""

CLOSING_RETRY_SECONDS = 2.0

View = TypeVar("View", RunView, SweepView)


def check(uri: str) -> None:
    """Answer within 10 seconds whether the tracking store can be used: one request, no retries, nothing made.

    Raises:
        Refusal: it cannot; the line says what is wrong and what would be right.
    """
    path = sqlite_path(uri)
    if path is not None:
        check_file(path)
        return
    asks = ask if uri.startswith(("http://", "https://")) else ask_database if "://" in uri else None
    if asks is not None and not uri.startswith("databricks"):
        outcome: list[str] = []
        request = threading.Thread(target=lambda: outcome.append(asks(uri)), daemon=True)
        request.start()
        request.join(CHECK_LIMIT)
        wrong = outcome[0] if outcome else f"did not answer within {CHECK_LIMIT:.0f} s"
        if wrong:
            raise Refusal(
                f"tracking server {without_credentials(uri)} {wrong}: start it, correct --tracking-uri or"
                " $MLFLOW_TRACKING_URI, or leave both out for a file in the storage folder"
            )


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
        record: file that tells the next command that MLflow holds everything (reconciled.py); None: it asks MLflow.
    """

    def __init__(
        self,
        uri: str,
        *,
        namespace: str,
        experiment: str,
        sweep: SweepView,
        artifacts: AnyPlace | None,
        load_model: LoadModel,
        say: Callable[[str], None],
        retry_seconds: float = RETRY_SECONDS,
        record: Place | None = None,
    ) -> None:
        self._uri = uri
        self._namespace = namespace
        self._experiment = experiment
        self._artifacts = artifacts
        self._load_model = load_model
        self._say = say
        self._retry_seconds = retry_seconds
        self._record = Reconciled(record, uri, namespace, experiment, artifacts) if record is not None else None
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
        self.stuck = ""  # what to do about an error that does not pass; empty: it may pass
        self._complete = False
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

        Afterwards MLflow is compared once more, for LOOK_AGAIN_SECONDS at most, and the outcome is recorded in storage.

        Args:
            timeout: seconds in which at least one more key must have been written, not only the same ones again; after
                as long without, it gives up.
        Returns:
            Whether MLflow holds everything; if not, says what to do: mostly the next command fills in what is missing.
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
        while not self._done.wait(timeout) and len(self._written) > written:
            written = len(self._written)
        if self._complete:
            self._thread.join(LOOK_AGAIN_SECONDS)
        self.give_up()
        if not self._complete:
            filled = "the same command fills in what is missing there"
            then = f"{self.stuck}, then {filled}" if self.stuck else filled
            self._say(f"MLflow at {without_credentials(self._uri)} is behind; {then}")
        return self._complete

    def give_up(self) -> None:
        """Write nothing after what is being written now: somebody else writes, or will."""
        self._given_up = True

    def _work(self) -> None:
        while not (self._given_up or self._complete):
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._waiting or self._sweep_is_new)
            written = self._write_all()
            with self._changed:
                if written:
                    self._complete = self._closing and not (self._waiting or self._sweep_is_new)
                elif not self._closing:
                    self._changed.wait_for(lambda: self._closing, self._retry_seconds)
                elif self.stuck:
                    break
                else:
                    self._changed.wait(CLOSING_RETRY_SECONDS)
        self._done.set()
        if self._complete:
            self._look_again()

    def _write_all(self) -> bool:
        """Write every view that waits. After an error the store is asked anew, and the view that failed comes last."""
        key: str | None = None
        try:
            if self._mirror is None and self._is_known_to_hold_all():
                return True
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
            self._mirror = None
            stuck, self.stuck = self.stuck, self._what_to_do(error)
            if not self._down or self.stuck != stuck:
                self._say(
                    f"MLflow at {without_credentials(self._uri)} cannot be written"
                    f" ({self.stuck or _first_line(error)}); training continues, MLflow is tried again every"
                    f" {self._retry_seconds:.0f} s"
                )
            with self._changed:
                self._sweep_is_new = True
                self._waiting = dict.fromkeys(sorted(self._views, key=lambda name: name == key))
                self._down = True
                self._changed.notify_all()
            return False
        if self._down:
            self._say(f"MLflow at {without_credentials(self._uri)} can be written again and is up to date")
        self._down, self.stuck = False, ""
        return True

    def _is_known_to_hold_all(self) -> bool:
        """Whether storage records that MLflow holds all views, so that nothing needs to be written."""
        with self._changed:
            sweep, views = self._sweep, list(self._views.values())
        links = None if self._record is None else self._record.links(sweep, views)
        with self._changed:
            if links is None or sweep is not self._sweep or views != list(self._views.values()):
                return False
            self._waiting.clear()
            self._sweep_is_new = False
            self._links = links
            self._changed.notify_all()
        return True

    def _look_again(self) -> None:
        """Records that MLflow holds a finished sweep, if a new mirror, which remembers nothing, finds nothing to write.

        The mirror in use would not notice what somebody has deleted since it was made.
        """
        if self._record is None or self._mirror is None or self._sweep.state is not TrialState.DONE:
            return
        state, without_model = self._record.state(), list[RunView]()
        if not state:
            return
        self._mirror, self._load_model = None, without_model.append
        try:
            mirror = self._open()
            for view in self._views.values():
                if self._given_up:
                    return
                mirror.sync(view, self._sweep.name)
            if not self._given_up:
                mirror.sync_sweep(self._sweep)
        except Exception:  # everything was written before; the next command looks again
            return
        if not self._given_up and not without_model and self._record.state() == state:
            self._record.write(self._sweep, self._views.values(), state, mirror.links())

    def _what_to_do(self, error: Exception) -> str:
        """About an error that does not pass by itself; empty if it may pass."""
        path = sqlite_path(self._uri)
        try:
            if path is not None:
                check_content(path)
        except Unusable as refusal:
            return str(refusal)
        return how_to_migrate(without_credentials(self._uri)) if OUT_OF_DATE in str(error) else ""

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
        from sweeps.tracking.mirror import Mirror, open_database

        if self._record is not None:
            self._record.path.unlink(missing_ok=True)
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
    return replace(view, state=TrialState.INTERRUPTED) if view.state is TrialState.RUNNING else view


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (
        textwrap.shorten(f"{type(error).__name__}: {lines[0]}", 200, placeholder=" ...")
        if lines
        else type(error).__name__
    )
