"""Tables of what a model writes: labels, texts, sentences. sweeps/table/markdown.py draws them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WordTable:
    """A table of words under a heading."""

    heading: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Words as they are, nothing escaped."""
