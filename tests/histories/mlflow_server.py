"""A simulated MLflow server with the parts of `MlflowClient` and of the REST interface that the mirror uses.

The server may be slow or unreachable, may lose a reply after doing the work, and may be restored from a backup. If the
server dies, a request may be half done: `log_batch` has three transactions, as in MLflow.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException

from tests.histories.world import World

PATIENCE = 20.0
"""Seconds after which a request fails (MLFLOW_HTTP_REQUEST_TIMEOUT)."""


class Page(list[Any]):
    """A reply with all results on one page."""

    token = None


@dataclass
class Run:
    """One run, as the server stores it."""

    run_id: str
    name: str
    started: int
    status: str = "RUNNING"
    ended: int | None = None
    deleted: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    rows: dict[tuple[str, int, int, float], None] = field(default_factory=dict)
    """Metrics: key, step, time, value. A row that is equal in all of them is stored once, as in MLflow."""
    inputs: list[Any] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, float]:
        """The newest value of each metric."""
        newest = sorted(self.rows, key=lambda row: (row[1], row[2]))
        return {key: value for key, _, _, value in newest}

    def steps(self, metric: str) -> list[int]:
        return sorted(step for key, step, _, _ in self.rows if key == metric)

    def shown(self) -> Any:
        info = SimpleNamespace(run_id=self.run_id, run_name=self.name, start_time=self.started, status=self.status)
        data = SimpleNamespace(tags=dict(self.tags), params=dict(self.params), metrics=self.metrics)
        return SimpleNamespace(info=info, data=data, inputs=SimpleNamespace(dataset_inputs=list(self.inputs)))


@dataclass(eq=False)
class Server:
    """The server's database and condition."""

    world: World
    runs: dict[str, Run] = field(default_factory=dict)
    experiments: dict[str, Any] = field(default_factory=dict)
    away: bool = False
    slow: float = 0.0
    """Seconds that each request takes in addition."""
    lost_replies: int = 0
    """Number of further changes after which the server fails: before, in the middle of, or after its work."""
    backup: tuple[dict[str, Run], dict[str, Any]] = field(default_factory=lambda: ({}, {}))
    numbers: int = 0
    watchers: list[Callable[[Run], None]] = field(default_factory=list)
    """Called for every run after a change."""

    def keep_backup(self) -> None:
        self.backup = copy.deepcopy((self.runs, self.experiments))

    def restore(self) -> None:
        self.runs, self.experiments = copy.deepcopy(self.backup)

    def ask(self, *parts: Callable[[], Any]) -> Any:
        """One request. Returns the result of the last part; each part is a transaction."""
        self.world.request(PATIENCE, mlflow=True)
        if self.slow:
            self.world.sleep(min(self.slow, PATIENCE))
        if self.away or self.slow > PATIENCE:
            raise MlflowException("the server does not answer")
        return self._done(parts)

    def change(self, *parts: Callable[[], Any]) -> Any:
        """Like `ask`, for a request that changes something and may lose its reply."""

        def failing() -> Any:
            self.lost_replies -= 1
            self._done(parts[: int(self.world.draw() * (len(parts) + 1))])
            raise MlflowException("the server's reply was lost")

        return self.ask(failing) if self.lost_replies > 0 else self.ask(*parts)

    def _done(self, parts: tuple[Callable[[], Any], ...]) -> Any:
        result = None
        for part in parts:
            result = part()
            for run in self.active() if self.watchers else ():
                for watcher in self.watchers:
                    watcher(run)
        return result

    def active(self) -> list[Run]:
        return [run for run in self.runs.values() if not run.deleted]

    def found(self, where: str) -> list[Run]:
        """The active runs with the namespace that a filter names."""
        wanted = where.partition("'")[2].rstrip("'")
        return [run for run in self.active() if run.tags.get("mvae.namespace") == wanted]

    def run(self, run_id: str) -> Run:
        found = self.runs.get(run_id)
        if found is None or found.deleted:
            raise MlflowException(f"no run {run_id}")
        return found

    def client(self, uri: str) -> Client:
        return Client(self)

    def reply(self, uri: str, path: str, seconds: float, body: Any = None) -> Any:
        """Answers like the REST interface: experiment, runs, models."""
        if path.startswith("experiments/get-by-name"):
            found = self.ask(lambda: dict(self.experiments))
            if not found:
                raise OSError("404")
            tags = [{"key": name, "value": value} for name, value in found["tags"].items()]
            return {"experiment": {"experiment_id": "1", "lifecycle_stage": "active", "tags": tags}}
        if path == "runs/search":
            return {"runs": [_as_json(run) for run in self.ask(lambda: self.found(body["filter"]))]}
        return {"models": []}


