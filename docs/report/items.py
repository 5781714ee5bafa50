"""The items of the supplement (items.csv, one line each), and which of our runs belong to each.

An item is a table, a figure, or one data set's column of Tables 1 and 2. Columns of items.csv that are not fields of
`Item`: `arms` lists the published rows, `networks` our image networks with the paper's first, `weight` the option of the
second modality's likelihood weight, and `table` the line of tables.csv with the runs of an item without numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from docs.report.numbers import lines_of
from docs.report.tables import TABLES, Place, published
from mvae.models import ARMS, arm
from sweeps.table.published import Table

ABSENT = ("Section 7", "Figure 3", "Table 3")
"""Items that the supplement's numbering implies but its text does not contain."""
SEEDS = "--seeds 0-4"
"""Seeds to look for. A cell counts the seeds that have a committed number."""
EPOCHS = {
    "likelihoods": ("500", "100", "50", "20"),
    "weak_supervision": ("100 --annealing-epochs 200", "100", "20", "20 --annealing-epochs 40"),
}
"""Epochs to look for, the paper's first."""


@dataclass(frozen=True)
class Row:
    """A row of a published table, and the runs that can fill it."""

    label: str  # heading, for example MVAE (own)
    arm: str  # token of the published row
    runs: tuple[str, ...]  # arguments of the item's pipeline, the set-up nearest to the paper's first


@dataclass(frozen=True)
class Item:
    """A line of the scorecard."""

    name: str  # number in the supplement
    line: str  # line of the short table; items that share a line are added up
    line_shows: str  # contents of that line, at its first item
    shows: str  # contents of the item, in a few words
    paper: str  # the paper's data, epochs and seeds
    data: str  # our data; empty if there are none
    pipeline: str  # module in pipelines/; empty if nothing is trained
    dataset: str  # our data set; with the pipeline it names the file of numbers
    same_runs_as: str  # item whose hours already include this item's runs
    no_data: str  # why the data are unavailable; empty if they are available
    test: str  # test of an architecture, in tests/test_networks.py
    command: str  # runs the paper's set-up; for architectures, the test
    table: Table | None = None  # the published table that our runs are compared with
    published: Mapping[Place, float | None] = field(default_factory=dict)  # by arm and column: all numbers of the item
    rows: tuple[Row, ...] = ()  # the first row with a number for an arm and column counts
    runs: tuple[str, ...] = ()  # arguments of the runs behind an item that prints no numbers


def _items() -> Iterator[Item]:
    for line in lines_of(Path(__file__).with_name("items.csv")):
        fields: dict[str, Any] = dict(line)
        arms, networks, weight, ours = (fields.pop(name) for name in ("arms", "networks", "weight", "table"))
        table = published(line["pipeline"], line["dataset"])
        if table is None:
            yield Item(**fields, runs=(TABLES[ours]["arguments"],) if ours else ())
            continue
        parts = {"Table 1": table.columns[:3], "Table 2": table.columns[3:]}
        columns = parts.get(line["name"].partition(",")[0], table.columns)
        places = {place: table.published(*place) for place in product(arms.split(), columns)}
        rows = tuple(row for token in arms.split() for row in _rows(token, line, networks.split(), weight))
        yield Item(**fields, table=table, published=places, rows=rows)


def _rows(token: str, line: Mapping[str, str], networks: list[str], weight: str) -> Iterator[Row]:
    """Yields one row per set of targets, the paper's own formula first."""
    title, reads = (arm(token).title, arm(token).reads) if token in ARMS else ("MVAE19", arm("mvae").reads)
    epochs = [length for length in EPOCHS[line["pipeline"]] if length.isdecimal() or "annealing_epochs" in reads]
    of_networks = [f" --image-network {network}" for network in networks] if "image_network" in reads else [""]
    of_epochs = [f" --epochs {length}" for length in epochs] if "epochs" in reads else [""]
    set_ups = [network + length for network, length in product(of_networks, of_epochs)]
    if weight.removeprefix("--").replace("-", "_") in reads:
        heavy = [f"{network} --epochs 100 {weight} 50" for network in of_networks if weight == "--label-weight"]
        set_ups = [*(f"{set_up} {weight} 1" for set_up in set_ups), *heavy]
    for targets in ("own", "all") if "targets" in reads else ("",):
        label, option = (f"{title} ({targets})", f" --targets {targets}") if targets else (title, "")
        base = f"--dataset {line['dataset']} --preset paper {SEEDS} --arms {token}{option}"
        yield Row(label, token, tuple(base + set_up for set_up in set_ups))


ITEMS = tuple(_items())
"""In the order of the supplement's numbers: tables, then figures."""
