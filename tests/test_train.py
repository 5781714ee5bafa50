"""pipelines/train.py: one model, its workers, and its reported speed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mvae.refusal import Refusal
from mvae.training.records import Record
from pipelines.train import Options, cells, measure_of, statements
from sweeps.cli.options import read
from sweeps.planning.plan import plan
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.table.files import tabulate
from sweeps.trials.speed import speed_of_one, speeds
from tests.sweeping import digits_job


@pytest.mark.parametrize(
    ("asked", "workers", "fewest", "column"),
    [
        ((), 1, None, "1 worker"),
        (("--workers", "4"), 4, None, "4 workers"),
        (("--workers", "2-4"), 4, 2, "2 to 4 workers"),
        (("--workers", "2-2"), 2, None, "2 workers"),
    ],
)
def test_a_range_of_workers_is_elastic_and_has_its_own_column(
    asked: tuple[str, ...], workers: int, fewest: int | None, column: str
) -> None:
    (cell,) = cells(read(Options, (*asked, "--batch-size", "16")))
    assert (cell.trial.workers, cell.trial.fewest_workers, cell.column) == (workers, fewest, column)


def test_a_run_of_exactly_one_worker_shares_its_trial_with_the_tables_but_an_elastic_run_does_not() -> None:
    keys = {
        asked: next(cells(read(Options, ("--epochs", "20", *asked.split())))).trial.key("data")
        for asked in ("", "--workers 2", "--workers 1-2")
    }
    assert len(set(keys.values())) == 3
    from pipelines.weak_supervision import Options as Table
    from pipelines.weak_supervision import cells as cells_of_the_table

    table = cells_of_the_table(
        read(Table, ("--arms", "mvae", "--targets", "own", "--fractions", "1", "--seeds", "0", "--epochs", "20"))
    )
    assert [cell.trial.key("data") for cell in table] == [keys[""]]


@pytest.mark.parametrize(
    ("token", "dataset", "measure"),
    [
        ("mvae", "digits", "accuracy-v1"),
        ("vae", "digits", "readout-f1-v1"),
        ("cvae", "digits", "likelihood-s100-v1"),
        ("mvae", "mnist19", "attributes-v1"),
        ("vae", "faces", "likelihood-s100-v1"),
        ("mvae", "multi_mnist", "accuracy-v1"),
        ("mvae", "toy_translation", "translation-v1"),
    ],
)
def test_each_arm_gets_the_measures_it_supports_on_the_data_set(token: str, dataset: str, measure: str) -> None:
    assert measure_of(token, dataset).token == measure


@pytest.mark.parametrize("written", ["0", "2-1", "a", "1-2-3", "-1", ""])
def test_an_invalid_number_of_workers_is_refused(written: str) -> None:
    with pytest.raises(Refusal, match=f"^--workers {written}: write a whole number above 0, such as 4, or a minimum"):
        read(Options, (f"--workers={written}",))


def record(epoch: int, rate: float) -> Record:
    return Record(epoch=epoch, time=0.0, metrics={}, speed={"examples_per_second": rate})


def test_the_first_epoch_of_an_attempt_does_not_count_for_its_speed_if_there_are_others() -> None:
    seen = [record(3, 1.0), record(4, 100.0), record(5, 120.0), record(6, 110.0)]
    assert speeds(seen, 2, None) == {"examples_per_second": 110.0}
    assert speeds(seen[:1], 2, None) == {"examples_per_second": 1.0}
    assert speeds([Record(epoch=1, time=0.0, metrics={})], 2, 50.0) == {}


def test_scaling_efficiency_is_the_joint_speed_over_the_sum_of_single_worker_speeds() -> None:
    assert speeds([record(1, 150.0)], 2, 100.0)["scaling_efficiency"] == 0.75


def test_timing_a_single_worker_does_not_change_the_random_numbers_of_training(storage: Path, cache: Path) -> None:
    import torch

    from mvae.data import load

    job = digits_job(Store.open(storage, "main", create=False), cache, batch_size=50)
    before = torch.random.get_rng_state()
    assert (speed_of_one(job.trial, load("digits", None, cache)) or 0) > 0
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_batch_too_large_for_one_gpu_is_trained_but_not_timed_on_one_worker(
    storage: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from mvae.data import load
    from sweeps.trials import speed

    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(speed, "timed_steps", full)
    job = digits_job(Store.open(storage, "main", create=False), cache, batch_size=50)
    assert speed_of_one(job.trial, load("digits", None, cache)) is None
    assert "scaling_efficiency" not in speeds([record(1, 150.0)], 2, None)


def test_the_table_shows_the_training_speed_of_each_model(storage: Path, cache: Path) -> None:
    options = read(Options, ("--workers", "2", "--storage", str(storage), "--cache", str(cache)))
    store = Store.open(storage, "main", create=True)
    (cell,) = cells(options)
    made = plan((cell,), store, {"digits": "data"})
    gained = {"examples_per_second": 1500.0, "examples_per_second_alone": 1000.0, "scaling_efficiency": 0.75}
    metrics, trial = {"test/accuracy": 0.5}, cell.trial.model_dump()
    store.results.write(Result(made.keys[0], cell.measure.token, trial, metrics, {"speed": gained}, []))
    report = tabulate(plan((cell,), store, {"digits": "data"}), store.results)
    said = "MVAE 2 workers seed 0: 1,500 examples/s, single worker 1,000: scaling efficiency 75%."
    assert list(statements(report, store)) == [said]


def test_the_pipeline_file_opens_with_paper_runtime_and_command() -> None:
    head = sys.modules["pipelines.train"].__doc__ or ""
    assert all(part in head for part in ("Paper ", "Expect ", "Runs ", "Type ", "ray submit cluster/gpu.yaml"))
