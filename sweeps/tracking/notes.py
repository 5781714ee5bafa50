"""Text for MLflow's pages: descriptions in Markdown, the saved view of each sweep, and the view's address.

A description is the tag `mlflow.note.content` of an experiment or a run.

A saved view is a tag of the experiment, listed under "Views" on MLflow's page of runs. The view stores the filter,
groups, columns and charts. The view groups a sweep's trials by row and column of the sweep's table. Each group also has
the run with the cell's mean and standard deviation over seeds (sweeps/tracking/cells.py).

Links and pictures are relative to MLflow's page, so they work on any host and port. This module needs neither Ray nor
MLflow.
"""

import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from mvae.storage.place import AnyPlace
from mvae.training.records import MODEL
from sweeps.cli.words import figures
from sweeps.planning.state import TrialState
from sweeps.table.markdown import markdown_table
from sweeps.table.metric_names import capitalised
from sweeps.table.rounding import shown_value
from sweeps.tracking.cells import MEAN, band
from sweeps.tracking.view import RunView, SweepView, member_tag

NOTE_CHARACTERS = 8000
"""Largest number of characters in a tag of a run, set by MLflow."""

VIEW = "mlflow.sharedViewState."
"""Beginning of the name of a saved view's tag. The name ends with the view's id."""

BANDS = "over seeds"
"""Section of charts that comes first: bands over the seeds of each cell."""
FIRST_CHARTS = ("validation", "train")
"""Sections of charts that come after BANDS. A section is a metric's name up to its last slash."""
FOLDED_CHARTS = ("best", "speed")
"""Sections of charts that come last, folded."""


def experiment_note(name: str) -> str:
    """Returns the description of the experiment that holds all sweeps of a storage name."""
    return (
        f"Sweeps of the storage name **{name}**. Each sweep has a run with its table and plot. Below that run are the"
        " runs of the sweep's trials, which later sweeps may share, and one run per cell of the table with its mean"
        " over seeds. **Views** (above) has one view per sweep. The view shows cells and trials by row and column."
    )


def sweep_note(sweep: SweepView, experiment: str, run: str) -> str:
    """Returns the description of a sweep's run: title, published source, links, command, table and plot.

    The list of all runs is left out if it does not fit into MLflow's tag.

    Args:
        experiment: MLflow's id of the experiment.
        run: MLflow's id of the sweep's run.
    """
    runs = f"#/experiments/{experiment}/runs"
    view = f"#{view_page(sweep.name, experiment)}"
    links = f"[trials by row and column]({view}), [their curves]({view}&compareRunsMode=CHART)"
    files: list[AnyPlace] = [*sweep.report.iterdir()] if sweep.report is not None and sweep.report.is_dir() else []
    if files:
        links += f", [files of the report]({runs}/{run}/artifacts/report)"
    texts = [path.read_bytes().decode() for path in files if path.name == "table.md"]
    above, _, every_run = "".join(texts).partition("<details>")
    parts = [
        f"**{sweep.title}**",
        f"Published: {sweep.source}." if sweep.source else "",
        f"See {links}.",
        f"This command resumes, extends and reports the sweep:\n\n    {sweep.command}" if sweep.command else "",
        f"To find all trials, including shared ones, search runs for ``tags.`{member_tag(sweep.name)}` = 'yes' and"
        " tags.`mvae.kind` = 'trial'``.",
        above.strip(),
        *(
            f"![{picture.removesuffix('.png')}](get-artifact?path={quote(f'report/{picture}')}&run_uuid={run})"
            for picture in sorted(path.name for path in files if path.name.endswith(".png"))
        ),
    ]
    note = "\n\n".join(part for part in parts if part)
    # Without a server the report says "(run `id`)", which becomes a link. MLflow does not support <details>.
    every_run = re.sub(r"\(run `([0-9a-f]{32})`\)", rf"([run]({runs}/\1))", every_run)
    every_run = re.sub(r"<summary>(.*?)</summary>", r"#### \1", every_run).replace("</details>", "").strip()
    whole = f"{note}\n\n{every_run}".strip()
    return whole if len(whole) <= NOTE_CHARACTERS else _cut(note)


def run_note(view: RunView) -> str:
    """Returns the description of a trial's run: arm and cell, state, final numbers, key, checkpoint.

    The result is in the first line, because MLflow folds the text after about four lines.
    """
    fields = view.fields
    place = [f"{name} {view.tags[name]}" for name in ("row", "column") if view.tags.get(name)]
    words = {"model": "arm", "dataset": "data set", "seed": "seed"}
    place += [f"{word} {fields[name]}" for name, word in words.items() if name in fields]
    epochs, of = view.history[-1]["epoch"] if view.history else 0, fields.get("epochs")
    final = dict(sorted(view.final.items(), key=lambda item: (not item[0].startswith("test/"), item[0])))
    head = [f"{name} **{shown_value(value)}**" for name, value in final.items() if name.startswith("test/")][:3]
    progress = f"{_PROGRESS[view.state]} {epochs}{f' of {of}' if of else ''} epochs"
    parts = [
        f"**{view.name}**" + "".join(f", {text}" for text in head) + f". {progress}.",
        f"{capitalised(', '.join(place))}.",
    ]
    if view.error is not None:
        parts.append("Why it failed:\n\n" + "\n".join(f"    {line}" for line in view.error.splitlines()))
    parts.append(f"Key: `{view.key}`" + "".join(f", `{result.measure}`" for result in view.results))
    if view.checkpoint is not None:
        saved, digest = view.checkpoint, view.checkpoint.files[MODEL].sha256
        parts.append(f"Checkpoint of epoch {saved.epoch}: `{saved.path}` (sha256 of the weights `{digest}`)")
    if final:
        lines = [[name, figures(value, 6)] for name, value in final.items()]
        parts.append(markdown_table(["final number"], ["value"], lines))
    return _cut("\n\n".join(part for part in parts if part))


