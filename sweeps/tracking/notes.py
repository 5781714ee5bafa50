"""What people read in MLflow's pages: descriptions in Markdown, and the saved view of each sweep.

A description is the tag `mlflow.note.content` of an experiment or a run. A saved view is a tag of the experiment that
MLflow's page of runs lists under "Views": filter, groups, columns and the order of the charts, so that a sweep opens as
the rows and columns of its table, each the mean over its seeds. Links and pictures are relative to MLflow's one page,
so they hold on whichever host and port it is served. Neither Ray nor MLflow is needed here.
"""

from __future__ import annotations

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
from sweeps.tracking.view import RunView, SweepView, member_tag

NOTE_CHARACTERS = 8000
"""MLflow's limit on a run's tag."""

VIEW = "mlflow.sharedViewState."
"""Before the id of a saved view, in the name of its tag."""

FIRST_CHARTS = ("validation", "train")
FOLDED_CHARTS = ("best", "speed")
"""Sections of charts (a metric's name up to its last slash) that come first, and those that come folded."""


def experiment_note(name: str) -> str:
    """The description of the experiment that holds all sweeps of a storage name."""
    return (
        f"Sweeps of the storage name **{name}**: a run for each sweep, with its table and plot, and below it one for"
        " each trial, which later sweeps share. **Views** (above) has one for each sweep: its trials by the rows and"
        " columns of the table, with the mean over seeds."
    )


def sweep_note(sweep: SweepView, experiment: str, run: str) -> str:
    """The description of a sweep's run: what, of which paper, where to look, what to type, table and plot.

    The list of every run is left out where the whole would be too long for MLflow.

    Args:
        experiment: MLflow's id of the experiment.
        run: MLflow's id of the sweep's run.
    """
    runs = f"#/experiments/{experiment}/runs"
    view = f"{runs}?viewStateShareKey={quote(view_id(sweep))}"
    look = f"[trials by row and column]({view}), [their curves]({view}&compareRunsMode=CHART)"
    files: list[AnyPlace] = [*sweep.report.iterdir()] if sweep.report is not None and sweep.report.is_dir() else []
    if files:
        look += f", [files of the report]({runs}/{run}/artifacts/report)"
    texts = [path.read_bytes().decode() for path in files if path.name == "table.md"]
    above, _, every_run = "".join(texts).partition("<details>")
    parts = [
        f"**{sweep.title}**",
        f"Published: {sweep.source}." if sweep.source else "",
        f"Look at: {look}.",
        f"The same command resumes, extends and reports it:\n\n    {sweep.command}" if sweep.command else "",
        f"Its trials, shared ones too: search runs for ``tags.`{member_tag(sweep.name)}` = 'yes'``.",
        above.strip(),
        *(
            f"![{picture.removesuffix('.png')}](get-artifact?path={quote(f'report/{picture}')}&run_uuid={run})"
            for picture in sorted(path.name for path in files if path.name.endswith(".png"))
        ),
    ]
    note = "\n\n".join(part for part in parts if part)
    # The report's "(run `id`)", written where there is no server, becomes a link. MLflow knows no <details>: a heading.
    every_run = re.sub(r"\(run `([0-9a-f]{32})`\)", rf"([run]({runs}/\1))", every_run)
    every_run = re.sub(r"<summary>(.*?)</summary>", r"#### \1", every_run).replace("</details>", "").strip()
    whole = f"{note}\n\n{every_run}".strip()
    return whole if len(whole) <= NOTE_CHARACTERS else _cut(note)


