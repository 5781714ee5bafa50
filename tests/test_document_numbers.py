"""Numbers in docs/results/: committed, taken from a storage, or noted by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from docs.report import numbers as kept
from docs.report.__main__ import figures, main
from docs.report.numbers import Committed, each_file, read, written
from docs.report.refresh import check_equal, committable, file_of
from docs.report.sources import Sources
from mvae.data import fingerprint
from mvae.measure import ACCURACY
from mvae.refusal import Refusal
from mvae.training.records import Record
from mvae.trial import Trial
from sweeps.planning.plan import Cell
from sweeps.store.results import Result
from sweeps.store.store import Store
from tests.document_checks import copied

FILES = [path.name for path in each_file(Sources().results)]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_numbers_is_read_back_unchanged(name: str) -> None:
    path = Sources().results / name
    assert written(read(path)) == path.read_text(encoding="utf-8")


def test_own_hyper_parameters_of_an_arm_are_read_back_unchanged(tmp_path: Path) -> None:
    trial = Trial.create(dataset="digits", model="mopoe", own={"beta": 2.5})
    result = Result(
        "a" * 16, "accuracy-v1", trial.model_dump(), {"test/accuracy": 0.5}, dict.fromkeys(kept.ABOUT, ""), []
    )
    (path := tmp_path / "numbers.csv").write_text(written(Committed([result])), encoding="utf-8")
    assert read(path).trials == {result.key: trial}
    assert "2.5" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "digits" in name else pytest.mark.real_data) for name in FILES]
)
def test_every_committed_key_follows_from_its_fields_and_the_data(name: str, request: pytest.FixtureRequest) -> None:
    trials = read(Sources().results / name).trials
    assert trials
    for key, trial in trials.items():
        root = None if trial.dataset == "digits" else request.getfixturevalue("real_data")
        assert trial.key(fingerprint(trial.dataset, root)) == key


def test_every_committed_number_names_its_commit() -> None:
    for name in FILES:
        for result in read(Sources().results / name):
            assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", result.provenance["git"]), result.key


def _result(accuracy: float = 0.75, **fields: Any) -> Result:
    """A result with the contents of a storage's result."""
    trial, data = Trial.create(dataset="digits", model="nn", **fields), fingerprint("digits")
    made = {"data": data, "git": "f" * 40, "versions": {"torch": "2.14.1"}, "device": "cpu", "seconds": 12.34}
    history: list[Record] = [
        {"epoch": epoch, "time": 0.0, "metrics": {kept.VALIDATION: value}, "speed": {}}
        for epoch, value in ((1, 0.5), (2, 0.7))
    ]
    metrics = {"test/accuracy": accuracy, "train/accuracy-f1": 0.9}
    return Result(trial.key(data), ACCURACY.token, trial.model_dump(), metrics, made, history)


def test_a_field_that_an_arm_does_not_read_matches_any_value() -> None:
    committed = Committed([_result(seed=1), _result(seed=0)])
    same, other = (
        Cell(
            "NN", 1.0, Trial.create(dataset="digits", model="nn", seed=seed, pairing="resampled"), ACCURACY, None, "nn"
        )
        for seed in (1, 2)
    )
    assert committed.having([same, other]) == [(same, _result(seed=1).key)]


def test_a_number_in_a_storage_that_differs_from_the_committed_one_is_refused() -> None:
    known = {("ab", "accuracy-v1", "test/accuracy"): 0.5}
    check_equal(known, known, "x.csv")
    check_equal(known, {("cd", "accuracy-v1", "test/accuracy"): 0.25}, "x.csv")
    line = r"x.csv: ab accuracy-v1 test/accuracy is 0.5 in docs/results and 0.25 in the storage"
    with pytest.raises(Refusal, match=line):
        check_equal(known, dict.fromkeys(known, 0.25), "x.csv")


