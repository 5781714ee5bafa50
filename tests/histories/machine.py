"""Schedules: hypothesis chooses which command is typed, which process dies or stops and when, and what fails.

A step of a schedule does one thing and then lets time pass. After the last step, everything is repaired, the command is
typed until it succeeds, and processes that were stopped all the time return.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from statistics import median

import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mvae.training.records import MODEL
from sweeps.cli.programs import COMPLETE
from tests.histories.commands import Sim
from tests.histories.invariants import ENDS, Broken, Watch
from tests.histories.simulation import simulated
from tests.histories.storage import KINDS
from tests.histories.world import LATENCY, Process

STEPS = 34
"""Number of steps of a schedule."""
PASSES = st.sampled_from([0.0, 0.3, 1.0, 2.0, 4.0, 7.0, 24.0])
"""Seconds that pass after a step."""
WHICH = st.integers(0, 7)
AFTER = st.integers(0, 40)
"""Numbers of requests after which a process dies, stops or is cut off."""


class Coverage:
    """Numbers of schedules, of their steps, and of the steps in which each rule did something."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.rules: Counter[str] = Counter()

    @classmethod
    def of(cls, parts: Iterable[Coverage]) -> Coverage:
        whole = cls()
        for part in parts:
            whole.lengths += part.lengths
            whole.rules += part.rules
        return whole

    @property
    def median(self) -> int:
        return int(median(self.lengths)) if self.lengths else 0

    def __str__(self) -> str:
        shown = ", ".join(f"{name} {count:,}" for name, count in sorted(self.rules.items()))
        return f"{len(self.lengths):,} schedules, median {self.median} steps; {shown}"


def wrong_weights() -> bytes:
    buffer = io.BytesIO()
    torch.save({"digest": "0" * 16, "count": 77}, buffer)
    return buffer.getvalue()


