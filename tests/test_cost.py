"""The cost of a plan: which finished trials its estimate uses, machine-hours, and their price."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mvae.measure import ACCURACY
from mvae.trial import Trial
from pipelines import (
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
from sweeps.engine.machines import this_host
from sweeps.main import main
from sweeps.planning.demand import Capacity
from sweeps.planning.estimate import Estimate
from sweeps.planning.plan import Cell, plan
from sweeps.planning.price import Host, costs
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


def never(_: Trial) -> float:
    raise AssertionError("a probe was made where the time was known")


def test_the_estimate_prefers_trials_that_ran_on_this_kind_of_device(store: Store) -> None:
    ran(store, 7, 100.0, "Laptop")
    ran(store, 8, 1.0, "H100")
    estimate = plan([cell()], store, FINGERPRINT, never, "Laptop").estimate
    assert estimate.seconds == pytest.approx(100.0)
    assert estimate.bases == ("mvae mlp: 10 s per epoch, from 1 finished trial on Laptop",)


def test_a_device_without_finished_trials_is_probed(store: Store) -> None:
    ran(store, 8, 1.0, "H100")
    estimate = plan([cell()], store, FINGERPRINT, lambda _: 50.0, "Laptop").estimate
    assert estimate.seconds == pytest.approx(50.0)
    assert estimate.bases == ("mvae mlp: 5 s per epoch, measured by a probe on Laptop",)


def test_if_a_probe_is_impossible_the_estimate_names_the_other_device(store: Store) -> None:
    ran(store, 8, 1.0, "H100")
    estimate = plan([cell()], store, FINGERPRINT, lambda _: None, "Laptop").estimate
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


def test_machine_hours_and_prices_are_computed_from_the_plan() -> None:
    estimate = Estimate({(1, None): (3600.0,) * 16}, unknown=1, bases=())
    options = CommonOptions(plan=True, price_per_hour=0.25)
    assert costs(estimate, LAPTOP, options) == [
        "about 2 machine-hours (2 h 00 min on one machine like this: 8 CPUs, 8 trials at a time)",
        "about 0.50 at 0.25 per machine-hour, without 1 trial whose time is unknown",
    ]
    assert costs(Estimate({}, 3, ()), LAPTOP, options) == []


TWO_CORES = Host(Capacity(cpus=2, gpus=0), kind="cpu", device="Laptop")


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ((41.0,), "41 s on one machine like this: 2 CPUs"),
        ((30.0, 30.0, 30.0), "1 min 00 s on one machine like this: 2 CPUs, 2 trials at a time"),
        ((10.0, 10.0, 50.0), "1 min 00 s on one machine like this: 2 CPUs, 2 trials at a time"),
    ],
)
def test_the_time_of_one_trial_is_never_divided_by_the_slots_of_a_machine(trials: tuple[float, ...], said: str) -> None:
    estimate = Estimate({(1, None): trials}, 0, ())
    (line,) = costs(estimate, TWO_CORES, CommonOptions(plan=True))
    assert line.endswith(f"({said})"), line
    assert estimate.lasting(2) == {1: 41.0, 3: 60.0}[len(trials)]
    assert "at once" not in "".join(Estimate({(1, None): (41.0,)}, 0, ()).lines(at_once=2))


def test_a_plan_prints_times_and_hours_without_exponents(store: Store) -> None:
    estimate = plan([cell()], store, FINGERPRINT, lambda _: 1300.0, "Laptop").estimate
    assert estimate.bases == ("mvae mlp: 2 min 10 s per epoch, measured by a probe on Laptop",)
    for hours, said in ((99.7, "about 100 m"), (0.001, "under 0.01 m"), (12.3, "about 12 m"), (1.23, "about 1.2 m")):
        one = Estimate({(1, None): (hours * 3600,)}, 0, ())
        assert costs(one, TWO_CORES, CommonOptions(plan=True))[0].startswith(said)


def test_on_a_cluster_the_plan_says_that_it_counts_the_heads_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    (line,) = costs(Estimate({(1, None): (60.0,)}, 0, ()), this_host(0), CommonOptions(plan=True))
    assert line.endswith("; this assumes workers like the head: on other machines, times and prices differ")


@pytest.mark.parametrize(
    "pipeline",
    [k_sweep, likelihoods, missing_modalities, search, train, translation, vision, weak_supervision],
)
def test_every_pipeline_plan_shows_its_cost(
    pipeline: object,
    tiny_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sweeps.planning.probe.probed_seconds", lambda *_, **__: 3600.0)
    options = read(
        pipeline.Options,  # type: ignore[attr-defined]
        ["--plan", "--price-per-hour", "2", "--storage", str(tmp_path / "runs"), "--data-root", str(tiny_root)],
    )
    make: Callable[..., object] = pipeline.sweep  # type: ignore[attr-defined]
    assert main(lambda: make(options), options) == 0  # type: ignore[arg-type, return-value]
    said = capsys.readouterr().out
    assert "machine-hours (" in said
    assert "at 2 per machine-hour" in said
