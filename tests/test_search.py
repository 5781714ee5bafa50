"""Claims about a search and its study: what is asked, what counts, and what is known again after any loss."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from mvae.data import DATASETS, fingerprint, load
from mvae.models import ARMS
from mvae.refusal import Refusal
from mvae.storage.objects import place
from mvae.training.loop import validated, validation_metrics
from mvae.training.records import Record
from mvae.trial import Trial
from pipelines import train, weak_supervision
from pipelines.search import Options, search, sweep
from sweeps.cli.options import read
from sweeps.main import BAD_INPUT, COMPLETE, INCOMPLETE, main
from sweeps.search.database import study_uri
from sweeps.search.report import Outcome, markdown, show, write
from sweeps.search.space import RANGES, Search, Span, ranges
from sweeps.search.study import SearchRecord, look, opened
from sweeps.search.tried import Standing, TriedTrial
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.tracking.notes import saved_view
from sweeps.tracking.view import Status, SweepView
from tests.sweeping import ROOT

EPOCHS = 10


@pytest.fixture
def store(storage: Path) -> Store:
    return Store.open(storage, "main", create=True)


def wanted(*arguments: str) -> Search:
    return search(read(Options, ["--epochs", str(EPOCHS), "--paired-fraction", "0.05", *arguments]))


@pytest.fixture
def reopen(store: Store) -> Iterator[Callable[..., SearchRecord]]:
    """Opens the study as the next driver does; the one before is gone without a word."""
    with ExitStack() as stack:

        def again(of: Search) -> SearchRecord:
            stack.close()
            study = stack.enter_context(opened(of, study_uri(store, None)))
            study.settle(store)
            return study

        yield again


def history(values: Sequence[float], start: float = 0.0) -> list[Record]:
    return [
        Record(epoch=epoch, time=start + epoch, metrics={"validation/accuracy": value})
        for epoch, value in enumerate(values, 1)
    ]


def finish(store: Store, of: Search, trial: Trial, value: float, finished: float = 0.0) -> str:
    """What a trial process leaves behind that came to its end."""
    key, values = of.key(trial), [value] * trial.epochs
    about = {"finished": finished, "seconds": 5.0, "epochs": trial.epochs}
    metrics = {"test/accuracy": value / 2}
    store.results.write(Result(key, of.measure.token, trial.model_dump(), metrics, about, history(values)))
    return key


def asked(study: SearchRecord, store: Store) -> TriedTrial:
    known = study.ask(store)
    assert known is not None
    return known


def run_to_the_end(study: SearchRecord, store: Store) -> list[TriedTrial]:
    """Every trial that is asked for comes to its end; its learning rate is what it is worth."""
    found = []
    while (known := study.ask(store)) is not None:
        finish(store, study.search, known.trial, known.trial.learning_rate)
        study.done(known.key, store)
        found.append(known)
    return found


def test_the_default_is_tried_first_and_the_total_counts_distinct_keys(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    of = wanted("--trials", "12")
    found = run_to_the_end(reopen(of), store)
    assert found[0].trial == of.default
    assert len({one.key for one in found}) == len(found) == 12
    assert reopen(of).ask(store) is None


def test_a_larger_total_asks_for_the_difference_alone(store: Store, reopen: Callable[..., SearchRecord]) -> None:
    first = run_to_the_end(reopen(wanted("--trials", "5")), store)
    more = run_to_the_end(reopen(wanted("--trials", "8")), store)
    assert len(more) == 3
    assert not {one.key for one in first} & {one.key for one in more}


def test_settings_that_can_be_counted_are_all_tried_although_the_sampler_repeats_itself(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    found = run_to_the_end(reopen(wanted("--trials", "12", "--vary", "pairing,targets,decoder_hidden")), store)
    assert len({one.key for one in found}) == 12


def test_more_trials_than_there_are_settings_are_refused() -> None:
    with pytest.raises(Refusal, match=r"^--trials 20: there are only 4 settings of pairing, targets: ask for at m"):
        wanted("--vary", "pairing,targets")


def test_what_ran_when_the_driver_died_is_put_back_with_its_number(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    of = wanted("--trials", "5")
    study = reopen(of)
    before = [asked(study, store) for _ in range(3)]
    finish(store, of, before[1].trial, 0.5)
    study.done(before[1].key, store)
    again = reopen(of)
    back = [asked(again, store) for _ in range(2)]
    assert [(one.number, one.key, one.trial) for one in back] == [
        (one.number, one.key, one.trial) for one in (before[0], before[2])
    ]
    assert asked(again, store).number > before[2].number


def test_a_smaller_total_than_before_takes_up_no_more_than_it_counts(
    store: Store, reopen: Callable[..., SearchRecord], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = reopen(wanted("--trials", "5"))
    before = [asked(study, store) for _ in range(4)]
    for one in before[:2]:
        finish(store, study.search, one.trial, 0.5)
        study.done(one.key, store)
    fewer = reopen(wanted("--trials", "3"))
    assert fewer.left == 1
    assert asked(fewer, store).key == before[2].key and fewer.ask(store) is None
    assert reopen(wanted("--trials", "1")).left == 0
    typed_in = f"--epochs {EPOCHS} --paired-fraction 0.05 --trials 1 --plan --price-per-hour 2"
    options = read(Options, [*typed_in.split(), "--storage", str(store.root), "--cache", str(cache)])
    assert main(lambda: sweep(options), options) == 0
    said = capsys.readouterr().out
    assert not re.search(r"-\d", said), "nothing costs less than nothing"


def test_what_a_search_gave_up_stays_given_up_although_another_sweep_has_trained_it(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    study = reopen(wanted("--trials", "3"))
    known = asked(study, store)
    study.give_up(known.key, 1, 0.01, store)
    finish(store, study.search, known.trial, 0.9)
    with_database = {one.key: one.standing for one in reopen(study.search).known()}
    (store.folder / "study.db").unlink()
    rebuilt = {one.key: one.standing for one in reopen(study.search).known()}
    assert with_database == rebuilt == {known.key: Standing.PRUNED}


def test_a_death_between_the_result_and_the_word_to_the_study_trains_nothing_again(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    of = wanted("--trials", "3")
    first = asked(reopen(of), store)
    finish(store, of, first.trial, 0.5)
    study = reopen(of)
    assert [(one.standing, one.value) for one in study.known()] == [(Standing.DONE, 0.5)]
    assert asked(study, store).key != first.key


def test_a_pruned_trial_counts_and_is_known_again_and_so_is_one_that_diverged(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    of = wanted("--trials", "3")
    study = reopen(of)
    pruned, diverged = asked(study, store), asked(study, store)
    assert not study.lags_behind(pruned.key, 1, 0.2)
    study.give_up(pruned.key, 3, 0.1, store)
    study.diverged(diverged.key, "the loss is not finite")
    assert (store.results.folder / f"{pruned.key}.pruned.json").exists()
    again = reopen(of)
    assert [(one.standing, one.value, dict(one.steps)) for one in again.known()] == [
        (Standing.PRUNED, 0.1, {1: 0.2, 3: 0.1}),
        (Standing.DIVERGED, None, {}),
    ]
    assert again.left == 1


def test_at_each_rung_the_best_third_continues_and_so_does_the_default(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    of = wanted("--trials", "8")
    values, expected = (0.1, 0.5, 0.4, 0.6, 0.3, 0.55), [False, False, True, False, True, False]
    study = reopen(of)
    keys = [asked(study, store).key for _ in values]
    decided = []
    for key, value in zip(keys, values, strict=True):
        decided.append(study.lags_behind(key, 1, value))
        assert study.lags_behind(key, 1, value) == decided[-1], "a kill before the word is written loses no decision"
        if decided[-1]:
            study.give_up(key, 1, value, store)
    assert decided == expected, "the default comes first; then the best of fewer than six, the best two of six"
    again = reopen(of)
    assert not again.lags_behind(keys[3], 1, 0.0), "what continued once continues after a kill"
    assert [again.lags_behind(key, 3, value) for key, value in ((keys[1], 0.7), (keys[3], 0.6))] == [False, True]


def test_a_death_between_the_pruned_file_and_the_word_to_the_study_prunes_it(
    store: Store, reopen: Callable[..., SearchRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = wanted("--trials", "3")
    study = reopen(of)
    known = asked(study, store)
    with monkeypatch.context() as patch:
        patch.setattr(study, "_tell_pruned", lambda *_: None)
        study.give_up(known.key, 1, 0.1, store)
    assert [one.standing for one in reopen(of).known()] == [Standing.PRUNED]


def test_a_study_whose_database_is_gone_is_made_from_storage_again(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    of = wanted("--trials", "6")
    study = reopen(of)
    for place_, known in enumerate(asked(study, store) for _ in range(6)):
        if place_ in (2, 4):
            study.give_up(known.key, 3, 0.01, store)
        else:
            finish(store, of, known.trial, 0.1 * place_, finished=float(place_))
            study.done(known.key, store)
    before = {one.key: (one.standing, one.value) for one in study.known()}
    (store.folder / "study.db").unlink()
    again = reopen(of)
    assert {one.key: (one.standing, one.value) for one in again.known()} == before
    assert again.ask(store) is None


def test_a_study_made_from_storage_again_compares_with_the_trials_that_were_pruned(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    of = wanted("--trials", "9")
    study = reopen(of)
    for value in (0.1, 0.5, 0.4, 0.2, 0.3):
        key = asked(study, store).key
        if study.lags_behind(key, 1, value):
            study.give_up(key, 1, value, store)
    (store.folder / "study.db").unlink()
    again = reopen(of)
    assert sorted(one.steps[1] for one in again.known() if one.steps) == [0.2, 0.3, 0.4]
    default, new = asked(again, store).key, asked(again, store).key
    assert default == of.key(of.default)
    assert [again.lags_behind(new, 1, value) for value in (0.35, 0.45)] == [True, False]


def test_what_a_sweep_of_the_name_has_run_counts_and_is_not_run_again(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    of = wanted("--trials", "4")
    there = finish(store, of, of.default.with_(latents=20), 0.9)
    other_seed = finish(store, of, of.default.with_(seed=1), 0.9)
    outside = finish(store, of, of.default.with_(latents=1000), 0.9)
    study = reopen(of)
    assert [(one.key, one.value) for one in study.known()] == [(there, 0.9)]
    found = run_to_the_end(study, store)
    assert found[0].trial == of.default
    assert len(found) == 3
    assert not {there, other_seed, outside} & {one.key for one in found}


def test_the_next_question_depends_on_what_is_known_and_on_nothing_else(tmp_path: Path) -> None:
    of, answers = wanted("--trials", "12"), []
    for name, breaks in (("unbroken", ()), ("broken", (3, 7, 9))):
        store = Store.open(tmp_path / name, "main", create=True)
        found: list[str] = []
        while len(found) < 12:
            with opened(of, study_uri(store, None)) as study:
                study.settle(store)
                while (known := study.ask(store)) is not None:
                    found.append(known.key)
                    finish(store, of, known.trial, known.trial.learning_rate)
                    study.done(known.key, store)
                    if len(found) in breaks:
                        break
        answers.append(found)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_arm_begins_inside_the_ranges_of_what_it_reads(dataset: str) -> None:
    for token in ARMS:
        try:
            default = Trial.create(dataset=dataset, model=token)
        except Refusal:
            continue
        read_ = set(default.hashed_fields()) & set(RANGES)
        if not read_ or read_ == {"image_network"}:
            continue
        for name, span in ranges(default, (), None).items():
            value = getattr(default, name)
            assert span.holds(value) if isinstance(span, Span) else value in span


@pytest.mark.parametrize("token", ARMS)
def test_the_metrics_that_a_search_can_go_by_are_those_that_are_validated(token: str, cache: Path) -> None:
    data, trial = load("digits", cache=cache), Trial.create(dataset="digits", model=token)
    model = ARMS[token].build(trial, data.modalities)
    if ARMS[token].fit is not None:
        ARMS[token].fit(model, trial, data)  # type: ignore[misc]
    assert set(validated(model, trial, data)) == set(validation_metrics(token, data.modalities))


def test_a_data_set_without_labels_is_searched_by_what_its_arms_validate() -> None:
    with pytest.raises(Refusal, match=r"^arm mvae on vision_faces has no validation metric to go by"):
        wanted("--dataset", "vision_faces")
    of = wanted("--dataset", "vision_faces", "--arms", "vae")
    assert (of.metric, of.maximize) == ("validation/elbo", True)


def test_an_option_that_is_given_is_kept_fixed() -> None:
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
def test_the_command_line_names_the_very_same_key(arguments: tuple[str, ...], pipeline: object, store: Store) -> None:
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


def test_the_command_line_finds_storage_plugins_and_data_again(tmp_path: Path) -> None:
    plugin = ROOT / "docs" / "examples" / "mvae_mean.py"
    typed_in = ("--storage", str(tmp_path / "runs"), "--plugins", str(plugin), "--cache", str(tmp_path / "cache"))
    of = wanted(*typed_in, "--name", "x", "--paired-fraction", "0.1234567")
    words = shlex.split(of.command(of.default))
    again = read(weak_supervision.Options, words[2:])
    assert (again.storage, again.cache) == (tmp_path / "runs", tmp_path / "cache")
    assert again.plugins == (plugin,) and again.name == "x"
    assert of.key(of.default) in {cell.trial.key(of.fingerprint) for cell in weak_supervision.cells(again)}
    assert "--storage" not in wanted().command(of.default)


def test_a_default_outside_what_is_varied_is_refused_with_what_to_give() -> None:
    beyond = wanted().default.with_(latents=500)
    with pytest.raises(Refusal, match=r"latents is varied among 8 to 256, .* begins with 500: give --latents"):
        ranges(beyond, (), None)
    assert "latents" not in ranges(beyond, ("latents",), None)


def test_mlflows_view_of_a_search_begins_with_what_decides_and_shows_what_is_varied() -> None:
    view = SweepView("search", Status.RUNNING, "Search", metrics=("validation/accuracy",), settings=("latents",))
    state = json.loads(json.loads(saved_view(view, 0, None))["state"])
    assert state["selectedColumns"][:3] == ["metrics.`validation/accuracy`", "metrics.`epoch`", "params.`latents`"]
    assert state["groupBy"] is None
    grouped = json.loads(json.loads(saved_view(replace(view, settings=()), 0, None))["state"])
    assert grouped["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "mvae.cell"}]


def test_the_report_holds_the_best_beside_the_default_and_the_pictures(
    store: Store, reopen: Callable[..., SearchRecord], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sweeps.cli.console import Console

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
        one.trial.learning_rate for one in outcome.known if one.standing is Standing.DONE
    )
    write(tmp_path / "report", outcome)
    for name in ("history", "parallel", "importances"):
        for form, begins in (("png", b"\x89PNG"), ("pdf", b"%PDF-"), ("svg", b"<?xml")):
            assert (tmp_path / "report" / f"{name}.{form}").read_bytes().startswith(begins)
    show(outcome, Console(live=False).rich)
    said = capsys.readouterr().out
    assert f"(trial {outcome.best.number}), the default's 0.0010" in said
    assert "    python pipelines/weak_supervision.py --dataset digits --arms mvae" in markdown(outcome)
    assert "8 of 8 trials: 7 done, 1 pruned" in said


def test_plan_and_report_start_and_write_nothing(
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


def test_a_plan_says_how_the_raw_files_differ_from_the_published_ones(
    storage: Path, cache: Path, tiny_root: Path, no_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--storage", str(storage), "--cache", str(cache), "--data-root", str(tiny_root)]
    options = read(Options, ["--dataset", "mnist", "--plan", *folders])
    assert main(lambda: sweep(options), options) == 0
    assert "60 training and 12 test examples (published: 60,000 and 10,000)" in capsys.readouterr().out


def test_a_damaged_study_is_refused_with_what_to_do(store: Store) -> None:
    (store.folder / "study.db").write_bytes(b"not a database" * 100)
    with pytest.raises(Refusal, match="move it away and it is made from storage again"):
        look(wanted(), study_uri(store, None))


def test_a_store_of_objects_needs_a_database_elsewhere() -> None:
    with pytest.raises(Refusal, match=r"s3://bucket/runs cannot hold the study's database: give --study-uri"):
        study_uri(Store(place("s3://bucket/runs"), "main"), None)


def test_another_objective_or_data_is_another_search() -> None:
    of = wanted()
    names = {of.name, replace(of, metric="validation/elbo").name, replace(of, fingerprint="f" * 64).name}
    assert len(names) == 3
    assert replace(of, total=50).name == of.name
    assert of.fingerprint == fingerprint("digits")