def test_a_result_is_committed_without_training_metrics_and_with_what_is_known_about_it() -> None:
    found = committable(_result(seed=3))
    assert found.metrics == {"test/accuracy": 0.75}
    assert found.provenance == {
        "git": "f" * 40,
        "torch": "2.14.1",
        "device": "cpu",
        "training_seconds": "12.3",
        "measured_in_seconds": "",
    }


def test_a_result_whose_key_does_not_follow_from_its_trial_is_refused() -> None:
    with pytest.raises(Refusal, match="give another key"):
        committable(replace(_result(), key="0" * 16))


def _swept(root: Path, *results: Result) -> str:
    """A storage with the results and the report of the sweep weak_supervision-else."""
    store = Store.open(root, "main", create=True)
    for result in results:
        store.results.write(result)
    lines = [f"{result.key},{result.measure}" for result in results]
    (store.reports / "weak_supervision-else--demo-arms-nn" / "runs.csv").write_bytes(
        "\n".join(["key,measure", *lines, "not_yet_run,accuracy-v1"]).encode()
    )
    return str(root)


@pytest.mark.slow
def test_the_results_of_a_storage_become_a_file_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elastic = _result(seed=4)
    elastic.provenance["elastic"] = True
    checkout, storage = copied(tmp_path / "checkout"), _swept(tmp_path / "runs", _result(seed=3), elastic)
    assert main(["--storage", storage, "--sweeps", "weak_supervision-other"], Sources(checkout)) == 2
    said = "no report of weak_supervision-other.csv (found: weak_supervision-else.csv): run the sweep with --report"
    assert said in capsys.readouterr().err
    drawn = checkout / "docs" / "results" / kept.CURVES / "weak_supervision-else.csv"
    drawn.write_text(",".join(kept.CURVES_HEAD) + "\n", encoding="utf-8")
    assert main(["--storage", storage, "--sweeps", "weak_supervision-else"], Sources(checkout)) == 0
    assert "weak_supervision-else.csv: 1 new numbers" in capsys.readouterr().out
    assert kept.read_curves(drawn) == {(_result(seed=3).key, kept.VALIDATION): (0.5, 0.7)}
    (result,) = read(checkout / "docs" / "results" / "weak_supervision-else.csv")
    assert (result.key, result.metrics) == (_result(seed=3).key, {"test/accuracy": 0.75})
    values = figures(Sources(checkout))
    assert str(values["table.weak_supervision-else"]).splitlines()[-1] == "| `test/accuracy` | 0.750 |"
    assert values["value.weak_supervision-else.test/accuracy"] == "0.750"


def test_every_committed_curve_belongs_to_a_committed_trial_and_ends_no_better_than_its_best() -> None:
    for path in sorted((Sources().results / kept.CURVES).glob("*.csv")):
        name = "best/validation_accuracy"
        best = {one.key: one.metrics[name] for one in read(Sources().results / path.name) if name in one.metrics}
        for (key, metric), values in kept.read_curves(path).items():
            assert metric in kept.BY_EPOCH
            assert metric != kept.VALIDATION or max(values) == best[key]


def test_a_report_of_other_cells_adds_to_the_file_of_its_sweep() -> None:
    assert file_of("weak_supervision-digits-1a2b3c4d") == "weak_supervision-digits.csv"
    assert file_of("likelihoods-binary_mnist-s1000-1a2b3c4d") == "likelihoods-binary_mnist.csv"
    for asked in ("demo-seeds-0-2", "paper-arms-nn_mvae-1a2b3c4d"):
        assert file_of(f"likelihoods-binary_mnist-s1000--{asked}") == "likelihoods-binary_mnist.csv"
    assert file_of("search-digits-mvae-1a2b3c4d") == "search-digits-mvae-1a2b3c4d.csv"


def test_a_storage_without_reports_gives_a_one_line_error_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--storage", f"{tmp_path}/none"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_invalid_line_is_refused_with_its_line_number(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(
        "key,measure,metric,value,dataset,model\nabc,accuracy-v1,test/accuracy,much,digits,nn\n", encoding="utf-8"
    )
    with pytest.raises(Refusal, match=r"bad\.csv:2: this line is not a valid number of a trial"):
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
