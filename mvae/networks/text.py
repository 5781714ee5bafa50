"""Text encoder (bidirectional GRU) and decoder (2-layer GRU) of MultiMNIST (supplement section 1, Figure 3).

Texts are rows of tokens, int64 [n, L], that end at their first stop token (see mvae/data/text.py); what follows it has
no influence. A decoder gives every text of at most L - 1 characters a probability, and these add up to 1: it never
emits the start token, and after L - 1 characters the stop is certain. So it always ends, after at most L tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvae.data.text import characters, start_token, stop_token

# n texts, L tokens a row, C tokens in the vocabulary, D latents, H hidden units

HIDDEN = 200
"""Width of embeddings and GRUs."""
LAYERS = 2
"""Of the decoder's GRU."""


class TextEncoder(nn.Module):
    """Embedding(C, H), a GRU in each direction, the sum of both final states, FC H-outputs (None: the sum itself).

    The directions are two GRUs over the padded rows, the second over each text in reverse; the state after a text's
    last token is picked. That is torch's packed bidirectional GRU, without sorting, and without a wait for the GPU.
    """

    def __init__(self, classes: int, outputs: int | None, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.classes = classes
        self.embedding = nn.Embedding(classes, hidden)
        self.forwards = nn.GRU(hidden, hidden, batch_first=True)
        self.backwards = nn.GRU(hidden, hidden, batch_first=True)
        self.output = nn.Identity() if outputs is None else nn.Linear(hidden, outputs)

    def forward(self, text: Tensor) -> Tensor:
        """Texts [n, L], of which the stop token is read too, to [n, outputs], or to [n, H]."""
        rows, length = torch.arange(len(text), device=text.device), text.shape[1]
        last = characters(text, self.classes).sum(1).clamp(max=length - 1)  # position of the last token, often a stop
        backwards = (last[:, None] - torch.arange(length, device=text.device)).clamp(min=0)
        read = self.forwards(self.embedding(text))[0], self.backwards(self.embedding(text.gather(1, backwards)))[0]
        encoded: Tensor = self.output(read[0][rows, last] + read[1][rows, last])
        return encoded


class TextDecoder(nn.Module):
    """One FC D-H gives the first state of both layers; each step reads Swish(embedding of the token before) beside z.

    The state beside z goes through FC to the vocabulary. `forward` is teacher forcing, one pass over all steps;
    `greedy` and `sample` write texts of their own, token by token.
    """

    def __init__(self, classes: int, length: int, latents: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.classes, self.length = classes, length
        self.state = nn.Linear(latents, hidden)
        self.embedding = nn.Embedding(classes, hidden)
        self.gru = nn.GRU(hidden + latents, hidden, LAYERS, batch_first=True)
        self.output = nn.Linear(hidden + latents, classes)

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        """Logits [n, L - 1, C - 1] of every token that can be emitted but the last, given z [n, D] and those before.

        The last token of a row is no choice: only a stop is left. The start token has no logit.
        """
        start = text.new_full((len(text), 1), start_token(self.classes))
        logits, _ = self._read(torch.cat([start, text[:, :-2]], dim=1), z, self._first_state(z))
        return logits

    @torch.no_grad()
    def greedy(self, z: Tensor) -> Tensor:
        """The text of each z [n, D] whose every token is the most likely one after those before, [n, L]."""
        return self._written(z, None)

    @torch.no_grad()
    def sample(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """A text drawn from p(text | z) for each z [n, D], [n, L]; the stop fills each row."""
        return self._written(z, generator)

    def _written(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        stop = stop_token(self.classes)
        text = torch.full((len(z), self.length), stop, device=z.device)
        token = torch.full((len(z),), start_token(self.classes), device=z.device)
        state = self._first_state(z)
        for position in range(self.length - 1):
            logits, state = self._read(token[:, None], z, state)
            if generator is None:
                following = logits[:, 0].argmax(-1)
            else:
                following = torch.multinomial(logits[:, 0].softmax(-1), 1, generator=generator).squeeze(1)
            token = torch.where(token == stop, stop, following)
            text[:, position] = token
        return text

    def _first_state(self, z: Tensor) -> Tensor:
        state: Tensor = self.state(z)
        return state.expand(LAYERS, -1, -1).contiguous()

    def _read(self, tokens: Tensor, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of what follows each of the tokens [n, l], and the state after them."""
        beside = z[:, None].expand(-1, tokens.shape[1], -1)
        read, state = self.gru(torch.cat([nn.functional.silu(self.embedding(tokens)), beside], dim=2), state)
        logits = self.output(torch.cat([read, beside], dim=2))
        return logits[..., : start_token(self.classes)], state
