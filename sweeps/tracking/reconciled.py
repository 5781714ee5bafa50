"""Checks whether MLflow still holds a finished sweep, without importing MLflow.

When MLflow holds everything, the tracker records the tracking URI, a digest of the views and a digest of MLflow's
state. As long as none of the three changes, nothing needs to be written. MLflow's state consists of:

SQLite          the experiment and its tags; names, statuses, tags, parameters, newest metrics, data sets and logged
                epochs of the runs; models; names of all artifact files
server          as for SQLite, but without the names of artifact files and without epochs before the newest epoch.
                Reading these two takes extra requests for every run. Changes in these two go unnoticed, so a record
                about a server is valid only until midnight (UTC)
other database  no record: every command compares MLflow with storage
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from mvae.storage.clock import CLOCK, Clock
from mvae.storage.objects import place
from mvae.storage.place import AnyPlace, Place, each
from sweeps.cli.tracking_uri import without_credentials
from sweeps.planning.state import TrialState
from sweeps.store.provenance import source_digest
from sweeps.store.sqlite import BUSY_SECONDS, sqlite_path
from sweeps.tracking.server import reply
from sweeps.tracking.view import RunView, SweepView

DAY_SECONDS = 86_400
REPLY_SECONDS = 20.0
"""Seconds within which a server must answer a request."""
PAGE = 1000
"""Largest number of runs or models in one reply of a server."""

_EXPERIMENT = """
select experiment_id, lifecycle_stage, artifact_location,
    (select group_concat(key || quote(value)) from experiment_tags where experiment_id = experiments.experiment_id)
from experiments where name = ?
"""
_RUNS = """
select artifact_uri, run_uuid, name, status, start_time,
    (select group_concat(key || quote(value)) from tags where run_uuid = runs.run_uuid),
    (select group_concat(key || quote(value)) from params where run_uuid = runs.run_uuid),
    (select group_concat(key || quote(value) || is_nan) from latest_metrics where run_uuid = runs.run_uuid),
    (select count(*) || ' ' || sum(step) from metrics where run_uuid = runs.run_uuid and key = 'epoch'),
    (select count(*) from inputs
        where destination_id = runs.run_uuid and destination_type = 'RUN' and inputs.source_type = 'DATASET')
from tags as named join runs using (run_uuid)
where named.key = 'mvae.namespace' and named.value = ? and lifecycle_stage = 'active' and experiment_id = ?
"""
_MODELS = """
select artifact_location, model_id, status, source_run_id
from logged_model_tags as named join logged_models using (model_id)
where tag_key = 'mvae.namespace' and tag_value = ? and lifecycle_stage = 'active'
    and logged_models.experiment_id = ?
