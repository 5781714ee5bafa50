"""Markdown: one writer, whose tables keep every value in its column whatever the cells hold."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import sweeps
from docs.report.sources import Sources, figures, option_rows
from mvae.evaluation.words import WordTable
from sweeps.table.markdown import markdown_table, word_tables

REPOSITORY = Path(sweeps.__file__).parents[1]


def cells(line: str) -> list[str]:
    """The cells of a table's line as GitHub splits it: at bars that no backslash escapes."""
    return [re.sub(r"\\([\\|])", r"\1", cell).strip() for cell in re.findall(r"((?:\\.|[^|\\])*)\|", line)[1:]]


HOSTILE = ("log p(x1|x2)", r"a\|b", "two\nlines", "three\r\n\u2028lines", "", "`a|b`", "**bold**")


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_stays_one_cell_whatever_it_holds(text: str, padded: bool) -> None:
    shown = markdown_table([text], ["log p(x1|x2)"], [[text, "1"], ["b", text]], padded=padded).splitlines()
    assert len(shown) == 4
    said = " ".join(text.splitlines())
    assert [cells(line) for line in (shown[0], *shown[2:])] == [[said, "log p(x1|x2)"], [said, "1"], ["b", said]]
    assert [mark.strip("-") for mark in cells(shown[1])] == ["", ":"]


def test_a_line_of_another_length_is_refused() -> None:
    with pytest.raises(AssertionError, match="more or fewer cells"):
        markdown_table(["a"], ["b"], [["1", "2", "3"]])


def test_words_of_a_corpus_are_neither_html_nor_new_columns() -> None:
    shown = word_tables([WordTable("Table 7", ("en", "vi"), (("<b>a|b", ""), ("<unk>", "c\nd")))])
    assert shown.splitlines()[0] == "### Table 7"
    assert [cells(line) for line in shown.splitlines()[4:6]] == [["&lt;b>a|b", "-"], ["&lt;unk>", "c d"]]
    assert word_tables([]) == ""


def test_only_one_module_writes_markdown_tables() -> None:
    """A rule of a table (|---|) stands in no other string of the product."""
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


def test_every_option_is_one_row_of_the_glossary_with_its_whole_help() -> None:
    shown = str(figures(Sources())["options.table"]).splitlines()
    expected = option_rows()
    assert any("\n" in meaning for _, meaning, _ in expected), "help texts of several lines are what this is about"
    assert len(shown) == 2 + len(expected)
    for line, (option, meaning, where) in zip(shown[2:], expected, strict=True):
        assert cells(line) == [f"`{option}`", " ".join(meaning.splitlines()), where]
