"""Makes tables of committed numbers, and names their cells.

Each line of tables.csv describes the table of a pipeline's command. The table shows the cells that have a committed
number. Pages can use these names, for example ours.fashion.nn.1:

    NAME.table, NAME.caption        the Markdown table, and how its set-up differs from the paper's
    ours.NAME.ROW.COLUMN            mean over seeds, rounded as far as the spread supports
    paper.NAME.ARM.COLUMN           the published value, as the paper prints it

Some columns of tables.csv:

    measured    heading of the first column
    proposal    importance distribution to show; if empty, all are shown
    alone       if not empty, the published values, the seeds and the verdicts are left out

rows.csv selects and names the rows of a table. A table without lines in rows.csv shows all rows. If the trials of a
file in docs/results/ differ only in their seeds, pages can also use:

    table.FILE                      all metrics of the file, one per line
    value.FILE.METRIC               one metric; METRIC.MEASURE if two measures give the metric
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from docs.report.numbers import Committed, each_file, identity, lines_of, mean_and_spread, shown
from docs.report.sources import Sources, Value
from mvae.data import source
from mvae.data.dataset import attribute_names
from mvae.measure import TRANSLATION
from mvae.refusal import Refusal
from pipelines import missing_modalities, translation
from sweeps.cli.options import read
from sweeps.planning.estimate import Estimate
from sweeps.planning.plan import Cell, Plan
from sweeps.table.comparison import Report, tabulate
from sweeps.table.entries import Entry, grouped
from sweeps.table.findings import verdict_words
from sweeps.table.markdown import markdown_table
from sweeps.table.published import Table, column_label, table_for
from sweeps.table.published_likelihoods import likelihood_table
from sweeps.table.quantities import ShownQuantity, quantity_cells
from sweeps.table.rounding import as_printed, shown_value

TABLES = {line["name"]: line for line in lines_of(Path(__file__).with_name("tables.csv"))}
ROWS = lines_of(Path(__file__).with_name("rows.csv"))
DIRECTIONS = {"Table 7": "en-vi", "Table 8": "vi-en"}
AXES = {"k_sweep": "random subsets per step", "missing_modalities": "keep_probability"}
"""Pipelines whose rows are quantities, each with the name of its axis."""

Place = tuple[str, float | str]
"""Row and column of a table."""


class Means(dict[Place, float]):
    """Means over seeds of a table's cells. Looking up a cell without a mean raises a `Refusal`."""

    def __init__(self, report: Report) -> None:
        super().__init__(((one.row, one.column), one.mean) for one in report.in_order() if one.mean is not None)

    def __missing__(self, place: Place) -> float:
        raise Refusal(f"no number is committed for {place[0]} at {column_label(place[1])}, but a page needs it")


def by_metric(report: Report) -> dict[str, float]:
    """Returns the mean of each metric. The table must contain each metric only once."""
    return {entry.quantity: entry.mean for entry in report.in_order() if entry.mean is not None}


def figures(sources: Sources) -> dict[str, Value]:
    """Returns every table and every cell by name."""
    found: dict[str, Value] = {"accuracy.tolerance": f"{Table.tolerance:g}"}
    for name, page in TABLES.items():
        made = table(sources, name)
        found[f"{name}.table"] = grid(made, page)
        found[f"{name}.caption"] = "\n".join(f"- {line}" for line in made.caption)
        for entry in made.in_order():
            found[_address("ours", name, entry.row, entry.column)] = shown_value(entry.mean, entry.spread)
        if made.table is not None:
            for arm, column in product(made.table.rows, made.table.columns):
                found[_address("paper", name, arm, column)] = as_printed(made.table.published(arm, column))
    for path in each_file(sources.results):
        committed = sources.numbers(path.stem)
        if len({identity(trial.with_(seed=0)) for trial in committed.trials.values()}) == 1:
            found |= _whole_file(path.stem, committed)
    return found


def _whole_file(name: str, committed: Committed) -> dict[str, Value]:
    numbers = [(metric, result.measure, value) for result in committed for metric, value in result.metrics.items()]
    by_measure = grouped(numbers, lambda number: number[:2])
    times = Counter(metric for metric, _ in by_measure)
    means = {
        metric if times[metric] == 1 else f"{metric}.{measure}": shown(*mean_and_spread([value for *_, value in seeds]))
        for (metric, measure), seeds in by_measure.items()
    }
    whole = markdown_table(["metric"], ["ours"], [[f"`{metric}`", mean] for metric, mean in means.items()])
    return {f"table.{name}": whole, **{f"value.{name}.{metric}": mean for metric, mean in means.items()}}


