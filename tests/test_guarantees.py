"""docs/guarantees.md claims nothing without a test."""

from __future__ import annotations

import re

import pytest

from tests.document_checks import REPOSITORY

PAGE = (REPOSITORY / "docs" / "guarantees.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[str]:
    """The rows of all tables, without headings."""
    lines = PAGE.splitlines()
    heads = {number - 1 for number, line in enumerate(lines) if line.startswith("|---")}
    return [
        line
        for number, line in enumerate(lines)
        if line.startswith("|") and not line.startswith("|---") and number not in heads
    ]


@pytest.mark.parametrize("row", rows())
def test_every_guarantee_names_its_test(row: str) -> None:
    assert NAMED.search(row.rpartition(" | ")[2]), row


def test_every_named_test_exists() -> None:
    missing = []
    for path, name in sorted(set(NAMED.findall(PAGE))):
        code = (REPOSITORY / path).read_text(encoding="utf-8") if (REPOSITORY / path).exists() else ""
        if not re.search(rf"^\s*def {name}\(|^{name} = ", code, re.MULTILINE):
            missing.append(f"{path}::{name}")
    assert missing == []


def test_every_invariant_of_the_schedules_is_on_the_page() -> None:
    code = (REPOSITORY / "tests" / "histories" / "invariants.py").read_text(encoding="utf-8")
    invariants = set(re.findall(r'^([A-Z_]+) = "[a-zM]', code, re.MULTILINE)) - {"LEASE", "SOUND"}
    assert invariants <= {name for _, name in NAMED.findall(PAGE)}
