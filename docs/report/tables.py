"""Tables of committed numbers, and the addresses of their cells.

A table of tables.csv is what a pipeline's command asks for, of the cells that have a committed number:

    NAME.table, NAME.caption        the Markdown table, and how its set-up compares with the paper's
    ours.NAME.ROW.COLUMN            mean over seeds, to the places that the spread leaves: ours.fashion.nn.1
    paper.NAME.ARM.COLUMN           the published value, as the paper prints it: paper.fashion.nn.1

Columns of tables.csv: `measured` is the table's corner; `proposal` names the importance distribution whose columns are
shown, empty for all; `alone` leaves out the published values, the seeds and the verdict. rows.csv says which rows a
page shows and what it calls them; of other tables it shows all. A file whose trials differ in their seeds only needs no
line anywhere:

    table.FILE, value.FILE.METRIC   a line per metric; one of them, if only one measure gives it
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from docs.report.numbers import Committed, each_file, identity, lines_of, mean_and_spread
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
from sweeps.table.findings import verdict_words
from sweeps.table.markdown import markdown_table
from sweeps.table.published import Table, column_label, table_for
from sweeps.table.published_likelihoods import likelihood_table
from sweeps.table.quantities import ShownQuantity, quantity_cells
from sweeps.table.rounding import as_printed, shown, shown_value

TABLES = {line["name"]: line for line in lines_of(Path(__file__).with_name("tables.csv"))}
ROWS = lines_of(Path(__file__).with_name("rows.csv"))
DIRECTIONS = {"Table 7": "en-vi", "Table 8": "vi-en"}
AXES = {"k_sweep": "random subsets per step", "missing_modalities": "keep_probability"}
"""Pipelines whose rows are quantities, and their axis."""


class Means:
    """Means over seeds of a table's cells, by row and column."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def __getitem__(self, place: tuple[str, float | str]) -> float:
        entry = self.report.entries.get(place)
        if entry is None or entry.mean is None:
            raise Refusal(f"no number is committed for {place[0]} at {column_label(place[1])}, and the text needs it")
        return entry.mean

    @property
    def by_metric(self) -> dict[str, float]:
        """Means by the metric that a cell shows, of a table that shows each once."""
        return {entry.quantity: entry.mean for entry in self.report.in_order() if entry.mean is not None}


def figures(sources: Sources) -> dict[str, Value]:
    """Every table and cell by its address."""
    found: dict[str, Value] = {"accuracy.tolerance": f"{Table.tolerance:g}"}
    for name, page in TABLES.items():
        made = table(sources, name)
        found[f"{name}.table"] = grid(made, page)
        found[f"{name}.caption"] = "\n".join(f"- {line}" for line in made.caption)
        for entry in made.in_order():
            if entry.mean is not None:
                found[_address("ours", name, entry.row, entry.column)] = shown_value(entry.mean, entry.spread)
        if made.table is not None:
            for arm, column in product(made.table.rows, made.table.columns):
                found[_address("paper", name, arm, column)] = as_printed(made.table.published(arm, column))
    for path in each_file(sources.results):
        committed = sources.numbers(path.stem)
        if len({identity(number.trial.with_(seed=0)) for number in committed.numbers}) == 1:
            found |= _whole_file(path.stem, committed)
    return found


def _whole_file(name: str, committed: Committed) -> dict[str, Value]:
    values: dict[tuple[str, str], list[float]] = {}
    for number in committed.numbers:
        values.setdefault((number.metric, number.measure), []).append(number.value)
    several = len({measure for _, measure in values}) > 1
    means = {place: shown(*mean_and_spread(of_metric)) for place, of_metric in values.items()}
    rows = [[f"`{metric}`" + f" ({measure})" * several, text] for (metric, measure), text in means.items()]
    times = Counter(metric for metric, _ in values)
    single = {f"value.{name}.{metric}": text for (metric, _), text in means.items() if times[metric] == 1}
    return {f"table.{name}": markdown_table(["metric"], ["ours"], rows), **single}


@cache
def table(sources: Sources, name: str) -> Report:
    """A table by its name.

    Raises:
        Refusal: none of its cells has a committed number.
    """
    pipeline = TABLES[name]["pipeline"]
    asked = cells(pipeline, TABLES[name]["arguments"])
    return report(pipeline, asked, sources.numbers(f"{pipeline}-{asked[0].trial.dataset}"))


