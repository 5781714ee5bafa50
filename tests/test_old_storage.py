"""Reads, reports and resumes a storage written by commit 327d2d2: keys and numbers stay the same.

tests/fixtures/make_storage_327d2d2.py made the storage. These tests type the same commands again. AS_THEN sets options
whose defaults have changed. On the fixture's processor, newly computed numbers equal the old ones bit for bit. On other
processors they are close.
"""

from __future__ import annotations

import csv
import importlib
import json
import shutil
import sys
import tarfile
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow.pytorch
import pytest
from mlflow import MlflowClient

from mvae import data
from mvae.data import fingerprint, load
from mvae.data.faces import faces, vision
from mvae.evaluation.accuracy import prediction_accuracy
from mvae.measure import ACCURACY, readout
from mvae.training.records import Record
from mvae.trial import Trial
from pipelines import likelihoods, missing_modalities, search, train, translation, weak_supervision
from pipelines import vision as views
from sweeps.cli.options import read
from sweeps.main import COMPLETE, INCOMPLETE, main
from sweeps.planning.plan import Plan, plan
from sweeps.planning.state import TrialState
from sweeps.search.database import study_uri
from sweeps.search.study import look, opened
from sweeps.search.tried import TriedTrial
from sweeps.store import pruned
from sweeps.store.store import Store
from sweeps.sweep import Sweep
from sweeps.trials.messages import Job
from sweeps.trials.run import run
from tests.fixtures.make_storage_327d2d2 import COMMANDS, HALF_DONE, PICKLED, PROCESSOR, SEARCH, TAR, processor
from tests.searching import finish
from tests.sweeping import ROOT, place

PIPELINES: dict[str, ModuleType] = {
    "weak_supervision.py": weak_supervision,
    "likelihoods.py": likelihoods,
    "train.py": train,
    "missing_modalities.py": missing_modalities,
    "vision.py": views,
    "translation.py": translation,
    "search.py": search,
}
AS_THEN = {
    "weak_supervision.py": "--targets own --label-weight 10",
    "likelihoods.py": "--targets own --label-weight 10",
    "missing_modalities.py": "--attribute-weight 10",
}
ADDED = "train/paired_batches"
"""A per-epoch metric that the old trials do not have."""
SENTENCES = "translation.py"
"""Pipeline whose likelihoods have a newer version, so the storage gets results of both versions."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old") / "storage"
    with tarfile.open(TAR) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old(unpacked: Path, tmp_path: Path) -> Path:
    """A copy of the storage that a test may change."""
    return Path(shutil.copytree(unpacked, tmp_path / "storage"))


@pytest.fixture
def store(old: Path) -> Store:
    return Store.open(old, "main", create=False)


@pytest.fixture(autouse=True)
def few_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the drawn faces with the number of faces in the fixture's plug-in."""
    monkeypatch.setitem(data.DATASETS, "faces19", faces.describe("faces19", separate=True, count=36))
    monkeypatch.setitem(data.DATASETS, "vision_faces", vision.describe_faces("vision_faces", count=36))


def arguments(command: str) -> list[str]:
    script, *options = command.split()
    return [*options, *AS_THEN.get(script, "").split(), "--seeds", "0"]


def typed(command: str, storage: Path, cache: Path, *more: str) -> tuple[ModuleType, Any]:
    """Pipeline module and options of a command."""
    module = PIPELINES[command.split()[0]]
    where = ("--storage", str(storage), "--cache", str(cache))
    return module, read(module.Options, [*arguments(command), *where, *more])


def ran(command: str, storage: Path, cache: Path, *more: str) -> int:
    """Runs a command in this process; returns its exit code."""
    module, options = typed(command, storage, cache, *more)
    return main(lambda: module.sweep(options), options)


def planned(command: str, store: Store, cache: Path) -> Plan:
    assert isinstance(store.root, Path)
    module, options = typed(command, store.root, cache)
    sweep: Sweep = module.sweep(options)
    return plan(sweep.cells, store, {cell.trial.dataset: fingerprint(cell.trial.dataset) for cell in sweep.cells})


def lines_of(report: Path) -> Counter[tuple[str, ...]]:
    """Counts the runs in a report by column, key, measure and value. Row names are left out, because they have
    changed."""
    with (report / "runs.csv").open(encoding="utf-8", newline="") as file:
        return Counter(
            tuple(line[name] for name in ("column", "key", "measure", "value")) for line in csv.DictReader(file)
        )


