"""Lease: ensures that only one driver works on a storage name. The driver renews its lease file every few seconds.

The holder of the lease increments a counter in `lease.json`. A second driver reads the file repeatedly:

the counter changes                       the holder is alive: the second driver refuses to start
no change for `dead_after` seconds        the holder is dead: the second driver takes over
the holder's process on this host ended   the holder is dead: the second driver takes over at once

Drivers take the lease under an OS lock next to the file, so exactly one of several waiting drivers wins.

Object storage and file systems without flock have no locks, but each read returns the latest write. Without locks, a
driver writes its lease, waits for `settle` seconds, and reads the file again. By then, each rival that saw no lease has
written its own lease. The driver whose lease is in the file wins. A rival that takes longer to write overwrites the
winner's lease. The winner notices the overwritten lease at its next renewal, and stops.
"""

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Self

from mvae.refusal import Refusal
from mvae.storage.clock import CLOCK, Clock
from mvae.storage.files import remedy
from mvae.storage.objects import place
from mvae.storage.place import AnyPlace, Place
from sweeps.store.processes import Process, this_process, user

_STILL_POLLS = 2
"""Upper limit on the time counted between two reads, in polling intervals.

If the time is longer, this machine has slept, and the holder may have slept too.
"""


@dataclass(frozen=True)
class Holder(Process):
    """Content of a lease file: describes the driver process that holds the lease."""

    owner: str
    """Id of the lease. Each acquisition gets a new id."""
    counter: int
    user: str
    since: float
    """Unix time of the acquisition, in seconds."""

    def __str__(self) -> str:
        return (
            f"process {self.pid} of {self.user} on {self.host}, "
            f"since {datetime.fromtimestamp(self.since):%Y-%m-%d %H:%M:%S}"
        )


