"""Texts on MLflow's pages: descriptions that fit and hold the main facts, and a saved view that MLflow understands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mvae.storage.objects import place
from mvae.training.records import MODEL, Checkpoint, Record, StoredFile
from sweeps.cli.browsing import BATCH_JOBS, how_to_browse
from sweeps.planning.state import TrialState
from sweeps.store.results import Result
from sweeps.tracking.notes import (
    NOTE_CHARACTERS,
    experiment_note,
    model_name,
    run_note,
    saved_view,
    source_tags,
    sweep_note,
    view_id,
    view_page,
)
from sweeps.tracking.view import RunView, SweepView

RUN = "0123456789abcdef0123456789abcdef"
KEY = "00000000000000aa"
COMMAND = "python pipelines/weak_supervision.py"
TABLE = "### Table 4\n\n| arm | 1% |\n|---|---:|\n| MVAE | 0.8000 |\n\n"
TAG_OF_AN_EXPERIMENT = 5000
"""Largest length in characters of an experiment's tag in MLflow."""


@pytest.fixture
def sweep(tmp_path: Path) -> SweepView:
    """A sweep whose report has a table, a list of runs and a picture."""
    (tmp_path / "accuracy.png").write_bytes(b"png")
    runs = f"<details><summary>Every run</summary>\n\n| key |\n|---|\n| `{KEY}` (run `{RUN}`) |\n\n</details>\n"
    (tmp_path / "table.md").write_text(TABLE + runs, encoding="utf-8")
    return SweepView(
        name="weak_supervision-digits",
        state=TrialState.DONE,
        title="Weak supervision on digits",
        source="supplement, section 8, Table 4",
        command=COMMAND,
        metrics=("test/accuracy",),
        quantities=("test/accuracy",),
        watched=("validation/accuracy",),
        report=tmp_path,
    )


def trial(state: TrialState = TrialState.DONE) -> RunView:
    """A trial after two of three epochs, with a result if it is finished."""
    history = [Record(epoch=epoch, time=0.0, metrics={"train/loss": 1.0}) for epoch in (1, 2)]
    metrics = {"best/epoch": 2.0, "test/accuracy": 0.81236}
    results = (Result(KEY, "accuracy-v1", {}, metrics, {}, history),) if state is TrialState.DONE else ()
    weights = {MODEL: StoredFile(bytes=1, sha256="e" * 64)}
    return RunView(
        key=KEY,
        name="MVAE 1% seed 0",
        state=state,
        fields={"model": "mvae", "dataset": "digits", "seed": 0, "epochs": 3},
        records=tuple(history),
        results=results,
        tags={"row": "MVAE", "column": "1%"},
        checkpoint=Checkpoint(place("/storage/checkpoints/x"), 2, "a", weights, [], {}, final=False),
    )


def test_a_sweeps_description_has_paper_command_links_plot_and_table(sweep: SweepView) -> None:
    note = sweep_note(sweep, "7", RUN)
    for part in (
        sweep.title,
        sweep.source,
        f"    {COMMAND}",
        "| MVAE | 0.8000 |",
        f"viewStateShareKey={view_id(sweep.name)}",
    ):
        assert part in note
    assert f"](get-artifact?path=report/accuracy.png&run_uuid={RUN})" in note
    assert f"`{KEY}` ([run](#/experiments/7/runs/{RUN}))" in note
    assert "<details>" not in note  # MLflow does not show this tag


def test_a_description_that_is_too_long_drops_the_list_of_runs_and_keeps_the_table(sweep: SweepView) -> None:
    assert isinstance(sweep.report, Path)
    runs = "".join(f"| `{number:016x}` (run `{RUN}`) |\n" for number in range(200))
    (sweep.report / "table.md").write_text(
        f"{TABLE}<details><summary>Every run</summary>\n\n{runs}</details>", encoding="utf-8"
    )
    note = sweep_note(sweep, "7", RUN)
    assert len(note) <= NOTE_CHARACTERS
    assert "| MVAE | 0.8000 |" in note
    assert note.endswith(f"run_uuid={RUN})")
    (sweep.report / "table.md").write_text("| MVAE | 0.8000 |\n" * 1000, encoding="utf-8")
    note = sweep_note(sweep, "7", RUN)
    assert len(note) <= NOTE_CHARACTERS
    assert note.splitlines()[-3:] == ["| MVAE | 0.8000 |", "", "(The rest is in the artifacts.)"]


