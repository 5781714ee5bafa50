"""Programs of simulated processes: the product's own driver, lease, tracker and trial process.

These parts are replaced:

- Ray: `Engine` starts and restarts processes. The product's `Events` decides which events reach the driver.
- training, by a counter
- the table's files, threads, time and ids
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import sweeps.trials.run
from mvae.measure import ACCURACY
from mvae.refusal import Refusal
from mvae.trial import Trial
from sweeps.cli.console import Console
from sweeps.cli.programs import BAD_INPUT, COMPLETE, INCOMPLETE, INTERRUPTED
from sweeps.cli.signals import Interrupted
from sweeps.driver import Driver
from sweeps.engine import Capacity, Listener
from sweeps.engine.events import Events
from sweeps.engine.tune import most_deaths
from sweeps.planning.plan import Cell, plan
from sweeps.store.lease import Lease
from sweeps.store.store import Store
from sweeps.sweep import Sweep
from sweeps.trials.messages import Job, Message
from tests.histories.mlflow_server import Server
from tests.histories.storage import Disk, SimulatedPlace
from tests.histories.threads import Event
from tests.histories.world import Process, World

EPOCHS = 5
STEP = 0.5
"""Seconds that a step of the counter takes."""
CHECKPOINT_EVERY = 0.9
"""Seconds between checkpoints, about two steps. The last step always has a checkpoint."""
FINGERPRINT = "f" * 64
NOTICED = 3.0
"""Seconds until the engine notices that a process has died."""
GIVEN_UP = 12.0
"""Seconds without an answer after which the engine assumes that a process is dead."""
LINGER = 4.0
"""Seconds that a running trial's process survives its driver."""
URI = "http://mlflow:5000"


def trials() -> list[Trial]:
    return [
        Trial.create(dataset="digits", model="nn", paired_fraction=1.0, epochs=EPOCHS, seed=seed) for seed in range(3)
    ]


def step(digest: str, number: int) -> str:
    """One step of the counter: the digest of its whole history."""
    return hashlib.sha256(f"{digest} {number}".encode()).hexdigest()[:16]


def whole(seed: int, steps: int = EPOCHS) -> str:
    digest = str(seed)
    for number in range(1, steps + 1):
        digest = step(digest, number)
    return digest


def number_of(digest: str) -> float:
    """A digest as a metric: 13 hex digits fit into a float."""
    return float(int(digest[:13], 16))


TRIALS = trials()
KEYS = tuple(trial.key(FINGERPRINT) for trial in TRIALS)
CELLS = tuple(Cell("NN", 1.0, trial, ACCURACY, None, "nn") for trial in TRIALS)
SWEEP = Sweep(name="counters", title="Counters", cells=CELLS)
OPTIONS: Any = SimpleNamespace(
    cache=None,
    data_root=None,
    dataset="digits",
    preset="demo",
    checkpoint_every=CHECKPOINT_EVERY,
    gpus_per_trial=0,
    test_curve=False,
    max_concurrent=2,
)


@dataclass(eq=False)
class Sim:
    """One world with its storage and its MLflow server, and the history of what was trained."""

    world: World
    disk: Disk
    server: Server
    complete: dict[str, int] = field(default_factory=dict)
    """For each key, the highest epoch with a complete checkpoint."""
    trainings: list[Callable[[str, int, int], None]] = field(default_factory=list)
    """Called when a training has found its checkpoint: key, its epoch, and the epoch that was complete before."""
    events: list[Callable[[Process], None]] = field(default_factory=list)
    """Called when a driver handles a trial's event although it has lost its lease."""
    starts: list[Callable[[Process, str], None]] = field(default_factory=list)
    """Called when a driver starts a trial."""
    drivers: list[Process] = field(default_factory=list)
    next_worker: Callable[[Process], None] | None = None
    """Called with the next trial process that starts."""

    @property
    def root(self) -> SimulatedPlace:
        return SimulatedPlace("storage", self.disk)

    @property
    def store(self) -> Store:
        return Store(self.root, "main")

    def command(self, host: str) -> Process:
        """Types the command on a host."""
        process = self.world.start(f"driver {len(self.drivers)}", host, lambda: self._command(process))
        process.facts["kind"] = "driver"
        process.at_death.append(lambda: self._orphan(process))
        self.drivers.append(process)
        return process

    def _command(self, process: Process) -> None:
        """Does what `sweeps.main` does after its checks, and keeps the exit code."""
        facts = process.facts
        facts["interruption"] = interruption = Interruption(self.world)
        facts["said"] = said = list[str]()
        try:
            Store.open(self.root, "main", create=True)
            with Lease(self.store.folder, said.append, clock=self.world) as lease:
                facts["lease"] = lease
                self.store.namespace()
                facts["planned at"] = self.world.now
                planned = plan(CELLS, self.store, FINGERPRINT)
                arguments: Any = (
                    SWEEP,
                    OPTIONS,
                    planned,
                    FINGERPRINT,
                    self.store,
                    URI,
                    Quiet(said),
                    lease,
                    interruption,
                )
                driver: Any = SimulatedDriver
                code = driver(*arguments, clock=self.world, sim=self).run()
        except Refusal:
            code = BAD_INPUT
        except OSError:
            code = INCOMPLETE
        except KeyboardInterrupt:
            code = INTERRUPTED
        facts["code"] = code
        self.world.kill(process)  # the process ends, and with it its other threads

    def _orphan(self, driver: Process) -> None:
        for worker in driver.facts.get("workers", ()):
            self._end_soon(worker)

    def _end_soon(self, worker: Process) -> None:
        def end() -> None:
            if worker.stopped or worker.cut:
                worker.facts["orphan"] = True  # ends some seconds after it returns
            else:
                self.world.kill(worker)

        self.world.at(LINGER, end)

    def resume(self, process: Process) -> None:
        self.world.resume(process)
        if process.facts.pop("orphan", False):
            self._end_soon(process)