@cache
def table(sources: Sources, name: str) -> Report:
    """Returns the table that a line of tables.csv describes.

    Raises:
        Refusal: none of the table's cells has a committed number.
    """
    pipeline = TABLES[name]["pipeline"]
    asked = cells(pipeline, TABLES[name]["arguments"])
    made = report(pipeline, asked, sources.numbers(f"{pipeline}-{asked[0].trial.dataset}"))
    if made is None:
        raise Refusal(f"table {name}: none of its {len(asked)} cells has a committed number")
    return made


def options(pipeline: str, arguments: str) -> Any:
    """Parses the arguments of a pipeline's command."""
    return read(importlib.import_module(f"pipelines.{pipeline}").Options, arguments.split())


@cache
def cells(pipeline: str, arguments: str) -> tuple[Cell, ...]:
    """Returns the cells that a command asks for. Unlike the pipeline's own `sweep`, this function needs no data.

    Cells of Figure 5 include every single attribute. Cells of translations leave out likelihoods.
    """
    module, chosen = importlib.import_module(f"pipelines.{pipeline}"), options(pipeline, arguments)
    if pipeline == "translation":
        scores = product(("bleu", "chrf"), translation.SCORES.values(), DIRECTIONS.values())
        quantities = [ShownQuantity(one + kind, f"{one}{kind}/{pair}", TRANSLATION, pair) for one, kind, pair in scores]
        return quantity_cells(quantities, tuple(translation.trained(chosen)))
    if pipeline not in AXES:
        return tuple(module.cells(chosen))
    quantities = list(module.quantities(module.PRESETS[chosen.preset].under(chosen).samples))
    if pipeline == "missing_modalities":
        names = attribute_names(source(chosen.dataset).modalities)
        each = (missing_modalities.ACCURACY, missing_modalities.BALANCED, missing_modalities.MAJORITY)
        quantities += [missing_modalities.of_attribute(one, name) for name, one in product(names, each)]
    return quantity_cells(quantities, module.trained(chosen))


def published(pipeline: str, dataset: str) -> Table | None:
    """Returns the published table for a pipeline and a data set; None if there is none."""
    tables = {"likelihoods": likelihood_table, "weak_supervision": table_for}
    return tables[pipeline](dataset) if pipeline in tables else None


def report(pipeline: str, asked: Iterable[Cell], committed: Committed) -> Report | None:
    """Returns the table of the cells and seeds that have a committed number; None if there are none."""
    found = committed.having(asked)
    if not found:
        return None
    kept, keys = zip(*found, strict=True)
    plan = Plan(kept, keys, {}, (), (), Estimate({}, 0, ()))
    return tabulate(plan, committed, table=published(pipeline, kept[0].trial.dataset), axis=AXES.get(pipeline, ""))


def grid(made: Report, page: Mapping[str, str]) -> str:
    """Returns a Markdown table: our means and spreads, every value of the paper, and seeds with verdicts."""
    shown_columns = [column for column in made.columns if str(column).endswith(page["proposal"])]
    columns = [column for column in shown_columns if not str(column).startswith("ESS marginal")]
    called = {line["row"]: line["called"] for line in ROWS if line["table"] == page["name"]}
    lines: list[list[str]] = []
    for row, name in (called or {row: row for row in made.rows}).items():
        entries = [made.entries.get((row, column)) for column in columns]
        ours = [shown(entry.mean, entry.spread) if entry else "-" for entry in entries]
        if page["alone"]:
            lines.append([name, *ours])
            continue
        lines.append([name, "ours", *ours])
        arm = next((entry.arm for entry in entries if entry), row)
        paper = [_paper(made, entry, arm, column) for entry, column in zip(entries, columns, strict=True)]
        if any(paper):
            lines.append(["", "paper", *(text or "-" for text in paper)])
        verdicts = [[str(entry.n), verdict_words(entry)] if entry else ["-"] for entry in entries]
        lines.append(["", "seeds, verdict", *(", ".join(filter(None, words)) for words in verdicts)])
    heads = [column_label(column).partition(" by ")[0] for column in columns]
    return markdown_table([page["measured"]] if page["alone"] else [page["measured"], ""], heads, lines)


def _paper(made: Report, entry: Entry | None, arm: str, column: float | str) -> str:
    """Returns the published value of a cell as the paper prints it; "" if there is none."""
    if entry is not None:
        return as_printed(entry.published)
    return as_printed(made.table.published(arm, column)) if made.table is not None else ""


def _address(*headings: float | str) -> str:
    """Joins headings to a name: "ours", "fashion", "MVAE (own)", 0.01 become ours.fashion.mvae.own.1."""
    words = (column_label(heading).removesuffix("%").replace("|", " given ") for heading in headings)
    return ".".join(re.sub(r"[^\w.]+", ".", word.lower().replace("+", "_plus")).strip(".") for word in words)
