"""The supplement's published items (items.csv, a line each), and which of our runs belong to each.

An item is a table, a figure, or one data set's column of Tables 1 and 2. Its numbers are `sweeps.table.published` and
`sweeps.table.published_likelihoods`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from docs.report.tables import PIPELINES, TABLES
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
LINES = {
    "Tables 1 and 2, BinaryMNIST": "likelihoods of the test set and their variances",
    "Tables 1 and 2, MNIST": "the same on MNIST",
    "Tables 1 and 2, FashionMNIST": "the same on FashionMNIST",
    "Tables 1 and 2, MultiMNIST": "the same on MultiMNIST",
    "Tables 1 and 2, CelebA": "the same on CelebA",
    "Tables 1 and 2, MVAE19": "the same on CelebA with 19 modalities",
    "Table 4": "accuracy on FashionMNIST with a fraction of the pairs",
    "Table 5": "accuracy on MultiMNIST with a fraction of the pairs",
    "Tables 6, 7 and 8": "translations, English and Vietnamese",
    "Figures 1, 2 and 4": "networks on MNIST, FashionMNIST and CelebA",
    "Figure 5": "MVAE with 19 modalities, values missing",
    "Figure 6": "MVAE with 19 modalities, more ELBO terms",
    "Figures 7, 8, 9 and 10": "six views of a face, each made from others",
}
"""Lines of the short table, and what each shows."""

Place = tuple[str, float | str]
"""Arm token and column of one published number."""


@dataclass(frozen=True)
class Row:
    """One row of a published table, and the runs that can fill it."""

    label: str
    """The row's heading, for example MVAE (own)."""
    arm: str
    """The arm's token, which is the published row."""
    runs: tuple[str, ...]
    """Arguments of the item's pipeline, the set-up nearest to the paper's first."""


@dataclass(frozen=True)
class Item:
    """One line of the scorecard."""

    name: str
    """The item's number in the supplement."""
    line: str
    """Line of the short table; items that share a line are added up there."""
    shows: str
    """Contents of the item, in a few words."""
    paper: str
    """The paper's data, epochs and seeds."""
    data: str
    """Our data; empty if there are none."""
    pipeline: str
    """Name of the module in `pipelines/`; empty if nothing is trained."""
    dataset: str
    """Our data set, which with the pipeline names the file of numbers."""
    same_runs_as: str
    """The item whose hours already hold this item's runs."""
    no_data: str
    """Why the data are unavailable; empty if they are available."""
    test: str
    """Test that holds an architecture, in tests/test_networks.py."""
    command: str
    """The command that runs the paper's set-up; for architectures, the command that tests them."""
    table: Table | None = None
    """The published table that our runs are judged by."""
    published: Mapping[Place, float] = field(default_factory=dict)
    """Every number that the supplement prints for the item."""
    rows: tuple[Row, ...] = ()
    """Rows with published numbers; a place that several rows can fill takes the first that has a number."""
    runs: tuple[str, ...] = ()
    """Arguments of the runs behind an item that prints no numbers."""


def _items() -> Iterator[Item]:
    with Path(__file__).with_name("items.csv").open(newline="", encoding="utf-8") as file:
        for said in csv.DictReader(file):
            arms, networks, weight, ours = (said.pop(name) for name in ("arms", "networks", "weight", "table"))
            if not arms:
                yield Item(**said, runs=(TABLES[ours].arguments,) if ours else ())
                continue
            table = PIPELINES[said["pipeline"]].table(said["dataset"])
            assert table is not None
            parts = {"Table 1": table.columns[:3], "Table 2": table.columns[3:]}
            columns = parts.get(said["name"].partition(",")[0], table.columns)
            values = {place: table.published(*place) for place in product(arms.split(), columns)}
            published = {place: value for place, value in values.items() if value is not None}
            rows = tuple(row for token in arms.split() for row in _rows(token, said, networks.split(), weight))
            yield Item(**said, table=table, published=published, rows=rows)


def _rows(token: str, said: Mapping[str, str], networks: list[str], weight: str) -> Iterator[Row]:
    """Rows of an arm: one per set of targets, the paper's own formula first.

    Args:
        networks: image networks, the paper's first.
        weight: option of the second modality's likelihood weight.
    """
    title, reads = (arm(token).title, arm(token).reads) if token in ARMS else ("MVAE19", arm("mvae").reads)
    base = f"--dataset {said['dataset']} --preset paper {SEEDS} --arms {token}"
    set_ups = _set_ups(reads, EPOCHS[said["pipeline"]], networks, weight)
    for targets in ("own", "all") if "targets" in reads else ("",):
        reading, option = (f" ({targets})", f" --targets {targets}") if targets else ("", "")
        yield Row(title + reading, token, tuple(base + option + set_up for set_up in set_ups))


def _set_ups(reads: Set[str], epochs: tuple[str, ...], networks: list[str], weight: str) -> list[str]:
    """Options that an arm reads: the paper's networks before smaller ones, long runs before short ones."""
    of_networks = [f" --image-network {network}" for network in networks] if "image_network" in reads else [""]
    lengths = [f" --epochs {length}" for length in epochs if length.isdecimal() or "annealing_epochs" in reads]
    plain = [network + length for network, length in product(of_networks, lengths if "epochs" in reads else [""])]
    if weight.removeprefix("--").replace("-", "_") not in reads:
        return plain
    older = [f"{network} --epochs 100 {weight} 50" for network in of_networks if weight == "--label-weight"]
    return [*(f"{set_up} {weight} 1" for set_up in plain), *older]


ITEMS = tuple(_items())
"""In the order of the supplement's numbers: tables, then figures."""
