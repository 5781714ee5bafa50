"""The tracker: sends views to MLflow from a background thread, so training never waits for MLflow.

A view holds what MLflow should show about a trial or a sweep. The driver passes views to `update`, which returns at
once. The thread takes the newest view of each trial, and writes what MLflow lacks. If MLflow cannot be written to, the
thread reports this once, retries every minute, and later writes everything that is missing. Only the thread imports
MLflow, so `--plan` and refusals are fast.
"""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mvae.storage.clock import CLOCK, Clock
from mvae.storage.place import AnyPlace, Place
from sweeps.cli.tracking_uri import without_credentials
from sweeps.planning.state import TrialState
from sweeps.store.sqlite import Unusable, identity_of, sqlite_path
from sweeps.tracking.database import OUT_OF_DATE, check_content, how_to_migrate
from sweeps.tracking.reconciled import Reconciled
from sweeps.tracking.server import NOTICE_SECONDS
from sweeps.tracking.view import RunView, SweepView

if TYPE_CHECKING:
    from sweeps.tracking.mirror import LoadModel, Mirror

RETRY_SECONDS = 60.0
"""Seconds between attempts while MLflow cannot be written to."""
GATHER_SECONDS = 5.0
"""Seconds for which the thread gathers views before it writes, so that a short trial is written once."""
UNHEARD_SECONDS = 60.0
"""Seconds after which MLflow shows the first trials, even if no trial has finished an epoch."""
LOOK_AGAIN_SECONDS = 20.0
"""Seconds that a closing tracker may take to check that MLflow holds everything, and to record the outcome."""
CLOSING_RETRY_SECONDS = 2.0
"""Seconds between attempts while the tracker closes."""

View = TypeVar("View", RunView, SweepView)