def run_note(view: RunView) -> str:
    """The description of a trial's run: arm and cell, how it stands, final numbers, key, checkpoint.

    MLflow folds it after four lines or so: what the trial came to stands in the first.
    """
    fields = view.fields
    place = [f"{name} {view.tags[name]}" for name in ("row", "column") if view.tags.get(name)]
    words = {"model": "arm", "dataset": "data set", "seed": "seed"}
    place += [f"{word} {fields[name]}" for name, word in words.items() if name in fields]
    epochs, of = view.history[-1]["epoch"] if view.history else 0, fields.get("epochs")
    final = dict(sorted(view.final.items(), key=lambda item: (not item[0].startswith("test/"), item[0])))
    head = [f"{name} **{shown_value(value)}**" for name, value in final.items() if name.startswith("test/")][:3]
    stands = f"{_STANDS[view.state]} {epochs}{f' of {of}' if of else ''} epochs"
    parts = [
        f"**{view.name}**" + "".join(f", {text}" for text in head) + f". {stands}.",
        f"{capitalised(', '.join(place))}.",
    ]
    if view.error is not None:
        parts.append("Why it failed:\n\n" + "\n".join(f"    {line}" for line in view.error.splitlines()))
    parts.append(f"Key: `{view.key}`" + "".join(f", `{result.measure}`" for result in view.results))
    if view.checkpoint is not None:
        where, digest = view.checkpoint, view.checkpoint.files[MODEL].sha256
        parts.append(f"Checkpoint of epoch {where.epoch}: `{where.path}` (sha256 of the weights `{digest}`)")
    if final:
        lines = [[name, figures(value, 6)] for name, value in final.items()]
        parts.append(markdown_table(["final number"], ["value"], lines))
    return _cut("\n\n".join(part for part in parts if part))


def model_note(view: RunView, run: str) -> str:
    """The description of a trial's logged model.

    Args:
        run: MLflow's id of the trial's run.
    """
    return (
        f"Final weights of **{view.name}** (key `{view.key}`), in evaluation mode."
        " To load them, where this project is installed:\n\n"
        f'    mlflow.pytorch.load_model("runs:/{run}/model")'
    )


def source_tags(sweep: SweepView) -> dict[str, str]:
    """The tags behind MLflow's column "Source": the pipeline and its commit."""
    if not sweep.program:
        return {}
    tags = {"mlflow.source.name": sweep.program, "mlflow.source.type": "LOCAL"}
    commit = sweep.tags.get("git")
    return {**tags, "mlflow.source.git.commit": commit} if commit else tags


def view_id(sweep: SweepView) -> str:
    """The id of a sweep's saved view, as links to it have it."""
    return f"mvae-{sweep.name}"


def saved_view(sweep: SweepView, when: int, there: str | None) -> str:
    """The value of the tag of a sweep's saved view.

    Args:
        when: now, in milliseconds since 1970.
        there: what the tag says; it stays if it is this view, whenever it was made.
    """
    chosen = sweep.metrics[:6]  # a tag of an experiment holds 5,000 characters
    metrics = [f"metrics.`{name}`" for name in (*chosen, "epoch")]
    settings = [f"params.`{name}`" for name in sweep.settings]
    by_cell = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "mvae.cell"}]}
    widths = {"attributes.`Run Name`": 400, **dict.fromkeys(metrics[:1], 170)}
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
        "compareRunCharts": [],
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


_STANDS = {
    TrialState.PENDING: "Waits for its turn after",
    TrialState.RUNNING: "Runs; saved are",
    TrialState.DONE: "Finished after",
    TrialState.FAILED: "Failed after",
    TrialState.INTERRUPTED: "Interrupted, to be continued by the same command, after",
    TrialState.DIVERGED: "Failed after",
    TrialState.PRUNED: "Given up by a search, since it lagged behind others, after",
}


def _sections(metrics: Iterable[str]) -> list[dict[str, Any]]:
    """Sections of charts in the order in which they are read; MLflow fills them, and adds those that are missing."""
    own = [name.rpartition("/")[0] for name in metrics if "/" in name]
    return [
        {"uuid": f"mvae-{name}", "name": name, "display": name not in FOLDED_CHARTS, "isReordered": False}
        for name in dict.fromkeys((*FIRST_CHARTS, *own, *FOLDED_CHARTS))
    ]


def _cut(text: str) -> str:
    """Whole lines that fit, with a word on the rest."""
    if len(text) <= NOTE_CHARACTERS:
        return text
    rest = "\n\n(The rest is among the artifacts.)"
    return text[: NOTE_CHARACTERS - len(rest)].rpartition("\n")[0].rstrip() + rest
