"""Plain tests of faults that the schedules have found in the product. See also tests/test_checkpoint_memory.py."""

from __future__ import annotations

from pathlib import Path

from mvae.measure import ACCURACY
from mvae.training.records import Record
from sweeps.planning.plan import plan
from sweeps.planning.state import TrialState
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.tracking.views import Catalogue
from tests.histories.commands import CELLS, FINGERPRINT, KEYS
from tests.histories.simulation import simulated


def test_a_result_that_is_damaged_after_planning_is_not_shown_as_finished(storage: Path) -> None:
    store = Store.open(storage, "main", create=True)
    history = [Record(epoch=1, time=1.7e9, metrics={})]
    for key in KEYS:
        store.results.write(Result(key, ACCURACY.token, {}, {"test/accuracy": 0.5}, {}, history))
    planned = plan(CELLS, store, FINGERPRINT)
    store.results.path(KEYS[0], ACCURACY.token).write_bytes(b"{")
    shown = Catalogue(planned, store, FINGERPRINT)
    assert shown.view(KEYS[0]).state is TrialState.INTERRUPTED
    assert shown.view(KEYS[1]).state is TrialState.DONE


def test_a_stopped_process_keeps_its_lock_until_it_ends() -> None:
    with simulated("folder", 1) as sim:
        place, order = sim.root / "file", list[str]()

        def hold(name: str) -> None:
            with place.lock():
                order.append(name)
                sim.world.sleep(1.0)

        first = sim.world.start("first", "one", lambda: hold("first"))
        sim.world.run(0.5)
        sim.world.stop(first)
        sim.world.start("second", "two", lambda: hold("second"))
        sim.world.run(1000.0)
        assert order == ["first"]
        sim.world.kill(first)
        sim.world.run(1.0)
        assert order == ["first", "second"]
