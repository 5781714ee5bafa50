"""The weak-supervision command: its output, files and exit codes."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mvae.data import fingerprint, load
from mvae.measure import ACCURACY
from mvae.models import arm
from sweeps.main import BAD_INPUT, COMPLETE, INCOMPLETE
from sweeps.store.provenance import device_name
from sweeps.store.results import Result
from sweeps.store.store import Store
from tests import pipelines_run
from tests.crashes import on_disk
from tests.sweeping import ONE_AT_A_TIME
from tests.test_weak_supervision_cells import made
from tests.tiny_mnist import write_tiny

REPOSITORY = Path(__file__).resolve().parents[1]
PIPELINE = REPOSITORY / "pipelines" / "weak_supervision.py"

run = partial(pipelines_run.run, "weak_supervision")


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("no_cluster")
def test_plan_prints_every_cell_its_state_and_the_time_and_writes_nothing(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "new"
    load("digits", cache=cache)
    asked = ("--storage", str(storage), "--cache", str(cache), "--arms", "nn,logreg", "--seeds", "0-2")
    assert run(*asked, "--plan") == COMPLETE
    printed = capsys.readouterr().out
    assert "8 cells, 3 seeds, 24 trials: 0 done, 0 partial, 24 missing" in printed
    assert "1%       5%      20%     100%" in printed
    assert printed.count("○○○") == 8
    assert re.search(r"^[\d.]+ to [\d.]+ (s|min|h) for 24 trials on one machine like this", printed, re.MULTILINE)
    assert not storage.exists()


@pytest.mark.usefixtures("no_cluster")
def test_on_a_fresh_machine_plan_converts_the_data_into_the_cache_and_gives_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    assert run("--storage", str(tmp_path / "new"), "--cache", str(cache), "--arms", "nn", "--plan") == COMPLETE
    said = capsys.readouterr().out
    assert "time unknown" not in said and "measured by a probe" in said
    assert list(tmp_path.iterdir()) == [cache], "the storage must not be made"


@pytest.fixture
def half_a_table(storage: Path) -> tuple[str, ...]:
    """Options for four trials of LOGREG, two of which have a result."""
    asked = ("--storage", str(storage), "--arms", "logreg", "--fractions", "0.1,1", "--seeds", "0-1")
    store = Store.open(storage, "main", create=True)
    for accuracy, cell in zip((0.75, 0.85), made(*asked)[:2], strict=True):
        key = cell.trial.key(fingerprint("digits"))
        metrics = {"test/accuracy": accuracy}
        provenance = {"seconds": 1.0, "epochs": 1, "device": "cpu", "device_name": device_name("cpu")}
        store.results.write(Result(key, ACCURACY.token, cell.trial.model_dump(), metrics, provenance, history=[]))
    return asked


@pytest.mark.usefixtures("no_cluster")
def test_plan_shows_which_cells_are_done(half_a_table: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*half_a_table, "--plan") == COMPLETE
    printed = capsys.readouterr().out
    assert "2 cells, 2 seeds, 4 trials: 2 done, 0 partial, 2 missing" in printed
    assert "●●" in printed and "○○" in printed
    assert " for 2 trials on one machine like this" in printed
    assert "logreg: 1 s per trial, from 2 finished trials" in printed


@pytest.mark.usefixtures("no_cluster")
def test_report_makes_the_table_from_existing_results_and_its_exit_code_says_if_some_are_missing(
    half_a_table: tuple[str, ...], storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*half_a_table, "--report") == INCOMPLETE
    printed = capsys.readouterr().out
    assert "0.800" in printed and "2/2" in printed and "0/2" in printed
    report = storage / "main" / "reports" / "weak_supervision-digits"
    assert {path.name for path in files(report)} >= {"table.md", "table.csv", "table.parquet", "accuracy.png"}
    assert "0.800" in (report / "table.md").read_text(encoding="utf-8")
    assert not (storage / "mlflow.db").exists(), "neither Ray nor MLflow may start"


@pytest.mark.usefixtures("no_cluster")
def test_report_of_a_complete_table_exits_with_code_0(half_a_table: tuple[str, ...]) -> None:
    assert run(*half_a_table, "--fractions", "0.1", "--report") == COMPLETE


@pytest.mark.usefixtures("no_cluster")
def test_a_larger_report_replaces_a_smaller_one_but_never_the_reverse(
    half_a_table: tuple[str, ...], storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def reported(*asked: str) -> Path:
        run(*half_a_table, *asked, "--report")
        return Path(capsys.readouterr().out.strip().splitlines()[-1].removeprefix("Report: "))

    whole = reported()
    assert whole == storage / "main" / "reports" / "weak_supervision-digits"
    before = {path: path.read_bytes() for path in files(whole)}
    for asked, name in (
        (("--seeds", "0"), "demo-arms-logreg-seeds-0-fractions-0.1_1"),
        (("--arms", "nn", "--epochs", "77"), "demo-arms-nn-seeds-0-1-epochs-77-fractions-0.1_1"),
    ):
        other = reported(*asked)
        assert (other.parent, other.name) == (whole.parent, f"weak_supervision-digits--{name}")
        assert reported(*asked) == other
        assert {path: path.read_bytes() for path in files(whole)} == before
    assert reported("--seeds", "0-3") == whole
    assert {path: path.read_bytes() for path in files(whole)} != before


@pytest.mark.usefixtures("no_cluster")
def test_report_of_a_storage_that_does_not_exist_is_refused_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--storage", str(tmp_path / "new"), "--report") == BAD_INPUT
    assert capsys.readouterr().err == (
        f"--report: the storage {tmp_path / 'new' / 'main'} does not exist: give the --storage and --name of trials"
        " that have run, or leave out --report to run this command's trials\n"
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("no_cluster")
def test_report_of_a_storage_without_results_prints_the_empty_table(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store.open(storage, "main", create=True)
    assert run("--storage", str(storage), "--report") == INCOMPLETE
    assert "0/2" in capsys.readouterr().out


@pytest.mark.usefixtures("no_cluster")
def test_another_data_sets_table_is_shown_next_to_the_published_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny(tmp_path, "FashionMNIST")
    Store.open(tmp_path / "new", "main", create=True)
    asked = ("--dataset", "fashion_mnist", "--data-root", str(tmp_path), "--fractions", "0.1,1", "--arms", "nn")
    assert run(*asked, "--storage", str(tmp_path / "new"), "--report") == INCOMPLETE
    printed = capsys.readouterr().out
    assert "Table 4" in printed
    assert "0.862 " in printed and "0.9318" in printed


def command(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PIPELINE), *argv],
        capture_output=True,
        encoding="utf-8",
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=300,
    )


def test_help_opens_with_what_to_type_and_help_all_has_the_paper(tmp_path: Path) -> None:
    shown = command("--help", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    for option in ("--arms", "--fractions", "--pairing", "--targets", "--preset", "--plan", "--report"):
        assert f"\n  {option} " in shown.stdout
    full = command("--help-all", cwd=tmp_path).stdout
    assert "Paper   supplement, section 8\n        Table 4 (FashionMNIST)" in full
    assert "\n  --resume " in full
    for output in (shown.stdout, full):
        assert "\nType    python pipelines/weak_supervision.py " in output
        assert max(map(len, output.splitlines())) <= 120
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_prints_a_line_per_trial_and_the_table_and_typed_again_only_the_table(
    tmp_path: Path, cache: Path
) -> None:
    asked = (
        *("--storage", str(tmp_path / "runs"), "--cache", str(cache), "--arms", "logreg,nn"),
        *("--fractions", "0.05,1", "--seeds", "0", "--epochs", "1", *ONE_AT_A_TIME),
    )
    first = command(*asked, cwd=tmp_path)
    assert first.returncode == COMPLETE, first.stderr
    assert first.stderr == ""
    lines = first.stdout.splitlines()
    assert "Weak supervision on digits: 4 trials" in lines[:3], "the first test with this cache converts the digits"
    trials = [line for line in lines if line.startswith("[")]  # on a slow machine, progress lines appear in between
    assert [line.split("]")[0] for line in trials] == ["[1/4", "[2/4", "[3/4", "[4/4"]
    assert sorted(line.split("] ")[1].rpartition("  accuracy")[0] for line in trials) == [
        "LOGREG 100% seed 0",
        "LOGREG 5% seed 0",
        "NN 100% seed 0",
        "NN 5% seed 0",
    ]
    assert lines[-3] == f"Report: {tmp_path}/runs/main/reports/weak_supervision-digits"
    browse = rf"Browse: \S*mlflow ui --backend-store-uri sqlite:///{re.escape(str(tmp_path))}/runs/mlflow.db"
    assert re.fullmatch(browse, lines[-2])
    page = "/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=mvae-weak_supervision-digits"
    assert lines[-1] == f"  then: http://127.0.0.1:5000{page}"
    written = tmp_path / "runs" / "main" / "reports" / "weak_supervision-digits" / "runs.csv"
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    for line in csv.DictReader(written.read_text(encoding="utf-8").splitlines()):
        assert client.get_run(line["link"]).data.tags["mvae.key"] == line["key"], "each cell names its run"
    results = {path: path.read_bytes() for path in files(tmp_path / "runs" / "main" / "results")}
    second = command(*asked, "--resume", cwd=tmp_path)
    assert second.returncode == COMPLETE, second.stderr
    assert second.stderr == ""
    table = lines[lines.index(trials[-1]) + 1 :]
    assert second.stdout.splitlines() == ["Weak supervision on digits: 4 trials, 4 done", *table]
    assert {path: path.read_bytes() for path in files(tmp_path / "runs" / "main" / "results")} == results
    assert arm("nn").title in second.stdout


@pytest.mark.slow
def test_arms_without_labels_are_trained_once_and_a_new_fraction_trains_nothing(tmp_path: Path, cache: Path) -> None:
    asked = (
        *("--storage", str(tmp_path / "runs"), "--cache", str(cache), "--arms", "rbm,vae,jmvae"),
        *("--seeds", "0", "--epochs", "2", *ONE_AT_A_TIME),
    )
    first = command(*asked, "--fractions", "0.05,1", cwd=tmp_path)
    assert first.returncode == COMPLETE, first.stdout + first.stderr
    lines = [line.split("] ")[1] for line in first.stdout.splitlines() if line.startswith("[")]
    assert sorted(line.partition("  accuracy")[0] for line in lines) == [
        "JMVAE 100% seed 0",
        "JMVAE 5% seed 0",
        "RBM seed 0",
        "VAE seed 0",
    ]
    assert all(" to " in line for line in lines if "%" not in line)
    results = Store.open(tmp_path / "runs", "main", create=False).results
    before = {path: path.read_bytes() for path in files(on_disk(results.folder))}
    trained = {result.key: result.provenance["attempts"][0]["attempt"] for result in results}
    second = command(*asked, "--fractions", "0.05,0.2,1", "--arms", "rbm,vae", cwd=tmp_path)
    assert second.returncode == COMPLETE, second.stdout + second.stderr
    assert "Weak supervision on digits: 2 trials, 2 half done" in second.stdout
    assert "test accuracy by share of paired examples" in second.stdout
    new = {path.name.partition(".")[2] for path in files(on_disk(results.folder)) - before.keys()}
    assert new == {"readout-f0.2-v1.json"}
    assert {path: path.read_bytes() for path in before} == before
    for result in results:
        if result.measure == "readout-f0.2-v1":
            first_attempt, second_attempt = result.provenance["attempts"]
            assert (first_attempt["attempt"], first_attempt["from_epoch"]) == (trained[result.key], 0)
            assert second_attempt["from_epoch"] == 2, "a second fraction must only measure, not train"
    runs = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db").search_runs(["1"], "tags.`mvae.kind` = 'trial'")
    assert {run.info.run_name: run.info.status for run in runs} == dict.fromkeys(
        (f"digits {name} seed 0" for name in ("RBM", "VAE", "JMVAE 5%", "JMVAE 100%")), "FINISHED"
    )
    (vae,) = (run for run in runs if run.info.run_name == "digits VAE seed 0")
    assert {f"test/accuracy-f{f}" for f in ("0.05", "0.2", "1")} <= vae.data.metrics.keys()


@pytest.mark.slow
def test_a_failed_trial_is_named_in_its_line_and_in_the_table_and_the_exit_code_is_1(
    tmp_path: Path, cache: Path
) -> None:
    done = command(
        *("--storage", str(tmp_path / "runs"), "--cache", str(cache), "--arms", "nn,logreg"),
        *("--fractions", "0.05", "--seeds", "0", "--epochs", "1", "--learning-rate", "1e38", *ONE_AT_A_TIME),
        cwd=tmp_path,
    )
    assert done.returncode == INCOMPLETE, done.stdout + done.stderr
    assert "NN 5% seed 0  failed: the loss is not finite at epoch 1, step" in done.stdout
    assert "LOGREG 5% seed 0  accuracy" in done.stdout
    assert "✗ 0/1" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    (kept,) = (tmp_path / "runs" / "main" / "errors").iterdir()
    assert f"(traceback: {kept})" in done.stdout
    assert "Traceback (most recent call last):" in kept.read_text(encoding="utf-8")
    assert "mvae.training.loop.NonFiniteLoss: the loss is not finite at epoch 1" in kept.read_text(encoding="utf-8")
    (logged,) = (tmp_path / "runs" / "mlartifacts").rglob(kept.name)
    assert logged.read_text(encoding="utf-8") == kept.read_text(encoding="utf-8")
