"""Text encoder (bidirectional GRU) and decoder (GRU) of MultiMNIST and of translation (supplement, sections 1 and 11).

Texts are rows of tokens, int64 [n, L], that end at their first stop token (see mvae/data/sentences/text.py); what
follows it has no influence. A decoder of texts of at most L - 1 characters gives each a probability, and these add up
to 1: it never emits the start token, and after L - 1 characters the stop is certain. So it always ends, after at most L
tokens. Rows may be narrower, as wide as the longest text of a batch with its stop: that changes no text's probability.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.data.sentences.sentences import group_by_group
from mvae.data.sentences.text import UNKNOWN, characters, start_token, stop_token

# n texts, L tokens a row, C tokens in the vocabulary, D latents, H hidden units

HIDDEN = 200
"""Width of embeddings and GRUs."""

SENTENCE_HIDDEN, SENTENCE_LAYERS = 256, 1
"""The same for sentences (section 11)."""
WORD_DROPOUT = 0.3
"""Share of the words that a decoder of sentences reads as <unk> in training (section 11)."""
DECODED_SENTENCES = 128
"""Sentences that one pass of a decoder takes at most, in whole terms: their logits are wide."""
BEAM = 5
"""Sentences that beam search keeps at a time."""


class TextEncoder(nn.Module):
    """Embedding(C, H), a GRU in each direction, the sum of both final states, FC H-outputs (None: the sum itself).

    The directions are two GRUs over the padded rows, the second over each text in reverse; the state after a text's
    last token is picked. That is torch's packed bidirectional GRU, without sorting, and without a wait for the GPU.
    Sentences of very different lengths are read in groups of like length, for which a GPU is waited for.
    """

    def __init__(self, classes: int, outputs: int | None, hidden: int = HIDDEN, sentences: bool = False) -> None:
        super().__init__()
        self.classes, self.sentences = classes, sentences
        self.embedding = nn.Embedding(classes, hidden)
        self.forwards = nn.GRU(hidden, hidden, batch_first=True)
        self.backwards = nn.GRU(hidden, hidden, batch_first=True)
        self.output = nn.Identity() if outputs is None else nn.Linear(hidden, outputs)

    def forward(self, text: Tensor) -> Tensor:
        """Texts [n, L], of which the stop token is read too, to [n, outputs], or to [n, H]."""
        if not self.sentences:
            return self._encoded(text)
        return group_by_group(text, self.classes, lambda _, narrower: self._encoded(narrower))

    def _encoded(self, text: Tensor) -> Tensor:
        rows, length = torch.arange(len(text), device=text.device), text.shape[1]
        last = characters(text, self.classes).sum(1).clamp(max=length - 1)  # position of the last token, often a stop
        backwards = (last[:, None] - torch.arange(length, device=text.device)).clamp(min=0)
        read = self.forwards(self.embedding(text))[0], self.backwards(self.embedding(text.gather(1, backwards)))[0]
        encoded: Tensor = self.output(read[0][rows, last] + read[1][rows, last])
        return encoded


class TextDecoder(nn.Module):
    """One FC D-H gives the first state of all layers; each step reads Swish(embedding of the token before) beside z
    (of sentences: without it).

    The state beside z goes through FC to the vocabulary. `forward` is teacher forcing, one pass over all steps;
    `greedy`, `beam` and `sample` write texts of their own, token by token.
    """

    def __init__(
        self,
        classes: int,
        length: int,
        latents: int,
        hidden: int = HIDDEN,
        layers: int = 2,
        word_dropout: float = 0.0,
        rows: int | None = None,
        *,
        reads_z: bool = True,
        silent: int | None = None,
    ) -> None:
        super().__init__()
        self.reads_z = reads_z
        """Whether each step reads z; if not, z gives the first state, and stands beside the state in the output."""
        self.silent = silent
        """A token that `greedy` and `beam` never write, probable as it may be: <unk>, which says nothing. `sample`
        draws it as often as it is probable."""
        self.classes, self.length, self.layers, self.word_dropout = classes, length, layers, word_dropout
        if rows is not None:
            self.rows = rows
            """Of one pass in training (mvae/models/elbo.py)."""
        self.state = nn.Linear(latents, hidden)
        self.embedding = nn.Embedding(classes, hidden)
        self.gru = nn.GRU(hidden + latents * reads_z, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden + latents, classes)

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        """Logits [n, S, C - 1] of the tokens of texts [n, L'] that can be emitted, given z [n, D] and those before.

        S is L', one less where rows are as wide as they may be: the last token is then no choice, only a stop is left.
        The start token has no logit. In training, words that are read are dropped.
        """
        start = text.new_full((len(text), 1), start_token(self.classes))
        before = text[:, : min(text.shape[1], self.length - 1) - 1]
        if self.training and self.word_dropout:
            before = before.masked_fill(torch.rand(before.shape, device=before.device) < self.word_dropout, UNKNOWN)
        logits, _ = self._read(torch.cat([start, before], dim=1), z, self._first_state(z))
        return logits

    @torch.no_grad()
    def greedy(self, z: Tensor) -> Tensor:
        """The text of each z [n, D] whose every token is the most likely one after those before, [n, L]."""
        return self.sample(z, None)

    @torch.no_grad()
    def beam(self, z: Tensor, width: int = BEAM) -> Tensor:
        """The most probable text of each z [n, D] that beam search finds, [n, L]: at each step the `width` likeliest
        beginnings go on, finished ones among them, and in the end the likeliest text is taken. A width of 1 is greedy.
        """
        n, stop, vocabulary = len(z), stop_token(self.classes), start_token(self.classes)
        texts = torch.full((n, width, self.length), stop, device=z.device)
        score = z.new_full((n, width), -torch.inf)
        score[:, 0] = 0.0  # one beginning: the empty one
        beside, token = z.repeat_interleave(width, 0), torch.full((n * width, 1), vocabulary, device=z.device)
        state = self._first_state(beside)
        for position in range(self.length - 1):
            logits, state = self._read(token, beside, state)
            following = self._spoken(logits[:, 0].log_softmax(-1)).view(n, width, vocabulary)
            if position:
                ended = texts[:, :, position - 1] == stop
                following = following.masked_fill(ended[..., None], -torch.inf)
                following[..., stop] = torch.where(ended, 0.0, following[..., stop])
            score, best = (score[..., None] + following).flatten(1).topk(width)
            parent = best // vocabulary
            texts = texts.gather(1, parent[..., None].expand_as(texts))
            texts[:, :, position] = best % vocabulary
            token = texts[:, :, position].reshape(-1, 1)
            kept = (parent + width * torch.arange(n, device=z.device)[:, None]).flatten()
            state = state.index_select(1, kept)
            if bool((token == stop).all()):
                break
        return texts[:, 0]

    @torch.no_grad()
    def sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """A text drawn from p(text | z) for each z [n, D], [n, L]; without a generator the greedy one.

        The stop fills each row.
        """
        stop = stop_token(self.classes)
        text = torch.full((len(z), self.length), stop, device=z.device)
        token = torch.full((len(z),), start_token(self.classes), device=z.device)
        state = self._first_state(z)
        for position in range(self.length - 1):
            logits, state = self._read(token[:, None], z, state)
            if generator is None:
                following = self._spoken(logits[:, 0]).argmax(-1)
            else:
                following = torch.multinomial(logits[:, 0].softmax(-1), 1, generator=generator).squeeze(1)
            token = torch.where(token == stop, stop, following)
            text[:, position] = token
            if generator is None and bool((token == stop).all()):
                break
        return text

    def _spoken(self, logits: Tensor) -> Tensor:
        """The same logits [n, C - 1], that of a silent token minus infinity."""
        if self.silent is None:
            return logits
        return logits.index_fill(1, torch.tensor([self.silent], device=logits.device), -torch.inf)

    def _first_state(self, z: Tensor) -> Tensor:
        state: Tensor = self.state(z)
        return state.expand(self.layers, -1, -1).contiguous()

    def _read(self, tokens: Tensor, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of what follows each of the tokens [n, l], and the state after them."""
        words = nn.functional.silu(self.embedding(tokens))
        if not self.reads_z:
            read, state = self.gru(words, state)
            weight, bias = (part[: start_token(self.classes)] for part in (self.output.weight, self.output.bias))
            of_state, of_z = weight[:, : read.shape[2]], weight[:, read.shape[2] :]
            return F.linear(read, of_state) + F.linear(z, of_z, bias)[:, None], state  # once a sentence, not a token
        beside = z[:, None].expand(-1, tokens.shape[1], -1)
        read, state = self.gru(torch.cat([words, beside], dim=2), state)
        logits = self.output(torch.cat([read, beside], dim=2))
        return logits[..., : start_token(self.classes)], state
