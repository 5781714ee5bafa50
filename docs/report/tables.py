"""Tables of committed numbers, by name, and the addresses of their cells.

A table is what a pipeline's command asks for, of the cells that have a committed number. Its name begins these:

    NAME.table, NAME.caption        the Markdown table, and how its set-up compares with the paper's
    ours.NAME.ROW.COLUMN            mean over seeds, to the places that the spread leaves: ours.fashion.nn.1
    paper.NAME.ARM.COLUMN           the published value, as the paper prints it: paper.fashion.nn.1
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import Any

from docs.report.numbers import Committed
from docs.report.sources import Sources, Value
from mvae.data import source
from mvae.evaluation.attributes import attribute_names
from mvae.measure import TRANSLATION
from mvae.refusal import Refusal
from pipelines import k_sweep, likelihoods, missing_modalities, translation, vision, weak_supervision
from sweeps.cli.options import CommonOptions, read
from sweeps.planning.plan import Cell, Plan
from sweeps.table.comparison import Entry, Report, tabulate
from sweeps.table.findings import verdict_words
from sweeps.table.markdown import markdown_table
from sweeps.table.published import Table, column_label, table_for
from sweeps.table.published_likelihoods import BY_BOTH, BY_IMAGE, likelihood_table
from sweeps.table.quantities import quantity_cells
from sweeps.table.rounding import as_printed, shown, shown_value

DIRECTIONS = {"Table 7": "en-vi", "Table 8": "vi-en"}


def _missing(options: missing_modalities.Options) -> Iterable[Cell]:
    """Figure 5, and the same of every attribute."""
    samples = missing_modalities.PRESETS[options.preset].under(options).samples
    each = (missing_modalities.ACCURACY, missing_modalities.BALANCED, missing_modalities.MAJORITY)
    names = attribute_names(source(options.dataset).modalities)
    of_attributes = [missing_modalities.of_attribute(quantity, name) for name in names for quantity in each]
    quantities = [*missing_modalities.quantities(samples), *of_attributes]
    return quantity_cells(quantities, missing_modalities.trained(options))


def _subsets(options: k_sweep.Options) -> Iterable[Cell]:
    samples = k_sweep.PRESETS[options.preset].under(options).samples
    return quantity_cells(k_sweep.quantities(samples), k_sweep.trained(options))


def _scores(options: translation.Options) -> Iterable[Cell]:
    metrics = [f"{score}{kind}" for score in ("bleu", "chrf") for kind in translation.SCORES.values()]
    asked = [(metric, pair, f"{metric}/{pair}", TRANSLATION) for metric in metrics for pair in DIRECTIONS.values()]
    return translation.cells(options, iter(asked))


@dataclass(frozen=True)
class Pipeline:
    """A pipeline's options, and the cells that they ask for."""

    options: type[CommonOptions]
    cells: Callable[[Any], Iterable[Cell]]
    table: Callable[[str], Table | None] = lambda _: None
    """The published table of a data set."""
    axis: str = ""


PIPELINES = {
    "k_sweep": Pipeline(k_sweep.Options, _subsets, axis="random subsets per step"),
    "likelihoods": Pipeline(likelihoods.Options, likelihoods.cells, likelihood_table, "quantity"),
    "missing_modalities": Pipeline(missing_modalities.Options, _missing, axis="keep_probability"),
    "translation": Pipeline(translation.Options, _scores),
    "vision": Pipeline(vision.Options, vision.cells),
    "weak_supervision": Pipeline(weak_supervision.Options, weak_supervision.cells, table_for, "paired fraction"),
}


@dataclass(frozen=True)
class Shown:
    """A table of a page."""

    pipeline: str
    arguments: str
    """What is typed after the pipeline's name."""
    stub: str
    """The table's corner: what is measured."""
    rows: Mapping[str, str] = field(default_factory=dict)
    """Rows of the report, and what the page calls them; empty: all."""
    proposal: str = ""
    """Columns by this importance distribution alone, without its name; empty: all."""
    alone: bool = False
    """Leaves out the published values, and the seeds with the verdict."""


