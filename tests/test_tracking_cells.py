"""MLflow shows each cell of a table as one run with mean and standard deviation over seeds, and never doubles it."""

from __future__ import annotations

import math
import sqlite3
import statistics
from dataclasses import replace

import mlflow
import pytest
import torch

from mvae.storage.files import write_atomically
from mvae.training.records import Record
from mvae.training.usage import Usage
from sweeps.planning.state import TrialState
from sweeps.tracking.cells import band, cell_views, sweep_numbers, watched
from sweeps.tracking.mirror.images import images
from sweeps.tracking.mirror.mirror import Mirror
from sweeps.tracking.view import RunView, SweepView
from tests.tracked import (
    KEYS,
    NAMESPACE,
    STARTED,
    SWEEP,
    Storage,
    finished,
    no_model,
    reported,
    running,
    storage,
    table,
)

__all__ = ["storage"]

PLACE = f"{SWEEP.name}: mvae | 5%"
CURVE = band("validation/accuracy")


def seeds(*accuracies: float) -> list[RunView]:
    """Finished trials whose final and validation accuracies differ by seed."""
    found = []
    for key, accuracy in zip(KEYS, accuracies, strict=False):
        view = finished(key, accuracy=accuracy)
        (result,) = view.results
        history = [
            Record(epoch=e, time=STARTED + 2 * e, metrics={"validation/accuracy": accuracy + e / 100})
            for e in (1, 2, 3)
        ]
        found.append(replace(view, results=(replace(result, history=history),), ended=STARTED + 9))
    return found


def contents(storage: Storage) -> list[tuple[object, ...]]:
    """Every value, tag and status of the runs of cells, without MLflow's own ids."""
    cells = "where lifecycle_stage = 'active' and name like '%: mean of %' order by 1, 2, 3"
    asks = (
        f"select name, key, step, timestamp, value from metrics join runs using (run_uuid) {cells}",
        f"select name, key, value from tags join runs using (run_uuid) {cells}",
        f"select name, status, start_time, end_time from runs {cells}",
    )
    with sqlite3.connect(storage.database) as database:
        rows = [row for ask in asks for row in database.execute(ask)]
    return [row for row in rows if row[1] != "mlflow.parentRunId"]


