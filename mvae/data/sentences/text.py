"""Represents texts as rows of tokens: characters first, then a stop token, then padding.

In a vocabulary of C tokens, the last two are stop (C - 2) and start (C - 1). A decoder's first input is start,
which is never stored and never part of a text. Tokens after the first stop have no meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = 0
"""Token of all words that a model does not know."""

UNKNOWN_WORD = "<unk>"

# n texts, L tokens per row, C tokens in the vocabulary


def stop_token(classes: int) -> int:
    """Returns the token that ends a text, for a vocabulary of `classes` tokens."""
    return classes - 2


def start_token(classes: int) -> int:
    """Returns a decoder's first input token, for a vocabulary of `classes` tokens."""
    return classes - 1


def characters(tokens: Tensor, classes: int) -> Tensor:
    """Returns which tokens of each row come before the row's first stop token: boolean [n, L]."""
    return (tokens == stop_token(classes)).cumsum(1) == 0


def text_of(tokens: list[int], classes: int) -> str:
    """Returns a row of tokens as readable text: its characters, which are digits, up to the first stop token."""
    stop = stop_token(classes)
    return "".join(str(token) for token in tokens[: [*tokens, stop].index(stop)])


def ragged(sentences: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns sentences in the form in which they are stored: an array [N] of int32 arrays [words]."""
    rows = np.empty(len(sentences), object)
    for position, sentence in enumerate(sentences):
        rows[position] = np.array(sentence, np.int32)
    return rows
