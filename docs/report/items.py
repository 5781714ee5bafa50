"""The supplement's published items (items.csv, a line each), and which of our runs belong to each.

An item is a table, a figure, or one data set's column of Tables 1 and 2. Its numbers are `sweeps.table.published` and
`sweeps.table.published_likelihoods`. Columns of items.csv that are no field of `Item`: `arms` are the published rows,
`networks` our image networks, the paper's first, `weight` the option of the second modality's likelihood weight,
`table` the line of tables.csv that holds the runs of an item without numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from docs.report.numbers import lines_of
from docs.report.tables import TABLES, published
from mvae.models import ARMS, arm
from sweeps.table.published import Table

ABSENT = ("Section 7", "Figure 3", "Table 3")
"""Items that the supplement's numbering implies and its text does not hold."""
SEEDS = "--seeds 0-4"
"""Seeds looked for: a cell counts the seeds that have a committed number."""
EPOCHS = {
    "likelihoods": ("500", "100", "50", "20"),
    "weak_supervision": ("100 --annealing-epochs 200", "100", "20", "20 --annealing-epochs 40"),
}
"""Lengths of runs looked for, the paper's first."""

Place = tuple[str, float | str]
"""Arm token and column of one published number."""


@dataclass(frozen=True)
class Row:
    """One row of a published table, and the runs that can fill it."""

    label: str  # heading, for example MVAE (own)
    arm: str  # token, which is the published row
    runs: tuple[str, ...]  # arguments of the item's pipeline, the set-up nearest to the paper's first


@dataclass(frozen=True)
class Item:
    """One line of the scorecard."""

    name: str  # number in the supplement
    line: str  # line of the short table; items that share a line are added up there
    line_shows: str  # contents of that line, at its first item
    shows: str  # contents of the item, in a few words
    paper: str  # the paper's data, epochs and seeds
    data: str  # our data; empty if there are none
    pipeline: str  # module in pipelines/; empty if nothing is trained
    dataset: str  # our data set, which with the pipeline names the file of numbers
    same_runs_as: str  # item whose hours already hold this item's runs
    no_data: str  # why the data are unavailable; empty if they are available
    test: str  # test that holds an architecture, in tests/test_networks.py
    command: str  # runs the paper's set-up; for architectures, the test
    table: Table | None = None  # the published table that our runs are judged by
    published: Mapping[Place, float | None] = field(default_factory=dict)  # every number that the item prints
    rows: tuple[Row, ...] = ()  # a place that several rows can fill takes the first that has a number
    runs: tuple[str, ...] = ()  # arguments of the runs behind an item that prints no numbers


def _items() -> Iterator[Item]:
    for line in lines_of(Path(__file__).with_name("items.csv")):
        said: dict[str, Any] = dict(line)
        arms, networks, weight, ours = (said.pop(name) for name in ("arms", "networks", "weight", "table"))
        table = published(said["pipeline"], said["dataset"])
        if table is None:
            yield Item(**said, runs=(TABLES[ours]["arguments"],) if ours else ())
            continue
        parts = {"Table 1": table.columns[:3], "Table 2": table.columns[3:]}
        columns = parts.get(said["name"].partition(",")[0], table.columns)
        places = {place: table.published(*place) for place in product(arms.split(), columns)}
        rows = tuple(row for token in arms.split() for row in _rows(token, said, networks.split(), weight))
        yield Item(**said, table=table, published=places, rows=rows)


def _rows(token: str, said: Mapping[str, str], networks: list[str], weight: str) -> Iterator[Row]:
    """Rows of an arm: one per set of targets, the paper's own formula first."""
    title, reads = (arm(token).title, arm(token).reads) if token in ARMS else ("MVAE19", arm("mvae").reads)
    base = f"--dataset {said['dataset']} --preset paper {SEEDS} --arms {token}"
    epochs = [length for length in EPOCHS[said["pipeline"]] if length.isdecimal() or "annealing_epochs" in reads]
    set_ups = _set_ups(reads, epochs, networks, weight)
    for targets in ("own", "all") if "targets" in reads else ("",):
        reading, option = (f" ({targets})", f" --targets {targets}") if targets else ("", "")
        yield Row(title + reading, token, tuple(base + option + set_up for set_up in set_ups))


def _set_ups(reads: Set[str], epochs: list[str], networks: list[str], weight: str) -> list[str]:
    """Options that an arm reads: the paper's networks before smaller ones, long runs before short ones."""
    of_networks = [f" --image-network {network}" for network in networks] if "image_network" in reads else [""]
    of_epochs = [f" --epochs {length}" for length in epochs] if "epochs" in reads else [""]
    plain = [network + length for network, length in product(of_networks, of_epochs)]
    if weight.removeprefix("--").replace("-", "_") not in reads:
        return plain
    older = [f"{network} --epochs 100 {weight} 50" for network in of_networks if weight == "--label-weight"]
    return [*(f"{set_up} {weight} 1" for set_up in plain), *older]


ITEMS = tuple(_items())
"""In the order of the supplement's numbers: tables, then figures."""