def model_note(view: RunView, run: str) -> str:
    """Returns the description of a trial's logged model.

    Args:
        run: MLflow's id of the trial's run.
    """
    return (
        f"Final weights of **{view.name}** (key `{view.key}`), in evaluation mode."
        " To load them with this project installed:\n\n"
        f'    mlflow.pytorch.load_model("runs:/{run}/{model_name(view)}")'
    )


def model_name(view: RunView) -> str:
    """Returns the name of a trial's logged model: the run's name without characters that MLflow forbids."""
    return "-".join(re.sub(r"[^\w.-]+", " ", view.name.replace("%", " percent")).replace(".", "_").split())


def source_tags(sweep: SweepView) -> dict[str, str]:
    """Returns the tags for MLflow's column "Source": the pipeline and its commit."""
    if not sweep.program:
        return {}
    tags = {"mlflow.source.name": sweep.program, "mlflow.source.type": "LOCAL"}
    commit = sweep.tags.get("git")
    return {**tags, "mlflow.source.git.commit": commit} if commit else tags


def view_id(sweep: str) -> str:
    """Returns the id of a sweep's saved view, which is part of its link."""
    return f"mvae-{sweep}"


def view_page(sweep: str, experiment: str) -> str:
    """Returns the part of a saved view's address that follows the server's address and `#`.

    The address sets workflowType. Without workflowType, a new browser opens MLflow's pages for language models.

    Args:
        sweep: name of the sweep.
        experiment: MLflow's id of the experiment.
    """
    return f"/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={quote(view_id(sweep))}"


def saved_view(sweep: SweepView, when: int, there: str | None) -> str:
    """Returns the tag value that stores a sweep's saved view.

    Args:
        when: the time now, in milliseconds since 1970.
        there: current value of the tag, or None if the tag is missing. It is returned unchanged if only dates differ.
    """
    chosen = sweep.metrics[:6]  # a tag of an experiment may have 5,000 characters
    over_seeds = [f"{name}/{part}" for name in sweep.quantities[:2] for part in (MEAN, "std", "seeds")]
    metrics = [f"metrics.`{name}`" for name in (*over_seeds, *chosen, "epoch")]
    settings = [f"params.`{name}`" for name in sweep.settings]
    by_cell = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "mvae.cell"}]}
    widths = {"attributes.`Run Name`": 300, **dict.fromkeys(metrics[:2], 170)}
    state = {
        "searchFilter": f"tags.`{member_tag(sweep.name)}` = 'yes'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [*metrics, *settings, "tags.`mvae.key`", "tags.`mvae.device`"],
        "columnOrder": list(widths),
        "columnWidths": widths,
        "groupBy": None if settings else by_cell,
        "useGroupedValuesInCharts": not settings,
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": [_band_chart(name) for name in sweep.watched[:3]],
        "compareRunSections": _sections(chosen),
        "isAccordionReordered": True,
    }
    view = {"name": sweep.name, "state": json.dumps(state)}
    try:
        known = json.loads(there or "{}")
    except ValueError:
        known = {}
    if there is not None and isinstance(known, dict) and view.items() <= known.items():
        return there
    return json.dumps({**view, "createdAt": when, "updatedAt": when})


_PROGRESS = {
    TrialState.PENDING: "Waiting to start; saved",
    TrialState.RUNNING: "Running; saved",
    TrialState.DONE: "Finished after",
    TrialState.FAILED: "Failed after",
    TrialState.INTERRUPTED: "Interrupted (the same command resumes the trial) after",
    TrialState.DIVERGED: "Failed after",
    TrialState.PRUNED: "Pruned by a search, because other trials were better, after",
}
"""Beginning of a sentence that ends with the number of epochs."""


def _band_chart(metric: str) -> dict[str, Any]:
    """Returns the settings of a line chart that shows a metric's mean and standard deviation over seeds."""
    return {
        "uuid": f"mvae-{metric}",
        "type": "LINE",
        "metricSectionId": f"mvae-{BANDS}",
        "displayName": f"{metric}: mean and standard deviation over seeds",
        "isGenerated": False,
        "deleted": False,
        "runsCountToCompare": 10,
        "range": {},
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "metricKey": band(metric)[0],
        "selectedMetricKeys": band(metric),
        "xAxisKey": "step",
        "useGlobalXaxisKey": False,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": False,
    }


def _sections(metrics: Iterable[str]) -> list[dict[str, Any]]:
    """Returns chart sections in reading order. MLflow fills the sections with charts, and adds further sections."""
    own = [name.rpartition("/")[0] for name in metrics if "/" in name]
    return [
        {"uuid": f"mvae-{name}", "name": name, "display": name not in FOLDED_CHARTS, "isReordered": False}
        for name in dict.fromkeys((BANDS, *FIRST_CHARTS, *own, *FOLDED_CHARTS))
    ]


def _cut(text: str) -> str:
    if len(text) <= NOTE_CHARACTERS:
        return text
    rest = "\n\n(The rest is in the artifacts.)"
    return text[: NOTE_CHARACTERS - len(rest)].rpartition("\n")[0].rstrip() + rest
