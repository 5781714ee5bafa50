"""A real search of 20 trials whose driver is killed twice: 20 trials count, none trains twice, and MLflow is complete.

All tests share one search, because it takes most of a minute. tests/sweeping.py runs it.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from mlflow import MlflowClient

from mvae.data import load
from mvae.trial import Trial
from pipelines import search as pipeline
from sweeps.cli.options import read
from sweeps.planning.state import TrialState
from sweeps.search.database import study_uri
from sweeps.search.space import Search
from sweeps.search.study import look
from sweeps.search.tried import TriedTrial
from sweeps.store.lists import all_lists
from sweeps.store.store import Store
from sweeps.trials.messages import Job, Message
from sweeps.trials.run import run
from tests.crashes import on_disk
from tests.sweeping import ROOT, Ended, Place, place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

TOTAL = 20
SEARCH = ("--epochs", "4", "--paired-fraction", "0.2", "--trials", str(TOTAL), "--max-concurrent", "2")


@dataclass
class Story:
    """A search whose driver was killed twice, and the state after each kill and at the end."""

    place: Place
    wanted: Search
    known: list[list[TriedTrial]] = field(default_factory=list)
    """Trials of the study after each kill of the driver, and after its end."""
    results: list[dict[str, int]] = field(default_factory=list)
    """Result files at the same moments: name to time of the last change."""
    ended: Ended | None = None

    def note(self) -> None:
        self.known.append(look(self.wanted, study_uri(self.place.store, None)))
        self.results.append({name: changed for name, (changed, _) in self.place.files().items()})


def command(here: Place, *arguments: str) -> list[str]:
    _python, _script, *common = here.command(*SEARCH, *arguments)
    return [sys.executable, str(ROOT / "pipelines" / "search.py"), *common]


def on_its_way(here: Place) -> set[str]:
    """Keys of unfinished trials with a checkpoint."""
    return set(here.epochs()) - {name.partition(".")[0] for name in here.files()}


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with place(begun=True) as here:
        wanted = pipeline.search(read(pipeline.Options, [*SEARCH, "--storage", str(here.storage)]))
        told = Story(here, wanted)
        for least in (2, 7):
            driver = here.launch(command(here))
            driver.until(
                lambda least=least: len(here.files()) >= least and on_its_way(here),  # type: ignore[misc]
                f"{least} trials had ended and one was on its way",
            )
            driver.kill()
            told.note()
        told.ended = here.launch(command(here)).ended()
        told.note()
        yield told


def test_a_search_killed_twice_ends_with_exactly_20_distinct_keys(story: Story) -> None:
    assert story.ended is not None
    assert story.ended.code == 0, story.ended
    assert story.ended.err == ""
    known = story.known[-1]
    assert len({one.key for one in known}) == len(known) == TOTAL
    assert all(one.ended for one in known)


def test_a_search_lists_every_trial_that_it_chose(story: Story) -> None:
    (found,) = all_lists(story.place.store).values()
    assert found.keys == {one.key for one in story.known[-1]}
    assert (found.sweep, found.study) == (story.wanted.name, "study.db")


def test_pruned_trials_count_and_are_marked(story: Story) -> None:
    pruned = {one.key for one in story.known[-1] if one.state is TrialState.PRUNED}
    folder = on_disk(story.place.store.results.folder)
    assert pruned
    assert {path.name.partition(".")[0] for path in folder.glob("*.pruned.json")} == pruned
    assert len(story.place.results()) == TOTAL - len(pruned)


def test_no_trial_of_a_search_is_trained_twice(story: Story) -> None:
    """Results and pruned marks are never rewritten, and no two attempts began at the same epoch."""
    for before, after in zip(story.results, story.results[1:], strict=False):
        assert {name: after[name] for name in before} == before
    for result in story.place.results().values():
        begins = [attempt["from_epoch"] for attempt in result.provenance["attempts"]]
        assert begins == sorted(set(begins))


def test_interrupted_trials_keep_their_numbers_and_resume_from_their_checkpoints(story: Story) -> None:
    end = {one.key: one for one in story.known[-1]}
    for known in story.known[:-1]:
        open_ = [one for one in known if not one.ended]
        assert open_
        assert all(end[one.key].number == one.number and end[one.key].trial == one.trial for one in open_)
        assert all(end[one.key] == one for one in known if one.ended)


def test_20_trials_find_a_setting_better_than_the_default_on_validation(story: Story) -> None:
    default = next(one for one in story.known[-1] if one.trial == story.wanted.default)
    best = max(one.value or 0.0 for one in story.known[-1] if one.state is TrialState.DONE)
    assert default.value is not None
    assert best > default.value + 0.05


def test_a_trial_that_passed_its_rungs_equals_the_same_trial_run_alone(story: Story) -> None:
    done = [one for one in story.known[-1] if one.state is TrialState.DONE]
    broken = {
        key for key, result in story.place.results().items() if len(result.provenance["attempts"]) > 1
    }  # prefers a trial that was killed and resumed
    chosen = next((one for one in done if one.key in broken), done[-1])
    with place() as elsewhere:
        store, words = Store.open(elsewhere.storage, "main", create=False), list[Message]()
        load("digits", cache=story.place.cache)
        run(Job(chosen.key, chosen.trial, (story.wanted.measure,), store, cache=story.place.cache), words.append)
        assert words[-1].done
        alone = elsewhere.numbers()
    assert alone == {chosen.key: story.place.numbers()[chosen.key]}


def test_mlflow_has_one_run_per_key_and_marks_the_pruned_ones(story: Story) -> None:
    runs = {run.data.tags["mvae.key"]: run for run in story.place.children()}
    assert set(runs) == {one.key for one in story.known[-1]}
    for one in story.known[-1]:
        tags, status = runs[one.key].data.tags, runs[one.key].info.status
        if one.state is TrialState.PRUNED:
            assert (status, tags["mvae.pruned"]) == ("KILLED", str(max(one.steps)))
        else:
            assert (status, "mvae.pruned" in tags) == ("FINISHED", False)


def test_mlflow_shows_the_plots_and_the_command_of_the_best_trial(story: Story) -> None:
    (parent,) = story.place.parents()
    client = MlflowClient(story.place.uri)
    names = {file.path for file in client.list_artifacts(parent.info.run_id, "report")}
    done = [one for one in story.known[-1] if one.state is TrialState.DONE]
    expected = ("history", "parallel") + ("importances",) * (len({one.value for one in done}) >= 4)
    assert {f"report/{name}.png" for name in expected} <= names
    best = max(
        (one for one in story.known[-1] if one.state is TrialState.DONE), key=lambda one: (one.value or 0, -one.number)
    )
    note = parent.data.tags["mlflow.note.content"]
    _, options = story.wanted.command(best.trial).split("weak_supervision.py ")
    assert re.search(r"python \S*pipelines/weak_supervision\.py " + re.escape(options), note)
    assert "the default's" in note


def test_the_command_of_the_best_trial_finds_its_seed_done(story: Story) -> None:
    assert story.ended is not None
    typed = re.findall(r"python \S*pipelines/weak_supervision\.py (.*)", story.ended.out)[-1]
    ended = story.place.run(*shlex.split(typed), "--seeds", "0", "--plan")
    assert ended.code == 0, ended
    assert "1 trial: 1 done" in ended.out


def test_after_deleting_the_databases_everything_is_rebuilt_without_training(story: Story) -> None:
    with place() as here:
        shutil.copytree(on_disk(story.place.store.folder), on_disk(here.store.folder))
        (on_disk(here.store.folder) / "study.db").unlink()
        before = here.files()
        ended = here.launch(command(here)).ended()
        assert ended.code == 0, ended
        assert here.files() == before
        known = look(story.wanted, study_uri(here.store, None))
        assert {(one.key, one.state, one.value) for one in known} == {
            (one.key, one.state, one.value) for one in story.known[-1]
        }
        marked = {run.data.tags["mvae.key"] for run in here.children() if "mvae.pruned" in run.data.tags}
        assert marked == {one.key for one in known if one.state is TrialState.PRUNED}


def test_a_pruned_trial_is_recorded_in_its_file(story: Story) -> None:
    folder = on_disk(story.place.store.results.folder)
    for one in (one for one in story.known[-1] if one.state is TrialState.PRUNED):
        said = json.loads((folder / f"{one.key}.pruned.json").read_text(encoding="utf-8"))
        assert Trial.model_validate(said["trial"]) == one.trial
        assert (said["search"], said["epoch"]) == (story.wanted.name, max(one.steps))
        assert [record["epoch"] for record in said["history"]] == list(range(1, said["epoch"] + 1))
