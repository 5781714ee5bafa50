"""The text encoder (bidirectional GRU) and decoder (GRU) of MultiMNIST and translation (sections 1 and 11).

Texts are rows of tokens, int64 [n, L], that end at their first stop token (see mvae/data/sentences/text.py). Later
tokens have no effect. A decoder gives a probability to each text of at most L - 1 characters, and these probabilities
add up to 1. A decoder never emits the start token, and after L - 1 characters the stop is certain. So every text ends
after at most L tokens. Cutting rows after the stop of the batch's longest text changes no probability.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.data.sentences.sentences import group_by_group
from mvae.data.sentences.text import UNKNOWN, characters, start_token, stop_token

# n texts, L tokens per row, C tokens in the vocabulary, D latents, H hidden units

HIDDEN = 200  # width of embeddings and GRUs
SENTENCE_HIDDEN, SENTENCE_LAYERS = 256, 1  # width and number of layers for sentences (section 11)
WORD_DROPOUT = 0.3  # share of the words that a decoder of sentences reads as <unk> in training (section 11)
DECODED_SENTENCES = 128
"""Maximum number of sentences per decoder pass, to limit the memory of the logits.

Each pass decodes whole terms, so a term with more sentences gets a larger pass of its own.
"""
BEAM = 5  # width of the beam search


class TextEncoder(nn.Module):
    """Applies Embedding(C, H), a GRU in each direction, and FC H-outputs to the sum of both final states.

    If `outputs` is None, the encoder returns the sum of the final states. One GRU reads the padded rows; the other
    reads the reversed texts. A final state is the state after a text's last token. The result equals that of torch's
    packed bidirectional GRU, but needs no sorting and does not wait for the GPU. Sentences are processed in groups of
    similar length. Forming these groups does wait for the GPU.
    """

    def __init__(self, classes: int, outputs: int | None, hidden: int = HIDDEN, sentences: bool = False) -> None:
        super().__init__()
        self.classes, self.sentences = classes, sentences
        self.embedding = nn.Embedding(classes, hidden)
        self.forwards = nn.GRU(hidden, hidden, batch_first=True)
        self.backwards = nn.GRU(hidden, hidden, batch_first=True)
        self.output = nn.Identity() if outputs is None else nn.Linear(hidden, outputs)

    def forward(self, text: Tensor) -> Tensor:
        """Maps texts [n, L], including their stop tokens, to [n, outputs] or [n, H]."""
        if not self.sentences:
            return self._encoded(text)
        return group_by_group(text, self.classes, lambda _, narrower: self._encoded(narrower))

    def _encoded(self, text: Tensor) -> Tensor:
        rows, length = torch.arange(len(text), device=text.device), text.shape[1]
        last = characters(text, self.classes).sum(1).clamp(max=length - 1)  # index of the last token, usually a stop
        backwards = (last[:, None] - torch.arange(length, device=text.device)).clamp(min=0)
        read = self.forwards(self.embedding(text))[0], self.backwards(self.embedding(text.gather(1, backwards)))[0]
        encoded: Tensor = self.output(read[0][rows, last] + read[1][rows, last])
        return encoded


class TextDecoder(nn.Module):
    """A GRU that decodes texts from z.

    A linear layer maps z to the initial state of all GRU layers. Each step reads z and Swish(embedding of the previous
    token). For sentences, the steps do not read z. The logits are a linear function of the state and z. `forward` uses
    teacher forcing, in one pass over all steps. `greedy`, `beam` and `sample` generate texts token by token.
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
        """Whether each step reads z. If not, z only determines the initial state and enters the logits."""
        self.silent = silent
        """Token that `greedy` and `beam` never emit, even if it is the most probable token.

        Used for <unk>, which carries no information. `sample` emits this token with its probability.
        """
        self.classes, self.length, self.layers, self.word_dropout = classes, length, layers, word_dropout
        if rows is not None:
            self.rows = rows  # maximum number of texts per pass in training (mvae/models/elbo.py)
        self.state = nn.Linear(latents, hidden)
        self.embedding = nn.Embedding(classes, hidden)
        self.gru = nn.GRU(hidden + latents * reads_z, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden + latents, classes)

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        """Returns the logits [n, S, C - 1] of each token of texts [n, L'], given z [n, D] and the preceding tokens.

        S is L', or L - 1 if the rows have the full width L, because token number L can only be the stop. The start
        token has no logit. In training, word dropout replaces input tokens.
        """
        start = text.new_full((len(text), 1), start_token(self.classes))
        previous = text[:, : min(text.shape[1], self.length - 1) - 1]
        if self.training and self.word_dropout:
            dropped = torch.rand(previous.shape, device=previous.device) < self.word_dropout
            previous = previous.masked_fill(dropped, UNKNOWN)
        logits, _ = self._read(torch.cat([start, previous], dim=1), z, self._initial_state(z))
        return logits

    @torch.no_grad()
    def greedy(self, z: Tensor) -> Tensor:
        """Generates a text [n, L] for each z [n, D] by always choosing the most probable next token."""
        return self.sample(z, None)

    @torch.no_grad()
    def beam(self, z: Tensor, width: int = BEAM) -> Tensor:
        """Generates a text [n, L] for each z [n, D] by beam search: the most probable text found.

        Each step keeps the `width` most probable prefixes, including finished texts. A width of 1 is greedy search.
        """
        n, stop, vocabulary = len(z), stop_token(self.classes), start_token(self.classes)
        texts = torch.full((n, width, self.length), stop, device=z.device)
        score = z.new_full((n, width), -torch.inf)
        score[:, 0] = 0.0  # start with a single prefix, the empty one
        z, token = z.repeat_interleave(width, 0), torch.full((n * width, 1), vocabulary, device=z.device)
        state = self._initial_state(z)
        for position in range(self.length - 1):
            logits, state = self._read(token, z, state)
            following = self._without_silent(logits[:, 0].log_softmax(-1)).view(n, width, vocabulary)
            if position:
                ended = texts[:, :, position - 1] == stop
                following = following.masked_fill(ended[..., None], -torch.inf)
                following[..., stop] = torch.where(ended, 0.0, following[..., stop])
            score, best = (score[..., None] + following).flatten(1).topk(width)
            parent = best // vocabulary
            texts = texts.gather(1, parent[..., None].expand_as(texts))
            texts[:, :, position] = best % vocabulary
            token = texts[:, :, position].reshape(-1, 1)
            state = state.index_select(1, (parent + width * torch.arange(n, device=z.device)[:, None]).flatten())
            if bool((token == stop).all()):
                break
        return texts[:, 0]

    @torch.no_grad()
    def sample(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """Samples a text [n, L] from p(text | z) for each z [n, D]. Without a generator, decodes greedily.

        Rows are padded with the stop token.
        """
        stop = stop_token(self.classes)
        text = torch.full((len(z), self.length), stop, device=z.device)
        token = torch.full((len(z),), start_token(self.classes), device=z.device)
        state = self._initial_state(z)
        for position in range(self.length - 1):
            logits, state = self._read(token[:, None], z, state)
            if generator is None:
                following = self._without_silent(logits[:, 0]).argmax(-1)
            else:
                following = torch.multinomial(logits[:, 0].softmax(-1), 1, generator=generator).squeeze(1)
            token = torch.where(token == stop, stop, following)
            text[:, position] = token
            if generator is None and bool((token == stop).all()):
                break
        return text

    def _without_silent(self, logits: Tensor) -> Tensor:
        if self.silent is None:
            return logits
        return logits.index_fill(1, torch.tensor([self.silent], device=logits.device), -torch.inf)

    def _initial_state(self, z: Tensor) -> Tensor:
        state: Tensor = self.state(z)
        return state.expand(self.layers, -1, -1).contiguous()

    def _read(self, tokens: Tensor, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the next token's logits after each of the given tokens [n, l], and the final state."""
        words = nn.functional.silu(self.embedding(tokens))
        if not self.reads_z:
            read, state = self.gru(words, state)
            weight, bias = (part[: start_token(self.classes)] for part in (self.output.weight, self.output.bias))
            state_weight, z_weight = weight[:, : read.shape[2]], weight[:, read.shape[2] :]
            # the part of z is computed once per text, not per token
            return F.linear(read, state_weight) + F.linear(z, z_weight, bias)[:, None], state
        z = z[:, None].expand(-1, tokens.shape[1], -1)
        read, state = self.gru(torch.cat([words, z], dim=2), state)
        logits = self.output(torch.cat([read, z], dim=2))
        return logits[..., : start_token(self.classes)], state
