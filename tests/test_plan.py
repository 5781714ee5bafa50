"""The plan: it reads a storage folder and shows the remaining work."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mvae.measure import ACCURACY, Measure
from mvae.storage.objects import place
from mvae.trial import Trial
from sweeps.cli.options import CommonOptions
from sweeps.planning.demand import Capacity
from sweeps.planning.plan import Cell, Plan, plan
from sweeps.planning.price import Host, costs
from sweeps.planning.state import TrialState
from sweeps.planning.times import Probed
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.table.terminal import show_plan
from tests.crashes import on_disk

FINGERPRINT = "f" * 64
OTHER = Measure("likelihood", 1, "test/log_joint")


def cell(arm: str = "nn", fraction: float = 0.1, seed: int = 0, epochs: int = 10, measure: Measure = ACCURACY) -> Cell:
    trial = Trial.create(dataset="digits", model=arm, paired_fraction=fraction, seed=seed, epochs=epochs)
    return Cell(row=arm, column=fraction, trial=trial, measure=measure, published=None, arm=arm)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path, "main", create=True)


@pytest.fixture
def finish(store: Store) -> Callable[..., str]:
    def write(done: Cell, seconds: float = 20.0, token: str | None = None) -> str:
        key = done.trial.key(FINGERPRINT)
        provenance = {"seconds": seconds, "epochs": done.trial.epochs}
        metrics = {done.measure.metric: 0.5}
        store.results.write(
            Result(key, token or done.measure.token, done.trial.model_dump(), metrics, provenance, history=[])
        )
        return key

    return write


def checkpoint(store: Store, half_done: Cell, epoch: int) -> None:
    key = half_done.trial.key(FINGERPRINT)
    store.checkpoints(key, attempt="a").save(epoch, {"model.pt": {}, "training.pt": {}}, [], {})


def shown(planned: Plan) -> str:
    file = io.StringIO()
    machine = Host(Capacity(2, 0), "cpu", "Laptop")
    show_plan(planned, Console(file=file, width=160), costs(planned.estimate, machine, CommonOptions(plan=True)))
    return file.getvalue()


def test_without_storage_every_cell_is_missing(tmp_path: Path) -> None:
    planned = plan([cell(seed=seed) for seed in range(3)], Store(place(tmp_path), "not there"), FINGERPRINT)
    assert [planned.state(index) for index in range(3)] == [TrialState.PENDING] * 3
    assert len(planned.todo) == 3


def test_a_plan_distinguishes_done_partial_and_missing(store: Store, finish: Callable[..., str]) -> None:
    cells = [cell(seed=seed) for seed in range(3)]
    finish(cells[0])
    checkpoint(store, cells[1], epoch=4)
    planned = plan(cells, store, FINGERPRINT)
    assert [planned.state(index) for index in range(3)] == [TrialState.DONE, TrialState.INTERRUPTED, TrialState.PENDING]
    assert [planned.trials[key].epoch for key in planned.keys] == [10, 4, 0]
    assert [one.trial.seed for one in planned.todo] == [1, 2]


def test_planning_writes_nothing(store: Store, finish: Callable[..., str]) -> None:
    finish(cell())
    before = sorted(on_disk(store.root).rglob("*"))
    plan([cell(), cell(seed=1)], store, FINGERPRINT)
    assert sorted(on_disk(store.root).rglob("*")) == before


def test_cells_that_need_the_same_model_share_one_trial(store: Store) -> None:
    one = cell("logreg", epochs=10)
    two = Cell("logreg again", 0.1, cell("logreg", epochs=20).trial, ACCURACY, None, "logreg")
    planned = plan([one, two], store, FINGERPRINT)
    assert len(planned.trials) == 1
    assert len(planned.todo) == 1


def test_a_new_measure_of_a_finished_trial_needs_no_training(store: Store, finish: Callable[..., str]) -> None:
    key = finish(cell())
    checkpoint(store, cell(), epoch=10)
    planned = plan([cell(), cell(measure=OTHER)], store, FINGERPRINT)
    assert [(one.key, one.missing) for one in planned.todo] == [(key, (OTHER,))]
    assert [planned.state(index) for index in range(2)] == [TrialState.DONE, TrialState.INTERRUPTED]
    assert planned.estimate.seconds == 0


def test_results_of_another_version_are_listed_but_not_used(store: Store, finish: Callable[..., str]) -> None:
    key = finish(cell(), token="accuracy-v0")
    planned = plan([cell()], store, FINGERPRINT)
    assert planned.state(0) is TrialState.PENDING
    assert planned.superseded == (f"{key}.accuracy-v0.json",)
    assert f"superseded and not read: {key}.accuracy-v0.json" in shown(planned)


def test_results_under_keys_of_an_earlier_release_are_listed_but_not_used(
    store: Store, finish: Callable[..., str]
) -> None:
    key = finish(cell())
    now = "e" * 64
    planned = plan([cell(), cell(seed=1)], store, now, former={"digits": FINGERPRINT})
    assert [planned.state(index) for index in range(2)] == [TrialState.PENDING] * 2
    assert planned.former == (f"{key}.accuracy-v1.json",)
    assert (
        "1 result of an earlier release, superseded and not read, because that release did not check the contents of"
        " the data set's files" in shown(planned)
    )
    assert plan([cell(seed=1)], store, now, former={"digits": FINGERPRINT}).former == ()
    assert plan([cell()], store, now, former={"mnist": FINGERPRINT}).former == ()


def test_the_estimate_scales_finished_trials_of_the_same_kind_by_epochs(
    store: Store, finish: Callable[..., str]
) -> None:
    finish(cell(seed=7, epochs=10), seconds=20.0)
    checkpoint(store, cell(seed=1, epochs=30), epoch=20)
    estimate = plan([cell(seed=seed, epochs=30) for seed in (0, 1)], store, FINGERPRINT).estimate
    assert estimate.seconds == pytest.approx(2.0 * 30 + 2.0 * 10)
    assert estimate.unknown == 0


def test_the_cost_of_an_arm_without_epochs_does_not_depend_on_the_epochs_option(
    store: Store, finish: Callable[..., str]
) -> None:
    finish(cell("logreg", seed=7, epochs=10), seconds=3.0)
    estimate = plan([cell("logreg", seed=1, epochs=500)], store, FINGERPRINT).estimate
    assert estimate.seconds == pytest.approx(3.0)


def test_a_kind_of_trial_that_never_finished_is_probed_once(store: Store) -> None:
    asked: list[Trial] = []

    def probe(trial: Trial, _: object) -> Probed:
        asked.append(trial)
        return Probed(60.0, {})

    estimate = plan([cell(epochs=10), cell(seed=1, epochs=20)], store, FINGERPRINT, probe).estimate
    assert len(asked) == 1
    assert estimate.seconds == pytest.approx(60.0 + 120.0)


def test_a_time_that_cannot_be_estimated_is_shown_as_unknown(store: Store, finish: Callable[..., str]) -> None:
    finish(cell("nn", seed=7))
    planned = plan([cell("nn"), cell("mvae")], store, FINGERPRINT)
    assert (planned.estimate.known, planned.estimate.unknown) == (1, 1)
    assert "time unknown for 1 trial" in shown(planned)


def test_the_printed_plan_shows_every_seed_and_the_hours(store: Store, finish: Callable[..., str]) -> None:
    cells = [cell(fraction=fraction, seed=seed) for fraction in (0.1, 1.0) for seed in range(3)]
    finish(cells[0], seconds=36_000.0)
    checkpoint(store, cells[1], epoch=5)
    text = shown(plan(cells, store, FINGERPRINT))
    assert "2 cells, 3 seeds, 6 trials: 1 done, 1 partial, 4 missing" in text
    assert "●◐○" in text and "● done   ◐ partial   ○ missing" in text
    assert "○○○" in text
    assert "partial: nn 10% seed 1: epoch 5 of 10" in text
    # 5 h and four times 10 h, two at a time: 25 h. The load of the finished trial is not known: 0.7 to 1.5 times that.
    assert "18 to 38 h for 5 trials on one machine like this (2 CPUs, 2 trials at a time), start-up included" in text


def test_cells_of_two_data_sets_are_planned_by_their_own_fingerprints(store: Store) -> None:
    cells = [
        Cell("NN", 1.0, Trial.create(dataset=name, model="nn"), ACCURACY, None, "nn") for name in ("digits", "mnist")
    ]
    marks = {"digits": "d" * 64, "mnist": "m" * 64}
    assert plan(cells, store, marks).keys == tuple(one.trial.key(marks[one.trial.dataset]) for one in cells)


def test_a_second_table_of_the_same_trials_shares_their_keys_and_states(
    store: Store, finish: Callable[..., str]
) -> None:
    cells = [cell(seed=seed) for seed in range(2)]
    done = finish(cells[0])
    planned = plan(cells, store, FINGERPRINT)
    other = planned.over([replace(one, row="another", quantity="test/other") for one in reversed(cells)])
    assert other.keys == (planned.keys[1], done)
    assert [other.state(index) for index in range(2)] == [TrialState.PENDING, TrialState.DONE]


def test_trials_with_larger_epochs_are_estimated_separately(store: Store, finish: Callable[..., str]) -> None:
    def many(k: int, seed: int = 0, **fields: object) -> Cell:
        trial = Trial.create(dataset="mnist19", model="mvae", k=k, epochs=10, seed=seed, **fields)
        return Cell("MVAE19", f"k={k}", trial, ACCURACY, None, "mvae")

    finish(many(0, seed=7), seconds=10.0)
    finish(many(50, seed=7), seconds=90.0)
    finish(many(50, seed=7, train_examples=500), seconds=3.0)
    for asked, seconds in ((many(0), 10.0), (many(50), 90.0), (many(50, train_examples=500), 3.0)):
        assert plan([asked], store, FINGERPRINT).estimate.seconds == pytest.approx(seconds)
    assert plan([many(8)], store, FINGERPRINT).estimate.unknown == 1
