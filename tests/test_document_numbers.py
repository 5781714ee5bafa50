"""docs/results/: committed numbers, numbers from a tracking store, and numbers noted by hand."""

from __future__ import annotations

import re
from pathlib import Path

import mlflow
import pytest

from docs.report import numbers as kept
from docs.report.__main__ import figures, main
from docs.report.numbers import Committed, Number, each_file, identity, read, written
from docs.report.refresh import _file, measure_of, merged, merged_curves, numbers
from docs.report.sources import Sources
from mvae.data import fingerprint
from mvae.refusal import Refusal
from mvae.trial import Trial
from sweeps.tracking.mirror import open_database
from tests.document_checks import copied

FILES = [path.name for path in each_file(Sources().results)]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_numbers_is_read_back_unchanged(name: str) -> None:
    path = Sources().results / name
    assert written(read(path).numbers) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "digits" in name else pytest.mark.real_data) for name in FILES]
)
def test_every_committed_key_follows_from_its_fields_and_the_data(name: str, request: pytest.FixtureRequest) -> None:
    trials = {number.key: number.trial for number in read(Sources().results / name).numbers}
    assert trials
    for key, trial in trials.items():
        root = None if trial.dataset == "digits" else request.getfixturevalue("real_data")
        assert trial.key(fingerprint(trial.dataset, root)) == key


def test_every_committed_number_names_its_commit() -> None:
    for name in FILES:
        for number in read(Sources().results / name).numbers:
            assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", number.about["git"]), number.key


def _number(value: float, **fields: object) -> Number:
    trial = Trial.create(dataset="digits", model="nn", **fields)
    return Number("ab" * 8, "accuracy-v1", "test/accuracy", value, trial, {})


def test_a_field_that_an_arm_does_not_read_matches_any_value() -> None:
    found = Committed([_number(0.5, seed=1), _number(0.7, seed=0)])
    assert found.key_of(Trial.create(dataset="digits", model="nn", seed=1, pairing="resampled")) == "ab" * 8
    assert found.key_of(Trial.create(dataset="digits", model="nn", seed=2)) is None


def test_a_number_in_a_store_that_differs_from_the_committed_one_is_refused() -> None:
    known = Committed([_number(0.5)])
    assert merged(known, [_number(0.5)], "x.csv") == list(known.numbers)
    with pytest.raises(Refusal, match=r"x.csv: test/accuracy of (ab){8} is 0.5 there and 0.25 in the store"):
        merged(known, [_number(0.25)], "x.csv")


def _run(**changes: str) -> tuple[dict[str, str], dict[str, str]]:
    trial = Trial.create(dataset="digits", model="nn", seed=3)
    data = fingerprint("digits")
    params = {name: str(value) for name, value in trial.hashed_fields().items()}
    tags = {
        "mvae.key": trial.key(data),
        "mvae.fingerprint": data,
        "mvae.measures": '["accuracy-v1"]',
        "mvae.versions": '{"torch": "2.14.1"}',
        "mvae.git": "f" * 40,
        "mvae.device": "cpu",
        "mvae.seconds": "12.34",
    }
    return params, {**tags, **changes}


def test_a_trial_and_its_numbers_can_be_rebuilt_from_a_runs_parameters() -> None:
    params, tags = _run()
    (found,) = numbers(params, tags, {"test/accuracy": 0.75, "train/loss": 3.0})
    assert (found.key, found.measure, found.value) == (tags["mvae.key"], "accuracy-v1", 0.75)
    assert identity(found.trial) == identity(Trial.create(dataset="digits", model="nn", seed=3))
    assert found.about["training_seconds"] == "12.3"


def test_a_run_whose_key_does_not_follow_from_its_parameters_is_refused() -> None:
    params, tags = _run(**{"mvae.key": "0" * 16})
    with pytest.raises(Refusal, match="give another key"):
        numbers(params, tags, {"test/accuracy": 0.75})


@pytest.mark.parametrize(
    ("metric", "token"),
    [
        ("test/accuracy", "accuracy-v1"),
        ("test/accuracy-sampled", "accuracy-v1"),
        ("test/accuracy-f0.01", "readout-f0.01-v1"),
        ("test/attribute_accuracy/bald", "attributes-v1"),
        ("test/log_marginal-x1", "likelihood-s1000-v1"),
        ("best/epoch", "accuracy-v1 attributes-v1 likelihood-s100-v1 likelihood-s1000-v1 readout-f0.01-v1"),
    ],
)
def test_a_metric_gets_its_measure_if_it_is_unambiguous(metric: str, token: str) -> None:
    names = ["accuracy-v1", "attributes-v1", "likelihood-s100-v1", "likelihood-s1000-v1", "readout-f0.01-v1"]
    assert measure_of(metric, names) == token


