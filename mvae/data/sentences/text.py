"""Texts as rows of tokens: characters first, then a stop token, then whatever fills the row up.

The last two tokens of a vocabulary of C are stop (C - 2) and start (C - 1). Start is what a decoder sees before the
first character; it is never stored and never part of a text. What follows the first stop means nothing to anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = 0
"""The token of every word that a model does not know."""

UNKNOWN_WORD = "<unk>"

# n texts, L tokens a row, C tokens in the vocabulary


def stop_token(classes: int) -> int:
    """The token that ends a text, of a vocabulary of `classes`."""
    return classes - 2


def start_token(classes: int) -> int:
    """The token that a decoder sees first, of a vocabulary of `classes`."""
    return classes - 1


def characters(tokens: Tensor, classes: int) -> Tensor:
    """Boolean [n, L]: which tokens of each row come before its first stop."""
    return (tokens == stop_token(classes)).cumsum(1) == 0


def text_of(tokens: list[int], classes: int) -> str:
    """A row of tokens as people read it: its characters, which are digits, up to the first stop."""
    stop = stop_token(classes)
    return "".join(str(token) for token in tokens[: [*tokens, stop].index(stop)])


def ragged(sentences: Sequence[Sequence[int]]) -> np.ndarray:
    """Sentences on their way to disk, from the words of each: an array [N] of arrays int32 [words]."""
    rows = np.empty(len(sentences), object)
    for position, sentence in enumerate(sentences):
        rows[position] = np.array(sentence, np.int32)
    return rows
