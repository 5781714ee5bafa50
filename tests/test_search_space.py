"""The ranges of a search, the command line that it prints, its plan and its report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mvae.data import DATASETS, fingerprint, load, source
from mvae.evaluation.measurable import validation_metrics
from mvae.models import ARMS
from mvae.refusal import Refusal
from mvae.storage.objects import place
from mvae.training.loop import validated
from mvae.trial import Trial
from pipelines import train, weak_supervision
from pipelines.search import Options, sweep
from sweeps.cli.console import Console
from sweeps.cli.options import read
from sweeps.main import BAD_INPUT, COMPLETE, INCOMPLETE, main
from sweeps.planning.state import TrialState
from sweeps.search.database import study_uri
from sweeps.search.report import Outcome, markdown, show, write
from sweeps.search.space import RANGES, Span, ranges
from sweeps.search.study import SearchRecord, look, opened
from sweeps.store.store import Store
from sweeps.tracking.notes import saved_view
from sweeps.tracking.view import SweepView
from tests.searching import asked, finish, reopen, run_to_the_end, store, wanted
from tests.sweeping import ROOT

__all__ = ["reopen", "store"]


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_arms_defaults_are_inside_its_search_ranges(dataset: str) -> None:
    for token in ARMS:
        try:
            default = Trial.create(dataset=dataset, model=token)
        except Refusal:
            continue
        read_ = set(default.hashed_fields()) & set(RANGES)
        if not read_ or read_ == {"image_network"}:
            continue
        for name, span in ranges(default, (), None).items():
            value = default.value(name)
            assert value in span


@pytest.mark.parametrize("token", ARMS)
def test_a_search_can_use_exactly_the_validation_metrics(token: str, cache: Path) -> None:
    data, trial = load("digits", cache=cache), Trial.create(dataset="digits", model=token)
    model = ARMS[token].build(trial, data.modalities)
    if ARMS[token].fit is not None:
        ARMS[token].fit(model, trial, data)  # type: ignore[misc]
    assert set(validated(model, trial, data)) == set(validation_metrics(token, data.modalities))


def test_a_data_set_without_labels_is_searched_by_its_arms_validation_metric() -> None:
    with pytest.raises(Refusal, match=r"^arm mvae on vision_faces has no validation metric"):
        wanted("--dataset", "vision_faces")
    of = wanted("--dataset", "vision_faces", "--arms", "vae")
    assert (of.metric, of.maximize) == ("validation/elbo", True)


def test_an_option_given_by_the_user_is_kept_fixed() -> None:
    of = wanted("--learning-rate", "0.002", "--pairing", "resampled", "--annealing-epochs", "3")
    assert not {"learning_rate", "pairing", "annealing_share"} & set(of.varied)
    assert of.default.learning_rate == 0.002
    assert wanted().name != of.name


@pytest.mark.parametrize(
    ("arguments", "pipeline"),
    [
        (("--arms", "mvae"), weak_supervision),
        (("--arms", "jmvae", "--alpha", "0.1", "--annealing-epochs", "2"), weak_supervision),
        (("--arms", "nn", "--train-examples", "500"), weak_supervision),
        (("--arms", "vae"), weak_supervision),
        (("--arms", "cvae"), train),
    ],
)
def test_the_printed_command_line_gives_the_same_key(
    arguments: tuple[str, ...], pipeline: object, store: Store
) -> None:
    of = wanted("--seeds", "3", *arguments)
    with opened(of, study_uri(store, None)) as study:
        study.settle(store)
        trials = [asked(study, store).trial for _ in range(3)]
    for trial in trials:
        words = shlex.split(of.command(trial))
        module = train if words[1] == "pipelines/train.py" else weak_supervision
        assert module is pipeline
        again = [cell.trial.key(of.fingerprint) for cell in module.cells(read(module.Options, words[2:]))]
        assert of.key(trial) in again
        assert len(again) == 3


def test_the_printed_command_line_names_storage_plug_ins_and_data(tmp_path: Path) -> None:
    plugin = ROOT / "docs" / "examples" / "mvae_mean.py"
    typed_in = ("--storage", str(tmp_path / "runs"), "--plugins", str(plugin), "--cache", str(tmp_path / "cache"))
    of = wanted(*typed_in, "--name", "x", "--paired-fraction", "0.1234567")
    words = shlex.split(of.command(of.default))
    again = read(weak_supervision.Options, words[2:])
    assert (again.storage, again.cache) == (tmp_path / "runs", tmp_path / "cache")
    assert again.plugins == (plugin,) and again.name == "x"
    assert of.key(of.default) in {cell.trial.key(of.fingerprint) for cell in weak_supervision.cells(again)}
    assert "--storage" not in wanted().command(of.default)


def test_a_default_outside_the_search_range_is_refused_with_advice() -> None:
    beyond = wanted().default.with_(latents=500)
    with pytest.raises(
        Refusal, match=r"^latents = 500 of .* not in the search range 8 to 256 .*: fix it with --latents"
    ):
        ranges(beyond, (), None)
    assert "latents" not in ranges(beyond, ("latents",), None)


@pytest.mark.parametrize(("latents", "expected"), [(3, (3, 256)), (16, (8, 256)), (512, (8, 512))])
def test_the_range_of_the_latents_includes_a_data_sets_own_number(
    latents: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = source("digits")
    usual = replace(digits, name="own", defaults=replace(digits.defaults, latents=latents))
    monkeypatch.setitem(DATASETS, "own", usual)
    span = ranges(Trial.create(dataset="own", model="mvae"), (), ["latents"])["latents"]
    assert isinstance(span, Span) and (span.low, span.high) == expected


def test_mlflows_view_of_a_search_shows_the_objective_first_and_the_varied_settings() -> None:
    view = SweepView("search", TrialState.RUNNING, "Search", metrics=("validation/accuracy",), settings=("latents",))
    state = json.loads(json.loads(saved_view(view, 0, None))["state"])
    assert state["selectedColumns"][:3] == ["metrics.`validation/accuracy`", "metrics.`epoch`", "params.`latents`"]
    assert state["groupBy"] is None
    grouped = json.loads(json.loads(saved_view(replace(view, settings=()), 0, None))["state"])
    assert grouped["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "mvae.cell"}]


def test_the_report_compares_the_best_trial_with_the_default_and_has_the_plots(
    store: Store, reopen: Callable[..., SearchRecord], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = wanted("--trials", "8")
    study = reopen(of)
    first = asked(study, store)
    study.give_up(asked(study, store).key, 1, 0.01, store)
    finish(store, of, first.trial, first.trial.learning_rate)
    study.done(first.key, store)
    run_to_the_end(study, store)
    outcome = Outcome(of, tuple(study.known()), {}, study.importances())
    assert outcome.best is not None
    assert outcome.best.trial.learning_rate == max(
        one.trial.learning_rate for one in outcome.known if one.state is TrialState.DONE
    )
    write(place(tmp_path / "report"), outcome)
    for name in ("history", "parallel", "importances"):
        for form, begins in (("png", b"\x89PNG"), ("pdf", b"%PDF-"), ("svg", b"<?xml")):
            assert (tmp_path / "report" / f"{name}.{form}").read_bytes().startswith(begins)
    show(outcome, Console(live=False).rich)
    said = capsys.readouterr().out
    assert f"(trial {outcome.best.number}), the default's 0.001" in said
    assert "    python pipelines/weak_supervision.py --dataset digits --arms mvae" in markdown(outcome)
    assert "8 of 8 trials: 7 done, 1 pruned" in said


def test_the_table_of_a_search_rounds_and_its_file_for_programs_keeps_every_digit(
    store: Store, reopen: Callable[..., SearchRecord], tmp_path: Path
) -> None:
    of, value = wanted("--trials", "3"), 0.7654321
    study = reopen(of)
    first = asked(study, store)
    finish(store, of, first.trial, value)
    study.done(first.key, store)
    write(place(tmp_path), Outcome(of, tuple(study.known())))
    assert ",0.7654321," in (tmp_path / "trials.csv").read_text(encoding="utf-8")
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "0.765" in table and "0.7654" not in table


def test_the_table_calls_a_running_trial_open_like_earlier_releases(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    study = reopen(wanted("--trials", "3"))
    asked(study, store)
    outcome = Outcome(study.search, tuple(study.known()))
    assert [outcome.line(one)["state"] for one in outcome.known] == ["open"]
    assert outcome.counts() == "0 of 3 trials: 1 open"


def test_plan_and_report_of_a_search_start_and_write_nothing(
    storage: Path, cache: Path, no_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def looked(last: str) -> int:
        options = read(Options, ["--storage", str(storage), "--cache", str(cache), "--trials", "7", last])
        return main(lambda: sweep(options), options)

    assert looked("--plan") == COMPLETE
    assert looked("--report") == BAD_INPUT
    assert not list(storage.iterdir())
    Store.open(storage, "main", create=True)
    capsys.readouterr()
    assert looked("--report") == INCOMPLETE
    assert "0 of 7 trials: none begun" in capsys.readouterr().out
    assert not any(path.is_file() for path in storage.rglob("*") if "reports" not in path.parts)


def test_a_search_plan_says_how_the_raw_files_differ_from_the_published_ones(
    storage: Path, cache: Path, tiny_root: Path, no_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--storage", str(storage), "--cache", str(cache), "--data-root", str(tiny_root)]
    options = read(Options, ["--dataset", "mnist", "--plan", *folders])
    assert main(lambda: sweep(options), options) == 0
    assert "60 training and 12 test examples (published: 60,000 and 10,000)" in capsys.readouterr().out


def test_a_damaged_study_is_refused_with_advice(store: Store) -> None:
    (store.folder / "study.db").write_bytes(b"not a database" * 100)
    with pytest.raises(Refusal, match="move the file away and repeat your command to rebuild it from storage"):
        look(wanted(), study_uri(store, None))


def test_a_search_on_object_storage_needs_a_study_uri() -> None:
    with pytest.raises(Refusal, match=r"s3://bucket/runs cannot hold the study's database: set --study-uri"):
        study_uri(Store(place("s3://bucket/runs"), "main"), None)


def test_changing_the_objective_or_the_data_makes_another_search() -> None:
    of = wanted()
    names = {of.name, replace(of, metric="validation/elbo").name, replace(of, fingerprint="f" * 64).name}
    assert len(names) == 3
    assert replace(of, total=50).name == of.name
    assert of.fingerprint == fingerprint("digits")