def of_sentence_likelihoods(lines: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    return Counter({line: count for line, count in lines.items() if line[2].startswith("likelihood")})


def metrics(history: list[Record]) -> list[dict[str, float]]:
    """Metrics of each epoch, without those that newer trials added."""
    return [{name: value for name, value in record["metrics"].items() if name != ADDED} for record in history]


def on_the_same_processor(storage: Path) -> bool:
    return bool(json.loads((storage / PROCESSOR).read_bytes()) == processor())


def assert_close(found: list[dict[str, float]], old: list[dict[str, float]], storage: Path) -> None:
    """Asserts that metrics are equal on the fixture's processor, and close on other processors."""
    if on_the_same_processor(storage):
        assert found == old
    else:
        assert found == [pytest.approx(each, rel=1e-3, abs=0.01) for each in old]


# Read


def test_every_old_result_has_the_key_that_its_settings_have_today(store: Store) -> None:
    results = list(store.results)
    files = sorted(path.name for path in (store.folder / "results").iterdir())
    given_up = [Path(name).name for name in files if name.endswith(pruned.SUFFIX)]
    assert len(results) + len(given_up) == len(files)
    assert not any(name.endswith(".bad") for name in files)
    for result in results:
        trial = Trial.model_validate(result.trial)
        assert result.provenance["data"] == fingerprint(trial.dataset)
        assert result.key == trial.key(fingerprint(trial.dataset)), result.trial
    measures = {result.measure for result in results}
    assert measures == {
        *("accuracy-v1", "readout-f0.1-v1", "readout-f1-v1", "likelihood-s5-v1", "likelihood-s2-v1"),
        *("attributes-v1", "vision-v1", "translation-v1"),
    }


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[0])
def test_a_report_of_old_results_shows_the_same_keys_and_numbers(
    command: str, old: Path, store: Store, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = command.split()[0].removesuffix(".py")
    (before,) = (old / "main" / "reports").glob(f"{sweep}-*")
    shown_then = lines_of(before)
    code = ran(command, old, cache, "--report")
    report = Path(capsys.readouterr().out.rpartition("Report: ")[2].strip())
    shown_now = lines_of(report)
    again = of_sentence_likelihoods(shown_then) if command.startswith(SENTENCES) else Counter[tuple[str, ...]]()
    assert code == (INCOMPLETE if again else COMPLETE)
    assert shown_then - again == shown_now - of_sentence_likelihoods(shown_now) if again else shown_then == shown_now
    for _, key, measure, value in shown_then:
        result = store.results.read(key, measure)
        assert result is not None
        assert float(value) in result.metrics.values()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[0])
def test_a_plan_of_old_results_is_done_except_for_sentence_likelihoods(command: str, store: Store, cache: Path) -> None:
    found = planned(command, store, cache)
    left = [measure.token for one in found.todo for measure in one.missing]
    if command.startswith(SENTENCES):
        assert left == ["likelihood-s2-v2"]
        assert found.superseded == tuple(f"{key}.likelihood-s2-v1.json" for key in found.trials)
    else:
        assert (left, found.superseded) == ([], ())
        assert found.count(TrialState.DONE) == len(found.trials)


