"""The transcription of the published tables, compared with the supplement's text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeps.table.published import TABLE_4, TABLE_5, TABLES, Table, column_label, table_for
from sweeps.table.published_likelihoods import PUBLISHED, PUBLISHED_QUANTITIES, likelihood_table
from sweeps.table.rounding import as_printed

FIXTURES = Path(__file__).parent / "fixtures"
TABLE_FIXTURES = {table.number: FIXTURES / f"supplement-table-{table.number}.txt" for table in TABLES}
LIKELIHOODS = FIXTURES / "supplement-tables-1-2.txt"

DATASETS = {
    "BinaryMNIST": "binary_mnist",
    "MNIST": "mnist",
    "FashionMNIST": "fashion_mnist",
    "MultiMNIST": "multi_mnist",
    "CelebA": "celeba",
}


def verbatim(fixture: Path) -> str:
    """The fixture without its note: the exact text of the supplement."""
    lines = fixture.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"table {table.number}")
def test_a_table_equals_the_supplements_row_by_row_and_column_by_column(table: Table) -> None:
    head, *rows = [line.split("\t") for line in verbatim(TABLE_FIXTURES[table.number]).splitlines() if "\t" in line]
    assert head[1:] == [column_label(column) for column in table.columns]
    assert {row[0].lower(): tuple(map(float, row[1:])) for row in rows} == dict(table.rows)
    assert list(table.rows) == [row[0].lower() for row in rows]
    assert {row[0].lower(): row[1:] for row in rows} == {
        arm: [as_printed(value) for value in values] for arm, values in table.rows.items()
    }, "values are printed as the paper prints them"


def test_tables_1_and_2_equal_the_supplements_number_by_number() -> None:
    head, *lines = [line.split("\t") for line in verbatim(LIKELIHOODS).splitlines() if "\t" in line]
    rows = [(name, values) for name, *values in lines if name in ("JMVAE", "MVAE", "MVAE19") and any(values)]
    quantities = [label for label in (q.label for q in PUBLISHED_QUANTITIES) for _ in ("JMVAE", "MVAE", "MVAE19")]
    assert len(rows) == len(quantities) == 18
    checked = 0
    for (name, values), label in zip(rows, quantities, strict=True):
        for heading, value in zip(head[1:], values, strict=True):
            table = likelihood_table(DATASETS[heading])
            assert table is not None, heading
            published = table.published(name.lower(), label)
            assert (as_printed(published) or "-") == value, (heading, name, label)
            checked += published is not None
    assert checked == sum(len(values) for arms in PUBLISHED.values() for values in arms.values()) == 66


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"table {table.number}")
def test_few_and_many_pairs_are_two_ranges_of_columns(table: Table) -> None:
    ranges = [table.range_of(column) for column in table.columns]
    assert ranges == [ranges[0]] * 3 + [ranges[-1]] * 6 and ranges[0] != ranges[-1]
    assert table.range_of(0.1 + 0.2 - 0.29) == table.range_of(0.01)
    assert table.range_of(0.0099) == table.range_of(0.005)


def test_a_named_column_is_its_own_range() -> None:
    table = likelihood_table("binary_mnist")
    assert table is not None and table.test_examples is None
    assert len({table.range_of(column) for column in table.columns}) == len(table.columns)


@pytest.mark.parametrize("fixture", [*TABLE_FIXTURES.values(), LIKELIHOODS], ids=lambda path: path.stem)
def test_the_fixture_is_copied_verbatim_from_the_supplement(fixture: Path) -> None:
    paper = os.environ.get("MVAE_PAPER")
    if not paper:
        pytest.skip("MVAE_PAPER does not name the supplement's text")
    assert verbatim(fixture).strip("\n") in Path(paper).read_text(encoding="utf-8")


def test_a_cell_outside_the_table_has_no_published_value() -> None:
    assert TABLE_4.published("mvae", 0.01) == 0.8619
    assert TABLE_4.published("mvae", 0.1 + 0.2 - 0.2) == 0.9239
    assert TABLE_4.published("mvae", 0.03) is None
    assert TABLE_4.published("mvae_q", 0.01) is None
    assert TABLE_4.published("mvae", "k=1") is None


def test_only_a_published_data_set_and_metric_has_a_table() -> None:
    assert table_for("fashion_mnist") is TABLE_4
    assert table_for("multi_mnist") is TABLE_5
    assert table_for("digits") is None
    assert table_for("fashion_mnist", "test/log_joint") is None
