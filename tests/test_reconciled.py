"""A finished sweep, typed again, uses MLflow only if something has changed, and then repairs MLflow."""

from __future__ import annotations

import logging
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from werkzeug.serving import make_server

from mvae.storage.files import write_atomically
from mvae.storage.objects import place
from sweeps.cli.tracking_uri import default_uri
from sweeps.planning.state import TrialState
from sweeps.tracking import mirror, reconciled
from sweeps.tracking.view import DatasetView, RunView
from tests.tracked import KEYS, NAMESPACE, PROJECT, SWEEP, Storage, finished, no_model, reported

FIRST, SECOND = KEYS[:2]
A_RUN = f"(select run_uuid from runs where name like '%{FIRST}' and lifecycle_stage = 'active')"
OF_A_RUN = f"run_uuid = {A_RUN}"
OF_A_CELL = "run_uuid in (select run_uuid from tags where key = 'mvae.kind' and value = 'cell')"
MEAN = "test/accuracy/mean"
IDS = re.compile(r"\b[0-9a-f]{32}\b")


class Sweeping:
    """A storage on which a finished sweep of two trials is typed repeatedly."""

    def __init__(self, folder: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.empty_database = empty_database
        shutil.copyfile(empty_database, folder / "mlflow.db")
        self.record = folder / "main" / "mirrored" / "table4.json"
        self.storage = Storage(folder, default_uri(folder), record=self.record)
        self.storage.load_model = lambda view: (torch.nn.Linear(2, 1).eval(), None)
        write_atomically(folder / "pictures" / "epoch-1" / "a.png", b"picture")
        write_atomically(folder / "report" / "table.md", b"| table |")
        self.sweep = replace(SWEEP, report=folder / "report")
        data = DatasetView("digits", "d" * 64)
        self.views = [
            replace(finished(key), dataset=data, artifacts=folder / "pictures", tags={"row": "mvae"})
            for key in (FIRST, SECOND)
        ]
        self.mirrors = 0
        make = mirror.Mirror.__init__

        def count(one: mirror.Mirror, *arguments: Any) -> None:
            self.mirrors += 1
            make(one, *arguments)

        monkeypatch.setattr(mirror.Mirror, "__init__", count)

    def again(self, *views: RunView, name: str = SWEEP.name, state: TrialState = TrialState.DONE) -> bool:
        """Types the sweep again, like the driver; returns whether MLflow was used."""
        before = self.mirrors
        views = views or tuple(self.views)
        sweep = replace(self.sweep, name=name)
        self.storage.record = self.record.with_name(f"{name}.json")
        driver = self.storage.driver(*views, sweep=sweep)
        assert driver.links(30).keys() >= {view.key for view in views}
        done = tuple(view for view in views if view.state is TrialState.DONE)
        driver.update_sweep(replace(reported(sweep, *done), state=state))
        assert driver.close()
        assert [line for line in self.storage.said if not line.startswith("Waiting for MLflow")] == []
        return self.mirrors > before

    def sql(self, *statements: str) -> None:
        """Changes MLflow's database directly with SQL."""
        with closing(sqlite3.connect(self.storage.database)) as database, database:
            for statement in statements:
                assert database.execute(statement).rowcount, statement

    def becomes(self, other: Path) -> None:
        """Replaces the database by another file."""
        self.storage.database.unlink()
        shutil.copyfile(other, self.storage.database)

    def rows(self, asks: str, *values: str) -> list[Any]:
        with closing(sqlite3.connect(self.storage.database)) as database:
            return database.execute(asks, values).fetchall()

    def shown(self) -> Any:
        """All visible contents of MLflow, with its own ids replaced."""
        active = "join runs using (run_uuid) where lifecycle_stage = 'active' order by 1, 2"
        tables = ("tags", "params", "latest_metrics")
        held = [self.rows(f"select name, key, value from {table} {active}") for table in tables]
        runs = self.rows("select name, status from runs where lifecycle_stage = 'active' order by 1")
        inputs = "(select destination_id as run_uuid, destination_type from inputs)"
        data = self.rows(f"select name, destination_type from {inputs} {active}")
        views = self.rows("select key from experiment_tags order by 1")
        files = sorted(str(path.relative_to(place)) for place in self.places() for path in place.rglob("*"))
        return IDS.sub("ID", repr((held, runs, data, views, files))), self.storage.rows()

    def places(self) -> list[Path]:
        """Artifact folders of all runs and models."""
        runs = self.rows("select run_uuid, artifact_uri from runs where lifecycle_stage = 'active'")
        models = "select artifact_location from logged_models where lifecycle_stage = 'active' and source_run_id = ?"
        places = [place for run, at in runs for place in [(at,), *self.rows(models, run)]]
        return [Path(urlsplit(location).path) for (location,) in places]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Sweeping]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = Sweeping(tmp_path_factory.mktemp("sweeping"), empty_database, monkeypatch)
        made.again(made.views[0])
        shutil.copyfile(made.storage.database, made.storage.folder / "older.db")
        made.again()
        yield made


