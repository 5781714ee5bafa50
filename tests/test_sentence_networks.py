"""Encoder and decoder of sentences: narrow rows change nothing, decoding ends, a beam of one is greedy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality
from mvae.data.sentences.sentences import of_like_length, padded
from mvae.models.likelihoods import Text
from mvae.models.multimodal import decoder_of, encoder_of
from mvae.models.mvae import MVAE
from mvae.networks.text import SENTENCE_HIDDEN, TextDecoder

CLASSES, LENGTH, LATENTS = 30, 12, 4
LANGUAGE = Modality("xx", Kind.TEXT, (LENGTH,), CLASSES, sentences=True)
STOP = CLASSES - 2


def decoder(classes: int = CLASSES, length: int = LENGTH, seed: int = 0, dropout: float = 0.3) -> TextDecoder:
    """A decoder in evaluation mode, with weights large enough that sentences differ in probability."""
    torch.manual_seed(seed)
    made = TextDecoder(classes, length, LATENTS, 9, 1, dropout, reads_z=False).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.7)
    return made.eval()


def rows(lengths: list[int], width: int) -> Tensor:
    """Sentences with the given numbers of words, then stops."""
    words = torch.randint(1, STOP, (len(lengths), width), generator=torch.Generator().manual_seed(1))
    return torch.where(torch.arange(width) < torch.tensor(lengths)[:, None], words, STOP)


def log_prob(network: TextDecoder, z: Tensor, text: Tensor) -> Tensor:
    return Text(network.classes).log_prob(network(z, text), text)


def test_each_language_has_the_networks_of_section_11() -> None:
    encoder, made = encoder_of(LANGUAGE, "none", 1, 2 * 100), decoder_of(LANGUAGE, "none", 1, 100, 1)
    assert isinstance(made, TextDecoder)
    assert (made.gru.input_size, made.gru.hidden_size, made.gru.num_layers) == (SENTENCE_HIDDEN, SENTENCE_HIDDEN, 1)
    assert made.word_dropout == 0.3
    gru = 3 * 256 * (256 + 256 + 2)
    assert sum(p.numel() for p in encoder.parameters()) == CLASSES * 256 + 2 * gru + (256 + 1) * 200
    assert sum(p.numel() for p in made.parameters()) == CLASSES * 256 + gru + (100 + 1) * 256 + (356 + 1) * CLASSES


def test_a_sentences_likelihood_and_posterior_do_not_depend_on_padding_or_batch_order() -> None:
    lengths = [0, 1, 5, 9, 3, 11]
    network, encoder = decoder().float(), encoder_of(LANGUAGE, "none", 1, 2 * LATENTS)
    wide, z = rows(lengths, LENGTH), torch.randn(6, LATENTS, generator=torch.Generator().manual_seed(2))
    together, read = log_prob(network, z, wide), encoder(wide)
    for i, length in enumerate(lengths):
        for width in {length + 1, min(length + 4, LENGTH), LENGTH}:
            alone = wide[i : i + 1, :width]
            torch.testing.assert_close(log_prob(network, z[i : i + 1], alone)[0], together[i], rtol=0, atol=1e-5)
            torch.testing.assert_close(encoder(alone)[0], read[i], rtol=0, atol=1e-5)
    order = torch.tensor([3, 5, 0, 2, 1, 4])
    torch.testing.assert_close(log_prob(network, z[order], wide[order]), together[order], rtol=0, atol=1e-5)


def test_sentences_are_computed_in_groups_with_at_most_a_fifth_of_padding() -> None:
    lengths = np.array([1, 12, 2, 3, 3, 12, 1, 9, 11, 2, 6, 4])
    groups = of_like_length(lengths)
    assert len(groups) > 1 and sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    assert all(lengths[group].sum() >= 0.8 * lengths[group].max() * len(group) for group in groups)
    assert lengths.sum() < 0.8 * 12 * 12, "these lengths would need no groups"
    assert lengths.sum() >= 0.8 * padded(lengths)

    text, encoder = rows((lengths - 1).tolist(), LENGTH), encoder_of(LANGUAGE, "none", 1, 2 * LATENTS)
    model = MVAE((LANGUAGE,), [encoder], [made := decoder()], LATENTS)
    read: list[int] = []
    for gru in (encoder.forwards, encoder.backwards, made.gru):
        assert isinstance(gru, nn.GRU)
        gru.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[0] * given[0].shape[1]))
    model.encode(0, text)
    assert sum(read) == 2 * padded(lengths)
    read.clear()
    model.log_prob(0, torch.zeros(12, LATENTS, dtype=torch.float64), text)
    # in rows of maximum width the last token is no choice, so it is not read
    assert padded(lengths) - len(groups[0]) <= sum(read) <= padded(lengths)
    read.clear()
    model.encode(0, text[[0, 6]])
    assert sum(read) == 2 * 2, "the width of rows must not depend on their original padding"


def test_groups_change_neither_posterior_nor_likelihood_nor_gradient() -> None:
    text = rows([0, 11, 1, 2, 2, 11, 0, 8, 10, 1, 5, 3], LENGTH)
    assert len(of_like_length((text != STOP).sum(1).numpy() + 1)) > 1
    encoder, made = encoder_of(LANGUAGE, "none", 1, 2 * LATENTS).double(), decoder()
    model, z = MVAE((LANGUAGE,), [encoder], [made], LATENTS), torch.randn(12, LATENTS, dtype=torch.float64)
    weights = torch.arange(1.0, 13.0, dtype=torch.float64)

    def found(text_rows: list[Tensor], z_rows: list[Tensor]) -> list[Tensor]:
        parts = [
            (torch.cat(model.encode(0, text), 1).sum(1), model.log_prob(0, given, text))
            for text, given in zip(text_rows, z_rows, strict=True)
        ]
        posterior, likelihood = (torch.cat(part) for part in zip(*parts, strict=True))
        total = (weights * (posterior + likelihood)).sum()
        return [posterior, likelihood, *torch.autograd.grad(total, list(model.parameters()))]

    together, alone = found([text], [z]), found([*text[:, None]], [*z[:, None]])
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_the_probabilities_of_all_sentences_add_up_to_1_for_any_row_width() -> None:
    network = decoder(classes=5, length=4)
    for z in torch.randn(3, 1, LATENTS, dtype=torch.float64):
        total = 0.0
        for size in range(4):
            texts = torch.tensor([[*text, 3] for text in product(range(3), repeat=size)])
            total += float(log_prob(network, z.expand(len(texts), -1), texts).detach().exp().sum())
        assert total == pytest.approx(1, abs=1e-12)


def test_teacher_forcing_equals_decoding_one_word_at_a_time() -> None:
    network, texts = decoder(), rows([4, 7], 8)
    z = torch.randn(2, LATENTS, dtype=torch.float64)
    for row, text, found in zip(z, texts.tolist(), log_prob(network, z, texts), strict=True):
        state, before, total = network.state(row)[None], CLASSES - 1, 0.0
        for token in text[: text.index(STOP) + 1]:
            word = nn.functional.silu(network.embedding(torch.tensor([before])))
            read, state = network.gru(word, state)
            logits = network.output(torch.cat([read[0], row]))[: CLASSES - 1]
            total, before = total + float(logits.detach().log_softmax(0)[token]), token
        assert float(found.detach()) == pytest.approx(total, abs=1e-10)


def test_word_dropout_hides_about_a_third_of_the_words_in_training_and_none_in_evaluation() -> None:
    network, texts = decoder(), rows([11] * 400, LENGTH)
    seen: list[Tensor] = []
    network.embedding.register_forward_hook(lambda _module, given, _out: seen.append(given[0]))
    z = torch.zeros(400, LATENTS).double()
    network.train()(z, texts)
    dropped = (seen[0][:, 1:] == 0).double().mean()
    assert 0.27 < float(dropped) < 0.33 and bool((seen[0][:, 0] == CLASSES - 1).all()), (
        "the start token is never dropped"
    )
    first = network.eval()(z, texts)
    assert not bool((seen[1] == 0).any())
    assert torch.equal(first, network(z, texts))


@pytest.mark.parametrize("favoured", [1, STOP, CLASSES - 1], ids=["word", "stop", "start"])
@pytest.mark.parametrize("width", [1, 3])
def test_every_sentence_ends_and_never_contains_the_start_token(favoured: int, width: int) -> None:
    network = decoder()
    with torch.no_grad():
        network.output.bias[favoured] = 1e6
    z = torch.randn(40, LATENTS).double()
    for texts in (network.beam(z, width), network.greedy(z), network.sample(z, torch.Generator().manual_seed(0))):
        assert texts.shape == (40, LENGTH)
        for text in texts.tolist():
            assert text[-1] == STOP and set(text[text.index(STOP) :]) == {STOP} and CLASSES - 1 not in text


@pytest.mark.parametrize("width", [1, 4])
def test_decoding_never_writes_unknown_but_sampling_may(width: int) -> None:
    network, z = decoder(), torch.randn(40, LATENTS).double()
    with torch.no_grad():
        network.output.bias[0] = 10.0
    assert bool((network.greedy(z) == 0).any()), "a decoder without a silent token writes <unk>"
    network.silent = 0
    assert not bool((network.greedy(z) == 0).any()) and not bool((network.beam(z, width) == 0).any())
    assert bool((network.sample(z, torch.Generator().manual_seed(0)) == 0).any())
    made = decoder_of(LANGUAGE, "none", 1, LATENTS, 1)
    assert isinstance(made, TextDecoder) and made.silent == 0


def test_a_beam_of_width_one_is_greedy_decoding() -> None:
    for seed in range(5):
        network, z = decoder(seed=seed), torch.randn(50, LATENTS).double()
        assert torch.equal(network.beam(z, 1), network.greedy(z))


def test_a_beam_of_full_width_finds_the_most_likely_sentence() -> None:
    network = decoder(classes=5, length=4, seed=1)
    texts = torch.tensor([[*t, *[3] * (4 - len(t))] for size in range(4) for t in product(range(3), repeat=size)])
    z = torch.randn(30, LATENTS).double()
    for row, found in zip(z, network.beam(z, 64), strict=True):
        assert torch.equal(found, texts[log_prob(network, row.expand(len(texts), -1), texts).argmax()])


def test_a_wider_beam_finds_more_likely_sentences_on_average() -> None:
    network, z = decoder(seed=2), torch.randn(200, LATENTS).double()
    likely = [float(log_prob(network, z, network.beam(z, width)).detach().mean()) for width in (1, 4, 12)]
    assert likely[0] < likely[1] <= likely[2]
