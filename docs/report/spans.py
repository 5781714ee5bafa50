"""Spans: the places in a Markdown file that are filled, and all the text around them.

    Ours is <!-- ours:ours.fashion.nn.1 -->0.7633<!-- /ours -->, which the page shows as a number in the text, and
    <!-- ours:figure5.loss:.3f -->0.185<!-- /ours --> is a number in the format behind the colon, as in Python.

A table, a list or a block has lines of its own between the two marks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from docs.report.sources import Value
from mvae.refusal import Refusal

SPAN = re.compile(
    r"(?P<opening><!-- ours:(?P<name>[\w./-]+)(:(?P<form>[\w.,%]+))? -->)(?P<text>.*?)<!-- /ours -->", re.DOTALL
)
CLOSING = "<!-- /ours -->"
BLOCKS = ("|", "- ", "```")
"""Beginnings of a value of one line that is no part of a sentence."""
_MARK = re.compile(r"<!--\s*(?:ours:|/ours).*?-->")


def fill(text: str, values: Mapping[str, Value], where: str) -> str:
    """The text with every span holding its value; a value of several lines stands apart from the text.

    Args:
        where: the file's name, for messages.
    Raises:
        Refusal: a span without an end, inside another, at the start of a line of text (there it would make GitHub
            take the line for HTML), with an unknown name, or with a format that does not fit the value.
    """
    starts, ends = ({edge(span) for span in SPAN.finditer(text)} for edge in (re.Match.start, re.Match.end))
    for mark in _MARK.finditer(text):
        if mark.start() not in starts and mark.end() not in ends:
            raise Refusal(f"{where}:{_line(text, mark.start())}: {mark.group()} opens or closes no span")

    def filled(span: re.Match[str]) -> str:
        name, place = span["name"], f"{where}:{_line(text, span.start())}"
        if name not in values:
            near = difflib.get_close_matches(name, values, n=1)
            hint = f"do you mean {near[0]}?" if near else "python -m docs.report --names lists what there is"
            raise Refusal(f"{place}: nothing is called {name}; {hint}")
        try:
            value = _shown(values[name], span["form"] or "")
        except ValueError:
            raise Refusal(f"{place}: {name} is {values[name]!r}, which {span['form']} does not fit") from None
        before = text[text.rfind("\n", 0, span.start()) + 1 : span.start()]
        if "\n" in value or value.startswith(BLOCKS):
            if before:
                raise Refusal(f"{place}: {name} is a table, a list or a block: give it lines of its own")
            return f"{span['opening']}\n\n{value}\n\n{CLOSING}"
        if not before.strip():
            raise Refusal(f"{place}: {name} starts a line: put a word of the sentence before it")
        return f"{span['opening']}{value}{CLOSING}"

    return SPAN.sub(filled, text)


def outside(text: str) -> str:
    """The text without what its spans hold; line numbers stay."""
    return SPAN.sub(lambda span: "\n" * span.group().count("\n"), text)


def _shown(value: Value, form: str) -> str:
    """A value in a format: 0.641 as .0% is 64 %."""
    return format(value, form).replace("%", " %") if form.endswith("%") else format(value, form)


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1