def test_a_plan_shows_the_old_half_done_trial(old: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(HALF_DONE, old, cache, "--plan") == COMPLETE
    (key,) = planned(HALF_DONE, Store.open(old, "main", create=False), cache).trials
    assert f"of 40 (key {key})" in capsys.readouterr().out


def test_old_models_in_mlflow_load_and_give_the_same_predictions(old: Path, store: Store, cache: Path) -> None:
    digits = load("digits", None, cache)
    folders = sorted((old / "mlartifacts" / "models").glob("*/artifacts"))
    found = [
        prediction_accuracy(mlflow.pytorch.load_model(str(folder)), digits.modalities, digits.test)
        for folder in folders
    ]
    kept = [result for result in store.results if result.trial["model"] == "logreg"]
    assert len(found) == 2
    assert sorted(found) == sorted(result.metrics["test/accuracy"] for result in kept)


def test_every_class_pickled_in_old_models_still_has_its_name(old: Path) -> None:
    pickled: dict[str, list[str]] = json.loads((old / PICKLED).read_bytes())
    names = {name for each in pickled.values() for name in each if name.startswith("mvae.")}
    assert {"mvae.models.mvae MVAE", "mvae.models.jmvae JMVAE", "mvae.models.rbm RBM"} <= names
    for module, name in (each.split() for each in names):
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


# Resumed


def job_of(key: str, found: Plan, store: Store, cache: Path) -> Job:
    one = found.trials[key]
    return Job(key, one.trial, one.missing, store, cache=cache)


def test_an_old_half_done_trial_resumes_and_equals_an_unbroken_one(store: Store, cache: Path, tmp_path: Path) -> None:
    found = planned(HALF_DONE, store, cache)
    (key,) = found.trials
    checkpoint = store.checkpoints(key).latest()
    assert checkpoint is not None
    assert found.count(TrialState.INTERRUPTED) == 1
    assert 5 <= checkpoint.epoch == found.trials[key].epoch < found.trials[key].trial.epochs
    elsewhere = Store.open(tmp_path / "elsewhere", "main", create=True)
    results = []
    for place_ in (store, elsewhere):
        run(job_of(key, found, place_, cache), lambda _: None)
        result = place_.results.read(key, ACCURACY.token)
        assert result is not None
        results.append(result)
    resumed, alone = results
    assert [attempt["from_epoch"] for attempt in resumed.provenance["attempts"]] == [0, checkpoint.epoch]
    assert metrics(resumed.history[: checkpoint.epoch]) == metrics(checkpoint.history)
    assert_close(metrics(alone.history[: checkpoint.epoch]), metrics(checkpoint.history), store.root)  # type: ignore[arg-type]
    if on_the_same_processor(store.root):  # type: ignore[arg-type]
        assert resumed.metrics == alone.metrics
        assert metrics(resumed.history) == metrics(alone.history)
    else:
        assert resumed.metrics == pytest.approx(alone.metrics, rel=0.1, abs=0.05)


def test_the_old_weights_of_a_finished_trial_give_the_same_number_again(store: Store, cache: Path) -> None:
    measure = readout(0.1)
    (key,) = (
        result.key for result in store.results if result.trial["model"] == "rbm" and result.measure == measure.token
    )
    before = store.results.read(key, measure.token)
    store.results.path(key, measure.token).unlink()
    found = planned(COMMANDS[0], store, cache)
    assert (found.trials[key].state, found.trials[key].missing) == (TrialState.INTERRUPTED, (measure,))
    run(job_of(key, found, store, cache), lambda _: None)
    after = store.results.read(key, measure.token)
    assert before is not None
    assert after is not None
    assert [attempt["from_epoch"] for attempt in after.provenance["attempts"]] == [0, before.trial["epochs"]]
    assert_close([after.metrics], [before.metrics], store.root)  # type: ignore[arg-type]


def test_an_old_half_done_search_resumes_with_its_numbers_and_total(store: Store, old: Path, cache: Path) -> None:
    _, options = typed(SEARCH, old, cache)
    wanted, uri = search.search(options), study_uri(store, None)
    before = look(wanted, uri)
    ended = [known for known in before if known.ended]
    (killed,) = (known for known in before if not known.ended)
    assert {known.state for known in ended} == {TrialState.DONE, TrialState.PRUNED}
    for known in ended:
        given_up, result = pruned.read(store, known.key, wanted.name), store.results.read(known.key, ACCURACY.token)
        assert (given_up is None) == (known.state is TrialState.DONE) == (result is not None)
        assert known.value == (wanted.value(result.history) if result else given_up and given_up.value)
    checkpoint = store.checkpoints(killed.key).latest()
    assert checkpoint is not None
    with opened(wanted, uri) as study:
        study.settle(store)
        assert study.left == wanted.total - len(ended)
        first = study.ask(store)
        assert first is not None
        assert (first.number, first.key, first.trial) == (killed.number, killed.key, killed.trial)
        run(Job(first.key, first.trial, (wanted.measure,), store, cache=cache), lambda _: None)
        asked: TriedTrial | None = first
        while asked is not None:
            if store.results.read(asked.key, ACCURACY.token) is None:
                finish(store, wanted, asked.trial, 0.5)
            for epoch in wanted.milestones:
                study.lags_behind(asked.key, epoch, 0.9)
            study.done(asked.key, store)
            asked = study.ask(store)
        after = study.known()
    assert [known for known in after if known.number in {one.number for one in ended}] == ended
    assert len({known.key for known in after}) == len(after) == wanted.total == 6
    assert all(known.ended for known in after)
    resumed = store.results.read(killed.key, ACCURACY.token)
    assert resumed is not None
    assert [attempt["from_epoch"] for attempt in resumed.provenance["attempts"]] == [0, checkpoint.epoch]


# MLflow


def runs_by_key(storage: Path) -> Counter[str]:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return Counter(
        run.data.tags["mvae.key"]
        for run in client.search_runs(experiments, max_results=1000)
        if "mvae.key" in run.data.tags
    )


def test_mlflow_keeps_one_run_per_trial_when_an_old_table_is_typed_again(
    old: Path, store: Store, cache: Path, no_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (old / "main" / "lease.json").unlink()  # its holder is dead; noticing this from another machine takes 20 s
    before = runs_by_key(old)
    results = {result.key: repr(result) for result in store.results}
    assert ran(COMMANDS[0], old, cache) == COMPLETE
    assert "8 trials, 8 done" in capsys.readouterr().out
    assert runs_by_key(old) == before
    assert set(before.values()) == {1}
    assert {result.key: repr(result) for result in store.results} == results


@pytest.mark.slow
def test_old_killed_commands_typed_again_finish_their_sweeps(old: Path) -> None:
    with place(old) as here:
        keys = {name.partition(".")[0] for name in here.files()} | set(here.epochs())
        for command in (HALF_DONE, SEARCH):
            script = str(ROOT / "pipelines" / command.split()[0])
            where = ("--storage", str(old), "--cache", str(here.cache), "--max-concurrent", "1")
            ended = here.launch([sys.executable, script, *arguments(command), *where]).ended()
            assert ended.code == COMPLETE, ended
        ended_keys = {name.partition(".")[0] for name in here.files()}
        assert keys < ended_keys
        assert runs_by_key(old) == Counter(dict.fromkeys(ended_keys, 1))
        assert here.running() == []
