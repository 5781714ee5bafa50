"""The counter that simulated trials train, and what replaces the operating system, the training and MLflow's client."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlflow
import pytest
import torch
from torch import nn

import mvae.storage.place
import sweeps.driver
import sweeps.store.lease
import sweeps.store.processes
import sweeps.store.results
import sweeps.tracking.mirror.uploads
import sweeps.tracking.reconciled
import sweeps.tracking.tracker
import sweeps.trials.run
from mvae.training.loop import Progress, Trained
from mvae.training.records import MODEL, Record
from mvae.training.saving import Saving
from sweeps.store.processes import Process as Identity
from tests.histories.commands import EPOCHS, FINGERPRINT, STEP, Sim, number_of, step
from tests.histories.mlflow_server import Server
from tests.histories.storage import Disk
from tests.histories.threads import Threading
from tests.histories.world import World


def train_counter(sim: Sim) -> Callable[..., Trained]:
    """Returns a stand-in for `mvae.training.loop.train`: a counter that resumes, saves and reports like the loop."""

    def train(
        trial: Any, data: Any, checkpoints: Any, *, provenance: Any, heard: Any, checkpoint_every: float, **_: Any
    ) -> Trained:
        world, key = sim.world, checkpoints.folder.name
        complete = sim.complete.get(key, 0)
        last = checkpoints.latest()
        digest, count, history = str(trial.seed), 0, list[Record]()
        for told in sim.trainings:
            told(key, last.epoch if last else 0, complete)
        if last is not None:
            history = list(last.history)
            weights = checkpoints.load(last, MODEL)
            digest, count = weights["digest"], weights["count"]
            if last.epoch < EPOCHS:
                count = checkpoints.load(last, "training.pt")["count"]
            heard(Progress(last.epoch, EPOCHS, list(history)))
        committed, saved_at, saving = len(history), world.now, Saving(checkpoints, background=False)
        for epoch in range(last.epoch if last else 0, EPOCHS):
            world.sleep(STEP)
            count += 1
            digest = step(digest, count)
            metrics = {"train/count": float(count), "train/digest": number_of(digest)}
            history.append(Record(epoch=epoch + 1, time=world.now, metrics=metrics))
            if world.now - saved_at >= checkpoint_every or epoch + 1 == EPOCHS:
                files = {MODEL: {"digest": digest, "count": count}, "training.pt": {"count": count}}
                saving.save(epoch + 1, files, history, provenance())
                saved_at = world.now
            fresh: list[Record] = []
            if (saved := saving.complete()) is not None:
                last, fresh, committed = saved, history[committed : saved.epoch], saved.epoch
            heard(Progress(epoch + 1, EPOCHS, fresh))
        assert last is not None
        model = nn.Module()
        model.counted = digest, count  # type: ignore[assignment]
        return Trained(model, history, last)

    return train


def measured(_measure: Any, model: Any, *_: Any) -> dict[str, float]:
    digest, count = model.counted
    return {"test/accuracy": number_of(digest), "test/count": float(count)}


class Data:
    """Stands in for a data set."""

    fingerprint, modalities = FINGERPRINT, ()

    def knowing(self, _: Any) -> Data:
        return self


class OneByOne:
    """Replaces the threads of `mvae.storage.place.each`."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> OneByOne:
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, function: Callable[[Any], Any], items: Any) -> Iterator[Any]:
        return map(function, items)


class PerProcess(dict[Any, Any]):
    """The memory of each simulated process."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __contains__(self, key: object) -> bool:
        return key in self._own

    def __getitem__(self, key: Any) -> Any:
        return self._own[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._own[key] = value

    @property
    def _own(self) -> dict[Any, Any]:
        memory: dict[Any, Any] = self._world.process.facts.setdefault("memory", {})
        return memory


@contextmanager
def simulated(kind: str, chance: int) -> Iterator[Sim]:
    """Replaces the services of the operating system that the product uses by a new world, until the block ends."""
    world = World(chance)
    disk = Disk(world, kind)
    sim = Sim(world, disk, Server(world))

    def identity() -> Identity:
        return Identity(world.process.host, "boot", world.process.pid, 1)

    def is_dead(self: Identity) -> bool:
        if self.host != world.process.host:
            return False
        return next(process.dead for process in world.processes if process.pid == self.pid)

    with pytest.MonkeyPatch.context() as patch:
        threading = Threading(world)
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=world.new_id() | (world.chance << 64)))
        patch.setattr(sweeps.store.lease, "threading", threading)
        patch.setattr(sweeps.tracking.tracker, "threading", threading)
        patch.setattr(sweeps.store.lease, "this_process", identity)
        patch.setattr(sweeps.store.processes.Process, "is_dead", is_dead)
        patch.setattr(sweeps.store.lease, "user", lambda: "ada")
        patch.setattr(sweeps.store.results, "_fetched", PerProcess(world))
        patch.setattr(mvae.storage.place, "ThreadPoolExecutor", OneByOne)
        patch.setattr(sweeps.driver, "remove_folders_of_the_dead", lambda: None)
        patch.setattr(sweeps.trials.run, "train", train_counter(sim))
        patch.setattr(sweeps.trials.run, "compute", measured)
        patch.setattr(sweeps.trials.run, "_data", lambda *_: Data())
        patch.setattr(sweeps.trials.run, "best_epoch", lambda _: {})
        patch.setattr(torch, "set_num_threads", lambda _: None)
        patch.setattr(mlflow, "MlflowClient", sim.server.client)
        patch.setattr(sweeps.tracking.reconciled, "reply", sim.server.reply)
        patch.setattr(sweeps.tracking.mirror.uploads.Uploads, "model", lambda *_: {})
        logging.disable(logging.CRITICAL)
        try:
            yield sim
        finally:
            world.close()
            logging.disable(logging.NOTSET)
