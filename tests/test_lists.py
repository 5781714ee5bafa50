"""Lists of sweeps: which trials a command uses, with the models that its measures need, and a search's study."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mvae.evaluation.judges import judge_trials
from mvae.measure import ACCURACY, COHERENCE
from mvae.refusal import Refusal
from mvae.trial import Trial
from sweeps.commands.entry import main
from sweeps.planning.listed import list_trials
from sweeps.planning.plan import Cell, plan
from sweeps.search.database import study_uri
from sweeps.search.study import SearchRecord, look
from sweeps.store import lists
from sweeps.store.store import Store
from tests.crashes import killed_at_any_line, on_disk
from tests.searching import finish, reopen, store, wanted
from tests.stored_sweeps import FIRST, MINE, SHARED, fill, list_sweep

__all__ = ["reopen", "store"]

MARKS = {"digits": "d" * 64, "polymnist": "p" * 64}


def listed(store: Store, *cells: Cell, sweep: str = "a") -> lists.SweepList:
    planned = plan(cells, store, MARKS)
    list_trials(planned, store, MARKS, sweep=sweep, title="A", command="python a.py", now=1.7e9, study="")
    found = lists.read(store, sweep)
    assert found is not None
    return found


def test_a_list_counts_the_cells_of_each_trial(store: Store) -> None:
    trial = Trial.create(dataset="digits", model="nn")
    cells = [Cell("NN", column, trial, ACCURACY, None, "nn") for column in ("one", "two")]
    found = listed(store, *cells)
    assert found.cells == {trial.key(MARKS["digits"]): {"accuracy-v1": 2}} and found.needs == ()


def test_a_list_names_the_classifiers_that_a_measure_needs(store: Store) -> None:
    trial = Trial.create(dataset="polymnist", model="mvae")
    found = listed(store, Cell("MVAE", "one", trial, COHERENCE, None, "mvae"))
    judges = {judge.key(MARKS["polymnist"]) for judge in judge_trials("polymnist")}
    assert set(found.needs) == judges and len(judges) > 1
    assert found.keys == {trial.key(MARKS["polymnist"])} | judges


def test_a_damaged_list_is_set_aside_by_the_sweeps_next_command(store: Store) -> None:
    on_disk(store.list_of("a")).parent.mkdir()
    on_disk(store.list_of("a")).write_text("{", encoding="utf-8")
    with pytest.raises(Refusal, match=r"is damaged .*: run the sweep's command again"):
        lists.read(store, "a")
    assert listed(store, Cell("NN", "one", Trial.create(dataset="digits", model="nn"), ACCURACY, None, "nn")).keys
    assert (on_disk(store.folder) / "sweeps" / "a.json.bad").exists()
    assert lists.names(store) == ["a"]


def test_a_list_killed_at_any_line_is_the_old_or_the_new_one(storage: Path) -> None:
    store = fill(storage)
    path = on_disk(store.list_of(FIRST))
    old = path.read_bytes()
    seen = set()

    def restore() -> None:
        path.write_bytes(old)

    for _ in killed_at_any_line(
        lambda: list_sweep(store, FIRST, ("0123456789abcdef",)),
        ("sweeps/store/lists.py", "mvae/storage/files.py"),
        restore,
        storage,
    ):
        found = lists.read(store, FIRST)
        assert found is not None and {MINE, SHARED} <= found.keys
        seen.add("0123456789abcdef" in found.keys)
    assert seen == {False, True}


def test_deleting_a_search_deletes_its_study_and_leaves_other_studies(
    store: Store, reopen: Callable[..., SearchRecord], empty_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(empty_database, on_disk(store.root) / "mlflow.db")
    searches = [wanted("--trials", "2"), wanted("--trials", "2", "--arms", "jmvae")]
    for search in searches:
        study = reopen(search)
        known = study.ask(store)
        assert known is not None
        finish(store, search, known.trial, 0.5)
        study.done(known.key, store)
        cells = lists.counted_cells([(known.key, search.measure.token)])
        named = lists.SweepList(search.name, "Search", "", 1.7e9, 1.7e9, cells, study=lists.STUDY)
        lists.extend(store, named)
    uri = study_uri(store, None)
    assert all(look(search, uri) for search in searches)
    assert searches[0].name != searches[1].name
    assert main(["rm", searches[0].name, "--storage", str(store.root), "--yes"]) == 0
    assert "the search's study in sqlite:///" in capsys.readouterr().out
    assert look(searches[0], uri) == [] and look(searches[1], uri) != []
    assert len(store.results.keys()) == 1