def test_a_trials_description_begins_with_its_outcome_and_names_its_weights_file() -> None:
    note = run_note(trial())
    assert note.splitlines()[0] == "**MVAE 1% seed 0**, test/accuracy **0.812**. Finished after 2 of 3 epochs."
    for part in ("Row MVAE, column 1%, arm mvae, data set digits, seed 0.", KEY, "accuracy-v1", "| best/epoch | 2 |"):
        assert part in note
    assert "Checkpoint of epoch 2: `/storage/checkpoints/x`" in note
    assert "e" * 64 in note


def test_a_failed_trials_description_gives_the_reason() -> None:
    note = run_note(replace(trial(TrialState.FAILED), error="loss is nan\nat epoch 3"))
    assert "Failed after 2 of 3 epochs" in note
    assert "    loss is nan\n    at epoch 3" in note


def test_a_sweeps_view_shows_its_trials_by_row_and_column_with_the_metrics_of_its_table(sweep: SweepView) -> None:
    view = json.loads(saved_view(sweep, 1_700_000_000_000, None))
    state = json.loads(view["state"])
    assert view["name"] == sweep.name
    assert state["searchFilter"] == "tags.`mvae.sweep.weak_supervision-digits` = 'yes'"
    assert [key["groupByData"] for key in state["groupBy"]["groupByKeys"]] == ["mvae.cell"]
    assert state["selectedColumns"][:4] == [
        f"metrics.`test/accuracy{part}`" for part in ("/mean", "/std", "/seeds", "")
    ]
    sections = [section["name"] for section in state["compareRunSections"]]
    assert sections[:4] == ["over seeds", "validation", "train", "test"]
    (chart,) = state["compareRunCharts"]
    assert chart["selectedMetricKeys"] == [
        f"validation/accuracy/{part}" for part in ("mean", "mean_minus_std", "mean_plus_std")
    ]
    assert chart["metricSectionId"] == state["compareRunSections"][0]["uuid"]


def test_an_unchanged_view_is_not_written_again_but_a_changed_one_is(sweep: SweepView) -> None:
    there = saved_view(sweep, 1, None)
    assert saved_view(sweep, 2, there) == there
    assert json.loads(saved_view(replace(sweep, metrics=("test/log_joint",)), 2, there))["createdAt"] == 2
    for damaged in ("", "{", "[]"):
        assert json.loads(saved_view(sweep, 2, damaged))["createdAt"] == 2


def test_a_view_of_many_metrics_fits_the_tag(sweep: SweepView) -> None:
    many = replace(sweep, name="n" * 100, metrics=tuple(f"translation-{n}/{'a' * 80}" for n in range(50)))
    assert len(saved_view(many, 1_700_000_000_000, None)) < TAG_OF_AN_EXPERIMENT


def test_the_last_line_has_the_sweeps_page_on_the_server_or_on_the_server_that_its_command_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in BATCH_JOBS:
        monkeypatch.delenv(name, raising=False)
    page = view_page("a sweep", "7")
    assert page == "/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=mvae-a%20sweep"
    assert how_to_browse("http://me:secret@host:80", page, on_cluster=True) == f"http://host:80/#{page}"
    tunnel = how_to_browse("http://127.0.0.1:80", page, on_cluster=True)
    assert tunnel.startswith(f"http://127.0.0.1:80/#{page} on this machine")
    command, then = how_to_browse("sqlite:////a b.db", page, on_cluster=True).splitlines()
    assert command.endswith("mlflow ui --backend-store-uri 'sqlite:////a b.db'")
    assert then == f"  then: http://127.0.0.1:5000/#{page}"
    monkeypatch.setenv(BATCH_JOBS[0], "7")
    assert how_to_browse("sqlite:////a.db", page, on_cluster=False).splitlines()[1] == then, "the tunnel has this port"


def test_the_name_of_a_model_has_only_characters_that_mlflow_allows() -> None:
    names = [model_name(replace(trial(), name=name)) for name in ("digits MVAE (all) 0.5% seed 0", "my/a:b 'c'")]
    assert names == ["digits-MVAE-all-0_5-percent-seed-0", "my-a-b-c"]


def test_the_source_is_the_pipeline_and_its_commit(sweep: SweepView) -> None:
    assert source_tags(sweep) == {}
    tags = source_tags(replace(sweep, program="weak_supervision.py", tags={"git": "c0ffee"}))
    assert (tags["mlflow.source.name"], tags["mlflow.source.git.commit"]) == ("weak_supervision.py", "c0ffee")


def test_the_experiments_description_names_the_storage() -> None:
    assert "**main**" in experiment_note("main")


@pytest.mark.parametrize("state", TrialState)
def test_a_trials_description_has_words_for_every_state(state: TrialState) -> None:
    assert "2 of 3 epochs" in run_note(trial(state))
