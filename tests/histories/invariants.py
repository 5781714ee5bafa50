"""The invariants of every history. Some invariants are checked at each change, the others when everything has ended."""

from __future__ import annotations

import json
import re
from typing import Any

from mvae.storage.files import Damaged
from mvae.training.checkpoint import Checkpoints, _verified
from mvae.training.records import MANIFEST, MODEL
from tests.histories.commands import EPOCHS, KEYS, TRIALS, Sim, number_of, whole
from tests.histories.mlflow_server import Run
from tests.histories.storage import Change, SimulatedPlace
from tests.histories.world import Process

ONE_RESULT = "one result per key"
WRITTEN_ONCE = "a result is written once"
NONE_DIFFERS = "no result differs"
NONE_LOST = "no result is lost"
NO_STEP_TWICE = "no step twice"
NOT_AGAIN = "a finished trial is not trained again"
BOUNDED_LOSS = "a restart loses at most the epochs after the last checkpoint"
WEIGHTS = "the final weights are kept"
SOUND = "a manifest lists only files that exist"
ONE_HOLDER = "no lease held by two"
STOPS = "a driver that has lost its lease stops"
ONE_RUN = "one MLflow run per key"
SHOWN = "MLflow shows each epoch once, and the result"
FINISHED = "a FINISHED run is complete"
ENDS = "the command ends with every result"

RENEWED = 6.0
"""Seconds, besides its requests, within which a driver that runs again must have read its lease."""

_RESULT = re.compile(r"storage/main/results/([0-9a-f]+)\.accuracy-v1\.json")
_CHECKPOINT = re.compile(r"storage/main/checkpoints/([0-9a-f]+)/(\d{6})-[^/]+/manifest\.json")
LEASE = "storage/main/lease.json"
TRUTH = {
    key: {"test/accuracy": number_of(whole(trial.seed)), "test/count": float(EPOCHS)}
    for key, trial in zip(KEYS, TRIALS, strict=True)
}


class Broken(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, detail: object) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