FASHION = "--dataset fashion_mnist --preset paper"
LIKELIHOODS = "--dataset binary_mnist --arms jmvae,mvae --seeds 0 --epochs 100 --label-weight 50 --samples"
TABLES = {
    "fashion": Shown(
        "weak_supervision", f"{FASHION} --image-network mlp --epochs 20 --seeds 0-4", "accuracy, FashionMNIST"
    ),
    "dcgan": Shown(
        "weak_supervision",
        f"{FASHION} --arms mvae,nn --targets all --seeds 0 --fractions 0.001,0.005,0.01,0.1,1 --label-weight 50",
        "accuracy, FashionMNIST, DCGAN, 100 epochs",
    ),
    "digits": Shown("weak_supervision", "--seeds 0-4", "accuracy, digits"),
    "likelihoods": Shown("likelihoods", f"{LIKELIHOODS} 1000", "q(z given x1, x2), S = 1,000", proposal=BY_BOTH),
    "likelihoods.s100": Shown(
        "likelihoods", f"{LIKELIHOODS} 100", "q(z given x1, x2), S = 100", proposal=BY_BOTH, alone=True
    ),
    "likelihoods.image": Shown(
        "likelihoods", f"{LIKELIHOODS} 1000", "q(z given x1), S = 1,000", proposal=BY_IMAGE, alone=True
    ),
    "figure5": Shown(
        "missing_modalities",
        "--keep-probabilities 0.01,0.1,0.3,1 --seeds 0 --epochs 10 --samples 100",
        "Figure 5, keep probability p",
        {
            "MVAE19 accuracy": "accuracy of sampled attributes",
            "MVAE19 balanced accuracy": "balanced (a coin has one half)",
            "MVAE19 likeliest accuracy": "accuracy of the likeliest attributes",
            "MVAE19 likeliest balanced accuracy": "balanced",
            "MVAE19 majority rate": "always the more frequent value",
            "MVAE19 log p(x1)": "log p(x1)",
            "MVAE19 log p(x1|others)": "log p(x1 given the attributes)",
        },
        alone=True,
    ),
    "figure6": Shown(
        "k_sweep",
        "--train-examples 10000 --epochs 10 --samples 100 --seeds 0-2 --ks 0,1,4,16,50",
        "random subsets per step",
        {
            "MVAE19 free noise log joint": "log p(x1, x2), free noise",
            "MVAE19 free noise var joint": "variance of the joint log weights, free noise",
            "MVAE19 fixed noise var joint": "variance of the joint log weights, fixed noise",
        },
        alone=True,
    ),
    "sentences": Shown(
        "translation",
        "--dataset translation --preset paper --seeds 0 --epochs 8 --annealing-epochs 3 --targets all"
        " --vocabulary 2000 --batch-size 50 --learning-rate 0.002 --samples 20",
        "score",
        alone=True,
    ),
    "faces": Shown(
        "vision",
        "--dataset vision_faces --preset paper --seeds 0 --epochs 8 --image-network mlp --learning-rate 1e-3"
        " --targets all",
        "task",
        alone=True,
    ),
}


def figures(sources: Sources) -> dict[str, Value]:
    """Every table and cell by its address."""
    found: dict[str, Value] = {"accuracy.tolerance": f"{Table.tolerance:g}"}
    for name, page in TABLES.items():
        made = table(sources, name)
        found |= {f"{name}.table": grid(made, page), f"{name}.caption": "\n".join(f"- {line}" for line in made.caption)}
        for entry in made.in_order():
            column = _address(column_label(entry.column).removesuffix("%"))
            if entry.mean is not None:
                found[f"ours.{name}.{_address(entry.row)}.{column}"] = shown_value(entry.mean, entry.spread)
        if made.table is not None:
            for arm, column in product(made.table.rows, made.table.columns):
                place = f"paper.{name}.{arm}.{_address(column_label(column).removesuffix('%'))}"
                found[place] = as_printed(made.table.published(arm, column))
    return found