class Lease:
    """Holds `<folder>/lease.json` during a `with` block.

    Entering the block calls `acquire` and starts `keep_renewed` in a background thread. Leaving the block calls
    `release`.

    Args:
        folder: existing folder of the storage name.
        say: shows a line to the user when waiting begins, and when the lease is taken over, lost or not writable.
        renew_every: seconds between renewals.
        dead_after: seconds without a change after which the holder counts as dead.
        settle: if there are no locks, the seconds that a rival may take between its read and its write.
        clock: measures time.
    Raises:
        Refusal: on entry, if another driver holds the lease. The message names that driver and says what to do.
    """

    def __init__(
        self,
        folder: AnyPlace,
        say: Callable[[str], None],
        renew_every: float = 5.0,
        dead_after: float = 20.0,
        settle: float = 3.0,
        clock: Clock = CLOCK,
    ) -> None:
        assert 0 < renew_every < dead_after, "a lease must be renewed before it counts as dead"
        self.path = place(folder) / "lease.json"
        self.lost = threading.Event()
        """Event that is set when another driver takes over the lease. This driver must then stop."""
        self._name = f"--name {self.path.parent.name!r}"
        self._say = say
        self._renew_every = renew_every
        self._dead_after = dead_after
        self._settle = 0.0 if self.path.has_locks() else settle
        self._clock = clock
        self._mine: Holder | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.keep_renewed, name="lease", daemon=True)

    def __enter__(self) -> Self:
        try:
            self.acquire()
            self._thread.start()
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Takes the lease. If another driver holds the lease, first waits until that driver counts as dead.

        Raises:
            Refusal: the holder is alive.
        """
        found = self._take_unless_held()
        if found is None:
            return
        poll = min(0.25, self._dead_after / 20)
        stood_still, looked = 0.0, self._clock.monotonic()
        self._say(
            f"{self._name} is in use by {_described(found)};"
            f" waiting up to {self._dead_after:.0f} s to see whether that process is still running"
        )
        while stood_still < self._dead_after:
            self._clock.wait(self._stop, poll)
            now = self._clock.monotonic()
            stood_still += min(now - looked, _STILL_POLLS * poll)
            looked = now
            content = _read(self.path)
            if content != found or _is_dead(content):
                found = self._take_unless_held(watched=found)
                if found is None:
                    return
        self._take_unless_held(watched=found, stood_still=True)

    def _take_unless_held(self, watched: bytes | None = None, stood_still: bool = False) -> bytes | None:
        """Takes the lease if there is no lease file, if the holder is dead, or if the file has stopped changing.

        Args:
            watched: content of the lease file when waiting began, or None before the first read.
            stood_still: whether the file did not change for `dead_after` seconds.
        Returns:
            None if the lease was taken, otherwise the content of the file.
        Raises:
            Refusal: the holder renewed its lease, or another waiting driver took the lease first.
        """
        with self.path.lock():
            content = _read(self.path)
            if content is not None and not _is_dead(content):
                if watched is not None and content != watched:
                    raise self._refusal(content)
                if not stood_still:
                    return content
            self._mine = Holder(
                **asdict(this_process()), owner=str(uuid.uuid4()), counter=0, user=user(), since=self._clock.time()
            )
            self._write(self._mine)
            while self._settle:
                self._clock.wait(self._stop, self._settle)
                rival = _read(self.path)
                if rival is None:  # a former holder released its lease and deleted ours with it
                    self._write(self._mine)
                elif self._is_mine(rival):
                    break
                else:
                    raise self._refusal(rival)
        if content is not None:
            self._say(f"previous run ({_described(content)}) died; taking over {self._name}")
        return None

    def _refusal(self, content: bytes) -> Refusal:
        return Refusal(
            f"{self._name} is in use by {_described(content)} ({self.path} is being renewed):"
            " wait until that process ends, stop it, or choose another --name"
        )

    def keep_renewed(self) -> None:
        failed = False
        while not self._clock.wait(self._stop, self._renew_every):
            try:
                if not self.renew():
                    self.lost.set()
                    self._say(f"lost the lease {self.path} to another driver; stopping")
                    return
                failed = False
            except OSError as error:
                if not failed:
                    self._say(
                        f"cannot renew the lease ({error.strerror}): {self.path}{remedy(error)}; will keep trying"
                    )
                failed = True

    def renew(self) -> bool:
        """Increments the counter in the file. Returns False if another driver has taken over the lease."""
        assert self._mine is not None
        with self.path.lock():
            if self._stop.is_set():
                return True
            if not self._is_mine(_read(self.path)):
                return False
            self._mine = replace(self._mine, counter=self._mine.counter + 1)
            self._write(self._mine)
            return True

    def release(self) -> None:
        """Deletes the lease file if this driver still holds the lease.

        A second call does nothing. A call in a forked child does nothing either.
        """
        if self._mine is None or self._mine.pid != this_process().pid:
            return
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._dead_after)
        try:
            with self.path.lock():
                if self._is_mine(_read(self.path)):
                    self.path.unlink(missing_ok=True)
        except OSError as error:
            self._say(
                f"cannot release the lease ({error.strerror}): {self.path}; the lease expires when this process ends"
            )

    def _is_mine(self, content: bytes | None) -> bool:
        holder = None if content is None else _parsed(content)
        return holder is not None and self._mine is not None and holder.owner == self._mine.owner

    def _write(self, holder: Holder) -> None:
        self.path.write_bytes(json.dumps(asdict(holder)).encode())


def _read(path: Place) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _parsed(content: bytes) -> Holder | None:
    """Returns the holder, or None if the file is invalid. Callers then assume that a living driver holds the lease."""
    try:
        holder = Holder(**json.loads(content))
        return replace(holder, pid=int(holder.pid), since=float(holder.since))
    except (ValueError, TypeError):
        return None


def _described(content: bytes) -> str:
    return str(_parsed(content) or "an unknown process (unreadable lease)")


def _is_dead(content: bytes | None) -> bool:
    holder = None if content is None else _parsed(content)
    return holder is not None and holder.is_dead()
