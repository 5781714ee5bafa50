"""`mvae verify`: finished trials run again with equal bits, and an altered result is found."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mvae.measure import (
    ACCURACY,
    COHERENCE,
    TRANSLATION,
    accuracy,
    likelihood,
    measure_named,
    readout,
    sentence_likelihood,
)
from sweeps.cli.programs import INTERRUPTED
from sweeps.commands.again import Candidates, Outcome
from sweeps.commands.entry import main
from sweeps.store.provenance import made_on
from sweeps.store.store import Store
from sweeps.trials.messages import Job, Message
from sweeps.trials.run import run
from tests.crashes import files_below, on_disk
from tests.sweeping import digits_job

TRIALS = ({"model": "nn"}, {"model": "logreg", "paired_fraction": 1.0}, {"model": "mvae", "epochs": 1})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Store:
    """Three finished trials of a second each."""
    store = Store.open(tmp_path_factory.mktemp("verified"), "main", create=True)
    for fields in TRIALS:
        run(digits_job(store, cache, **fields), lambda _: None)
    assert len(store.results.keys()) == 3
    return store


@pytest.fixture
def copy(trained: Store, tmp_path: Path) -> Store:
    """The results of the three trials; nothing else is needed."""
    store = Store.open(tmp_path / "copy", "main", create=True)
    for result in trained.results:
        store.results.write(result)
    return store


def change(store: Store, what: Callable[[dict[str, Any]], None], model: str = "nn") -> str:
    """Changes a stored result, and returns its key."""
    (result,) = (one for one in store.results if one.trial["model"] == model)
    path = on_disk(store.results.path(result.key, result.measure))
    content = json.loads(path.read_bytes())
    what(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return result.key


def keep_only(store: Store, key: str) -> None:
    """Deletes the results of all other trials."""
    for one in list(store.results):
        if one.key != key:
            store.results.path(one.key, one.measure).unlink()


def verify(store: Store, cache: Path, number: int, *more: str) -> int:
    return main(["verify", str(number), "--storage", str(store.root), "--cache", str(cache), *more])


@pytest.mark.slow
def test_trials_run_again_give_equal_bits_and_the_storage_stays_as_it_was(
    trained: Store, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: (on_disk(trained.root) / path).stat().st_mtime_ns for path in files_below(trained.root)}
    assert verify(trained, cache, 3) == 0
    said = capsys.readouterr().out
    assert said.count("equal bits") == 3 and said.endswith("3 trials verified\n")
    assert {path: (on_disk(trained.root) / path).stat().st_mtime_ns for path in files_below(trained.root)} == before


@pytest.mark.parametrize(
    ("change_it", "why"),
    [
        (lambda content: content["metrics"].update({"test/accuracy": 0.125}), "test/accuracy is 0.125 in storage"),
        (lambda content: content["history"][0]["metrics"].update({"train/loss": 0.0}), "epoch 1: train/loss is 0.0"),
        (lambda content: content["trial"].update({"seed": 7}), "the stored settings belong to another key"),
    ],
)
def test_an_altered_result_is_named(
    copy: Store,
    cache: Path,
    change_it: Callable[[dict[str, Any]], None],
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = change(copy, change_it)
    keep_only(copy, key)
    assert verify(copy, cache, 1) == 1
    said = capsys.readouterr().out
    assert key in said and why in said and "1 of 1 trial did not match the storage" in said


def test_a_measure_that_is_not_computed_again_is_a_failure(
    trained: Store, copy: Store, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def half(job: Job, send: Callable[[Message], None]) -> None:
        """Leaves the results of the trial, except the last measure."""
        for result in kept:
            job.store.results.write(result)
        send(Message(1, 1, done=True))

    (result,) = (one for one in trained.results if one.trial["model"] == "nn")
    another = replace(result, measure=readout(1.0).token)
    keep_only(copy, result.key)
    copy.results.write(another)
    monkeypatch.setattr("sweeps.trials.run.run", half)
    kept = [result, another]
    assert verify(copy, cache, 1) == 0
    assert "equal bits, 2 measures" in capsys.readouterr().out
    for kept in ([result], [another]):
        missing = another if kept == [result] else result
        assert verify(copy, cache, 1) == 1
        said = capsys.readouterr().out
        assert f"did not finish: the measure {missing.measure} was not computed" in said and "equal" not in said


def test_a_storage_with_fewer_trials_says_how_many_can_be_verified(
    copy: Store, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sweeps.commands.verify.run_again", lambda one, *_: Outcome(here=next(iter(one.made_on))))
    assert verify(copy, cache, 5) == 0
    assert capsys.readouterr().out.endswith("only 3 trials can be verified\n3 trials verified\n")
    assert verify(copy, cache, 3) == 0
    assert "only" not in capsys.readouterr().out


def test_verify_says_what_it_runs_and_acknowledges_ctrl_c_at_once(
    copy: Store, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> Outcome:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        return pytest.fail("the signal is ignored")

    monkeypatch.setattr("sweeps.commands.verify.run_again", interrupted)
    assert verify(copy, cache, 2) == INTERRUPTED
    said = capsys.readouterr()
    first, second = said.out.splitlines()
    assert first == f"Running 2 trials of {copy.folder} again; expect the same time as before"
    assert (second, said.err) == ("Stopping after SIGINT", "interrupted\n")


@pytest.mark.parametrize("fact", ["device_name", "torch"])
def test_a_difference_from_another_machine_is_only_printed(
    copy: Store, cache: Path, fact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def elsewhere(content: dict[str, Any]) -> None:
        content["metrics"]["test/accuracy"] = 0.125
        for attempt in content["provenance"]["attempts"]:
            attempt.pop("cpu", None)
            attempt[fact] = "another"

    key = change(copy, elsewhere)
    keep_only(copy, key)
    assert verify(copy, cache, 1) == 0
    said = capsys.readouterr().out
    assert "differs, made on cpu (" in said and "another" in said and "test/accuracy is 0.125 in storage" in said


def test_the_seed_chooses_the_trials(copy: Store, cache: Path) -> None:
    def chosen(seed: int) -> list[str]:
        return [one.key for one in Candidates(copy, None, cache).choose(2, seed)]

    assert chosen(0) == chosen(0) and len(set(chosen(0))) == 2
    assert len({tuple(chosen(seed)) for seed in range(10)}) > 1


def test_trials_that_cannot_run_here_are_passed_over_with_a_reason(
    copy: Store, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(copy, lambda content: content["trial"].update({"dataset": "gone"}), "nn")
    change(copy, lambda content: content["provenance"].update({"training_version": 0}), "mvae")
    change(copy, lambda content: content["provenance"].update({"data": "f" * 64}), "logreg")
    candidates = Candidates(copy, None, cache)
    assert list(candidates.choose(3, 0)) == []
    assert any("unknown data set gone" in why for why in candidates.passed.values())
    assert any("another version of the training code" in why for why in candidates.passed.values())
    assert verify(copy, cache, 3) == (1 if candidates.altered else 2)


def test_results_of_earlier_releases_without_a_cpu_field_are_compared_by_the_device(trained: Store) -> None:
    result = next(iter(trained.results))
    old = {**result.provenance, "attempts": [dict(one) for one in result.provenance["attempts"]]}
    for attempt in old["attempts"]:
        assert attempt.pop("cpu")
    assert made_on(old) == made_on(result.provenance)
    for attempt in old["attempts"]:
        attempt["device"] = "cuda"
    assert {facts.cpu for facts in made_on(old)} == {""}, "the processor of an old GPU result is unknown"


@pytest.mark.parametrize(
    "measure",
    [
        *(ACCURACY, COHERENCE, TRANSLATION, accuracy(("image", "sound")), readout(0.01), readout(1.0)),
        *(likelihood(1000), sentence_likelihood(50)),
    ],
)
def test_a_measure_is_found_by_its_token(measure: Any) -> None:
    assert measure_named(measure.token) == measure
    assert measure_named(measure.token.replace("-v", "-v9")) is None
    assert measure_named("nonsense-v1") is None