def options(pipeline: str, arguments: str) -> Any:
    """Options of a command."""
    return read(importlib.import_module(f"pipelines.{pipeline}").Options, arguments.split())


@cache
def cells(pipeline: str, arguments: str) -> tuple[Cell, ...]:
    """Cells that a command asks for: its table's, with those of Figure 5's attributes, without likelihoods of
    sentences."""
    module, said = importlib.import_module(f"pipelines.{pipeline}"), options(pipeline, arguments)
    if pipeline in AXES:
        quantities = list(module.quantities(module.PRESETS[said.preset].under(said).samples))
        if pipeline == "missing_modalities":
            each = (missing_modalities.ACCURACY, missing_modalities.BALANCED, missing_modalities.MAJORITY)
            names = attribute_names(source(said.dataset).modalities)
            quantities += [missing_modalities.of_attribute(one, name) for name in names for one in each]
        return quantity_cells(quantities, module.trained(said))
    if pipeline == "translation":
        scores = [score + kind for score in ("bleu", "chrf") for kind in translation.SCORES.values()]
        pairs = DIRECTIONS.values()
        asked = [ShownQuantity(one, f"{one}/{pair}", TRANSLATION, pair) for one in scores for pair in pairs]
        return quantity_cells(asked, tuple(translation.trained(said)))
    return tuple(module.cells(said))


def published(pipeline: str, dataset: str) -> Table | None:
    """The published table next to a pipeline's numbers."""
    tables = {"likelihoods": likelihood_table, "weak_supervision": table_for}
    return tables[pipeline](dataset) if pipeline in tables else None


def report(pipeline: str, asked: Sequence[Cell], committed: Committed) -> Report:
    """The table of the cells that have a committed number; a cell's seeds are those that have one.

    Raises:
        Refusal: no cell has one.
    """
    keys = available(asked, committed)
    if not keys:
        raise Refusal(f"{pipeline}: none of {len(asked)} cells has a committed number")
    kept = Plan(tuple(asked[index] for index in keys), tuple(keys.values()), {}, (), (), Estimate({}, 0, ()))
    table = published(pipeline, asked[0].trial.dataset)
    return tabulate(kept, committed, table=table, axis=AXES.get(pipeline, ""))


def available(asked: Sequence[Cell], committed: Committed) -> dict[int, str]:
    """Index of each cell that has a committed number, to its trial's key."""
    found = {}
    for index, cell in enumerate(asked):
        key = committed.key_of(cell.trial)
        result = None if key is None else committed.read(key, cell.measure.token)
        if key is not None and result is not None and cell.metric in result.metrics:
            found[index] = key
    return found


def grid(made: Report, page: Mapping[str, str]) -> str:
    """A Markdown table: ours with its spread, the paper's in rows that have any, and seeds with the verdict."""
    wanted = [column for column in made.columns if str(column).endswith(page["proposal"])]
    columns = [column for column in wanted if not str(column).startswith("ESS marginal")]
    called = {line["row"]: line["called"] for line in ROWS if line["table"] == page["name"]}
    lines: list[list[str]] = []
    for row, name in (called or {row: row for row in made.rows}).items():
        entries = [made.entries.get((row, column)) for column in columns]
        ours = [shown(entry.mean, entry.spread) if entry else "-" for entry in entries]
        if page["alone"]:
            lines.append([name, *ours])
            continue
        lines.append([name, "ours", *ours])
        paper = [as_printed(entry.published) if entry else "" for entry in entries]
        if any(paper):
            lines.append(["", "paper", *(text or "-" for text in paper)])
        verdicts = [[str(entry.n), verdict_words(entry)] if entry else ["-"] for entry in entries]
        lines.append(["", "seeds", *(", ".join(filter(None, words)) for words in verdicts)])
    heads = [column_label(column).partition(" by ")[0] for column in columns]
    return markdown_table([page["measured"]] if page["alone"] else [page["measured"], ""], heads, lines)


def _address(*headings: float | str) -> str:
    """A name for a span, from headings: ours, fashion, MVAE (own), 0.01 is ours.fashion.mvae.own.1."""
    words = (column_label(heading).removesuffix("%").replace("|", " given ").lower() for heading in headings)
    return ".".join(re.sub(r"[^\w.]+", ".", word).strip(".") for word in words)
