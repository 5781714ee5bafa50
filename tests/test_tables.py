"""The transcription of the published tables against the supplement's own lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeps.tables import TABLE_4, column_label, table_for

FIXTURE = Path(__file__).parent / "fixtures" / "supplement-table-4.txt"


def verbatim() -> str:
    """The fixture without its note: the supplement's own characters."""
    lines = FIXTURE.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#"))


def test_table_4_is_the_supplements_row_for_row_and_column_for_column() -> None:
    head, *rows = [line.split("\t") for line in verbatim().splitlines() if "\t" in line]
    assert head[1:] == [column_label(column) for column in TABLE_4.columns]
    assert {row[0].lower(): tuple(map(float, row[1:])) for row in rows} == dict(TABLE_4.rows)
    assert list(TABLE_4.rows) == [row[0].lower() for row in rows]


def test_the_fixture_stands_verbatim_in_the_supplement() -> None:
    paper = os.environ.get("MVAE_PAPER")
    if not paper:
        pytest.skip("MVAE_PAPER does not name the supplement's text")
    assert verbatim().strip("\n") in Path(paper).read_text(encoding="utf-8")


def test_a_cell_outside_the_table_has_no_published_value() -> None:
    assert TABLE_4.published("mvae", 0.01) == 0.8619
    assert TABLE_4.published("mvae", 0.1 + 0.2 - 0.2) == 0.9239
    assert TABLE_4.published("mvae", 0.03) is None
    assert TABLE_4.published("mvae_q", 0.01) is None
    assert TABLE_4.published("mvae", "k=1") is None


def test_a_data_set_without_a_published_table_has_none() -> None:
    assert table_for("fashion_mnist") is TABLE_4
    assert table_for("digits") is None
    assert table_for("fashion_mnist", "test/log_joint") is None
