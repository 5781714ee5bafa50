"""The times behind a plan: of finished and half-done trials, and of trials that were measured on a GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.estimates import told
from mvae.measure import ACCURACY, likelihood
from mvae.trial import Trial
from pipelines.weak_supervision import Options, sweep
from sweeps.cli.options import CommonOptions, read
from sweeps.planning.demand import Capacity
from sweeps.planning.estimate import ELSEWHERE, MEASURED, PROBED, Estimate, TrialTime
from sweeps.planning.gpu import RESULTS, gpu_hours, of_steps, seconds_per_epoch, shared_seconds
from sweeps.planning.plan import Cell, Plan, plan
from sweeps.planning.price import Host, costs
from sweeps.planning.times import Probed
from sweeps.store.provenance import Attempts
from sweeps.store.results import Result
from sweeps.store.store import Store

FINGERPRINT = "0" * 64
HERE = Host(Capacity(2, 0), "cpu", "Laptop")


def cell(seed: int = 0, epochs: int = 10) -> Cell:
    trial = Trial.create(dataset="digits", model="mvae", seed=seed, epochs=epochs)
    return Cell("MVAE", 1.0, trial, ACCURACY, None, "mvae")


@pytest.fixture
def store(storage: Path) -> Store:
    return Store.open(storage, "main", create=True)


def attempt(seconds: float, cpu_seconds: float | None, **about: Any) -> dict[str, Any]:
    used = {} if cpu_seconds is None else {"cpu_seconds": cpu_seconds}
    return {"device": "cpu", "device_name": "Laptop", "workers": 1, "seconds": seconds, **used, **about}


def ran(store: Store, seed: int, *attempts: dict[str, Any], measured: float = 0.0) -> None:
    trial = cell(seed).trial
    about = {
        "seconds": sum(one["seconds"] for one in attempts),
        "epochs": trial.epochs,
        "device_name": "Laptop",
        "measured_in_seconds": measured,
        "attempts": list(attempts),
    }
    store.results.write(Result(trial.key(FINGERPRINT), "accuracy-v1", trial.model_dump(), {}, about, []))


def time_of(store: Store, *cells: Cell, probe: Callable[..., Probed] | None = None) -> TrialTime:
    """Time of the last cell's trial."""
    return plan(cells, store, FINGERPRINT, probe, "Laptop").estimate.shapes[1, None][-1]


def never(*_: object) -> Probed:
    raise AssertionError("a probe was made where the time was known")


def test_processor_time_of_finished_trials_counts_and_not_the_load_of_their_day(store: Store) -> None:
    ran(store, 7, attempt(60.0, 15.0), attempt(30.0, 5.0), measured=9.0)
    assert time_of(store, cell(), probe=never) == TrialTime(pytest.approx(20.0 + 9.0 * 20 / 90), MEASURED)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "attempts",
    [
        (attempt(60.0, None),),
        (attempt(30.0, 5.0), attempt(30.0, None)),
        (attempt(60.0, 50.0, workers=2),),
        (attempt(60.0, 50.0, device="cuda"),),
    ],
    ids=["not recorded", "partly recorded", "two processes", "GPU"],
)
def test_without_processor_time_the_time_that_passed_counts(store: Store, attempts: tuple[dict[str, Any], ...]) -> None:
    ran(store, 7, *attempts)
    assert time_of(store, cell(), probe=never) == TrialTime(60.0, ELSEWHERE, of_processor=False)


def half_done(store: Store, seed: int, epoch: int, seconds: float) -> Cell:
    begun = cell(seed)
    checkpoints = store.checkpoints(begun.trial.key(FINGERPRINT), attempt="a")
    about = {"attempts": [attempt(3 * seconds, seconds)]}
    checkpoints.save(epoch, {"model.pt": {}, "training.pt": {}}, [], about)
    return begun


def test_a_half_done_trial_is_timed_by_its_own_epochs_and_finished_trials_come_first(store: Store) -> None:
    begun = half_done(store, 1, epoch=4, seconds=8.0)
    assert time_of(store, begun, probe=never).seconds == pytest.approx(2.0 * 6)
    (basis,) = plan([begun], store, FINGERPRINT, never, "Laptop").estimate.bases
    assert basis == "mvae mlp: 2 s per epoch, from 1 half-done trial on Laptop"
    ran(store, 7, attempt(10.0, 10.0))
    assert time_of(store, begun, probe=never).seconds == pytest.approx(1.0 * 6)


