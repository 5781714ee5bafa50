"""The cost of a plan: which finished trials its estimate uses, machine-hours, and their price."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mvae.measure import ACCURACY
from mvae.trial import Trial
from pipelines import (
    coherence,
    k_sweep,
    likelihoods,
    missing_modalities,
    search,
    train,
    translation,
    vision,
    weak_supervision,
)
from sweeps.cli.options import CommonOptions, read
from sweeps.cli.words import span
from sweeps.engine.machines import this_host
from sweeps.main import main
from sweeps.planning.demand import Capacity
from sweeps.planning.estimate import END, MEASURED, START, Estimate, TrialTime
from sweeps.planning.load import LESS, MORE, MOST, Load, Reading, changes, load_between
from sweeps.planning.plan import Cell, plan
from sweeps.planning.price import Host, costs
from sweeps.planning.times import Probed
from sweeps.store.results import Result
from sweeps.store.store import Store

FINGERPRINT = "0" * 64
LAPTOP = Host(Capacity(cpus=8, gpus=0), kind="cpu", device="Laptop")
GPUS = Host(Capacity(cpus=16, gpus=1), kind="cuda", device="H100")


def cell(seed: int = 0, **fields: object) -> Cell:
    trial = Trial.create(dataset="digits", model="mvae", seed=seed, **{"epochs": 10, **fields})
    return Cell("MVAE", 1.0, trial, ACCURACY, None, "mvae")


@pytest.fixture
def store(storage: Path) -> Store:
    return Store.open(storage, "main", create=True)


def ran(store: Store, seed: int, seconds: float, device: str) -> None:
    trial = cell(seed).trial
    about = {"seconds": seconds, "epochs": trial.epochs, "device_name": device}
    store.results.write(Result(trial.key(FINGERPRINT), "accuracy-v1", trial.model_dump(), {}, about, []))


def never(*_: object) -> Probed:
    raise AssertionError("a probe was made where the time was known")


def test_the_estimate_prefers_trials_that_ran_on_this_kind_of_device(store: Store) -> None:
    ran(store, 7, 100.0, "Laptop")
    ran(store, 8, 1.0, "H100")
    estimate = plan([cell()], store, FINGERPRINT, never, "Laptop").estimate
    assert estimate.seconds == pytest.approx(100.0)
    assert estimate.bases == ("mvae mlp: 10 s per epoch, from 1 finished trial on Laptop",)


def test_a_device_without_finished_trials_is_probed(store: Store) -> None:
    ran(store, 8, 1.0, "H100")
    estimate = plan([cell()], store, FINGERPRINT, lambda *_: Probed(50.0, {}), "Laptop").estimate
    assert estimate.seconds == pytest.approx(50.0)
    assert estimate.bases == ("mvae mlp: 5 s per epoch, measured by a probe on Laptop",)


def test_if_a_probe_is_impossible_the_estimate_names_the_other_device(store: Store) -> None:
    ran(store, 8, 1.0, "H100")
    estimate = plan([cell()], store, FINGERPRINT, lambda *_: None, "Laptop").estimate
    assert estimate.seconds == pytest.approx(1.0)
    assert estimate.bases == ("mvae mlp: 0.1 s per epoch, from 1 finished trial on H100",)


@pytest.mark.parametrize(
    ("machine", "shape", "wanted", "most", "share"),
    [
        (LAPTOP, (1, None), "auto", None, 1 / 8),
        (LAPTOP, (1, None), "auto", 2, 1 / 2),
        (LAPTOP, (4, None), "auto", None, 1 / 2),
        (LAPTOP, (4, 2), "auto", None, 1 / 4),
        (LAPTOP, (20, None), "auto", None, 3.0),
        (GPUS, (1, None), "auto", None, 1 / 4),
        (GPUS, (1, None), 1.0, None, 1.0),
        (GPUS, (4, None), "auto", None, 4.0),
    ],
)
def test_a_trial_takes_its_share_of_a_machine(
    machine: Host, shape: tuple[int, int | None], wanted: float, most: int | None, share: float
) -> None:
    assert machine.share(shape, wanted, most) == pytest.approx(share)


def estimated(*seconds: float, shape: tuple[int, int | None] = (1, None), unknown: int = 0) -> Estimate:
    return Estimate({shape: tuple(map(TrialTime, seconds))}, unknown, ())


def test_times_and_prices_are_computed_from_the_plan() -> None:
    options = CommonOptions(plan=True, price_per_hour=0.25)
    assert costs(estimated(*[3600.0] * 16, unknown=1), LAPTOP, options) == [
        "1.7 to 2.4 h for 16 trials on one machine like this (8 CPUs, 8 trials at a time), start-up included",
        "0.43 to 0.60 at 0.25 per machine-hour",
        "time unknown for 1 trial: no similar trial has finished here yet",
    ]
    assert costs(Estimate({}, 3, ()), LAPTOP, options) == [
        "time unknown for 3 trials: no similar trial has finished here yet"
    ]


def test_a_plan_says_how_to_prepare_data_that_are_not_converted() -> None:
    unknown = Estimate({}, 2, (), unconverted=("celeba",))
    (line,) = costs(unknown, LAPTOP, CommonOptions(plan=True))
    assert line.endswith(", and celeba is not converted; to prepare celeba: mvae prepare celeba")
    (line,) = costs(unknown, LAPTOP, CommonOptions(plan=True, cache=Path("/my data")))
    assert line.endswith("to prepare celeba: mvae prepare celeba --cache '/my data'")


TWO_CORES = Host(Capacity(cpus=2, gpus=0), kind="cpu", device="Laptop")
SHAPE: tuple[int, int | None] = (1, None)


@pytest.mark.parametrize(
    ("trials", "longest"),
    [((4100.0,), 4100.0), ((3000.0, 3000.0, 3000.0), 6000.0), ((1000.0, 1000.0, 5000.0), 6000.0)],
)
def test_the_time_of_one_trial_is_never_divided_by_the_slots_of_a_machine(
    trials: tuple[float, ...], longest: float
) -> None:
    estimate = estimated(*trials)
    low, high = estimate.ends({SHAPE: 2}, Load(0.0, 2))
    for end, factor, command in ((low, MEASURED[0], START[0] + END[0]), (high, MEASURED[1], START[1] + END[1])):
        assert end == pytest.approx(factor * longest + command, abs=2.0)
    assert estimate.lasting(2) == longest
    (line,) = costs(estimate, TWO_CORES, CommonOptions(plan=True))
    assert ("trials at a time" in line) == (len(trials) > 1)


def test_the_start_counts_once_per_command_and_each_trial_has_the_engines_own_work() -> None:
    nothing = estimated(0.0)
    ends = nothing.ends({SHAPE: 2}, Load(0.0, 2))
    assert ends == pytest.approx((START[0] + END[0] + 0.3, START[1] + END[1] + 0.3))
    many = estimated(*[0.0] * 100).ends({SHAPE: 2}, Load(0.0, 2))
    assert many[0] - ends[0] == pytest.approx(49 * 0.3)


def test_other_programs_lengthen_processor_time_but_not_time_that_was_measured_as_it_passed() -> None:
    busy = Load(others=2.0, processors=2)
    alone, beside = (estimated(1000.0).ends({SHAPE: 2}, load) for load in (Load(0.0, 2), busy))
    assert beside[0] == pytest.approx(1.2 * alone[0], rel=0.05)
    assert beside[1] == pytest.approx(1.9 * alone[1], rel=0.05)
    on_a_gpu = Estimate({SHAPE: (TrialTime(1000.0, of_processor=False),)}, 0, ())
    assert on_a_gpu.ends({SHAPE: 1}, busy)[1] < 1.1 * on_a_gpu.ends({SHAPE: 1}, Load(0.0, 2))[1]
    host = Host(TWO_CORES.capacity, "cpu", "Laptop", load=lambda: busy)
    said = costs(estimated(1000.0, 1000.0), host, CommonOptions(plan=True))
    assert said[-1].startswith(
        "other programs use this machine now, and the time assumes that they continue; without them"
    )


@pytest.mark.parametrize(
    ("waited", "busy", "others"),
    [
        (0.0, 1.0, 0.0),  # only this process was busy
        (0.0, 2.0, 1.0),  # another process used the other processor
        (2.0, 8.0, 5.0),  # three times as long as alone: one of six processes on two processors
    ],
)
def test_the_load_follows_from_how_long_a_busy_process_waits(waited: float, busy: float, others: float) -> None:
    elapsed = 1.0 + waited
    first, last = Reading(10.0, 0.0, 0.0, 50.0), Reading(10.0 + elapsed, 1.0, waited, 50.0 + busy)
    load = load_between(first, last, allowed=2, processors=2)
    assert load.others == pytest.approx(others)
    assert load.slowdown(1) == pytest.approx(1 + waited)


def test_a_load_that_has_changed_much_lately_widens_the_range() -> None:
    assert changes((4.0, 4.2, 3.9)) == (LESS, MORE)
    assert changes((10.0, 20.0, 8.0)) == (LESS, 2.0)
    assert changes((10.0, 4.0, 5.0)) == (0.4, MORE)
    assert changes((1.0, 10.0, 10.0))[1] == MOST


def test_a_plan_prints_ranges_with_two_digits_and_without_exponents(store: Store) -> None:
    estimate = plan([cell()], store, FINGERPRINT, lambda *_: Probed(1300.0, {}), "Laptop").estimate
    assert estimate.bases == ("mvae mlp: 2 min 10 s per epoch, measured by a probe on Laptop",)
    for low, high, said in (
        (30.2, 41.0, "30 to 41 s"),
        (83.0, 130.0, "1.4 to 2.2 min"),
        (5400.0, 7200.0, "1.5 to 2 h"),
        (7200.0, 7201.0, "2 h"),
        (2e5, 1.3e7, "2.3 to 150 d"),
    ):
        assert span(low, high) == said


def test_on_a_cluster_the_plan_says_that_it_counts_the_heads_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    (line,) = costs(estimated(60.0), this_host(0), CommonOptions(plan=True))
    assert line.endswith(
        "; this assumes that the workers are like the head: on other machines, times and prices differ"
    )


@pytest.mark.parametrize(
    "pipeline",
    [coherence, k_sweep, likelihoods, missing_modalities, search, train, translation, vision, weak_supervision],
)
def test_every_pipeline_plan_shows_its_cost(
    pipeline: object,
    tiny_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sweeps.planning.probe.probed", lambda *_, **__: Probed(3600.0, {}))
    folders = ("--storage", str(tmp_path / "runs"), "--data-root", str(tiny_root), "--cache", str(tmp_path / "cache"))
    options = read(pipeline.Options, ["--plan", "--price-per-hour", "2", *folders])  # type: ignore[attr-defined]
    make: Callable[..., object] = pipeline.sweep  # type: ignore[attr-defined]
    assert main(lambda: make(options), options) == 0  # type: ignore[arg-type, return-value]
    said = capsys.readouterr().out
    assert ", start-up included" in said
    assert "at 2 per machine-hour" in said
