"""Leases by a clock that stands still unless somebody waits, on places in memory with and without locks."""

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


def test_a_lease_that_is_renewed_is_refused(folder: Memory, clock: FakeClock) -> None:
    said: list[str] = []
    mine, late = lease(folder, clock, said), lease(folder, clock, said)
    mine.acquire()
    clock.meanwhile = mine.renew
    with pytest.raises(Refusal, match="is being renewed"):
        late.acquire()
    assert counter(mine) > 0
    assert said == [line for line in said if "waiting up to 20 s" in line]


def test_a_lease_that_stands_still_is_taken_over_and_its_holder_learns_it(folder: Memory, clock: FakeClock) -> None:
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


def test_a_zombie_that_gives_its_lease_back_leaves_the_heirs_lease_alone(folder: Memory, clock: FakeClock) -> None:
    said: list[str] = []
    zombie, heir = lease(folder, clock, said), lease(folder, clock, said)
    zombie.acquire()
    heir.acquire()
    zombie.release()
    assert heir.renew(), "the heir's lease is still there, and its own"
    heir.release()
    assert not heir.path.exists()


def test_a_lease_given_back_while_the_next_one_waits_is_taken_at_once(folder: Memory, clock: FakeClock) -> None:
    said: list[str] = []
    mine, late = lease(folder, clock, said), lease(folder, clock, said)
    mine.acquire()
    began = clock.now
    clock.meanwhile = mine.release
    late.acquire()
    assert clock.now - began < DEAD
    assert late.renew()


def test_without_locks_a_rival_that_looked_before_and_wrote_after_has_the_lease(clock: FakeClock) -> None:
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