class Schedules(RuleBasedStateMachine):
    """One schedule. Each rule does one thing to the commands of two hosts or to their trials."""

    coverage = Coverage()

    def __init__(self) -> None:
        super().__init__()
        self.held = ExitStack()
        self.sim: Sim | None = None
        self.steps = 0
        self.failed = False

    @initialize(kind=st.sampled_from(KINDS), chance=st.integers(0, 2**32))
    def begin(self, kind: str, chance: int) -> None:
        self.sim = self.held.enter_context(simulated(kind, chance))
        self.watch = Watch(self.sim)
        self._step(f"begin {kind}", 0.0)

    @rule(host=st.sampled_from(["one", "two"]), passes=PASSES)
    def type_command(self, host: str, passes: float) -> None:
        if sum(not driver.dead for driver in self.the.drivers) < 3:
            self.the.command(host)
        self._step("type_command", passes)

    @rule(passes=st.sampled_from([0.1, 1.0, 3.0, 10.0, 30.0]))
    def wait(self, passes: float) -> None:
        self._step("wait", passes)

    @rule(which=WHICH, after=AFTER, late=st.sampled_from([None, 0.1, 3.0, 40.0]), passes=PASSES)
    def kill(self, which: int, after: int, late: float | None, passes: float) -> None:
        if victim := self._alive(which):

            def kill(victim: Process = victim) -> None:
                self.the.world.kill(victim)

            self.the.disk.late = late
            victim.fuse = (after, kill)
        self._step("kill", passes)

    @rule(which=WHICH, after=AFTER, passes=PASSES)
    def stop(self, which: int, after: int, passes: float) -> None:
        if victim := self._alive(which):

            def stop(victim: Process = victim) -> None:
                victim.facts["disturbed"] = True
                self.the.world.stop(victim)

            victim.fuse = (after, stop)
        self._step("stop", passes)

    @rule(after=st.integers(20, 75), away=st.sampled_from([16.0, 24.0]), passes=PASSES)
    def replace_worker(self, after: int, away: float, passes: float) -> None:
        """Stops the next trial process until another one has taken its place, then lets it return."""
        self.the.next_worker = lambda process: self._stop_for(process, after, away)
        if all(driver.dead for driver in self.the.drivers):
            self.the.command("one")
        self._pass(8.0 + away)
        self._step("replace_worker", passes)

    @rule(after=st.integers(10, 150), passes=PASSES)
    def replace_driver(self, after: int, passes: float) -> None:
        """Stops a driver until another one has taken over its lease, then lets it return."""
        alive = [driver for driver in self.the.drivers if not driver.dead]
        driver = alive[-1] if alive else self.the.command("one")
        if len(alive) < 3 and driver.well:
            self._stop_for(driver, after, 30.0, lambda: self.the.command("two"))
            self._pass(35.0)
        self._step("replace_driver", passes)

    @rule(which=WHICH, after=AFTER, mlflow=st.booleans(), passes=PASSES)
    def cut_off(self, which: int, after: int, mlflow: bool, passes: float) -> None:
        if self.the.disk.kind != "folder" and (victim := self._alive(which)):

            def cut(victim: Process = victim) -> None:
                victim.facts["disturbed"] = True
                victim.cut_from_mlflow = mlflow
                self.the.disk.cut(victim)

            victim.fuse = (after, cut)
        self._step("cut_off", passes)

    @rule(which=WHICH, passes=PASSES)
    def come_back(self, which: int, passes: float) -> None:
        away = [process for process in self.the.world.processes if not process.dead and not process.well]
        if away:
            self.the.resume(away[which % len(away)])
        self._step("come_back", passes)

    @rule(which=WHICH, latency=st.sampled_from([LATENCY, 0.3, 1.5]), passes=PASSES)
    def slow_down(self, which: int, latency: float, passes: float) -> None:
        if victim := self._alive(which):
            victim.facts["disturbed"] = True
            victim.latency, victim.awake_since = latency, self.the.world.now + 12 * victim.latency
        self._step("slow_down", passes)

    @rule(which=WHICH, how=st.lists(st.sampled_from(["full", "no reply", ""]), min_size=1, max_size=6), passes=PASSES)
    def refuse_writes(self, which: int, how: list[str], passes: float) -> None:
        if victim := self._alive(which):
            victim.refusals = list(how)
        self._step("refuse_writes", passes)

    @rule(seconds=st.sampled_from([0.0, 2.0, 30.0]), passes=PASSES)
    def lag_listings(self, seconds: float, passes: float) -> None:
        if self.the.disk.kind in ("nfs", "unlocked"):
            self.the.disk.lag = seconds
            self.watch.lagged |= seconds > 0
        self._step("lag_listings", passes)

    @rule(which=st.integers(0, 50), passes=PASSES)
    def damage(self, which: int, passes: float) -> None:
        disk = self.the.disk
        names = sorted(name for name in disk.files if "/results/" in name or "/checkpoints/" in name)
        names = [name for name in names if name.endswith((".json", ".pt"))]
        if names:
            name = names[which % len(names)]
            data = wrong_weights() if name.endswith(MODEL) else disk.files[name].data[:20]
            disk.damage(name, data)
        self._step("damage", passes)

    @rule(what=st.sampled_from(["away", "back", "slow", "hangs", "quick", "replies lost"]), passes=PASSES)
    def mlflow(self, what: str, passes: float) -> None:
        server = self.the.server
        server.away = {"away": True, "back": False}.get(what, server.away)
        server.slow = {"slow": 2.0, "hangs": 30.0, "quick": 0.0}.get(what, server.slow)
        server.lost_replies = 2 if what == "replies lost" else server.lost_replies
        self._step(f"mlflow {what}", passes)

    @rule(restore=st.booleans(), passes=PASSES)
    def mlflow_backup(self, restore: bool, passes: float) -> None:
        if restore:
            self.the.server.restore()
            self.watch.restored |= any(not driver.dead for driver in self.the.drivers)
        else:
            self.the.server.keep_backup()
        self._step("mlflow_backup restored" if restore else "mlflow_backup", passes)

    @rule(which=WHICH, passes=PASSES)
    def interrupt(self, which: int, passes: float) -> None:
        drivers = [driver for driver in self.the.drivers if not driver.dead and "interruption" in driver.facts]
        if drivers:
            drivers[which % len(drivers)].facts["interruption"].heard = "SIGINT"
        self._step("interrupt", passes)

    # ---- the end

    def teardown(self) -> None:
        try:
            if self.sim is not None and not self.failed:
                self._finish(self.sim)
                self.coverage.lengths.append(self.steps)
        finally:
            self.held.close()

    def _finish(self, sim: Sim) -> None:
        self._repair(sim)
        away = [process for process in sim.world.processes if not process.dead and not process.well]
        stays = [process for process in away if sim.world.draw() < 0.5]
        for process in away:
            if process not in stays:
                sim.resume(process)
        sim.world.run(40)
        self._until_complete(sim)
        for process in stays:
            sim.resume(process)
        if any(not process.dead for process in stays):
            sim.world.run(200)
            self._until_complete(sim)

    def _repair(self, sim: Sim) -> None:
        sim.disk.lag, sim.disk.late = 0.0, None
        sim.server.away, sim.server.slow, sim.server.lost_replies = False, 0.0, 0
        for process in sim.world.processes:
            process.fuse, process.latency, process.refusals = None, LATENCY, []

    def _until_complete(self, sim: Sim) -> None:
        for attempt in range(6):
            last = sim.command("one")
            if not self._ends(last, 400) or attempt == 3:
                for process in dict.fromkeys(sim.disk.holders.values()):
                    if process.stopped:  # holds a lock of the operating system for as long as it is stopped
                        sim.world.kill(process)
                self._ends(last, 2000)
            if last.facts.get("code") == COMPLETE:
                self.watch.storage()
                self.watch.mlflow()
                return
            sim.world.run(30.0 * (attempt + 1))
        raise Broken(ENDS, last.facts.get("said"))

    def _ends(self, driver: Process, seconds: float) -> bool:
        return self.the.world.run(seconds, until=lambda: driver.dead)

    # ---- helpers

    @property
    def the(self) -> Sim:
        assert self.sim is not None
        return self.sim

    def _stop_for(self, victim: Process, after: int, away: float, then: Callable[[], object] = lambda: None) -> None:
        sim = self.the

        def stop() -> None:
            victim.facts["disturbed"] = True
            sim.world.stop(victim)
            sim.world.at(0.0, lambda: (then(), None)[1])
            sim.world.at(away, lambda: sim.resume(victim))

        victim.fuse = (after, stop)

    def _alive(self, which: int) -> Process | None:
        alive = [process for process in self.the.world.processes if process.well and "kind" in process.facts]
        return alive[which % len(alive)] if alive else None

    def _step(self, name: str, passes: float) -> None:
        self.steps += 1
        self.coverage.rules[name] += 1
        self._pass(passes)

    def _pass(self, seconds: float) -> None:
        try:
            self.the.world.run(seconds)
        except BaseException:
            self.failed = True
            raise