@pytest.fixture
def sweeping(shared: Sweeping) -> Iterator[Sweeping]:
    """A storage with a complete MLflow database, which each test may damage."""
    shared.again()
    assert not shared.again()
    yield shared
    shared.storage.load_model = lambda view: (torch.nn.Linear(2, 1).eval(), None)
    shared.storage.uri = default_uri(shared.storage.folder)


def test_a_finished_sweep_typed_again_does_not_import_mlflow(
    sweeping: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = {key: run.info.run_id for key, run in sweeping.storage.runs().items() if key in KEYS}
    monkeypatch.setitem(sys.modules, "sweeps.tracking.mirror", None)  # importing this package is an error
    before = sweeping.storage.database.read_bytes()
    assert not sweeping.again()
    driver = sweeping.storage.driver(*sweeping.views, sweep=sweeping.sweep)
    assert driver.links(30) == links
    driver.update_sweep(reported(sweeping.sweep, *sweeping.views))
    assert driver.close()
    assert sweeping.storage.database.read_bytes() == before


def test_reading_mlflows_state_imports_neither_mlflow_nor_torch_nor_sqlalchemy() -> None:
    code = "import sys, sweeps.tracking.tracker as t; sys.exit({'mlflow', 'torch', 'sqlalchemy'} & {*sys.modules} or 0)"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


DAMAGES = {
    "a run is deleted": [f"update runs set lifecycle_stage = 'deleted' where {OF_A_RUN}"],
    "a run is said to run": [f"update runs set status = 'RUNNING' where {OF_A_RUN}"],
    "the experiment is deleted": [
        "update experiments set lifecycle_stage = 'deleted' where name = 'main'",
        "update runs set lifecycle_stage = 'deleted'",
    ],
    "a final number is missing": [
        f"delete from {table} where key = 'test/accuracy' and {OF_A_RUN}" for table in ("metrics", "latest_metrics")
    ],
    "a metric of all epochs is missing": [
        f"delete from {table} where key = 'train/loss' and {OF_A_RUN}" for table in ("metrics", "latest_metrics")
    ],
    "a final number is another": [f"update latest_metrics set value = 1 where key = 'test/accuracy' and {OF_A_RUN}"],
    "an epoch is missing": [f"delete from metrics where step = 2 and {OF_A_RUN}"],
    "a tag is changed": [f"update tags set value = 'other' where key = 'mvae.row' and {OF_A_RUN}"],
    "a tag is deleted": [f"delete from tags where key = 'mvae.row' and {OF_A_RUN}"],
    "a parameter is missing": [f"delete from params where key = 'seed' and {OF_A_RUN}"],
    "a data set is missing": [f"delete from inputs where source_type = 'DATASET' and destination_id = {A_RUN}"],
    "the sweep's description is edited": [
        "update tags set value = 'mine' where key = 'mlflow.note.content' and"
        " run_uuid = (select run_uuid from tags where key = 'mvae.kind' and value = 'sweep')"
    ],
    "a cell's run is deleted": [f"update runs set lifecycle_stage = 'deleted' where {OF_A_CELL}"],
    "a cell's number is another": [f"update latest_metrics set value = 1 where {OF_A_CELL} and key = '{MEAN}'"],
    "a cell's verdict is deleted": [f"delete from tags where key = 'mvae.verdict' and {OF_A_CELL}"],
    "the digest of a cell is missing": [f"delete from tags where key = 'mvae.digest' and {OF_A_CELL}"],
    "a number of the sweep is another": ["update latest_metrics set value = 7 where key = 'cells/done'"],
    "the saved view is deleted": ["delete from experiment_tags where key like 'mlflow.sharedViewState.%'"],
    "a model is deleted": ["update logged_models set lifecycle_stage = 'deleted'"],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_missing_or_changed_entries_in_mlflow_are_repaired(sweeping: Sweeping, damage: str) -> None:
    before = sweeping.shown()
    sweeping.sql(*DAMAGES[damage])
    assert sweeping.shown() != before
    assert sweeping.again()
    assert sweeping.shown() == before


@pytest.mark.parametrize("database", ["an empty one", "an older backup"])
def test_a_database_that_replaces_the_filled_one_is_filled_too(sweeping: Sweeping, database: str) -> None:
    before = sweeping.shown()
    older = sweeping.storage.folder / "older.db"
    sweeping.becomes(older if database == "an older backup" else sweeping.empty_database)
    assert sweeping.again()
    assert sweeping.shown() == before


def test_the_state_of_a_deleted_or_locked_database_is_unknown(
    sweeping: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = sweeping.storage.database
    record = reconciled.Reconciled(place(sweeping.record), sweeping.storage.uri, NAMESPACE, "main", None)
    assert record.state()
    monkeypatch.setattr(reconciled, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("begin exclusive")
        assert not record.state()
    away = database.rename(database.with_name("away.db"))
    assert not record.state()
    assert not database.exists()
    away.rename(database)


@pytest.mark.parametrize("file", ["samples/epoch-1/a.png", "report/table.md", "MLmodel", "data/model.pth"])
def test_a_deleted_artifact_is_uploaded_again(sweeping: Sweeping, file: str) -> None:
    before = sweeping.shown()
    next(place / file for place in sweeping.places() if (place / file).exists()).unlink()
    assert sweeping.shown() != before
    assert sweeping.again()
    assert sweeping.shown() == before


def test_a_renamed_run_gets_its_name_back(sweeping: Sweeping) -> None:
    before = sweeping.shown()
    sweeping.sql(f"update runs set name = 'renamed {FIRST}' where {OF_A_RUN}")
    assert sweeping.again()
    assert sweeping.shown() == before


def test_a_run_deleted_during_the_sweep_is_restored(sweeping: Sweeping) -> None:
    before = sweeping.shown()
    sweeping.record.unlink()
    driver = sweeping.storage.driver(*sweeping.views, sweep=sweeping.sweep)
    driver.links(30)
    sweeping.sql(*DAMAGES["a run is deleted"])
    driver.update_sweep(reported(sweeping.sweep, *sweeping.views))
    assert driver.close()
    sweeping.again()
    assert sweeping.shown() == before


def test_each_of_two_tracking_uris_in_turn_is_reconciled(sweeping: Sweeping) -> None:
    other = sweeping.storage.folder / "other.db"
    shutil.copyfile(sweeping.empty_database, other)
    for uri in (f"sqlite:///{other}", sweeping.storage.uri) * 2:
        sweeping.storage.uri = uri
        assert sweeping.again()
    assert not sweeping.again()


def test_two_sweeps_that_share_trials_do_not_trigger_each_others_repair(sweeping: Sweeping) -> None:
    for name in ("table4", "table5") * 2:
        sweeping.again(name=name)
    assert not sweeping.again(name="table4")
    assert not sweeping.again(name="table5")


def test_changed_views_or_another_version_of_this_program_ask_mlflow_again(
    sweeping: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sweeping.views
    assert sweeping.again(replace(first, tags={"row": "vae"}), second)
    assert sweeping.storage.runs()[FIRST].data.tags["mvae.row"] == "vae"
    assert sweeping.again()
    write_atomically(sweeping.storage.folder / "pictures" / "epoch-1" / "a.png", b"another picture")
    assert sweeping.again()
    write_atomically(sweeping.storage.folder / "report" / "table.md", b"| another table |")
    assert sweeping.again()
    assert "| another table |" in sweeping.storage.runs()[SWEEP.name].data.tags["mlflow.note.content"]
    monkeypatch.setattr(reconciled, "source_digest", lambda: "upgraded")
    assert sweeping.again()


def test_an_interrupted_sweep_is_shown_as_killed_in_mlflow(sweeping: Sweeping) -> None:
    assert sweeping.again(state=TrialState.INTERRUPTED)
    assert sweeping.storage.runs()[SWEEP.name].info.status == "KILLED"


def test_a_finished_run_without_a_model_is_tried_again_each_time(sweeping: Sweeping) -> None:
    sweeping.storage.load_model = no_model
    sweeping.sql(*DAMAGES["a model is deleted"])
    assert sweeping.again()
    assert sweeping.again()


def test_a_record_that_cannot_be_read_is_ignored(sweeping: Sweeping) -> None:
    record = reconciled.Reconciled(place(sweeping.record), sweeping.storage.uri, NAMESPACE, "main", None)
    for content in (b"", b"{", b"[]", b"null", b'{"links": 1}', b'{"links": {}}', b"\xff"):
        sweeping.record.write_bytes(content)
        assert record.read(sweeping.sweep, sweeping.views) is None
    assert sweeping.again()
    assert not sweeping.again()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Sweeping]:
    """Like `sweeping`, with a server: MLflow's own REST interface, in this process."""
    from mlflow.server import app, handlers

    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = Sweeping(folder, empty_database, monkeypatch)
        monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", made.storage.uri)
        monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
        monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(folder / "served"))
        monkeypatch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        for made_once in ("_tracking_store", "_model_registry_store", "_artifact_repo"):
            monkeypatch.setattr(handlers, made_once, None)
        # A server sets both for its process. Here the server runs in the tests' process.
        monkeypatch.setattr("mlflow.server.handlers.utils.set_tracking_uri", lambda uri: None)
        monkeypatch.setattr("mlflow.server.handlers.registry_utils.set_registry_uri", lambda uri: None)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.storage.uri = f"http://127.0.0.1:{server.server_port}"
        made.again(made.views[0])
        shutil.copyfile(made.storage.database, folder / "older.db")
        made.again()
        yield made
        server.shutdown()


def test_a_server_restored_from_an_older_backup_is_filled(served: Sweeping) -> None:
    before = served.shown()
    assert not served.again()
    restore(served.storage.folder / "older.db", served.storage.database)
    assert served.shown() != before
    assert served.again()
    assert served.shown() == before
    assert not served.again()


def test_missing_or_changed_entries_on_a_server_are_detected(served: Sweeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciled, "PAGE", 1)  # all pages of a reply count
    database, backup = served.storage.database, served.storage.folder / "backup.db"
    shutil.copyfile(database, backup)
    record = reconciled.Reconciled(place(served.record), served.storage.uri, NAMESPACE, "main", None)
    before = record.state()
    assert before
    for name in DAMAGES.keys() - {"an epoch is missing"}:
        served.sql(*DAMAGES[name])
        assert record.state() != before, name
        restore(backup, database)
        assert record.state() == before


def restore(backup: Path, database: Path) -> None:
    """Restores the database in place, because the server keeps the file open."""
    with closing(sqlite3.connect(backup)) as source, closing(sqlite3.connect(database)) as target:
        source.backup(target)


def test_a_file_deleted_on_a_server_is_uploaded_again_the_next_day(
    served: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = next((served.storage.folder / "served").glob("*/*/artifacts/samples/epoch-1"))
    shutil.rmtree(picture)
    tomorrow = time.time() + reconciled.DAY_SECONDS
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    assert served.again()
    assert picture.is_dir()
