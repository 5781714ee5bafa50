"""Replaces the module `threading` in code that runs in a simulated world, and the locks of the operating system."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.histories.world import Green, Process, World


class Threading:
    """Replaces the module `threading` in the product's code that runs in a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def Event(self) -> Event:  # noqa: N802
        return Event(self._world)

    def Condition(self) -> Condition:  # noqa: N802
        return Condition(self._world)

    def Thread(self, *, target: Callable[[], object], name: str = "", daemon: bool = True) -> Thread:  # noqa: N802
        return Thread(self._world, target, name)


class Event:
    def __init__(self, world: World) -> None:
        self._world, self._set, self._waiting = world, False, list[Green]()

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self._world.wake_all(self._waiting)

    def wait(self, timeout: float | None = None) -> bool:
        end = None if timeout is None else self._world.now + timeout
        while not self._set and (end is None or self._world.now < end):
            self._world.block(self._waiting, None if end is None else end - self._world.now)
        return self._set


class Condition:
    """Needs no lock, because no thread gives up control while it holds one."""

    def __init__(self, world: World) -> None:
        self._world, self._waiting = world, list[Green]()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def notify(self) -> None:
        self._world.wake_all(self._waiting)

    notify_all = notify

    def wait(self, timeout: float | None = None) -> None:
        self._world.block(self._waiting, timeout)

    def wait_for(self, predicate: Callable[[], object], timeout: float | None = None) -> bool:
        end = None if timeout is None else self._world.now + timeout
        while not predicate():
            if end is not None and self._world.now >= end:
                return False
            self._world.block(self._waiting, None if end is None else end - self._world.now)
        return True


class Thread:
    def __init__(self, world: World, target: Callable[[], object], name: str) -> None:
        self._world, self._target, self._name = world, target, name
        self._green: Green | None = None
        self._over = Event(world)

    @property
    def ident(self) -> int | None:
        return None if self._green is None else 1

    def start(self) -> None:
        self._green = self._world.spawn(self._world.alive(), self._target, self._name)
        self._green.on_end.append(self._over.set)

    def is_alive(self) -> bool:
        return self._green is not None and not self._green.ended

    def join(self, timeout: float | None = None) -> None:
        self._over.wait(timeout)


@contextmanager
def locked(world: World, holders: dict[str, Process], waiting: dict[str, list[Green]], key: str) -> Iterator[None]:
    """Holds a lock of the operating system, which ends with its process."""
    while key in holders and not holders[key].dead:
        world.block(waiting.setdefault(key, []), None)
    process = world.process
    holders[key] = process
    free = _free(world, holders, waiting, key, process)
    process.at_death.append(free)
    try:
        yield
    finally:
        free()
        process.at_death.remove(free)


def _free(
    world: World, holders: dict[str, Process], waiting: dict[str, list[Green]], key: str, process: Process
) -> Callable[[], None]:
    def free() -> None:
        if holders.get(key) is process:
            del holders[key]
            world.wake_all(waiting.get(key, []))

    return free
