"""A storage of two sweeps that share a trial, with MLflow runs; made without training."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow.entities import Run, ViewType

from sweeps.cli.tracking_uri import default_uri, place_of_artifacts
from sweeps.planning.state import TrialState
from sweeps.store import lists
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.tracking.mirror import open_database
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.view import CellView, RunView, SweepView
from tests.crashes import on_disk
from tests.tracked import finished

MINE, SHARED, THEIRS, JUDGE, UNLISTED = (f"00000000000000{letter * 2}" for letter in "abcde")
FIRST, SECOND = "first-digits", "second-digits"


def fill_trial(store: Store, key: str) -> None:
    """Writes every kind of file that a trial may have."""
    history = list(finished(key).history)
    provenance = {"attempts": [], "data": "d" * 64}
    store.results.write(Result(key, "accuracy-v1", {"dataset": "digits"}, {"test/accuracy": 0.5}, provenance, history))
    folder = on_disk(store.folder)
    for path in (
        folder / "checkpoints" / key / "000003-a" / "model.pt",
        folder / "artifacts" / key / "samples.png",
        folder / "measuring" / key / "part.json",
        folder / "errors" / f"{key}.txt",
        folder / "results" / f"{key}.accuracy-v1.json.bad",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0123456789")


def list_sweep(store: Store, sweep: str, keys: tuple[str, ...], needs: tuple[str, ...] = ()) -> None:
    cells = lists.counted_cells((key, "accuracy-v1") for key in keys)
    lists.extend(store, lists.SweepList(sweep, f"Sweep {sweep}", "python x.py", 1.7e9, 1.7e9, cells, needs))


def fill(root: Path) -> Store:
    """Fills a storage: FIRST uses MINE and SHARED, SECOND uses SHARED and THEIRS, both need JUDGE; UNLISTED is old."""
    store = Store.open(root, "main", create=True)
    for key in (MINE, SHARED, THEIRS, JUDGE, UNLISTED):
        fill_trial(store, key)
    list_sweep(store, FIRST, (MINE, SHARED), (JUDGE,))
    list_sweep(store, SECOND, (SHARED, THEIRS), (JUDGE,))
    for sweep in (FIRST, SECOND):
        for name in (f"reports/{sweep}/table.md", f"reports/.made_of/{sweep}.json"):
            path = on_disk(store.folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("table", encoding="utf-8")
    return store


def show(store: Store) -> str:
    """Shows both sweeps in MLflow, and returns the tracking URI."""
    root = on_disk(store.root)
    uri = default_uri(root)
    for sweep, keys in ((FIRST, (MINE, SHARED)), (SECOND, (SHARED, THEIRS))):
        cell = CellView(cell_of(sweep), {"row": "NN", "column": "1%"}, {"test/accuracy/mean": 0.5})
        report = store.reports / sweep
        view = SweepView(sweep, TrialState.DONE, "title", cells=(cell,), report=report, started=1.7e9, ended=1.7e9)
        tracker = Tracker(
            uri,
            namespace=store.namespace(),
            experiment="main",
            sweep=view,
            artifacts=place_of_artifacts(uri, root),
            load_model=lambda _: None,
            say=lambda line: None,
        )
        for key in keys:
            tracker.update(_with_pictures(store, finished(key)))
        tracker.start()
        tracker.update_sweep(view)
        assert tracker.close(60)
    return uri


def cell_of(sweep: str) -> str:
    """Returns the name of the run of a sweep's only cell."""
    return f"{sweep} NN 1%"


def _with_pictures(store: Store, view: RunView) -> RunView:
    from dataclasses import replace

    return replace(view, artifacts=store.artifacts(view.key))


def runs_shown(root: Path) -> dict[str, Run]:
    """All runs in MLflow, also deleted ones: by key, by sweep, or by `cell_of` the sweep."""
    client = mlflow.MlflowClient(open_database(root / "mlflow.db"))
    experiment = client.get_experiment_by_name("main")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    names = ("mvae.key", "mvae.sweep", "mlflow.runName")
    return {next(run.data.tags[name] for name in names if name in run.data.tags): run for run in found}


def views_shown(root: Path) -> set[str]:
    """Names of the experiment's tags with saved views."""
    experiment = mlflow.MlflowClient(open_database(root / "mlflow.db")).get_experiment_by_name("main")
    assert experiment is not None
    return {name for name in experiment.tags if name.startswith("mlflow.sharedViewState.")}
