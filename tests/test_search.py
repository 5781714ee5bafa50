"""A search's study: its suggested trials, the trials that count, and its recovery after any loss."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mvae.refusal import Refusal
from pipelines.search import Options, sweep
from sweeps.cli.options import read
from sweeps.main import main
from sweeps.planning.state import TrialState
from sweeps.search.database import study_uri
from sweeps.search.study import SearchRecord, opened
from sweeps.store.store import Store
from tests.searching import EPOCHS, asked, finish, reopen, run_to_the_end, store, wanted

__all__ = ["reopen", "store"]


def test_the_default_is_tried_first_and_only_distinct_keys_count(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    of = wanted("--trials", "12")
    found = run_to_the_end(reopen(of), store)
    assert found[0].trial == of.default
    assert len({one.key for one in found}) == len(found) == 12
    assert reopen(of).ask(store) is None


def test_a_larger_total_adds_only_the_difference(store: Store, reopen: Callable[..., SearchRecord]) -> None:
    first = run_to_the_end(reopen(wanted("--trials", "5")), store)
    more = run_to_the_end(reopen(wanted("--trials", "8")), store)
    assert len(more) == 3
    assert not {one.key for one in first} & {one.key for one in more}


def test_a_finite_search_space_is_exhausted_although_the_sampler_repeats_itself(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    found = run_to_the_end(reopen(wanted("--trials", "12", "--vary", "pairing,targets,decoder_hidden")), store)
    assert len({one.key for one in found}) == 12


def test_more_trials_than_settings_are_refused() -> None:
    with pytest.raises(Refusal, match=r"^--trials 20: there are only 4 combinations of pairing, targets: ask for at m"):
        wanted("--vary", "pairing,targets")


def test_trials_running_when_the_driver_died_are_queued_again_with_their_numbers(
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


def test_a_smaller_total_resumes_no_more_trials_than_it_allows(
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
    assert not re.search(r"-\d", said), "a cost must not be negative"


def test_a_pruned_trial_stays_pruned_even_if_another_sweep_has_trained_it(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    study = reopen(wanted("--trials", "3"))
    known = asked(study, store)
    study.give_up(known.key, 1, 0.01, store)
    finish(store, study.search, known.trial, 0.9)
    with_database = {one.key: one.state for one in reopen(study.search).known()}
    (store.folder / "study.db").unlink()
    rebuilt = {one.key: one.state for one in reopen(study.search).known()}
    assert with_database == rebuilt == {known.key: TrialState.PRUNED}


def test_a_death_between_writing_the_result_and_telling_the_study_trains_nothing_again(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    of = wanted("--trials", "3")
    first = asked(reopen(of), store)
    finish(store, of, first.trial, 0.5)
    study = reopen(of)
    assert [(one.state, one.value) for one in study.known()] == [(TrialState.DONE, 0.5)]
    assert asked(study, store).key != first.key


def test_pruned_and_diverged_trials_count_and_are_recognised_after_a_restart(
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
    assert [(one.state, one.value, dict(one.steps)) for one in again.known()] == [
        (TrialState.PRUNED, 0.1, {1: 0.2, 3: 0.1}),
        (TrialState.DIVERGED, None, {}),
    ]
    assert again.left == 1


def test_at_each_rung_the_best_third_and_the_default_continue(
    store: Store, reopen: Callable[..., SearchRecord]
) -> None:
    of = wanted("--trials", "8")
    values, expected = (0.1, 0.5, 0.4, 0.6, 0.3, 0.55), [False, False, True, False, True, False]
    study = reopen(of)
    keys = [asked(study, store).key for _ in values]
    decided = []
    for key, value in zip(keys, values, strict=True):
        decided.append(study.lags_behind(key, 1, value))
        assert study.lags_behind(key, 1, value) == decided[-1], (
            "a kill before the decision is stored must not change it"
        )
        if decided[-1]:
            study.give_up(key, 1, value, store)
    assert decided == expected, "the default comes first; then the best of fewer than six, the best two of six"
    again = reopen(of)
    assert not again.lags_behind(keys[3], 1, 0.0), "a trial that continued once continues after a kill"
    assert [again.lags_behind(key, 3, value) for key, value in ((keys[1], 0.7), (keys[3], 0.6))] == [False, True]


def test_a_death_between_writing_the_pruned_file_and_telling_the_study_still_prunes_the_trial(
    store: Store, reopen: Callable[..., SearchRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = wanted("--trials", "3")
    study = reopen(of)
    known = asked(study, store)
    with monkeypatch.context() as patch:
        patch.setattr(study, "_tell_pruned", lambda *_: None)
        study.give_up(known.key, 1, 0.1, store)
    assert [one.state for one in reopen(of).known()] == [TrialState.PRUNED]


def test_a_study_without_its_database_is_rebuilt_from_storage(
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
    before = {one.key: (one.state, one.value) for one in study.known()}
    (store.folder / "study.db").unlink()
    again = reopen(of)
    assert {one.key: (one.state, one.value) for one in again.known()} == before
    assert again.ask(store) is None


def test_a_rebuilt_study_compares_with_the_trials_that_were_pruned(
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


def test_trials_of_a_sweep_of_the_same_name_count_and_are_not_repeated(
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


def test_the_next_suggestion_depends_only_on_the_known_results(tmp_path: Path) -> None:
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