@pytest.mark.slow
def test_finished_runs_in_a_tracking_store_become_a_file_and_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout, uri = copied(tmp_path / "checkout"), open_database(tmp_path / "mlflow.db")
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("main")
    params, tags = _run(**{"mvae.kind": "trial", "mvae.sweep.weak_supervision-else": "yes"})
    for status in ("FINISHED", "KILLED"):
        run = client.create_run(experiment, tags=tags).info.run_id
        for name, value in params.items():
            client.log_param(run, name, value)
        client.log_metric(run, "test/accuracy", 0.75 if status == "FINISHED" else 0.1)
        for epoch, accuracy in ((2, 0.7), (1, 0.5), (2, 0.7)):
            client.log_metric(run, kept.VALIDATION, accuracy, step=epoch)
        client.set_terminated(run, status)
    assert main(["--store", uri, "--sweeps", "weak_supervision-other"], Sources(checkout)) == 2
    assert "no finished run of weak_supervision-other: it has weak_supervision-else" in capsys.readouterr().err
    drawn = checkout / "docs" / "results" / kept.CURVES / "weak_supervision-else.csv"
    drawn.write_text(",".join(kept.CURVES_HEAD) + "\n", encoding="utf-8")
    assert main(["--store", uri, "--sweeps", "weak_supervision-else"], Sources(checkout)) == 0
    assert kept.read_curves(drawn) == {(tags["mvae.key"], kept.VALIDATION): (0.5, 0.7)}
    path = checkout / "docs" / "results" / "weak_supervision-else.csv"
    (number,) = read(path).numbers
    assert (number.key, number.value, number.about["git"]) == (tags["mvae.key"], 0.75, "f" * 40)
    values = figures(Sources(checkout))
    assert str(values["table.weak_supervision-else"]).splitlines()[-1] == "| `test/accuracy` | 0.750 |"
    assert values["value.weak_supervision-else.test/accuracy"] == "0.750"


def test_every_committed_curve_belongs_to_a_committed_trial_and_ends_no_better_than_its_best() -> None:
    for path in sorted((Sources().results / kept.CURVES).glob("*.csv")):
        numbers = read(Sources().results / path.name).numbers
        best = {number.key: number.value for number in numbers if number.metric == "best/validation_accuracy"}
        for (key, metric), values in kept.read_curves(path).items():
            assert metric in kept.BY_EPOCH
            assert metric != kept.VALIDATION or max(values) == best[key]


def test_a_curve_that_differs_from_the_committed_one_is_refused() -> None:
    one: kept.Curves = {("k", kept.VALIDATION): (0.1, 0.2)}
    assert merged_curves(dict(one), one, "x.csv") == one
    with pytest.raises(Refusal, match=r"x\.csv: validation/accuracy of k was another"):
        merged_curves(dict(one), {("k", kept.VALIDATION): (0.1, 0.3)}, "x.csv")


def test_a_report_of_other_cells_adds_to_the_file_of_its_sweep(tmp_path: Path) -> None:
    assert _file(tmp_path, "weak_supervision-digits-1a2b3c4d").name == "weak_supervision-digits.csv"
    assert _file(tmp_path, "likelihoods-binary_mnist-s1000-1a2b3c4d").name == "likelihoods-binary_mnist.csv"
    for asked in ("demo-seeds-0-2", "paper-arms-nn_mvae-1a2b3c4d"):
        assert _file(tmp_path, f"likelihoods-binary_mnist-s1000--{asked}").name == "likelihoods-binary_mnist.csv"
    assert _file(tmp_path, "search-digits-mvae-1a2b3c4d").name == "search-digits-mvae-1a2b3c4d.csv"


def test_a_missing_store_gives_a_one_line_error_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--store", f"sqlite:///{tmp_path}/none.db"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_invalid_line_is_refused_with_its_line_number(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(
        "key,measure,metric,value,dataset,model\nabc,accuracy-v1,test/accuracy,much,digits,nn\n", encoding="utf-8"
    )
    with pytest.raises(Refusal, match=r"bad\.csv:2: no number of a trial"):
        read(path)


def test_every_noted_number_has_a_source(tmp_path: Path) -> None:
    checkout = copied(tmp_path)
    assert Sources(checkout).noted()["lab.down"]
    path = checkout / "docs" / "results" / "noted.csv"
    path.write_text(
        path.read_text(encoding="utf-8") + "lab.more,7,seconds of something,,2026-11-25,abc,here\n", encoding="utf-8"
    )
    with pytest.raises(Refusal, match=r"noted.csv:\d+: write name,value,what"):
        Sources(checkout).noted()
