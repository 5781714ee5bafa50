"""One driver a name: a lease file that its holder keeps moving.

The holder raises a counter in `lease.json` every few seconds. Whoever comes next watches the file: if it moves,
somebody is at work, and the newcomer refuses; if it stands still for long enough, by the newcomer's own clock, the
holder is dead and the lease is taken over. A holder that ran on this host, in this boot, and whose process is gone is
dead at once. All decisions are taken under an OS lock beside the file, so that of several waiting drivers exactly one
wins.

A store of objects, and a file system without flock, has neither locks nor a write that compares first, but whoever
reads sees the last write. There the newcomer writes its lease, waits for `settle` seconds, in which a rival that had
looked before has written its own, and reads again: the lease is that driver's whose it is now. One that was held up for
longer between its look and its write overwrites a lease that is held: then the holder finds out at its next renewal,
and stops.
"""

from __future__ import annotations

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
from mvae.storage.objects import place
from mvae.storage.place import AnyPlace, Place
from sweeps.store.processes import Process, this_process, user

_STILL_POLLS = 2
"""A gap between two looks counts at most this many polling intervals of standing still: if this machine slept, so may
the holder have done."""


@dataclass(frozen=True)
class Holder(Process):
    """What a lease file says about the driver that holds it."""

    owner: str
    """Id of the lease, new each time it is acquired."""
    counter: int
    """Raised at each renewal."""
    user: str
    since: float
    """Unix time of the acquisition, seconds."""

    def __str__(self) -> str:
        return (
            f"process {self.pid} of {self.user} on {self.host}, "
            f"since {datetime.fromtimestamp(self.since):%Y-%m-%d %H:%M:%S}"
        )


class Lease:
    """Hold `<folder>/lease.json` for the time of a `with` block.

    A block is `acquire`, then `keep_renewed` in a thread of its own, then `release`.

    Args:
        folder: of the name, which exists.
        say: gets one line when there is something to wait for, or a lease was taken over or lost.
        renew_every: seconds between renewals.
        dead_after: seconds for which a lease must stand still before it counts as dead.
        settle: seconds that a rival may take between its look and its write, where there are no locks.
        clock: measures all of these.
    Raises:
        Refusal: on entry, when another driver is at work; one line that says who, since when, and what to do.
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
        """Set when another driver holds the lease: this one was given up for dead and must stop."""
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
        """Take the lease if it is free, else watch it until it proves dead or alive."""
        found = self._take_unless_held()
        if found is None:
            return
        poll = min(0.25, self._dead_after / 20)
        stood_still, looked = 0.0, self._clock.monotonic()
        self._say(f"{self._describe(found)}; waiting up to {self._dead_after:.0f} s to see whether it is still at work")
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
        """Take the lease and return None if there is none, its process is dead, or it stood still; else return it.

        Args:
            watched: the lease file as seen when watching began; None at the first look.
            stood_still: it did not change for `dead_after` seconds.
        Raises:
            Refusal: the lease is not the one that was watched: it moves, or another waiting driver was first.
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
                if rival is None:  # a holder that gave its lease back deleted ours with it
                    self._write(self._mine)
                elif self._is_mine(rival):
                    break
                else:
                    raise self._refusal(rival)
        if content is not None:
            self._say(f"took the lease over, its holder is dead ({self._describe(content)})")
        return None

    def _refusal(self, content: bytes) -> Refusal:
        return Refusal(
            f"{self._describe(content)}, and at work (it renews {self.path}): "
            "wait until it ends, stop it, or choose another --name"
        )

    def keep_renewed(self) -> None:
        """Renew the lease until it is released or lost."""
        failed = False
        while not self._clock.wait(self._stop, self._renew_every):
            try:
                if not self.renew():
                    self.lost.set()
                    self._say(f"the lease was lost, another driver holds {self.path}: this one stops")
                    return
                failed = False
            except OSError as error:
                if not failed:
                    self._say(f"the lease cannot be renewed ({error.strerror}): {self.path}; trying on")
                failed = True

    def renew(self) -> bool:
        """Raise the counter; False when the lease is no longer ours (taken over, or taken over and given back)."""
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
        """Remove the lease if it is still ours; a second call changes nothing.

        A forked child that leaves the block does not own it.
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
            self._say(f"the lease cannot be given back ({error.strerror}): {self.path}; it ends with this process")

    def _is_mine(self, content: bytes | None) -> bool:
        holder = None if content is None else _parsed(content)
        return holder is not None and self._mine is not None and holder.owner == self._mine.owner

    def _write(self, holder: Holder) -> None:
        self.path.write_bytes(json.dumps(asdict(holder)).encode())

    def _describe(self, content: bytes) -> str:
        return f"{self.path.parent.name!r} is held by {_parsed(content) or 'an unreadable lease'}"


def _read(path: Place) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _parsed(content: bytes) -> Holder | None:
    """The holder, or None for a file that is no lease: such a file is watched like any other, it just names nobody."""
    try:
        holder = Holder(**json.loads(content))
        return replace(holder, pid=int(holder.pid), since=float(holder.since))
    except (ValueError, TypeError):
        return None


def _is_dead(content: bytes | None) -> bool:
    holder = None if content is None else _parsed(content)
    return holder is not None and holder.is_dead()