@cache
def table(sources: Sources, name: str) -> Report:
    """A table by its name.

    Raises:
        Refusal: none of its cells has a committed number.
    """
    page = TABLES[name]
    asked = cells(page.pipeline, page.arguments)
    committed = sources.numbers(f"{page.pipeline}-{asked[0].trial.dataset}")
    return report(asked, committed, PIPELINES[page.pipeline])


@cache
def cells(pipeline: str, arguments: str) -> tuple[Cell, ...]:
    """What a command asks for."""
    known = PIPELINES[pipeline]
    return tuple(known.cells(read(known.options, arguments.split())))


def report(asked: Sequence[Cell], committed: Committed, pipeline: Pipeline) -> Report:
    """The table of the cells that have a committed number; a cell's seeds are those that have one.

    Raises:
        Refusal: no cell has one.
    """
    keys = available(asked, committed)
    if not keys:
        raise Refusal(f"none of {len(asked)} cells has a committed number")
    kept = Plan(tuple(asked[index] for index in keys), tuple(keys.values()), {}, (), {})
    return tabulate(kept, committed, table=pipeline.table(asked[0].trial.dataset), axis=pipeline.axis)


def available(asked: Sequence[Cell], committed: Committed) -> dict[int, str]:
    """Index of each cell that has a committed number, to its trial's key."""
    keys = {index: committed.key_of(cell.trial) for index, cell in enumerate(asked)}
    return {
        index: key
        for index, key in keys.items()
        if key is not None
        and (found := committed.read(key, asked[index].measure.token)) is not None
        and asked[index].metric in found.metrics
    }


def mean(made: Report, row: str, column: float | str) -> float:
    """Mean of a cell over its seeds.

    Raises:
        Refusal: it has no committed number.
    """
    entry = made.entries.get((row, column))
    if entry is None or entry.mean is None:
        raise Refusal(f"no number is committed for {row} at {column_label(column)}, and the text needs it")
    return entry.mean


def by_quantity(made: Report) -> dict[str, float]:
    """Means by the metric that a cell shows, of a table that shows each once."""
    return {entry.quantity: entry.mean for entry in made.in_order() if entry.mean is not None}


def grid(made: Report, page: Shown) -> str:
    """A Markdown table: ours with its spread, the paper's in rows that have any, and seeds with the verdict."""
    wanted = [column for column in made.columns if str(column).endswith(page.proposal)]
    columns = [column for column in wanted if not str(column).startswith("ESS marginal")]
    lines: list[list[str]] = []
    for row, name in (page.rows or {row: row for row in made.rows}).items():
        entries = [made.entries.get((row, column)) for column in columns]
        published = any(entry is not None and entry.published is not None for entry in entries)
        kinds = [("ours", _ours), *[("paper", _paper)] * published, ("seeds", _seeds)]
        for place, (kind, words) in enumerate(kinds[:1] if page.alone else kinds):
            line = ["-" if entry is None else words(entry) for entry in entries]
            lines.append([name if place == 0 else "", *[kind] * (not page.alone), *line])
    heads = [column_label(column).partition(" by ")[0] for column in columns]
    return markdown_table([page.stub, *[""] * (not page.alone)], heads, lines)


def _ours(entry: Entry) -> str:
    return shown(entry.mean, entry.spread) or "-"


def _paper(entry: Entry) -> str:
    return as_printed(entry.published) or "-"


def _seeds(entry: Entry) -> str:
    return ", ".join(filter(None, [str(entry.n), verdict_words(entry)]))


def _address(heading: str) -> str:
    """A heading as part of an address: MVAE (own) is mvae.own."""
    return re.sub(r"[^\w.]+", ".", heading.lower()).strip(".")
