"""Texts, sentences and small parallel corpora for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from mvae.data.mnist.multi_mnist import LENGTH, STOP
from mvae.data.sentences.sentences import Sentences

PAIRS = [
    ("the cat sees a dog", "mio vid vuf"),
    ("a dog sees the cat .", "vuf vid mio !"),
    ("the cat", "mio"),
    ("the cat sleeps", "mio dor"),
]


def write_corpus(
    folder: Path,
    train: list[tuple[str, str]] | None = None,
    *,
    valid: list[tuple[str, str]] | None = None,
    test: list[tuple[str, str]] | None = None,
    suffixes: tuple[str, str] = ("xx", "yy"),
) -> Path:
    """Writes the six files of a corpus, by default from `PAIRS`. The training part repeats its pairs six times."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, pairs in (("train", train or PAIRS * 6), ("valid", valid or PAIRS), ("test", test or PAIRS)):
        for side, suffix in enumerate(suffixes):
            lines = "".join(f"{pair[side]}\n" for pair in pairs)
            (folder / f"{stem}.{suffix}").write_text(lines, encoding="utf-8")
    return folder


def stored(sentences: list[list[int]], classes: int) -> Sentences:
    """Sentences in their stored form, from lists of word numbers."""
    lengths = torch.tensor([len(sentence) for sentence in sentences])
    words = torch.tensor([word for sentence in sentences for word in sentence], dtype=torch.int32)
    return Sentences(words, torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]), classes)


def tokens_of(text: str) -> list[int]:
    """Stored tokens of a text of at most 4 digits."""
    assert len(text) < LENGTH and text.isdecimal() | (text == ""), text
    return [*map(int, text), *[STOP] * (LENGTH - len(text))]