"""


@dataclass(frozen=True)
class Reconciled:
    """Compares the record of one sweep, in the file `path`, with MLflow's current state."""

    path: Place
    uri: str
    namespace: str
    """UUID of the storage name."""
    experiment: str
    """MLflow's name for all sweeps of the storage name."""
    artifacts: AnyPlace | None
    """Location of MLflow's artifacts; None if the server decides."""
    clock: Clock = CLOCK

    def read(self, sweep: SweepView, views: Iterable[RunView]) -> tuple[dict[str, str], str] | None:
        """Returns the recorded links and the experiment's id, or None if MLflow may lack something.

        The links are the result of `Mirror.links`.

        Args:
            sweep: view of the sweep. A running sweep counts as finished, because all its trials may be finished.
        """
        try:
            record = json.loads(self.path.read_bytes())
            known = dict[str, str](record["links"]), str(record["experiment"])
            same = all(record[name] == value for name, value in self._about(sweep, views).items())
            return known if same and record["state"] == self.state() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(
        self, sweep: SweepView, views: Iterable[RunView], state: str, links: dict[str, str], experiment: str
    ) -> None:
        """Writes the record. If the file cannot be written, the next command compares MLflow with storage again."""
        with suppress(OSError):
            record = {**self._about(sweep, views), "state": state, "links": links, "experiment": experiment}
            self.path.write_bytes(json.dumps(record, indent=1).encode())

    def state(self) -> str:
        """Returns a digest of MLflow's state, or "" if the state cannot be read without importing MLflow."""
        path = sqlite_path(self.uri)
        with suppress(Exception):  # the mirror will raise the same error and report it
            if path is not None:
                return _digest(_in_database(path, self.experiment, self.namespace))
            if self.uri.startswith(("http://", "https://")):
                return _digest(_on_server(self.uri, self.experiment, self.namespace), self.clock.time() // DAY_SECONDS)
        return ""

    def _about(self, sweep: SweepView, views: Iterable[RunView]) -> dict[str, str]:
        """Returns two parts of the record: the tracking URI, and a digest of the views."""
        state = TrialState.DONE if sweep.state is TrialState.RUNNING else sweep.state
        folder = None if sweep.report is None else place(sweep.report)
        report = [] if folder is None else [(name, (folder / name).digest()) for name in folder.listing()]
        views = sorted(views, key=lambda view: view.key)
        folders = [place(view.artifacts) for view in views if view.artifacts is not None]
        pictures = each(lambda folder: folder.listing(), folders, self.path)
        # The table's numbers are computed from the views, and are unknown before the report.
        shown = replace(sweep, state=state, started=None, ended=None, numbers={}, cells=None)
        brief = [_without_past_epochs(view) for view in views]
        digest = _digest(source_digest(), str(self.artifacts), shown, report, brief, pictures)
        return {"tracking_uri": without_credentials(self.uri), "views": digest}


def _without_past_epochs(view: RunView) -> tuple[object, ...]:
    """Returns a view without the values of past epochs, because the tracker never sends a logged epoch again."""
    results = [(result.measure, result.metrics, result.provenance) for result in view.results]
    history = view.history
    return replace(view, records=(), results=()), results, [record["epoch"] for record in history], history[-1:]


def _digest(*values: object) -> str:
    return hashlib.sha256(repr(values).encode(errors="surrogatepass")).hexdigest()


def _in_database(path: Path, experiment: str, namespace: str) -> list[object]:
    """Returns the rows of the experiment, its runs and its models, and the names of all artifact files."""
    uri = f"{path.absolute().as_uri()}?mode=rw"  # not read-only, so that SQLite can undo a killed writer's transaction
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
        about = connection.execute(_EXPERIMENT, [experiment]).fetchall()
        which = [namespace, about[0][0]]
        held = connection.execute(_RUNS, which).fetchall() + connection.execute(_MODELS, which).fetchall()
    return [about, *((row, _names(row[0])) for row in held)]


def _names(location: str) -> list[tuple[str, list[str]]]:
    """Returns all folders below a location on this machine, with the names of their files.

    Raises:
        NotADirectoryError: the location is on another machine or in object storage.
    """
    if urlsplit(location).scheme not in ("", "file"):
        raise NotADirectoryError(f"{location} is not a folder on this machine")
    folder = url2pathname(urlsplit(location).path)
    return sorted((below, sorted(names)) for below, _, names in os.walk(folder))


def _on_server(uri: str, experiment: str, namespace: str) -> list[object]:
    about = reply(uri, f"experiments/get-by-name?experiment_name={quote(experiment)}", REPLY_SECONDS)["experiment"]
    where = {
        "experiment_ids": [about["experiment_id"]],
        "filter": f"tags.`mvae.namespace` = '{namespace}'",
        "max_results": PAGE,
    }
    runs = sorted(map(_run, _pages(uri, "runs/search", where, "runs")))
    models = [_chosen(one["info"], _OF_MODEL) for one in _pages(uri, "logged-models/search", where, "models")]
    return [_chosen(about, _OF_EXPERIMENT), _sorted(about.get("tags", ())), runs, sorted(models)]


_OF_EXPERIMENT = ("experiment_id", "lifecycle_stage", "artifact_location")
_OF_MODEL = ("model_id", "status", "artifact_uri", "source_run_id")
_OF_RUN = ("run_id", "run_name", "status", "start_time", "artifact_uri")


def _run(run: dict[str, Any]) -> list[object]:
    held = [_sorted(run.get("data", {}).get(name, ())) for name in ("tags", "params", "metrics")]
    return [_chosen(run["info"], _OF_RUN), held, len(run.get("inputs", {}).get("dataset_inputs", ()))]


def _chosen(values: dict[str, Any], names: Iterable[str]) -> list[str]:
    return [str(values.get(name)) for name in names]


def _sorted(held: Iterable[dict[str, Any]]) -> list[tuple[str, object, object]]:
    """Returns tags, parameters or metrics sorted by name, because servers return them in any order."""
    return sorted((one["key"], one.get("value"), one.get("step")) for one in held)


def _pages(uri: str, path: str, where: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    token = None
    while True:
        page = reply(uri, path, REPLY_SECONDS, {**where, "page_token": token} if token else where)
        yield from page.get(name, ())
        token = page.get("next_page_token")
        if not token:
            return
