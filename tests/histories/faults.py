"""Planted faults: each breaks one piece of the product's code, and the schedules must find it.

A fault is a function that patches the product, with the invariants that it may break.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest

import mvae.training.checkpoint as checkpoint
import sweeps.driver as driver
import sweeps.store.lease as lease
import sweeps.tracking.mirror.mirror as mirror
import sweeps.tracking.reconciled as reconciled
import tests.histories.commands as commands
from mvae.storage.place import Place
from mvae.training.checkpoint import Checkpoints
from mvae.training.records import MANIFEST, MODEL
from sweeps.planning.state import TrialState
from sweeps.store.results import Result, Results
from sweeps.store.store import Store
from tests.histories.invariants import (
    BOUNDED_LOSS,
    FINISHED,
    NO_STEP_TWICE,
    NOT_AGAIN,
    ONE_HOLDER,
    ONE_RUN,
    SHOWN,
    SOUND,
    STOPS,
    WEIGHTS,
    WRITTEN_ONCE,
)

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Fault:
    """One planted fault."""

    plant: Callable[[Patch], None]
    breaks: frozenset[str]


FAULTS: dict[str, Fault] = {}


def breaks(*invariants: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def planted(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        FAULTS[plant.__name__] = Fault(plant, frozenset(invariants))
        return plant

    return planted


@breaks(ONE_HOLDER)
def a_lease_is_renewed_without_looking_who_holds_it(patch: Patch) -> None:
    def renew(self: lease.Lease) -> bool:
        assert self._mine is not None
        with self.path.lock():
            self._mine = replace(self._mine, counter=self._mine.counter + 1)
            self._write(self._mine)
        return True

    patch.setattr(lease.Lease, "renew", renew)


@breaks(ONE_HOLDER)
def a_lease_is_released_without_looking_who_holds_it(patch: Patch) -> None:
    def release(self: lease.Lease) -> None:
        if self._mine is not None:
            self._stop.set()
            self.path.unlink(missing_ok=True)

    patch.setattr(lease.Lease, "release", release)


@breaks(ONE_HOLDER)
def a_lease_counts_as_dead_after_one_renewal(patch: Patch) -> None:
    acquire = lease.Lease.acquire

    def impatient(self: lease.Lease) -> None:
        self._dead_after = 2.0
        acquire(self)

    patch.setattr(lease.Lease, "acquire", impatient)


@breaks(ONE_HOLDER)
def a_lease_is_taken_without_a_lock_or_a_second_look(patch: Patch) -> None:
    def take(self: lease.Lease, watched: bytes | None = None, stood_still: bool = False) -> bytes | None:
        content = lease._read(self.path)
        if content is not None and not stood_still and not lease._is_dead(content):
            return content
        owner = str(uuid.uuid4())
        self._mine = lease.Holder(
            **asdict(vars(lease)["this_process"]()), owner=owner, counter=0, user="ada", since=self._clock.time()
        )
        self._write(self._mine)
        return None

    patch.setattr(lease.Lease, "_take_unless_held", take)


@breaks(WRITTEN_ONCE)
def a_result_is_overwritten(patch: Patch) -> None:
    def write(self: Results, result: Result) -> Result:
        self.path(result.key, result.measure).write_bytes(json.dumps(asdict(result)).encode())
        return result

    patch.setattr(Results, "write", write)


@breaks(BOUNDED_LOSS, WEIGHTS, SOUND)
def a_manifest_is_written_first(patch: Patch) -> None:
    write, write_manifest = checkpoint._write, checkpoint._write_manifest

    def early(path: Place, content: Any) -> Any:
        if path.name == MODEL and not (path.parent / MANIFEST).exists():
            epoch, _, attempt = path.parent.name.partition("-")
            about = {"format": 1, "epoch": int(epoch), "attempt": attempt, "final": False}
            content_of = {**about, "files": {}, "provenance": {}, "history": []}
            (path.parent / MANIFEST).write_bytes(json.dumps(content_of).encode())
        return write(path, content)

    patch.setattr(checkpoint, "_write", early)
    patch.setattr(checkpoint, "_write_manifest", write_manifest)


@breaks(NO_STEP_TWICE)
def a_checkpoint_is_not_checked_again(patch: Patch) -> None:
    verified = checkpoint._verified

    def load(self: Checkpoints, found: Any, name: str, map_location: str = "cpu") -> Any:
        import io

        import torch

        return torch.load(io.BytesIO((found.path / name).read_bytes()), weights_only=True)

    patch.setattr(checkpoint, "_verified", lambda folder, digests=True: verified(folder, digests=False))
    patch.setattr(Checkpoints, "load", load)


@breaks(BOUNDED_LOSS, WEIGHTS)
def the_oldest_checkpoint_is_resumed(patch: Patch) -> None:
    newest_first = Checkpoints._newest_first
    patch.setattr(Checkpoints, "_newest_first", lambda self, found: newest_first(self, found)[::-1])


@breaks(BOUNDED_LOSS)
def an_older_checkpoint_is_deleted_before_the_new_one_is_complete(patch: Patch) -> None:
    save = Checkpoints.save

    def hasty(self: Checkpoints, epoch: int, files: Mapping[str, Any], *rest: Any) -> Any:
        for older in self._newest_first(self.folder.listing()):
            if int(older.name.partition("-")[0]) < epoch:
                checkpoint._remove(older)
        return save(self, epoch, files, *rest)

    patch.setattr(Checkpoints, "save", hasty)


@breaks(WEIGHTS, SOUND)
def a_late_writer_deletes_the_weights_that_another_attempt_has_kept(patch: Patch) -> None:
    patch.setattr(checkpoint, "_is_final", lambda _: False)


@breaks(SOUND, WEIGHTS, BOUNDED_LOSS)
def the_final_files_are_deleted_before_the_manifest_says_so(patch: Patch) -> None:
    def keep(self: Checkpoints) -> Any:
        newest = self.latest()
        if newest is None or newest.final:
            return newest
        for file in newest.path.iterdir():
            if file.name not in (MODEL, MANIFEST):
                file.unlink(missing_ok=True)
        final = replace(newest, files={MODEL: newest.files[MODEL]}, final=True)
        checkpoint._write_manifest(final)
        return final

    patch.setattr(Checkpoints, "keep_final_weights", keep)


@breaks(NOT_AGAIN)
def a_plan_that_ignores_results(patch: Patch) -> None:
    def planned(cells: Any, store: Store, *rest: Any) -> Any:
        found = driver_plan(cells, store, *rest)
        trials = {key: replace(one, missing=one.measures) for key, one in found.trials.items()}
        return replace(found, trials=trials)

    driver_plan = vars(commands)["plan"]
    patch.setattr(commands, "plan", planned)


@breaks(STOPS)
def a_driver_goes_on_without_its_lease(patch: Patch) -> None:
    patch.setattr(driver.Driver, "_stop_if_told", lambda self: self.interruption.check())


@breaks(ONE_RUN)
def a_mirror_that_does_not_look_for_existing_runs(patch: Patch) -> None:
    patch.setattr(mirror.Mirror, "_index", lambda self, held: None)


@breaks(ONE_RUN, SHOWN)
def a_mirror_that_trusts_its_record(patch: Patch) -> None:
    def read(self: reconciled.Reconciled, sweep: Any, views: Any) -> tuple[dict[str, str], str] | None:
        try:
            record = json.loads(self.path.read_bytes())
            return dict(record["links"]), str(record["experiment"])
        except (OSError, ValueError, KeyError):
            return None

    patch.setattr(reconciled.Reconciled, "read", read)


@breaks(SHOWN, FINISHED)
def a_mirror_that_trusts_tags(patch: Patch) -> None:
    write = mirror.Mirror._write_numbers

    def trusting(self: mirror.Mirror, held: Any, view: Any, sweep: str, uploaded: dict[str, str]) -> None:
        if held.tags.get("mvae.measures") is None:
            write(self, held, view, sweep, uploaded)

    patch.setattr(mirror.Mirror, "_write_numbers", trusting)


@breaks(FINISHED)
def a_status_is_written_before_the_numbers(patch: Patch) -> None:
    sync = mirror.Mirror.sync

    def hasty(self: mirror.Mirror, view: Any, sweep: str) -> None:
        held = self._runs.get(view.key)
        if held is not None and view.state is TrialState.DONE:
            self._write_status(held, view.state, None)
        sync(self, view, sweep)

    patch.setattr(mirror.Mirror, "sync", hasty)


@breaks(ONE_RUN)
def a_second_command_makes_a_new_namespace(patch: Patch) -> None:
    def create(self: Place, data: bytes) -> bool:
        self.write_bytes(data)
        return True

    patch.setattr(Place, "create", create)
