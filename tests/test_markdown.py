"""Markdown: one module writes tables, and any text stays in its column."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import sweeps
from docs.report.sources import OPTION_ROWS, Sources, figures, option_classes
from mvae.evaluation.words import WordTable
from sweeps.cli.help import explanation
from sweeps.table.markdown import markdown_table, word_tables

REPOSITORY = Path(sweeps.__file__).parents[1]


def cells(line: str) -> list[str]:
    """Splits a table line into cells as GitHub does: at bars without a backslash."""
    return [re.sub(r"\\([\\|])", r"\1", cell).strip() for cell in re.findall(r"((?:\\.|[^|\\])*)\|", line)[1:]]


HOSTILE = ("log p(x1|x2)", r"a\|b", "two\nlines", "three\r\n\u2028lines", "", "`a|b`", "**bold**")


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_stays_in_one_markdown_cell(text: str, padded: bool) -> None:
    shown = markdown_table([text], ["log p(x1|x2)"], [[text, "1"], ["b", text]], padded=padded).splitlines()
    assert len(shown) == 4
    said = " ".join(text.splitlines())
    assert [cells(line) for line in (shown[0], *shown[2:])] == [[said, "log p(x1|x2)"], [said, "1"], ["b", said]]
    assert [mark.strip("-") for mark in cells(shown[1])] == ["", ":"]


def test_a_markdown_row_of_another_length_is_refused() -> None:
    with pytest.raises(AssertionError, match="more or fewer cells"):
        markdown_table(["a"], ["b"], [["1", "2", "3"]])


def test_words_of_a_corpus_become_neither_html_nor_new_columns() -> None:
    shown = word_tables([WordTable("Table 7", ("en", "vi"), (("<b>a|b", ""), ("<unk>", "c\nd")))])
    assert shown.splitlines()[0] == "### Table 7"
    assert [cells(line) for line in shown.splitlines()[4:6]] == [["&lt;b>a|b", "-"], ["&lt;unk>", "c d"]]
    assert word_tables([]) == ""


def test_only_one_module_writes_markdown_tables() -> None:
    """No other string of the product contains the rule of a table (|---|)."""
    found = []
    for package in ("mvae", "sweeps", "pipelines", "docs"):
        for path in (REPOSITORY / package).rglob("*.py"):
            texts = (
                node.value
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant)
            )
            if any(isinstance(text, str) and re.search(r"\|?-{3,}:?\|", text) for text in texts):
                found.append(path.relative_to(REPOSITORY).as_posix())
    assert found == ["sweeps/table/markdown.py"]


def test_every_option_has_one_row_in_the_glossary_with_its_full_help() -> None:
    shown = str(figures(Sources())["options.table"]).splitlines()
    expected = OPTION_ROWS
    helps = [explanation(options, name) for options in option_classes().values() for name in options.model_fields]
    assert any("\n" in text for text in helps), "this needs help texts of several lines"
    assert len(shown) == 2 + len(expected)
    for line, (option, meaning, where) in zip(shown[2:], expected, strict=True):
        assert cells(line) == [f"`{option}`", meaning, where]
