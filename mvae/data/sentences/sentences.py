"""Stores and batches sentences: texts of very different lengths, stored one after the other with offsets, as in Arrow.

A sentence is a list of words. Each word is a number; more frequent words of the training split have smaller numbers. A
model knows the most frequent words, and `take` replaces all others by <unk>. The whole vocabulary is stored, so
sentences can be restored as they were written. The same file works for any number of known words.

A model that knows K words uses token 0 for <unk>, 1 to K for the words, then stop and start: C = K + 3 tokens (see
mvae/data/sentences/text.py).

Most batches contain sentences of similar lengths (see mvae/sampling.py). Other batches mix all lengths, for example if
a step shows only a few pairs. Networks process a mixed batch in groups of similar length.

Shapes: N sentences, B sentences in a batch, L tokens in the batch's longest sentence, including the stop token.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mvae.data.dataset import SPECIAL
from mvae.data.sentences.text import UNKNOWN, characters, stop_token

MOST_PADDING = 0.2
"""Largest allowed share of padding among the tokens that a network processes per batch of sentences."""


class Sentences:
    """Holds the stored sentences of one language in one split. On a CPU, the tensors map the file.

    Args:
        tokens: numbers of all words in the file, one sentence after the other: int32.
        offsets: start of each sentence in `tokens`, then the end of the last sentence: int64 [N + 1].
        classes: C, the number of tokens that a model knows.
    """

    def __init__(self, tokens: Tensor, offsets: Tensor, classes: int) -> None:
        self.tokens, self.offsets, self.classes = tokens, offsets, classes

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, chosen: slice) -> "Sentences":
        """Returns consecutive sentences without copying."""
        start, stop, step = chosen.indices(len(self))
        assert step == 1
        return Sentences(self.tokens, self.offsets[start : max(start, stop) + 1], self.classes)

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of each sentence, including its stop token: int64 [N]."""
        return self.offsets.diff() + 1

    @property
    def unknown(self) -> Tensor:
        """Number of unknown words in each sentence: int64 [N]."""
        unknown = (self.tokens == UNKNOWN) | (self.tokens >= stop_token(self.classes))
        before = torch.cat([self.offsets.new_zeros(1), unknown.cumsum(0)])
        return before[self.offsets].diff()

    def take(self, index: Tensor) -> Tensor:
        """Returns the sentences at `index` (int64 [B]), padded with stop tokens to the same length: int64 [B, L]."""
        start = self.offsets[index]
        words = self.offsets[index + 1] - start
        place = torch.arange(int(words.max()) + 1 if len(index) else 1, device=self.tokens.device)
        is_word = place < words[:, None]
        source = torch.where(is_word, start[:, None] + place, 0)
        tokens = self.tokens[source].to(torch.int64) if len(self.tokens) else source
        known = torch.where(tokens < stop_token(self.classes), tokens, UNKNOWN)
        return torch.where(is_word, known, stop_token(self.classes))

    def words(self, position: int) -> list[int]:
        """Returns the word numbers of one sentence, including words that no model knows."""
        return list(self.tokens[int(self.offsets[position]) : int(self.offsets[position + 1])].tolist())

    def knowing(self, words: int) -> "Sentences":
        """Returns these sentences for a model that knows only the `words` most frequent words."""
        return Sentences(self.tokens, self.offsets, min(self.classes, words + SPECIAL))

    def to(self, device: torch.device | str) -> "Sentences":
        return Sentences(self.tokens.to(device), self.offsets.to(device), self.classes)


def trimmed(tokens: Tensor, classes: int) -> Tensor:
    """Removes all columns of tokens [n, L] that follow the stop token of the longest text."""
    longest = int(characters(tokens, classes).sum(1).max()) if len(tokens) else 0
    return tokens[:, : longest + 1]


def of_like_length(lengths: np.ndarray) -> list[np.ndarray]:
    """Divides rows into groups in which at most `MOST_PADDING` of the tokens are padding.

    If all rows together meet this condition, returns one group in the order of the rows. Otherwise the groups are
    sorted by length, the longest first.

    Args:
        lengths: int64 [n], including stop tokens.
    Returns:
        At least one group. A group is an int64 array with the positions of its rows.
    """
    if len(lengths) == 0 or lengths.sum() >= (1 - MOST_PADDING) * lengths.max() * len(lengths):
        return [np.arange(len(lengths))]
    order = np.argsort(-lengths, kind="stable")
    groups, start = [], 0
    while start < len(order):
        rest = lengths[order[start:]]
        # Share of real tokens if the group ends here. The share never rises, because the longest rows come first.
        real = rest.cumsum() / (rest[0] * np.arange(1, len(rest) + 1))
        end = start + int(np.count_nonzero(real >= 1 - MOST_PADDING))
        groups.append(order[start:end])
        start = end
    return groups


def padded(lengths: np.ndarray) -> int:
    """Returns the number of tokens that a network processes for rows of these lengths, int64 [n], including padding."""
    return sum(int(lengths[group].max()) * len(group) for group in of_like_length(lengths) if len(group))


def group_by_group(tokens: Tensor, classes: int, compute: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Applies `compute` to groups of rows of similar length. Returns the resulting rows in the order of `tokens`.

    Args:
        tokens: int64 [n, L].
        compute: takes the positions of a group's rows, int64 [g], and the tokens of these rows, [g, L']. L' is the
            length of the group's longest row. Returns one row per position.
    """
    lengths = (characters(tokens, classes).sum(1).clamp(max=tokens.shape[1] - 1) + 1).cpu().numpy()
    groups = of_like_length(lengths)
    positions = [torch.from_numpy(group).to(tokens.device) for group in groups]
    if len(groups) == 1:
        return compute(positions[0], tokens[:, : int(lengths.max(initial=1))])
    widths = [int(lengths[group].max()) for group in groups]
    parts = [compute(rows, tokens.index_select(0, rows)[:, :w]) for rows, w in zip(positions, widths, strict=True)]
    return torch.cat(parts).index_select(0, torch.cat(positions).argsort())


class Padding:
    """Counts the padding among the tokens that this worker's encoders process in an epoch.

    Args:
        lengths: int64 [N, M], including stop tokens. If None, there are no sentences, and nothing is counted.
    """

    def __init__(self, lengths: np.ndarray | None) -> None:
        self._lengths, self._real, self._computed = lengths, 0, 0

    def add(self, modality: int, index: np.ndarray) -> None:
        """Counts the tokens and the padding of one modality of the examples at `index`."""
        if self._lengths is not None:
            lengths = self._lengths[index, modality]
            self._real += int(lengths.sum())
            self._computed += padded(lengths)

    def facts(self) -> dict[str, float]:
        return {"train/padding_share": 1 - self._real / self._computed} if self._computed else {}


def sentence_of(tokens: list[int], words: tuple[str, ...], stop: int | None = None) -> str:
    """Returns tokens as words separated by blanks. If `stop` is given, leaves out the first stop token and the rest."""
    until = tokens if stop is None else tokens[: [*tokens, stop].index(stop)]
    return " ".join(words[token] for token in until)