class Quiet(Console):
    """A console that keeps what it prints."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def header(self, line: str) -> None:
        self.said.append(line)

    def say(self, line: str) -> None:
        self.said.append(line)


class NoProgress:
    """A progress line that shows nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@dataclass
class Interruption:
    """Like `sweeps.cli.signals.Interruption`: the signal is noticed at the next message."""

    world: World
    heard: str = ""
    stops_at: float | None = None
    out_of_hours: bool = False

    def without_limit(self) -> None: ...

    def check(self) -> None:
        if self.heard:
            raise Interrupted(self.heard)


@dataclass
class SimulatedDriver(Driver):
    """The product's driver on a simulated engine. Writes no table."""

    sim: Any = None

    def train(self, tracker: Any) -> None:
        capacity = Capacity(cpus=2, gpus=0)
        jobs = [self._job(planned, capacity) for planned in self.planned.todo]
        progress: Any = NoProgress()
        Engine(self.sim).run_jobs(jobs, self._listener(tracker, progress), OPTIONS.max_concurrent)

    def left(self) -> str:
        return ""

    def report(self, links: dict[str, str]) -> int:
        done = [self.store.results.read(key, ACCURACY.token) for key in self.planned.trials]
        return COMPLETE if all(done) else INCOMPLETE


class Engine:
    """Starts trials in processes of their own and restarts them after their death, as Ray Tune does."""

    def __init__(self, sim: Sim) -> None:
        self._sim, self._world = sim, sim.world
        self._driver = sim.world.process
        self._inbox: deque[tuple[Process, str, Any]] = deque()
        self._mail = Event(sim.world)
        self._driver.facts["workers"] = []

    def run_jobs(self, jobs: list[Job], listener: Listener, at_once: int) -> None:
        events, waiting, running = Events(listener), deque(jobs), dict[str, Process]()
        failures = dict.fromkeys((job.key for job in jobs), 0)
        by_key = {job.key: job for job in jobs}
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.popleft()
                    running[job.key] = self._start(job)
                    self._tell(events.started, job.key)
                process, key, message = self._next()
                if running.get(key) is not process:
                    continue  # a process that the engine assumed to be dead
                if message is not None:
                    self._tell(events.sent, key, message)
                    if message.done or message.failed:
                        del running[key]
                    continue
                del running[key]
                failures[key] += 1
                if failures[key] > most_deaths():
                    events.lost(key, "process died", failures[key])
                else:
                    events.restarted(key, "process died")
                    waiting.appendleft(by_key[key])
        finally:
            if not self._driver.dead:
                for worker in running.values():
                    self._world.kill(worker)

    def _tell(self, event: Callable[..., None], *arguments: Any) -> None:
        lost = self._driver.facts["lease"].lost.is_set()
        event(*arguments)
        for told in self._sim.events if lost else ():
            told(self._driver)

    def _next(self) -> tuple[Process, str, Any]:
        while not self._inbox:
            self._mail = Event(self._world)
            self._mail.wait()
        return self._inbox.popleft()

    def _start(self, job: Job) -> Process:
        world, driver = self._world, self._driver
        for told in self._sim.starts:
            told(driver, job.key)
        number = len(driver.facts["workers"])
        host = driver.host if number % 2 == 0 else "far"

        def send(message: Message) -> None:
            world.alive()
            put(message)

        def put(message: Any) -> None:
            if not driver.dead:
                self._inbox.append((process, job.key, message))
                self._mail.set()

        def watch() -> None:
            """Tells the engine about a process that died or does not answer."""
            if driver.dead or process.facts.get("over"):
                return
            if process.dead or not process.well:
                if process.dead or world.now - process.facts.setdefault("silent", world.now) >= GIVEN_UP:
                    put(None)
                    return
            else:
                process.facts.pop("silent", None)
            world.at(NOTICED, watch)

        def work() -> None:
            sweeps.trials.run.run(job, send, world)
            process.facts["over"] = True
            world.kill(process)

        process = world.start(f"{driver.name}.{number}", host, work)
        process.facts["kind"] = "worker"
        driver.facts["workers"].append(process)
        world.at(NOTICED, watch)
        if self._sim.next_worker is not None:
            self._sim.next_worker(process)
            self._sim.next_worker = None
        return process
