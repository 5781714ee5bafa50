"""Spans: filling replaces only the text between two marks of a page."""

from __future__ import annotations

import pytest

from docs.report.spans import fill
from mvae.refusal import Refusal
from tests.document_checks import outside


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Ours is <!-- ours:accuracy.tolerence -->1<!-- /ours -->.", "do you mean accuracy.tolerance?"),
        ("\nOurs is <!-- ours:a --> and no end", "x.md:2: .* has no matching comment"),
        ("an end <!-- /ours --> alone", "has no matching comment"),
        ("<!-- ours:accuracy.tolerance -->1<!-- /ours --> is ours", "starts a line"),
        ("Ours: <!-- ours:table -->x<!-- /ours -->", "its own lines"),
        ("Ours: <!-- ours:table:.2f -->x<!-- /ours -->", "x.md:1: table is '| a |', which does not fit the format .2f"),
    ],
)
def test_a_span_that_cannot_be_filled_is_refused_with_its_line_number(text: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        fill(text, {"accuracy.tolerance": "0.03", "table": "| a |"}, "x.md")


def test_filling_a_span_keeps_the_text_around_it() -> None:
    text = "Within <!-- ours:a --><!-- /ours -->, and\n\n<!-- ours:b -->\nold\n<!-- /ours -->\n\nafter.\n"
    filled = fill(text, {"a": "0.03", "b": "| x |\n|---|"}, "x.md")
    assert filled == (
        "Within <!-- ours:a -->0.03<!-- /ours -->, and\n\n<!-- ours:b -->\n\n| x |\n|---|\n\n<!-- /ours -->\n\nafter.\n"
    )
    assert fill(filled, {"a": "0.03", "b": "| x |\n|---|"}, "x.md") == filled
    assert outside(text).count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("form", "words"), [("", "0.641"), (":.2f", "0.64"), (":.0%", "64 %"), (":g", "0.641"), (":,.1f", "0.6")]
)
def test_a_number_is_shown_in_the_format_of_its_span(form: str, words: str) -> None:
    filled = fill(f"It is <!-- ours:a{form} -->1<!-- /ours -->.", {"a": 0.641}, "x.md")
    assert filled == f"It is <!-- ours:a{form} -->{words}<!-- /ours -->."
