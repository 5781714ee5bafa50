"""MLflow is a view of storage: it shows trials and sweeps completely and without duplicates."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import mlflow.pytorch
import numpy as np
import pytest
import torch

from mvae.storage.files import atomic_path, write_atomically
from mvae.training.records import Record
from sweeps.planning.state import TrialState
from sweeps.tracking.notes import model_name
from sweeps.tracking.view import DatasetView, RunView
from tests.tracked import (
    KEYS,
    NAMESPACE,
    PROJECT,
    SWEEP,
    Storage,
    checkpoint,
    expected_rows,
    finished,
    records,
    running,
    storage,
    until,
)

__all__ = ["storage"]


def test_a_finished_trials_run_shows_fields_numbers_data_set_checkpoint_and_pictures(storage: Storage) -> None:
    pictures = storage.folder / "pictures"
    pictures.mkdir()
    (pictures / "samples.png").write_bytes(b"png")
    view = replace(
        finished(KEYS[0]),
        tags={"row": "mvae", "mlflow.source.name": "weak_supervision"},
        dataset=DatasetView("digits", "d" * 64, {"version": 1}),
        checkpoint=checkpoint(3),
        artifacts=pictures,
    )
    assert storage.driver(view).close()
    run = storage.runs()[view.key]
    assert (run.info.status, run.info.start_time) == ("FINISHED", 1_700_000_000_000)
    assert run.info.end_time == 1_700_000_006_000
    assert run.data.params == {"model": "mvae", "seed": "0"}
    assert run.data.metrics["test/accuracy"] == 0.75
    assert run.data.metrics["best/validation_accuracy"] == 0.53
    assert storage.rows() == expected_rows(view)
    tags = run.data.tags
    assert tags["mvae.row"] == "mvae"
    assert not {"mvae.model", "mvae.seed"} & tags.keys(), "parameters suffice for grouping and searching"
    assert (tags["mvae.git_sha"], tags["mvae.attempts"], tags["mvae.mixed"]) == ("c0ffee", '["a", "b"]', "false")
    assert (tags["mvae.namespace"], tags["mlflow.source.name"]) == (NAMESPACE, "weak_supervision")
    assert (tags["mvae.checkpoint.uri"], tags["mvae.checkpoint.sha256"]) == (
        "/storage/checkpoints/x",
        "e" * 64,
    )
    assert tags["mvae.fingerprint"] == "d" * 64
    assert run.inputs is not None
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", "d" * 36)
    artifacts = mlflow.MlflowClient(storage.uri).list_artifacts(run.info.run_id, "samples")
    assert [file.path for file in artifacts] == ["samples/samples.png"]
    assert storage.said == []


def test_incomplete_pictures_are_uploaded_the_next_time(storage: Storage) -> None:
    pictures = storage.folder / "pictures"
    write_atomically(pictures / "epoch-1" / "a.png", b"a")
    view = replace(running(KEYS[0], 1), artifacts=pictures)
    with atomic_path(pictures / "epoch-2" / "b.png") as temporary:
        temporary.write_bytes(b"half")
        assert storage.driver(view).close()
        shown = mlflow.MlflowClient(storage.uri).list_artifacts(storage.runs()[view.key].info.run_id, "samples")
        assert [file.path for file in shown] == ["samples/epoch-1"]
    assert storage.driver(view).close()
    run = storage.runs()[view.key].info
    assert mlflow.artifacts.load_text(f"{run.artifact_uri}/samples/epoch-1/a.png") == "a"
    assert mlflow.artifacts.load_text(f"{run.artifact_uri}/samples/epoch-2/b.png") == "half"
    assert storage.said == []


def test_a_failed_trials_traceback_is_an_artifact_of_its_run(storage: Storage) -> None:
    traceback = storage.folder / "key.txt"
    traceback.write_text("Traceback", encoding="utf-8")
    view = replace(running(KEYS[0], 1), state=TrialState.FAILED, error="no", traceback=traceback)
    assert storage.driver(view).close()
    run = storage.runs()[view.key]
    assert (run.info.status, run.data.tags["mvae.error"]) == ("FAILED", "no")
    artifacts = mlflow.MlflowClient(storage.uri).list_artifacts(run.info.run_id, "errors")
    assert [file.path for file in artifacts] == ["errors/key.txt"]


def test_the_final_model_is_logged_once_and_predicts_the_same_after_loading(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.SiLU()).eval()
    example = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 4)
    storage.load_model = lambda view: (module, example)
    for _ in range(3):
        assert storage.driver(finished(KEYS[0]), running(KEYS[1], 2)).close()
    assert storage.models() == 1
    assert mlflow.active_run() is None
    run = storage.runs()[KEYS[0]]
    assert run.info.status == "FINISHED"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", storage.uri)
    for uri in (f"runs:/{run.info.run_id}/{model_name(finished(KEYS[0]))}", run.data.tags["mvae.logged_model"]):
        loaded = mlflow.pytorch.load_model(uri)
        assert torch.equal(loaded(torch.from_numpy(example)), module(torch.from_numpy(example)))


def test_a_half_uploaded_model_of_a_dead_driver_is_logged_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.load_model = lambda view: (torch.nn.Linear(4, 3).eval(), np.zeros((1, 4), np.float32))
    with monkeypatch.context() as broken:

        def fail(*args: object) -> None:
            raise OSError("the driver dies here")

        broken.setattr(mlflow.MlflowClient, "log_model_artifacts", fail)
        driver = storage.driver(finished(KEYS[0]))
        until(lambda: storage.said)
        assert not driver.close(1.0)
    assert storage.driver(finished(KEYS[0])).close()
    run = storage.runs()[KEYS[0]]
    model = mlflow.MlflowClient(storage.uri).get_logged_model(run.data.tags["mvae.logged_model"].rpartition("/")[2])
    assert model.status == "READY"
    assert len(mlflow.MlflowClient(storage.uri).search_logged_models([run.info.experiment_id])) == 1


def test_a_model_with_several_inputs_is_logged_without_a_signature(storage: Storage) -> None:
    storage.load_model = lambda view: (torch.nn.Bilinear(4, 3, 2).eval(), None)
    assert storage.driver(finished(KEYS[0])).close()
    assert storage.models() == 1
    assert storage.runs()[KEYS[0]].info.status == "FINISHED"
    assert storage.said == []


def test_a_model_that_cannot_be_built_is_reported_and_only_that_model_is_missing(storage: Storage) -> None:
    def damaged(view: RunView) -> None:
        raise ValueError("weights are damaged")

    storage.load_model = damaged
    assert storage.driver(finished(KEYS[0])).close()
    assert storage.runs()[KEYS[0]].info.status == "FINISHED"
    assert storage.said == [
        f"cannot log the model of mvae {KEYS[0]} to MLflow (ValueError: weights are damaged); skipping this model"
    ]


def test_epochs_are_logged_one_by_one_and_never_twice(storage: Storage) -> None:
    driver = storage.driver()
    for epochs in (1, 2, 2, 3):
        driver.update(running(KEYS[0], epochs))
        until(lambda: len({row[2] for row in storage.rows()}) == epochs)  # noqa: B023
    assert storage.runs()[KEYS[0]].info.status == "RUNNING"
    driver.update(finished(KEYS[0], 3))
    assert driver.close()
    assert storage.rows() == expected_rows(finished(KEYS[0], 3))


def test_a_repeated_epoch_keeps_its_first_timestamp(storage: Storage) -> None:
    assert storage.driver(running(KEYS[0], 3)).close()
    again = replace(running(KEYS[0], 3), records=tuple(Record(**{**r, "time": r["time"] + 99}) for r in records(3)))
    assert storage.driver(again).close()
    assert {row[3] for row in storage.rows()} == {round(r["time"] * 1000) for r in records(3)}


def test_a_second_start_on_the_same_storage_changes_nothing(storage: Storage) -> None:
    views = [finished(KEYS[0]), replace(running(KEYS[1], 2), state=TrialState.PENDING)]
    sweep = replace(SWEEP, state=TrialState.INTERRUPTED)
    assert storage.driver(*views, sweep=sweep).close()
    before = {name: run.to_dictionary() for name, run in storage.runs().items()}
    rows = storage.rows()
    assert storage.driver(*views, sweep=sweep).close()
    after = {name: run.to_dictionary() for name, run in storage.runs().items()}
    for run in (before[SWEEP.name], after[SWEEP.name]):
        del run["info"]["end_time"]  # the sweep itself ran twice
    assert after == before
    assert storage.rows() == rows


def test_a_trial_run_stays_with_its_first_sweep_and_later_sweeps_find_it_by_tag(storage: Storage) -> None:
    later = replace(SWEEP, name="table5", title="Table 5", state=TrialState.DONE)
    assert storage.driver(finished(KEYS[0])).close()
    assert storage.driver(finished(KEYS[0]), finished(KEYS[1]), sweep=later).close()
    runs = storage.runs()
    parent = {key: runs[key].data.tags["mlflow.parentRunId"] for key in KEYS[:2]}
    assert parent == {KEYS[0]: runs["table4"].info.run_id, KEYS[1]: runs["table5"].info.run_id}
    client = mlflow.MlflowClient(storage.uri)
    found = client.search_runs([runs["table5"].info.experiment_id], "tags.`mvae.sweep.table5` = 'yes'")
    assert {run.data.tags["mvae.key"] for run in found} == set(KEYS[:2])


def test_the_parent_run_shows_the_command_the_table_and_the_newest_report(storage: Storage) -> None:
    report = storage.folder / "report"
    report.mkdir()
    table = report / "table.md"
    table.write_text("| old |", encoding="utf-8")
    sweep = replace(SWEEP, report=report)
    driver = storage.driver(finished(KEYS[0]), sweep=sweep)
    until(lambda: "| old |" in str(storage.runs()["table4"].data.tags if storage.runs() else ""))
    table.write_text("| newer |", encoding="utf-8")
    driver.update_sweep(replace(sweep, state=TrialState.DONE))
    assert driver.close()
    run = storage.runs()["table4"]
    note = run.data.tags["mlflow.note.content"]
    assert run.info.status == "FINISHED"
    assert "| newer |" in note
    assert SWEEP.command in note
    artifacts = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/report/table.md")
    assert artifacts == "| newer |"


def test_the_driver_does_not_import_mlflow_before_tracking_starts() -> None:
    imports = "import sys, sweeps.tracking.tracker, sweeps.tracking.view"
    code = f"{imports}; sys.exit('mlflow' in sys.modules or 'ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