def _as_json(run: Run) -> dict[str, Any]:
    info = {"run_id": run.run_id, "run_name": run.name, "status": run.status, "start_time": run.started}
    newest = {key: (step, value) for key, step, _, value in sorted(run.rows, key=lambda row: (row[1], row[2]))}
    data = {
        "tags": [{"key": key, "value": value} for key, value in run.tags.items()],
        "params": [{"key": key, "value": value} for key, value in run.params.items()],
        "metrics": [{"key": key, "value": value, "step": step} for key, (step, value) in newest.items()],
    }
    return {"info": info, "data": data, "inputs": {"dataset_inputs": list(run.inputs)}}


class Client:
    """The part of `mlflow.MlflowClient` that the mirror uses. Nothing is uploaded: the trials have no files."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def get_experiment_by_name(self, name: str) -> Any:
        found = self._server.ask(lambda: dict(self._server.experiments))
        if not found:
            return None
        return SimpleNamespace(experiment_id="1", lifecycle_stage="active", tags=dict(found["tags"]))

    def create_experiment(self, name: str, artifact_location: str | None, tags: dict[str, str]) -> str:
        self._server.change(lambda: self._server.experiments.setdefault("tags", dict(tags)))
        return "1"

    def set_experiment_tag(self, experiment: str, name: str, value: str) -> None:
        def effect() -> None:
            if not self._server.experiments:
                raise MlflowException("no such experiment")
            self._server.experiments["tags"][name] = value

        self._server.change(effect)

    def search_runs(self, page_token: str | None, filter_string: str, **where: Any) -> Page:
        return Page(run.shown() for run in self._server.ask(lambda: self._server.found(filter_string)))

    def search_logged_models(self, page_token: str | None, **where: Any) -> Page:
        return Page()

    def create_run(self, experiment: str, start_time: int, tags: dict[str, str], run_name: str) -> Any:
        server = self._server

        def effect() -> Any:
            if not server.experiments:
                raise MlflowException("no such experiment")
            server.numbers += 1
            run = Run(f"{server.numbers:032x}", run_name, start_time, tags=dict(tags))
            server.runs[run.run_id] = run
            return run.shown()

        return server.change(effect)

    def delete_run(self, run_id: str) -> None:
        self._server.change(lambda: setattr(self._server.run(run_id), "deleted", True))

    def delete_tag(self, run_id: str, name: str) -> None:
        def effect() -> None:
            if self._server.run(run_id).tags.pop(name, None) is None:
                raise MlflowException("no such tag")

        self._server.change(effect)

    def log_batch(self, run_id: str, metrics: Any = (), tags: Any = (), params: Any = ()) -> None:
        def log_params() -> None:
            there = self._server.run(run_id).params
            for param in params:
                if there.setdefault(param.key, param.value) != param.value:
                    raise MlflowException("a parameter cannot change")

        def log_metrics() -> None:
            rows = self._server.run(run_id).rows
            rows.update(dict.fromkeys((one.key, one.step, one.timestamp, one.value) for one in metrics))

        def set_tags() -> None:
            self._server.run(run_id).tags.update({tag.key: tag.value for tag in tags})

        self._server.change(log_params, log_metrics, set_tags)

    def log_inputs(self, run_id: str, datasets: list[Any]) -> None:
        def effect() -> None:
            self._server.run(run_id).inputs[:] = ["data"]

        self._server.change(effect)

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        return [SimpleNamespace(step=step) for step in self._server.ask(lambda: self._server.run(run_id).steps(key))]

    def update_run(self, run_id: str, status: str) -> None:
        def effect() -> None:
            run = self._server.run(run_id)
            run.status, run.ended = status, None

        self._server.change(effect)

    def set_terminated(self, run_id: str, status: str, end_time: int) -> None:
        def effect() -> None:
            run = self._server.run(run_id)
            run.status, run.ended = status, end_time

        self._server.change(effect)
