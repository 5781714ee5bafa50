"""Fills the spans of a Markdown page, which are the parts between two comments. All other text stays unchanged.

    Ours is <!-- ours:ours.fashion.nn.1 -->0.7633<!-- /ours -->: a value inside a sentence
    <!-- ours:figure5.loss:.3f -->0.185<!-- /ours -->: a number in a Python format

A table, list or code block stands on its own lines between the two comments.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from docs.report.sources import Value
from mvae.refusal import Refusal

SPAN = re.compile(
    r"(?P<opening><!-- ours:(?P<name>[\w./-]+)(:(?P<form>[\w.,%]+))? -->).*?(?P<closing><!-- /ours -->)", re.DOTALL
)
_COMMENT = re.compile(r"<!--\s*(?:ours:|/ours).*?-->")
_BLOCKS = ("|", "- ", "```")
"""First characters of a table, a list or a code block."""


def fill(text: str, values: Mapping[str, Value], where: str) -> str:
    """Returns the text with the value of every span filled in.

    Args:
        where: name of the file, for messages.
    Raises:
        Refusal: a span is open or nested; a span starts a line, which GitHub would read as HTML; a name is unknown; a
        format does not fit its value.
    """
    paired = {span.start() for span in SPAN.finditer(text)} | {span.start("closing") for span in SPAN.finditer(text)}
    for comment in _COMMENT.finditer(text):
        if comment.start() not in paired:
            raise Refusal(f"{_place(where, comment)}: {comment.group()} has no matching comment")

    def filled(span: re.Match[str]) -> str:
        name, place = span["name"], _place(where, span)
        if name not in values:
            near = difflib.get_close_matches(name, values, n=1)
            hint = f"do you mean {near[0]}?" if near else "list all names with python -m docs.report --names"
            raise Refusal(f"{place}: unknown name {name}; {hint}")
        try:
            value = _formatted(values[name], span["form"] or "")
        except ValueError:
            raise Refusal(
                f"{place}: {name} is {values[name]!r}, which does not fit the format {span['form']}"
            ) from None
        before = text[text.rfind("\n", 0, span.start()) + 1 : span.start()]
        if "\n" in value or value.startswith(_BLOCKS):
            if before:
                raise Refusal(f"{place}: {name} is a table, a list or a block: give it its own lines")
            return f"{span['opening']}\n\n{value}\n\n{span['closing']}"
        if not before.strip():
            raise Refusal(f"{place}: {name} starts a line: put a word of the sentence before it")
        return f"{span['opening']}{value}{span['closing']}"

    return SPAN.sub(filled, text)


def _formatted(value: Value, form: str) -> str:
    """Formats a value. Puts a space before a percent sign: 0.641 in the format .0% becomes "64 %"."""
    return format(value, form).replace("%", " %") if form.endswith("%") else format(value, form)


def _place(where: str, found: re.Match[str]) -> str:
    return f"{where}:{found.string.count(chr(10), 0, found.start()) + 1}"