class Watch:
    """Checks a world while it runs, and when it has ended."""

    def __init__(self, sim: Sim) -> None:
        self.sim = sim
        self.lagged = False
        """Whether a listing ever lagged."""
        self.restored = False
        """Whether MLflow was restored from a backup while a driver ran, so that lost runs may not be rewritten."""
        self._disturbed = 0.0
        self._former: set[str] = set()
        sim.disk.watchers.append(self._changed)
        sim.world.watchers.append(self._held)
        sim.server.watchers.append(self._run)
        sim.trainings.append(self._training)
        sim.starts.append(self._start)
        sim.events.append(self._goes_on)

    def _broken(self, invariant: str, detail: object) -> Broken:
        """Ends the schedule, even if the product catches the exception."""
        broken = Broken(invariant, detail)
        self.sim.world.crashes.append(broken)
        return broken

    # ---- at each change

    def _changed(self, change: Change) -> None:
        if found := _RESULT.fullmatch(change.key):
            self._result(found[1], change)
        elif found := _CHECKPOINT.fullmatch(change.key):
            if change.data is not None:
                complete = self.sim.complete
                complete[found[1]] = max(int(found[2]), complete.get(found[1], 0))
        elif change.key == LEASE:
            self._lease(change)

    def _result(self, key: str, change: Change) -> None:
        before = None if change.damaged else change.before
        if change.data is None:
            if before is not None:
                raise self._broken(NONE_LOST, f"{change.process.name} deleted the result of {key}")
            return
        now = json.loads(change.data)
        epochs = [record["epoch"] for record in now["history"]]
        if epochs != list(range(1, EPOCHS + 1)) or now["metrics"] != TRUTH[key]:
            raise self._broken(NO_STEP_TWICE, f"{key} claims {epochs} and {now['metrics']}, not {TRUTH[key]}")
        if before is None:
            return
        if self.sim.disk.has_locks and not self._late(change.process):
            raise self._broken(WRITTEN_ONCE, f"{change.process.name} overwrote the result of {key}")
        if json.loads(before)["metrics"] != now["metrics"]:
            raise self._broken(NONE_DIFFERS, key)

    def _late(self, process: Process) -> bool:
        """Whether a change comes from a dead process, or from one whose lock the server has freed."""
        return process.dead or bool(process.facts.get("lost a lock"))

    def _lease(self, change: Change) -> None:
        if self._late(change.process):
            self._disturbed = self.sim.world.now
            return
        before, now = (_owner(data) for data in (change.before, change.data))
        mine = change.process.facts.get("lease")
        if now is None and mine is not None and before not in (None, mine._mine.owner) and self.sim.disk.has_locks:
            raise self._broken(ONE_HOLDER, f"{change.process.name} deleted another driver's lease")
        if before is not None and now is not None and before != now:
            self._former.add(before)
        if now in self._former and self.sim.disk.has_locks:
            raise self._broken(ONE_HOLDER, f"{change.process.name} took back a lease that it had lost")

    def _held(self) -> None:
        now, holders = self.sim.world.now, list[str]()
        for process in self.sim.drivers:
            lease = process.facts.get("lease")
            if lease is None or not process.well or lease.lost.is_set() or lease._stop.is_set():
                continue
            since = max(process.awake_since if process.facts.get("disturbed") else 0.0, self._disturbed)
            if now - since > RENEWED + 12 * process.latency:
                holders.append(process.name)
        if len(holders) > 1:
            raise self._broken(ONE_HOLDER, f"{' and '.join(holders)} both work under the lease")

    def _start(self, driver: Process, key: str) -> None:
        disk = self.sim.disk
        name = f"storage/main/results/{key}.accuracy-v1.json"
        there = disk.files.get(name)
        if there is None or self.lagged or name in disk.ever_damaged:
            return
        if there.changed / 1e9 < driver.facts["planned at"] - 1:
            raise self._broken(NOT_AGAIN, f"{driver.name} starts {key}")

    def _goes_on(self, driver: Process) -> None:
        raise self._broken(STOPS, driver.name)

    def _training(self, key: str, epoch: int, complete: int) -> None:
        if epoch < complete and not self.lagged and not self._damaged(key):
            raise self._broken(BOUNDED_LOSS, f"{key} resumes from epoch {epoch}, but epoch {complete} was complete")

    def _run(self, run: Run) -> None:
        key = run.tags.get("mvae.key")
        if key is None or run.status != "FINISHED" or self.restored:
            return
        if set(run.steps("epoch")) != set(range(1, EPOCHS + 1)) or not TRUTH[key].items() <= run.metrics.items():
            raise self._broken(FINISHED, f"{key} has the epochs {run.steps('epoch')} and {run.metrics}")

    def _lost_a_lease(self) -> bool:
        leases = [driver.facts["lease"] for driver in self.sim.drivers if "lease" in driver.facts]
        return any(lease.lost.is_set() for lease in leases) or any(
            driver.facts.get("disturbed") for driver in self.sim.drivers
        )

    def _damaged(self, key: str) -> bool:
        return any(f"/{key}/" in name for name in self.sim.disk.ever_damaged)

    # ---- at the end

    def storage(self) -> None:
        """Checks results and checkpoints when every process has ended."""
        files = self.sim.disk.files
        for key in KEYS:
            names = [name for name in files if name.startswith(f"storage/main/results/{key}.") and ".json" in name]
            whole_names = [name for name in names if name.endswith(".json")]
            if len(whole_names) != 1 or (len(names) > 1 and not self.sim.disk.ever_damaged):
                raise Broken(ONE_RESULT, f"{key} has {names}")
            content = json.loads(files[whole_names[0]].data)
            if content["metrics"] != TRUTH[key]:
                raise Broken(NONE_DIFFERS, f"{key} has {content['metrics']}")
            if not self._damaged(key):
                self._inspect(key)

    def _inspect(self, key: str) -> None:
        found: dict[str, Any] = {}
        folder = SimulatedPlace(f"storage/main/checkpoints/{key}", self.sim.disk)

        def look() -> None:
            checkpoints = Checkpoints(folder, "reader", clock=self.sim.world)
            newest = checkpoints.latest()
            found["epoch"] = None if newest is None else newest.epoch
            found["count"] = None if newest is None else checkpoints.load(newest, MODEL)["count"]
            for name in list(folder.listing()):
                if name.endswith(f"/{MANIFEST}"):
                    try:
                        _verified(folder / name.partition("/")[0])
                    except Damaged as error:
                        found["damaged"] = str(error)

        self.sim.world.start("inspector", "inspector", look)
        self.sim.world.run(100, until=lambda: "count" in found and self.sim.world.processes[-1].threads[0].ended)
        if (found["epoch"], found["count"]) != (EPOCHS, EPOCHS):
            raise Broken(WEIGHTS, f"{key}: {found}")
        if "damaged" in found:
            raise Broken(SOUND, f"{key}: {found['damaged']}")

    def mlflow(self) -> None:
        """Checks MLflow after a command that ended with every result."""
        runs = self.sim.server.active()
        for key in KEYS:
            of_key = [run for run in runs if run.tags.get("mvae.key") == key]
            if len(of_key) != 1:
                raise Broken(ONE_RUN, f"{key} has {len(of_key)} runs")
            (run,) = of_key
            epochs, metrics = run.steps("epoch"), run.metrics
            if self._lost_a_lease():
                epochs = sorted(set(epochs))  # a driver that returns may log epochs again before it has noticed
            if (
                run.status != "FINISHED"
                or epochs != list(range(1, EPOCHS + 1))
                or not TRUTH[key].items() <= metrics.items()
            ):
                raise Broken(SHOWN, f"{key} is {run.status} with the epochs {epochs} and {metrics}")
        parents = [run for run in runs if run.tags.get("mvae.kind") == "sweep" or "mvae.sweep" in run.tags]
        if len(parents) != 1:
            raise Broken(ONE_RUN, f"the sweep has {len(parents)} runs")


def _owner(data: bytes | None) -> str | None:
    try:
        return None if data is None else str(json.loads(data)["owner"])
    except (ValueError, KeyError):
        return None
