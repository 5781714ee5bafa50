"""Defines tables of a model's labels, texts and sentences. sweeps/table/markdown.py writes these tables as Markdown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WordTable:
    """A table of text with a heading."""

    heading: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Cells without Markdown escapes."""