class Tracker:
    """Keeps MLflow up to date with the newest views, from `start` to `close`.

    `update` and `update_sweep` may be called from any thread, also before `start`. These methods never wait for MLflow.
    Before `start`, pass a view of every key of the sweep, including finished keys. The tracker uses
    these views to correct what a dead driver left in MLflow, and to rebuild a deleted database.

    Args:
        uri: tracking URI from `tracking_uri`.
        namespace: UUID of the storage name.
        experiment: name of the MLflow experiment with all sweeps of the storage name.
        sweep: the sweep that this driver runs.
        artifacts: location of artifacts, from `place_of_artifacts`.
        load_model: called in the tracker's thread, once per finished trial without a model in MLflow.
        say: shows a line to the user; called in the tracker's thread, in `links` and in `close`.
        retry_seconds: seconds between attempts while MLflow cannot be written to.
        record: file which records that MLflow holds everything (reconciled.py), or None to keep no record.
        cache: folder with an empty database that `open_database` copies, or None to make no copy.
        clock: gives the time of values without a timestamp.
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
        cache: Path | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        self._uri, self._where = uri, (namespace, experiment, artifacts)
        self._load_model, self._say, self._clock = load_model, say, clock
        self._shown_uri = without_credentials(uri)
        self._retry_seconds, self._cache = retry_seconds, cache
        self._record = None if record is None else Reconciled(record, uri, namespace, experiment, artifacts, clock)
        self._changed = threading.Condition()
        self._sweep, self._sweep_is_new = sweep, True
        self._views: dict[str, RunView] = {}
        self._waiting: dict[str, None] = {}  # keys whose newest view is not written yet, oldest first
        self._closing = self._given_up = self._down = self._complete = False
        self._asked = False  # whether `links` waits
        self._written: set[str] = set()  # keys written since `close` was called
        self._links: dict[str, str] | None = None  # None until everything was written once
        self.experiment = ""  # MLflow's id of the experiment, once known
        self._mirror: Mirror | None = None
        self._database: tuple[int, int] | None = None
        self._noticed = False  # whether the user knows that the command waits for a server
        self.stuck = ""  # what the user must do about an error that will not go away by itself
        self._due = threading.Event()
        self._delay = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)

    def start(self, delay: float = 0.0) -> None:
        """Starts the thread, unless the thread is already running.

        Args:
            delay: seconds until the thread imports MLflow. A later call without a delay, or `close`, ends the delay.
        """
        if not delay:
            self._due.set()
        if self._thread.ident is None:
            self._delay = delay
            self._thread.start()

    def update(self, view: RunView) -> None:
        """Replaces the view of one key. After `close`, changes the state RUNNING to INTERRUPTED."""
        with self._changed:
            view = _stopped(view) if self._closing else view
            if self._views.get(view.key) != view:
                self._views[view.key] = view
                self._waiting[view.key] = None
                self._changed.notify()

    def update_sweep(self, sweep: SweepView) -> None:
        """Replaces the view of the sweep. The thread then compares the files in the sweep's report folder again."""
        with self._changed:
            self._sweep = sweep
            self._sweep_is_new = True
            self._changed.notify()

    def links(self, timeout: float) -> dict[str, str]:
        """Returns the MLflow run of each key: the URL of the run's page if MLflow is a server, otherwise the run's id.

        Args:
            timeout: longest time in seconds to wait for all views to be written. Keys without a known run are omitted.
        """
        with self._changed:
            self._asked = True
            self._changed.notify_all()
            self._wait(
                lambda seconds: self._changed.wait_for(
                    lambda: self._down or (self._links is not None and not self._waiting), seconds
                ),
                timeout,
            )
            self._asked = False
            return dict(self._links or {})

    def close(self, timeout: float = 60.0) -> bool:
        """Brings MLflow up to date, leaves no run RUNNING there, and stops. Does nothing if `start` was not called.

        Then compares MLflow with the views once more, and records in storage whether MLflow holds everything.

        Args:
            timeout: longest time in seconds between the writes of two trials. After that time, the call returns.
        Returns:
            Whether MLflow holds everything. If not, a line tells the user what to do.
        """
        if self._thread.ident is None:
            return False
        self._due.set()
        with self._changed:
            self._closing = True
            self._sweep, self._sweep_is_new = _stopped(self._sweep), True
            for key, view in self._views.items():
                self._views[key] = _stopped(view)
                self._waiting[key] = None
            self._written.clear()
            self._changed.notify()
        written = 0
        while not self._wait(self._done.wait, timeout) and len(self._written) > written:
            written = len(self._written)
        if self._complete:
            self._thread.join(LOOK_AGAIN_SECONDS)
        self.give_up()
        if not self._complete:
            do = f"{self.stuck}, then " * bool(self.stuck) + "run the same command again to fill in what is missing"
            self._say(f"MLflow at {self._shown_uri} is incomplete; {do}")
        return self._complete

    def give_up(self) -> None:
        """Stops the thread after the current write, because another driver writes now or will write later."""
        self._given_up = True

    def _wait(self, wait: Callable[[float], bool], timeout: float) -> bool:
        """Calls `wait` and returns its result. If a server takes longer than NOTICE_SECONDS, shows a message once."""
        if wait(min(timeout, NOTICE_SECONDS)):
            return True
        if timeout > NOTICE_SECONDS and not self._noticed and sqlite_path(self._uri) is None:
            self._noticed = True
            self._say(
                f"Waiting for MLflow at {self._shown_uri} to store the latest results,"
                " which usually takes a few seconds"
            )
        return wait(max(0.0, timeout - NOTICE_SECONDS))

    def _work(self) -> None:
        self._due.wait(self._delay)
        while not (self._given_up or self._complete):
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._waiting or self._sweep_is_new)
                if self._links is not None:
                    self._changed.wait_for(lambda: self._closing or self._asked, GATHER_SECONDS)
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
        """Writes all waiting views. After an error, queues all views again, with the failed view last."""
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
                self._links, self.experiment = mirror.links(), mirror.experiment
                self._changed.notify_all()
        except Exception as error:
            self._mirror = None
            stuck, self.stuck = self.stuck, self._what_to_do(error)
            if not self._down or self.stuck != stuck:
                self._say(
                    f"cannot write to MLflow at {self._shown_uri} ({self.stuck or _first_line(error)});"
                    f" training continues, with a new attempt every {self._retry_seconds:.0f} s"
                )
            with self._changed:
                self._sweep_is_new = True
                self._waiting = dict.fromkeys(sorted(self._views, key=lambda name: name == key))
                self._down = True
                self._changed.notify_all()
            return False
        if self._down:
            self._say(f"MLflow at {self._shown_uri} is available again and up to date")
        self._down, self.stuck = False, ""
        return True

    def _is_known_to_hold_all(self) -> bool:
        with self._changed:
            sweep, views = self._sweep, list(self._views.values())
        known = None if self._record is None else self._record.read(sweep, views)
        with self._changed:
            if known is None or sweep is not self._sweep or views != list(self._views.values()):
                return False
            self._waiting.clear()
            self._sweep_is_new = False
            self._links, self.experiment = known
            self._changed.notify_all()
        return True

    def _look_again(self) -> None:
        """Records that MLflow holds a finished sweep, if a new mirror finds nothing to write.

        The mirror in use remembers what it wrote, so that mirror would not notice deletions by a user.
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
        except Exception:  # everything was written before; the next command compares again
            return
        if not self._given_up and not without_model and self._record.state() == state:
            self._record.write(self._sweep, self._views.values(), state, mirror.links(), mirror.experiment)

    def _what_to_do(self, error: Exception) -> str:
        """Returns advice to the user about an error, or "" if the error may go away by itself."""
        path = sqlite_path(self._uri)
        try:
            if path is not None:
                check_content(path)
        except Unusable as refusal:
            return str(refusal)
        return how_to_migrate(self._shown_uri) if OUT_OF_DATE in str(error) else ""

    def _next(self) -> RunView | None:
        with self._changed:
            if not self._waiting:
                return None
            key = next(iter(self._waiting))
            del self._waiting[key]
            return self._views[key]

    def _open(self) -> Mirror:
        """Returns the mirror in use, or a new mirror after an error or if the database file was deleted."""
        path = sqlite_path(self._uri)
        if self._mirror is not None and (path is None or identity_of(path) == self._database):
            return self._mirror
        from sweeps.tracking.mirror import Mirror, open_database

        if self._record is not None:
            self._record.path.unlink(missing_ok=True)
        uri = self._uri if path is None else open_database(path, self._cache)
        self._database = None if path is None else identity_of(path)
        mirror = Mirror(uri, *self._where, self._load_model, self._say, self._clock)
        with self._changed:
            sweep, keys = self._sweep, list(self._views)
            self._waiting |= {key: None for key in keys if key not in self._waiting}
        mirror.adopt(sweep)
        mirror.settle(sweep.name, keys)
        self._mirror = mirror
        return mirror


def _stopped(view: View) -> View:
    return replace(view, state=TrialState.INTERRUPTED) if view.state is TrialState.RUNNING else view


def _first_line(error: Exception) -> str:
    text = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    return textwrap.shorten(text, 200, placeholder=" ...")