def test_a_cells_run_has_the_mean_and_the_band_over_its_seeds_final_and_by_epoch(storage: Storage) -> None:
    values = [0.5, 0.6, 0.85]
    trials = seeds(*values)
    assert storage.driver(*trials, sweep=reported(SWEEP, *trials)).close()
    runs = storage.runs()
    run, client = runs[PLACE], mlflow.MlflowClient(storage.uri)
    mean, std = statistics.fmean(values), statistics.stdev(values)
    numbers = {name.rpartition("/")[2]: value for name, value in run.data.metrics.items() if name.startswith("test/")}
    assert numbers == pytest.approx(
        {
            "mean": mean,
            "std": std,
            "mean_minus_std": mean - std,
            "mean_plus_std": mean + std,
            "seeds": 3,
            "published": 0.75,
            "difference": mean - 0.75,
        }
    )
    for name, edge in zip(CURVE, (0, -std, std), strict=True):
        history = client.get_metric_history(run.info.run_id, name)
        assert [metric.step for metric in history] == [1, 2, 3]
        assert [metric.value for metric in history] == pytest.approx([mean + edge + e / 100 for e in (1, 2, 3)])
    assert (run.info.run_name, run.info.status) == ("digits mvae 5%: mean of 3 seeds", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (1000 * STARTED, 1000 * (STARTED + 9))
    tags = run.data.tags
    assert tags["mlflow.parentRunId"] == runs[SWEEP.name].info.run_id
    assert (tags["mvae.cell"], tags["mvae.row"], tags["mvae.column"]) == ("mvae 5%", "mvae", "5%")
    assert runs[SWEEP.name].data.metrics == {"cells/done": 1, "cells/all": 1, "agreement/mvae": 0}


def test_a_single_seed_has_a_mean_but_no_band_and_numbers_that_are_not_finite_are_left_out() -> None:
    (one,) = seeds(0.5)
    (cell,) = cell_views(table(one), lambda _: one)
    assert cell.numbers == {
        "test/accuracy/mean": 0.5,
        "test/accuracy/seeds": 1,
        "test/accuracy/published": 0.75,
        "test/accuracy/difference": -0.25,
    }
    assert [record["metrics"].keys() for record in cell.epochs] == [{CURVE[0]}] * 3
    assert cell.name == "digits mvae 5%: mean of 1 seed"
    two = seeds(0.5, math.nan)
    (cell,) = cell_views(table(*two), {view.key: view for view in two}.__getitem__)
    assert cell.numbers == {"test/accuracy/seeds": 2, "test/accuracy/published": 0.75}
    assert cell.epochs == ()
    assert watched(two) == ("validation/accuracy",)


def test_agreement_is_unknown_without_a_judged_cell_and_is_not_written(storage: Storage) -> None:
    trials = seeds(0.7499, 0.75, 0.7501)
    assert sweep_numbers(table(*trials))["agreement/mvae"] == 1
    assert math.isnan(sweep_numbers(table(trials[0]))["agreement/mvae"])
    for _ in range(2):
        assert storage.driver(trials[0], sweep=reported(SWEEP, trials[0])).close()
    parent = storage.runs()[SWEEP.name]
    assert "agreement/mvae" not in parent.data.metrics
    history = mlflow.MlflowClient(storage.uri).get_metric_history(parent.info.run_id, "cells/done")
    assert len(history) == 1, "an unchanged number is written once"


def test_more_seeds_replace_the_run_of_a_cell_and_a_cell_that_is_gone_loses_its_run(storage: Storage) -> None:
    trials = seeds(0.5, 0.6, 0.7)
    assert storage.driver(*trials, sweep=reported(SWEEP, *trials[:2])).close()
    before = storage.runs()[PLACE]
    assert storage.driver(*trials, sweep=reported(SWEEP, *trials)).close()
    after = storage.runs()[PLACE]
    assert (before.data.metrics["test/accuracy/seeds"], after.data.metrics["test/accuracy/seeds"]) == (2, 3)
    assert storage.driver(*trials, sweep=reported(SWEEP, *trials)).close()
    assert storage.runs()[PLACE].info.run_id == after.info.run_id
    assert storage.driver(*trials, sweep=replace(reported(SWEEP, *trials), cells=None)).close()
    assert PLACE in storage.runs(), "without a report nothing is known about cells"
    assert storage.driver(*trials, sweep=replace(reported(SWEEP, *trials), cells=())).close()
    assert PLACE not in storage.runs()


class Killed(BaseException):
    """Simulates kill -9 at a request to MLflow."""


def mirrored(storage: Storage, trials: list[RunView], sweep: SweepView) -> None:
    mirror = Mirror(storage.uri, NAMESPACE, "main", None, no_model, storage.said.append)
    mirror.adopt(sweep)
    mirror.settle(sweep.name, [view.key for view in trials])
    for view in trials:
        mirror.sync(view, sweep.name)
    mirror.sync_sweep(sweep)


def test_a_writer_killed_at_any_request_leaves_a_state_that_the_next_one_completes(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = seeds(0.5, 0.6, 0.7)
    sweep = reported(SWEEP, *trials)
    mirrored(storage, trials, sweep)
    expected = contents(storage)
    assert len(expected) > 20
    writes, left = ("create_run", "log_batch", "set_terminated", "delete_run"), [0]
    for name in writes:
        write = getattr(mlflow.MlflowClient, name)

        def dies(*given: object, write: object = write, **also: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return write(*given, **also)  # type: ignore[operator]

        monkeypatch.setattr(mlflow.MlflowClient, name, dies)
    fewer = reported(SWEEP, *trials[:2])
    kills = 0
    while True:
        left[0] = 1000
        mirrored(storage, trials, fewer)
        left[0] = kills
        try:
            mirrored(storage, trials, sweep)
        except Killed:
            left[0] = 1000
            mirrored(storage, trials, sweep)
            assert contents(storage) == expected, f"killed at request {kills}"
            kills += 1
        else:
            break
    assert kills >= 4, "deleting, creating, filling and ending the run of the cell were interrupted"
    assert set(storage.runs()) == {*KEYS, SWEEP.name, PLACE}


def test_the_sweep_can_be_found_by_tag_without_its_cells(storage: Storage) -> None:
    trials = seeds(0.5, 0.6)
    assert storage.driver(*trials, sweep=reported(SWEEP, *trials)).close()
    runs = storage.runs()
    where = f"tags.`mvae.sweep.{SWEEP.name}` = 'yes' and tags.`mvae.kind` = "
    found = {
        kind: mlflow.MlflowClient(storage.uri).search_runs([runs[PLACE].info.experiment_id], f"{where}'{kind}'")
        for kind in ("trial", "cell")
    }
    assert {kind: len(runs) for kind, runs in found.items()} == {"trial": 2, "cell": 1}


def test_pictures_of_several_epochs_are_steps_of_one_image(storage: Storage) -> None:
    pictures = storage.folder / "pictures"
    write_atomically(pictures / "prior.png", b"last")
    view = replace(finished(KEYS[0]), artifacts=pictures)
    assert storage.driver(view).close()
    run, client = storage.runs()[KEYS[0]].info.run_id, mlflow.MlflowClient(storage.uri)
    assert client.list_artifacts(run, "images") == [], "one picture needs no slider"
    for epoch in (1, 2):
        write_atomically(pictures / f"epoch-{epoch:04d}" / "prior.png", f"epoch {epoch}".encode())
    for _ in range(2):
        assert storage.driver(view).close()
    files = [file.path for file in client.list_artifacts(run, "images")]
    assert {file.partition("+timestamp")[0] for file in files} == {f"images/prior+step+{step}" for step in (1, 2, 3)}
    assert len(files) == 6, "a full and a small image per step"
    (last,) = (path for path in files if "+step+3+" in path and not path.endswith("+compressed.png"))
    where = storage.runs()[KEYS[0]].info.artifact_uri
    assert mlflow.artifacts.load_text(f"{where}/{last}") == "last"
    assert [file.path for file in client.list_artifacts(run, "samples")] == ["samples/prior.png"]
    assert storage.runs()[KEYS[0]].data.tags["mlflow.loggedImages"] == "True"
    assert images(["notes.md", "views/a.png", "a.png"], 3) == {}


def test_pictures_drawn_before_the_first_checkpoint_are_steps_of_one_image_at_once(storage: Storage) -> None:
    pictures = storage.folder / "pictures"
    write_atomically(pictures / "epoch-0001" / "prior.png", b"epoch 1")
    tracker = storage.driver(replace(running(KEYS[0], 0), artifacts=pictures))
    tracker.links(60)
    write_atomically(pictures / "prior.png", b"last")
    done = replace(finished(KEYS[0]), artifacts=pictures)
    tracker.update(done)
    tracker.update_sweep(reported(SWEEP, done))
    assert tracker.close()
    run, client = storage.runs()[KEYS[0]].info.run_id, mlflow.MlflowClient(storage.uri)
    files = [file.path for file in client.list_artifacts(run, "images")]
    assert {file.partition("+timestamp")[0] for file in files} == {"images/prior+step+1", "images/prior+step+3"}
    assert [file.path for file in client.list_artifacts(run, "samples")] == ["samples/prior.png"]


def test_an_epochs_cpu_time_and_memory_are_shown_as_system_metrics(storage: Storage) -> None:
    usage = Usage(torch.device("cpu"))
    sum(range(10**6))
    used = usage()
    assert 0 < used["process_cpu_percentage"] < 1000
    assert used["process_memory_megabytes"] > 50
    view = running(KEYS[0], 1)
    view = replace(view, state=TrialState.INTERRUPTED, records=({**view.records[0], "system": used},))
    assert storage.driver(view).close()
    metrics = storage.runs()[KEYS[0]].data.metrics
    assert {name: metrics[f"system/{name}"] for name in used} == used
