"""The published tables as data: arms, columns, values, source and protocol.

Pipelines build their grids and reports from these tables. The values are transcribed from the text of the supplement
to "Multimodal Generative Models for Scalable Weakly-Supervised Learning" (Wu and Goodman, 2018). tests/test_tables.py
compares the values with the supplement's lines.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeps.cli.words import figures
from sweeps.table.rounding import printed


@dataclass(frozen=True)
class Quantity:
    """A column of a table whose columns show different metrics."""

    label: str
    metric: str
    tolerance: float
    """Largest difference that counts as agreement, as a fraction of the published value."""


@dataclass(frozen=True)
class Table:
    """A published table, with the protocol that the paper states for it."""

    number: str
    title: str
    source: str
    """Place in the paper that gives the values and the protocol."""
    dataset: str
    """Name of the data set in `mvae.data.DATASETS`."""
    metric: str
    """Our metric that is compared with the published values."""
    axis: str
    columns: tuple[float | str, ...]
    """Shares in ascending order (0.001 is printed as 0.1%), or names of quantities."""
    rows: Mapping[str, tuple[float, ...]]
    """Published values of each arm, one per column, by the arm's token."""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the paper states, by field of `Trial`. `annealing`: epochs over which beta rises. `final_beta`:
    beta at the end of training."""
    unstated: tuple[str, ...] = ()
    """Settings that affect the numbers but are not stated in the paper. `seeds`: number of runs per cell."""
    tolerance: float = 0.03
    """Largest difference that counts as agreement (delta in sweeps/table/judgement.py)."""
    ranges: tuple[float, ...] = ()
    """First column of each range of columns. In each row, the spread is pooled over the columns of a range."""
    test_examples: int | None = None
    """Size of the test split if the values are accuracies. The spread of accuracies is never below the binomial
    spread."""
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    """The quantity of each named column, if the columns are quantities rather than points on an axis."""
    label: str = ""
    """Name in titles, for values that are not from a numbered table of the paper."""

    def __post_init__(self) -> None:
        for arm, values in self.rows.items():
            assert len(values) == len(self.columns), f"table {self.number}, {arm}: {len(values)} values"

    @property
    def name(self) -> str:
        """Name of the table in titles, for example "Table 4" or "Tables 1 and 2"."""
        return self.label or f"Table{'s' if ' ' in self.number else ''} {self.number}"

    @property
    def shares(self) -> tuple[float, ...]:
        return tuple(column for column in self.columns if not isinstance(column, str))

    def range_of(self, column: float | str) -> float | str:
        """Returns an identifier of the range that contains a column. A column with a name is a range by itself."""
        if isinstance(column, str):
            return column
        return float(bisect_right(self.ranges, column * (1 + 1e-9)))

    def published(self, row: str, column: float | str) -> float | None:
        """Returns the published value of an arm in a column; None if the table has no such cell."""
        cells = zip(self.columns, self.rows.get(row, ()), strict=False)
        return next((value for known, value in cells if _same(known, column)), None)


RANGES = (0.001, 0.01)
"""First share of each range: 0.1 to 0.5 %, and 1 to 100 % of the pairs. With few pairs, seeds vary more."""


TABLE_4 = Table(
    number="4",
    title="accuracy on FashionMNIST with a fraction of paired examples",
    source="supplement, section 8, Table 4; set-up in sections 1 and 8",
    dataset="fashion_mnist",
    metric="test/accuracy",
    axis="paired fraction",
    columns=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0),
    rows={
        "nn": printed("0.6755 0.701 0.7654 0.7944 0.8102 0.8439 0.862 0.8998 0.9318"),
        "logreg": printed("0.6612 0.7005 0.7624 0.7627 0.7728 0.7802 0.8015 0.8377 0.8412"),
        "rbm": printed("0.6708 0.7214 0.7628 0.7690 0.7805 0.7943 0.8021 0.8088 0.8115"),
        "vae": printed("0.5316 0.6502 0.7221 0.7324 0.7576 0.7697 0.7765 0.7914 0.8311"),
        "jmvae": printed("0.5284 0.5737 0.6641 0.6996 0.7437 0.7937 0.8212 0.8514 0.8828"),
        "mvae": printed("0.4548 0.5189 0.7619 0.8619 0.9201 0.9243 0.9239 0.9478 0.947"),
    },
    protocol={
        "epochs": 100,
        "image_network": "dcgan",
        "latents": 64,
        "batch_size": 100,
        "learning_rate": 1e-3,
        "final_beta": 0.5,
        "alpha": 0.01,
    },
    unstated=("seeds", "pairing", "targets", "label_weight"),
    ranges=RANGES,
    test_examples=10_000,
)

TABLE_5 = Table(
    number="5",
    title="accuracy of each digit on MultiMNIST with a fraction of paired examples",
    source="supplement, section 8, Table 5; set-up in sections 1 and 8",
    dataset="multi_mnist",
    metric="test/accuracy",
    axis="paired fraction",
    columns=TABLE_4.columns,
    rows={
        "jmvae": printed("0.0603 0.0603 0.0888 0.1531 0.1699 0.1772 0.4765 0.4962 0.4955"),
        "mvae": printed("0.09363 0.1189 0.1098 0.2287 0.3805 0.4289 0.4999 0.5121 0.5288"),
    },
    protocol={**TABLE_4.protocol, "latents": 100},
    unstated=("seeds", "pairing", "targets", "text_weight"),
    ranges=RANGES,
    test_examples=10_000,
)

TABLES = (TABLE_4, TABLE_5)


def table_for(dataset: str, metric: str = "test/accuracy") -> Table | None:
    """Returns the published table of a data set and metric; None if the supplement has no such table."""
    return next((table for table in TABLES if (table.dataset, table.metric) == (dataset, metric)), None)


def column_label(column: float | str) -> str:
    """Returns a column's heading: numbers as percentages, as in the paper; names unchanged."""
    return column if isinstance(column, str) else f"{figures(column * 100, 6)}%"


def _same(known: float | str, column: float | str) -> bool:
    if isinstance(known, str) or isinstance(column, str):
        return known == column
    return math.isclose(known, column, rel_tol=1e-9)


def ordered_columns(columns: Iterable[float | str]) -> tuple[float | str, ...]:
    """Returns each column once: in ascending order if all columns are numbers, else in the given order."""
    unique = tuple(dict.fromkeys(columns))
    numbers = [column for column in unique if not isinstance(column, str)]
    return tuple(sorted(numbers)) if len(numbers) == len(unique) else unique
