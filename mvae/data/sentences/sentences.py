"""Sentences: texts of very different lengths, stored one after the other with offsets, as Arrow stores a list.

A sentence is words; a word is a number, by frequency in the training part. The words that a model knows are the first
of them: `take` gives every other one as <unk>. So the whole vocabulary is stored, a sentence can be read back as it was
written, and one file serves whatever the number of known words.

Tokens of a model that knows K words are 0 for <unk>, 1 to K for the words, then stop and start (see
mvae/data/sentences/text.py): C = K + 3 of them.

Batches are of like lengths (see mvae/sampling.py). Where they are not, as where a step shows a few pairs of all
lengths, networks take them in groups that are.

Shapes: N sentences, B of them in a batch, L the tokens of the longest of these, its stop counted.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mvae.data.dataset import SPECIAL
from mvae.data.sentences.text import UNKNOWN, characters, stop_token

MOST_PADDING = 0.2
"""Share of what a network computes of a batch of sentences that may be padding."""


class Sentences:
    """The sentences of one language of one split, as stored; on a CPU they map the file.

    Args:
        tokens: int32 [all words of the file].
        offsets: int64 [N + 1].
        classes: C, tokens that a model knows.
    """

    def __init__(self, tokens: Tensor, offsets: Tensor, classes: int) -> None:
        self.tokens, self.offsets, self.classes = tokens, offsets, classes

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, chosen: slice) -> "Sentences":
        """Consecutive sentences, in the same memory."""
        start, stop, step = chosen.indices(len(self))
        assert step == 1
        return Sentences(self.tokens, self.offsets[start : max(start, stop) + 1], self.classes)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each sentence, its stop counted: int64 [N]."""
        return self.offsets.diff() + 1

    @property
    def unknown(self) -> Tensor:
        """Words of each sentence that a model does not know: int64 [N]."""
        unknown = (self.tokens == UNKNOWN) | (self.tokens >= stop_token(self.classes))
        before = torch.cat([self.offsets.new_zeros(1), unknown.cumsum(0)])
        return before[self.offsets].diff()

    def take(self, index: Tensor) -> Tensor:
        """The sentences at `index` (int64 [B]), as wide as the longest of them: int64 [B, L], filled up with stops."""
        start = self.offsets[index]
        words = self.offsets[index + 1] - start
        place = torch.arange(int(words.max()) + 1 if len(index) else 1, device=self.tokens.device)
        there = place < words[:, None]
        where = torch.where(there, start[:, None] + place, 0)
        tokens = self.tokens[where].to(torch.int64) if len(self.tokens) else where
        known = torch.where(tokens < stop_token(self.classes), tokens, UNKNOWN)
        return torch.where(there, known, stop_token(self.classes))

    def words(self, position: int) -> list[int]:
        """The words of one sentence, those included that no model knows."""
        return list(self.tokens[int(self.offsets[position]) : int(self.offsets[position + 1])].tolist())

    def knowing(self, words: int) -> "Sentences":
        """The same with so many known words at most, the most frequent."""
        return Sentences(self.tokens, self.offsets, min(self.classes, words + SPECIAL))

    def to(self, device: torch.device | str) -> "Sentences":
        return Sentences(self.tokens.to(device), self.offsets.to(device), self.classes)


def trimmed(tokens: Tensor, classes: int) -> Tensor:
    """Rows [n, L] of tokens without the columns in which every row has ended, the first stop kept."""
    longest = int(characters(tokens, classes).sum(1).max()) if len(tokens) else 0
    return tokens[:, : longest + 1]


def of_like_length(lengths: np.ndarray) -> list[np.ndarray]:
    """Rows in groups, of each of which at most a fifth is padding where it is as wide as its longest row.

    One group, in the order of the rows, where that holds of all of them together; otherwise the longest come first.

    Args:
        lengths: int64 [n], stops counted.
    Returns:
        positions, int64, of one or more rows a group.
    """
    if len(lengths) == 0 or lengths.sum() >= (1 - MOST_PADDING) * lengths.max() * len(lengths):
        return [np.arange(len(lengths))]
    order = np.argsort(-lengths, kind="stable")
    groups, start = [], 0
    while start < len(order):
        left = lengths[order[start:]]
        # falls from 1, since no row is longer than those before
        real = left.cumsum() / (left[0] * np.arange(1, len(left) + 1))
        end = start + int(np.count_nonzero(real >= 1 - MOST_PADDING))
        groups.append(order[start:end])
        start = end
    return groups


def padded(lengths: np.ndarray) -> int:
    """Tokens that a network computes of rows of these lengths, int64 [n], in groups of like length."""
    return sum(int(lengths[group].max()) * len(group) for group in of_like_length(lengths) if len(group))


def group_by_group(tokens: Tensor, classes: int, made: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """What `made` makes of rows of tokens [n, L], each group of like length by itself and no wider than it must be.

    Args:
        made: from positions among the rows, int64 [g], and their tokens [g, L'], to a row each.
    """
    lengths = (characters(tokens, classes).sum(1).clamp(max=tokens.shape[1] - 1) + 1).cpu().numpy()
    groups = of_like_length(lengths)
    positions = [torch.from_numpy(group).to(tokens.device) for group in groups]
    if len(groups) == 1:
        return made(positions[0], tokens[:, : int(lengths.max(initial=1))])
    widths = [int(lengths[group].max()) for group in groups]
    parts = [made(rows, tokens.index_select(0, rows)[:, :w]) for rows, w in zip(positions, widths, strict=True)]
    return torch.cat(parts).index_select(0, torch.cat(positions).argsort())


class Padding:
    """How much of what this worker's encoders compute of an epoch's sentences is padding; nothing without sentences.

    Args:
        lengths: int64 [N, M], stops counted.
    """

    def __init__(self, lengths: np.ndarray | None) -> None:
        self._lengths, self._real, self._computed = lengths, 0, 0

    def add(self, modality: int, index: np.ndarray) -> None:
        """Examples that a batch shows a modality of."""
        if self._lengths is not None:
            lengths = self._lengths[index, modality]
            self._real += int(lengths.sum())
            self._computed += padded(lengths)

    def facts(self) -> dict[str, float]:
        return {"train/padding_share": 1 - self._real / self._computed} if self._computed else {}


def sentence_of(tokens: list[int], words: tuple[str, ...], stop: int | None = None) -> str:
    """Words as people read them, separated by blanks, up to the first stop."""
    until = tokens if stop is None else tokens[: [*tokens, stop].index(stop)]
    return " ".join(words[token] for token in until)
