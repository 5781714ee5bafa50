"""Text encoder and decoder: their equations, normalised probabilities, and texts that always end."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from mvae.data.dataset import Kind, Modality
from mvae.models.likelihoods import Text, likelihood_of
from mvae.networks.text import TextDecoder, TextEncoder
from tests.plain_elbo import plain_text_log_probability

# C tokens in the vocabulary: C - 2 characters, stop, start

SMALL = 5
"""Three characters, stop 3 and start 4; texts have at most three characters."""
SMALL_TEXTS = [[*text, *[3] * (4 - len(text))] for size in range(4) for text in product(range(3), repeat=size)]


def small_decoder(latents: int = 2) -> TextDecoder:
    """A decoder with weights large enough that texts differ in probability."""
    torch.manual_seed(3)
    decoder = TextDecoder(SMALL, length=4, latents=latents, hidden=6).double()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.7)
    return decoder


def log_prob(decoder: TextDecoder, z: Tensor, text: Tensor) -> Tensor:
    return Text(decoder.classes).log_prob(decoder(z, text), text)


def padded_anew(text: Tensor, classes: int) -> Tensor:
    """Replaces the tokens after the stops of texts by random ones."""
    noise = torch.randint(classes, text.shape, generator=torch.Generator().manual_seed(0))
    behind = (text == classes - 2).cumsum(1) > 1
    return torch.where(behind, noise, text)


def multi_mnist_texts() -> Tensor:
    """Texts of 0 to 4 digits."""
    counts = torch.arange(20) % 5
    digits = torch.randint(10, (20, 5), generator=torch.Generator().manual_seed(1))
    return torch.where(torch.arange(5) < counts[:, None], digits, 10)


def test_the_encoder_is_torchs_bidirectional_gru_packed_by_length() -> None:
    torch.manual_seed(0)
    ours, texts = TextEncoder(12, 6, hidden=7).double(), multi_mnist_texts()
    both = nn.GRU(7, 7, bidirectional=True, batch_first=True).double()
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        for network, ending in ((ours.forwards, "_l0"), (ours.backwards, "_l0_reverse")):
            getattr(both, name + ending).data.copy_(getattr(network, f"{name}_l0"))
    lengths = torch.tensor([row.index(10) + 1 for row in texts.tolist()])
    packed = pack_padded_sequence(ours.embedding(texts), lengths, batch_first=True, enforce_sorted=False)
    expected = ours.output(both(packed)[1].sum(0))
    torch.testing.assert_close(ours(texts), expected)


def test_tokens_after_the_stop_change_neither_values_nor_gradients() -> None:
    torch.manual_seed(0)
    texts, z = multi_mnist_texts(), torch.randn(20, 3)
    other = padded_anew(texts, 12)
    assert not torch.equal(texts, other)
    encoder, decoder = TextEncoder(12, 6), TextDecoder(12, 5, 3)
    for network, outcomes in (
        (encoder, [encoder(values) for values in (texts, other)]),
        (decoder, [log_prob(decoder, z, values) for values in (texts, other)]),
    ):
        assert torch.equal(*outcomes)
        gradients = [torch.autograd.grad(outcome.sin().sum(), list(network.parameters())) for outcome in outcomes]
        for ours, theirs in zip(*gradients, strict=True):
            assert torch.equal(ours, theirs)


def test_teacher_forcing_equals_a_plain_loop_over_tokens() -> None:
    torch.manual_seed(0)
    decoder, texts = TextDecoder(12, 5, 3).double(), multi_mnist_texts()
    z = torch.randn(20, 3, dtype=torch.float64)
    expected = [plain_text_log_probability(decoder, row, text) for row, text in zip(z, texts.tolist(), strict=True)]
    torch.testing.assert_close(log_prob(decoder, z, texts), torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_the_probabilities_of_all_texts_add_up_to_1() -> None:
    decoder, texts = small_decoder(), torch.tensor(SMALL_TEXTS)
    assert len(texts) == 1 + 3 + 9 + 27
    for z in torch.randn(3, 1, 2, dtype=torch.float64):
        p = log_prob(decoder, z.expand(40, -1), texts).exp()
        assert p.sum().item() == pytest.approx(1, abs=1e-12)
        assert p.max() > 2 * p.min()


def test_a_text_without_a_stop_is_impossible() -> None:
    texts = torch.tensor([[0, 1, 2, 0], [0, 1, 2, 3]])
    impossible, possible = log_prob(small_decoder(), torch.zeros(2, 2).double(), texts).tolist()
    assert impossible == -torch.inf
    assert possible > -100


def test_sampled_texts_have_the_frequencies_of_their_probabilities() -> None:
    decoder, texts, draws = small_decoder(), torch.tensor(SMALL_TEXTS), 20_000
    z = torch.tensor([[0.5, -1.0]]).double()
    p = log_prob(decoder, z.expand(40, -1), texts).exp()
    drawn = decoder.sample(z.expand(draws, -1), torch.Generator().manual_seed(0))
    seen = torch.tensor([int((drawn == text).all(1).sum()) for text in texts])
    assert seen.sum() == draws, "a sample is no text, or has no stops after its end"
    assert (p * draws).min() >= 5
    assert stats.chisquare(seen.tolist(), (p * draws).tolist()).pvalue > 0.001


def test_sampled_texts_are_equal_for_one_seed_and_differ_between_seeds() -> None:
    decoder, z = small_decoder(), torch.randn(200, 2).double()
    one, same, other = (decoder.sample(z, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_greedy_decoding_takes_the_most_likely_next_token() -> None:
    decoder, z = small_decoder(), torch.randn(20, 2).double()
    for row, text in zip(z, decoder.greedy(z), strict=True):
        before: list[int] = []
        while len(before) < 3 and 3 not in before:
            logits = decoder(
                row[None], torch.tensor([[*before, *[0] * (4 - len(before))]])
            )  # for the token after `before`
            before.append(int(logits[0, len(before)].argmax()))
        assert text.tolist() == [*before, *[3] * (4 - len(before))]


@pytest.mark.parametrize("favoured", [0, 3, 4], ids=["character", "stop", "start"])
def test_every_text_ends_and_never_contains_the_start_token(favoured: int) -> None:
    decoder = small_decoder()
    with torch.no_grad():
        decoder.output.bias[favoured] = 1e6
    z = torch.randn(300, 2).double()
    for texts in (decoder.greedy(z), decoder.sample(z, torch.Generator().manual_seed(0))):
        assert texts.shape == (300, 4)
        for text in texts.tolist():
            assert text[-1] == 3
            assert text[text.index(3) :] == [3] * (4 - text.index(3))
            assert 4 not in text
        if favoured < 4:
            expected = [0, 0, 0, 3] if favoured == 0 else [3, 3, 3, 3]
            assert texts.tolist() == [expected] * 300


def test_the_start_tokens_logit_does_not_enter_any_probability() -> None:
    decoder, texts = small_decoder(), torch.tensor(SMALL_TEXTS)
    z = torch.randn(40, 2).double()
    before = log_prob(decoder, z, texts)
    with torch.no_grad():
        decoder.output.bias[4] = 1e6
    assert torch.equal(log_prob(decoder, z, texts), before)


def test_a_texts_likelihood_is_that_of_its_tokens_and_only_the_decoder_samples() -> None:
    chosen = likelihood_of(Modality("text", Kind.TEXT, (5,), classes=12))
    assert isinstance(chosen, Text)
    logits = torch.zeros(3, 4, 11)
    texts = torch.tensor([[10, 10, 10, 10, 10], [1, 2, 10, 10, 10], [1, 2, 3, 4, 10]])
    log11 = torch.log(torch.tensor(11.0))
    torch.testing.assert_close(chosen.log_prob(logits, texts), -log11 * torch.tensor([1, 3, 4]))
    with pytest.raises(NotImplementedError, match="its decoder"):
        chosen.sample(logits, torch.Generator())
    with pytest.raises(NotImplementedError, match="no mean"):
        chosen.mean(logits)
