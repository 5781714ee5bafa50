"""Leases with a fake clock that moves only during waits, in memory with and without locks."""

from __future__ import annotations

import json

import pytest

from mvae.refusal import Refusal
from sweeps.store.lease import Lease
from tests.memory import Disk, FakeClock, Memory

DEAD, RENEW, SETTLE = 20.0, 5.0, 3.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=[True, False], ids=["locks", "no locks"])
def folder(request: pytest.FixtureRequest, clock: FakeClock) -> Memory:
    return Memory("main", Disk(clock, has_locks=request.param))


def lease(folder: Memory, clock: FakeClock, said: list[str]) -> Lease:
    return Lease(folder, said.append, RENEW, DEAD, SETTLE, clock)


def counter(held: Lease) -> int:
    return int(json.loads(held.path.read_bytes())["counter"])


def test_a_lease_that_is_being_renewed_is_refused(folder: Memory, clock: FakeClock) -> None:
    said: list[str] = []
    mine, late = lease(folder, clock, said), lease(folder, clock, said)
    mine.acquire()
    clock.meanwhile = mine.renew
    with pytest.raises(Refusal, match="is being renewed"):
        late.acquire()
    assert counter(mine) > 0
    assert said == [line for line in said if "waiting up to 20 s" in line]


def test_a_lease_that_is_not_renewed_is_taken_over_and_its_holder_notices(folder: Memory, clock: FakeClock) -> None:
    said: list[str] = []
    zombie, heir = lease(folder, clock, said), lease(folder, clock, said)
    zombie.acquire()
    assert zombie.renew() and counter(zombie) == 1
    began = clock.now
    heir.acquire()
    assert DEAD <= clock.now - began < DEAD + SETTLE + 1
    assert "died; taking over" in said[-1]
    assert not zombie.renew()
    zombie.keep_renewed()
    assert zombie.lost.is_set() and "lost the lease" in said[-1]
    assert heir.renew() and not heir.lost.is_set()


def test_a_former_holder_that_releases_its_lease_does_not_remove_its_successors(
    folder: Memory, clock: FakeClock
) -> None:
    said: list[str] = []
    zombie, heir = lease(folder, clock, said), lease(folder, clock, said)
    zombie.acquire()
    heir.acquire()
    zombie.release()
    assert heir.renew(), "the new owner's lease must still exist"
    heir.release()
    assert not heir.path.exists()


def test_a_lease_released_while_the_next_driver_waits_is_taken_at_once(folder: Memory, clock: FakeClock) -> None:
    said: list[str] = []
    mine, late = lease(folder, clock, said), lease(folder, clock, said)
    mine.acquire()
    began = clock.now
    clock.meanwhile = mine.release
    late.acquire()
    assert clock.now - began < DEAD
    assert late.renew()


def test_without_locks_the_last_of_two_rival_writers_has_the_lease(clock: FakeClock) -> None:
    folder, said = Memory("main", Disk(clock, has_locks=False)), list[str]()
    rival, mine = lease(folder, clock, said), lease(folder, clock, said)
    rival.acquire()
    written = rival.path.read_bytes()
    rival.release()
    clock.meanwhile = lambda: mine.path.write_bytes(written)
    with pytest.raises(Refusal, match="is being renewed"):
        mine.acquire()
    mine.release()
    assert mine.path.read_bytes() == written