def test_a_probed_measure_is_added_per_sample(store: Store) -> None:
    trial = cell().trial
    asked = Cell("MVAE", 1.0, trial, likelihood(500), None, "mvae")
    found = time_of(store, asked, probe=lambda *_: Probed(20.0, {"likelihood": 0.1}))
    assert found == TrialTime(pytest.approx(70.0), PROBED)  # type: ignore[arg-type]


def test_an_attempt_records_the_processor_time_of_its_process() -> None:
    attempts = Attempts("a", "cpu", None, started=0.0)
    sum(range(2_000_000))
    (recorded,) = attempts.for_checkpoint()["attempts"]
    assert 0 < recorded["cpu_seconds"] < 60


def test_seconds_on_a_shared_gpu_are_divided_among_the_trials_that_shared_it() -> None:
    spans = [(0.0, 10.0), (0.0, 20.0), (5.0, 10.0)]
    shares = [shared_seconds(*one, spans) for one in spans]
    assert shares == pytest.approx([5 / 2 + 5 / 3, 5 / 2 + 5 / 3 + 10, 5 / 3])
    assert sum(shares) == pytest.approx(20.0)


def paper_plan(*more: str) -> Plan:
    options = read(Options, ["--dataset", "fashion_mnist", "--preset", "paper", *more])
    store = Store.open(Path("/nowhere"), "main", create=False)
    return plan(sweep(options).cells, store, FINGERPRINT)


@pytest.fixture
def without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers questions about raw files that this machine may not have."""
    monkeypatch.setattr("sweeps.cli.shared.training_examples", lambda *_: 50_000)


@pytest.mark.usefixtures("without_files")
def test_the_papers_table_has_gpu_hours_for_the_arms_and_networks_that_were_measured() -> None:
    each = seconds_per_epoch(json.loads(RESULTS.read_text(encoding="utf-8"))["cells"])
    assert set(each) == {("fashion_mnist", "nn", "dcgan"), ("fashion_mnist", "mvae", "dcgan")}
    (line,) = gpu_hours(paper_plan("--arms", "nn,logreg", "--seeds", "0"), HERE)
    low, high = (9 * 100 * seconds / 3600 for seconds in each["fashion_mnist", "nn", "dcgan"])
    assert line.startswith(
        f"on an NVIDIA H200: {low:.2g} to {high:.2g} GPU hours for 9 trials of 18 (measured there: nn"
    )
    (by_step,) = gpu_hours(paper_plan("--arms", "nn", "--image-network", "mlp"), HERE)
    assert "for 27 trials (measured there: nn mlp 0.2 to 0.46 s per epoch)" in by_step
    assert gpu_hours(paper_plan("--arms", "rbm,logreg"), HERE) == []
    assert gpu_hours(paper_plan("--arms", "nn"), Host(Capacity(8, 1), "cuda", "H100")) == []


def test_steps_give_the_hours_of_kinds_without_a_measured_trial_and_mnist_counts_as_fashion_mnist() -> None:
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))
    steps, trials = of_steps(measured["throughput"]), seconds_per_epoch(measured["cells"])
    for kind, (low, high) in trials.items():
        assert steps[kind][0] <= low <= high <= 1.01 * steps[kind][1], "the factor covers the trials that ran"
    assert steps["fashion_mnist", "nn", "mlp"][0] == pytest.approx(50_000 / 249_830)
    kinds = [("mnist", "mvae", "mlp"), ("fashion_mnist", "mvae", "mlp"), ("binary_mnist", "mvae", "mlp")]
    cells = [cell_of(*kind) for kind in kinds]
    store = Store.open(Path("/nowhere"), "main", create=False)
    (line,) = gpu_hours(plan(cells, store, FINGERPRINT), HERE)
    assert "GPU hours for 3 trials (measured there: mvae mlp 0.4" in line


def cell_of(dataset: str, model: str, network: str) -> Cell:
    trial = Trial.create(dataset=dataset, model=model, image_network=network, epochs=100)
    return Cell(model, 1.0, trial, ACCURACY, None, model)


@pytest.mark.parametrize(("seconds", "units"), [(20.0, "s"), (200.0, "min"), (20_000.0, "h"), (2_000_000.0, "d")])
def test_the_benchmark_of_plans_reads_the_range_that_a_plan_prints(seconds: float, units: str) -> None:
    estimate = Estimate({(1, None): (TrialTime(seconds),)}, 0, ())
    (line,) = costs(estimate, HERE, CommonOptions(plan=True))
    assert f" {units} for 1 trial" in line
    assert told(f"1 cell\n{line}\n") == pytest.approx(estimate.ends({(1, None): 1}, HERE.load()), rel=0.05)
    with pytest.raises(RuntimeError, match="--plan printed no time"):
        told("time unknown for 1 trial")
