"""What a tracking store holds of finished runs, read back: what `make report` takes its numbers from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mlflow

from sweeps.tracking.mirror.stored import PAGE, all_pages
from sweeps.tracking.view import member_tag


@dataclass(frozen=True)
class FinishedRun:
    """What MLflow holds of a key that is done."""

    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    sweeps: frozenset[str]
    """Names of the sweeps that list it."""
    curve: Callable[[str], tuple[float, ...]] = lambda _: ()
    """Of a metric by epoch, its values from the first epoch on; asks the store."""


def finished_runs(uri: str) -> list[FinishedRun]:
    """Every finished run of ours in a tracking store, by key; two namespaces may both have a key.

    Raises:
        Exception: whatever MLflow raises when the store cannot be read.
    """
    client = mlflow.MlflowClient(uri)
    experiments = [found.experiment_id for found in all_pages(client.search_experiments, {"max_results": PAGE})]
    where = {"experiment_ids": experiments, "filter_string": "tags.`mvae.kind` = 'trial'", "max_results": PAGE}
    runs = [run for run in all_pages(client.search_runs, where) if run.info.status == "FINISHED"]
    member = member_tag("")
    return [
        FinishedRun(
            dict(run.data.params),
            dict(run.data.tags),
            dict(run.data.metrics),
            frozenset(name.removeprefix(member) for name in run.data.tags if name.startswith(member)),
            partial(_curve, client, run.info.run_id),
        )
        for run in sorted(runs, key=lambda run: str(run.data.tags["mvae.key"]))
    ]


def _curve(client: mlflow.MlflowClient, run: str, metric: str) -> tuple[float, ...]:
    by_epoch = {point.step: point.value for point in client.get_metric_history(run, metric)}
    return tuple(by_epoch[epoch] for epoch in sorted(by_epoch) if epoch)
