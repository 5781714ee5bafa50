"""Spans: the places in a Markdown file that are filled, and all the text around them.

    Ours is <!-- ours:protocols.fashion.reserved.own -->0.3282<!-- /ours -->, which is shown as a number in the text.

A table, a list or a block has lines of its own between the two marks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from mvae.refusal import Refusal

SPAN = re.compile(r"<!-- ours:(?P<name>[\w./-]+) -->(?P<text>.*?)<!-- /ours -->", re.DOTALL)
BLOCKS = ("|", "- ", "```")
"""What a value of one line begins with that is no part of a sentence."""
_MARK = re.compile(r"<!--\s*(?:ours:|/ours).*?-->")


def fill(text: str, figures: Mapping[str, str], where: str) -> str:
    """The text with every span holding what its name stands for; a value of several lines stands apart from the text.

    Args:
        where: the file's name, for messages.
    Raises:
        Refusal: a span without an end, inside another, at the start of a line of text (there it would make GitHub
            take the line for HTML), or with a name that stands for nothing.
    """
    spans = list(SPAN.finditer(text))
    for mark in _MARK.finditer(text):
        if not any(mark.group() in (_opening(span["name"]), CLOSING) and _is_end(span, mark) for span in spans):
            raise Refusal(f"{where}:{_line(text, mark.start())}: {mark.group()} opens or closes no span")

    def filled(span: re.Match[str]) -> str:
        name, place = span["name"], f"{where}:{_line(text, span.start())}"
        if name not in figures:
            near = difflib.get_close_matches(name, figures, n=1)
            hint = f"do you mean {near[0]}?" if near else "python -m docs.report --names lists what there is"
            raise Refusal(f"{place}: nothing is called {name}; {hint}")
        value = figures[name]
        before = text[text.rfind("\n", 0, span.start()) + 1 : span.start()]
        if "\n" in value or value.startswith(BLOCKS):
            if before:
                raise Refusal(f"{place}: {name} is a table, a list or a block: give it lines of its own")
            return f"{_opening(name)}\n\n{value}\n\n{CLOSING}"
        if not before.strip():
            raise Refusal(f"{place}: {name} starts a line: put a word of the sentence before it")
        return f"{_opening(name)}{value}{CLOSING}"

    return SPAN.sub(filled, text)


def names(text: str) -> list[str]:
    """Names of the spans in a text, in order."""
    return [span["name"] for span in SPAN.finditer(text)]


def outside(text: str) -> str:
    """The text without what its spans hold; line numbers stay."""
    return SPAN.sub(lambda span: "\n" * span.group().count("\n"), text)


CLOSING = "<!-- /ours -->"


def _opening(name: str) -> str:
    return f"<!-- ours:{name} -->"


def _is_end(span: re.Match[str], mark: re.Match[str]) -> bool:
    return mark.start() == span.start() or mark.end() == span.end()


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1
