"""Measures of sentences: BLEU and chrF equal to sacrebleu's, the unigram model, and the use of z."""

from __future__ import annotations

from collections import Counter
from math import log
from pathlib import Path

import pytest
import torch
from torch import nn

from mvae.data import load
from mvae.data.examples import Dataset
from mvae.data.sentences.sentences import Sentences
from mvae.evaluation.likelihood_estimates import likelihood_metrics, split_likelihoods
from mvae.evaluation.measurable import check_measurable
from mvae.evaluation.measures import compute
from mvae.evaluation.tokens import sentences_in
from mvae.evaluation.translation import (
    as_written,
    bleu_and_chrf,
    latent_use,
    most_frequent,
    translation_metrics,
    translation_tables,
    translations,
    unigram_log_likelihood,
    unknown_metrics,
    validation_translation_metrics,
)
from mvae.measure import ACCURACY, TRANSLATION
from mvae.models import ARMS, arm
from mvae.models.arm import Feature
from mvae.models.gaussian import Gaussian
from mvae.models.multimodal import Multimodal
from mvae.refusal import Refusal
from mvae.trial import Trial
from sweeps.table.markdown import word_tables
from tests.corpora import PAIRS, stored, write_corpus

LATENTS = 3


@pytest.fixture
def data(tmp_path: Path, cache: Path) -> Dataset:
    """A few sentences; the test part has words that no training sentence has."""
    test = [("the unseen cat sees", "mio nova vid"), *PAIRS, ("the cat", "mio")]
    return load("translation", write_corpus(tmp_path / "corpus", test=test), cache)


def model(data: Dataset, token: str = "mvae") -> Multimodal:
    """An untrained model with weights large enough that sentences differ."""
    trial = Trial.create(dataset="translation", model=token, latents=LATENTS)
    torch.manual_seed(0)
    made = arm(token).build(trial, data.modalities)
    assert isinstance(made, Multimodal)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            nn.init.normal_(parameter, std=0.3 if "decoders" in name else 0.05)
    return made.eval()


KNOWN = ["the cat sat on the mat", "there is a dog in the garden", "hello"]
ANSWERS = ["the cat is on the mat", "there is a dog here", "good bye"]


def test_bleu_and_chrf_equal_sacrebleus_corpus_scores() -> None:
    import sacrebleu

    bleu, chrf = bleu_and_chrf(ANSWERS, KNOWN)
    assert bleu == sacrebleu.corpus_bleu(ANSWERS, [KNOWN], tokenize="none", force=True).score
    assert chrf == sacrebleu.corpus_chrf(ANSWERS, [KNOWN]).score
    assert bleu_and_chrf(KNOWN, KNOWN) == pytest.approx((100, 100))
    assert 0 < bleu < 100


def test_bleu_is_the_geometric_mean_of_precisions_times_the_brevity_penalty() -> None:
    answer, reference = "a b c d e f", "a b c d x y z"
    logs = [log(matched / there) for matched, there in ((4, 6), (3, 5), (2, 4), (1, 3))]
    expected = 100 * torch.tensor(1 - 7 / 6).exp() * torch.tensor(sum(logs) / 4).exp()
    assert bleu_and_chrf([answer], [reference])[0] == pytest.approx(float(expected), rel=1e-5)


def test_an_empty_translation_is_scored_too() -> None:
    assert bleu_and_chrf(["", ""], ["the cat", "a dog"]) == (0.0, 0.0)


def test_the_unigram_model_equals_its_closed_form() -> None:
    def made(words: list[list[int]]) -> Sentences:
        return stored(words, 5)

    training, test = made([[1, 1, 2], [], [1, 7]]), made([[2, 9], [0]])  # 0 <unk>, 1 and 2 known, 3 stop
    counts, total = {0: 1, 1: 3, 2: 1, 3: 3}, 8
    expected = sum(log((counts[token] + 1) / (total + 4)) for token in (2, 0, 3, 0, 3))
    found, tokens = unigram_log_likelihood(training, test)
    assert (found, tokens) == pytest.approx((expected, 5), abs=1e-12)
    assert unigram_log_likelihood(training, training[:2])[1] == 5, "a slice of sentences must count its own tokens"


def test_unigram_probabilities_add_up_to_1(data: Dataset) -> None:
    train = sentences_in(data.train, 0)
    classes = train.classes
    each = []
    for word in range(classes - 2):
        one = Sentences(torch.tensor([word], dtype=torch.int32), torch.tensor([0, 1]), classes)
        nothing = Sentences(torch.tensor([], dtype=torch.int32), torch.tensor([0, 0]), classes)
        stop = unigram_log_likelihood(train, nothing)[0]
        each.append(unigram_log_likelihood(train, one)[0] - stop)
    assert float(torch.tensor([*each, stop]).exp().sum()) == pytest.approx(1, abs=1e-6)


def test_of_equally_frequent_sentences_the_first_is_the_most_frequent_one(tmp_path: Path, cache: Path) -> None:
    train = [("a", "x"), ("b b", "y"), ("c", "y"), ("b b", "z"), ("a", "z")] * 5
    made = load("translation", write_corpus(tmp_path / "corpus", train), cache)
    found = [most_frequent(made.modalities[m], sentences_in(made.train, m)) for m in (0, 1)]
    assert found == ["a", "y"]


def test_a_translation_is_decoded_at_the_mean_of_the_posterior(data: Dataset) -> None:
    made = model(data)
    for source, target in ((0, 1), (1, 0)):
        said = translations(made, data.test, source, target)
        decoder = made.decoders[target]
        for i, sentence in enumerate(said):
            z = made.infer_at({source: data.test.take(source, torch.tensor([i]))}).mean
            stop = data.modalities[target].classes - 2
            tokens = decoder.greedy(z)[0].tolist()  # type: ignore[operator]
            assert sentence == " ".join(data.modalities[target].words[t] for t in tokens[: tokens.index(stop)])
    assert translations(made, data.test, 0, 1, beam=1) == translations(made, data.test, 0, 1)


def test_baselines_are_scored_against_all_words_of_the_corpus_even_unknown_ones(data: Dataset) -> None:
    found = translation_metrics(model(data), data, beam=2)
    sources, references = (as_written(data.modalities[m], sentences_in(data.test, m)) for m in (0, 1))
    assert references[0] == "mio nova vid"
    assert (found["bleu_copy/xx-yy"], found["chrf_copy/xx-yy"]) == bleu_and_chrf(sources, references)
    assert found["bleu_frequent/yy-xx"] == bleu_and_chrf([PAIRS[0][0]] * len(sources), sources)[0]
    said = translations(model(data), data.test, 0, 1)
    assert (found["bleu/xx-yy"], found["chrf/xx-yy"]) == bleu_and_chrf(said, references)
    assert found["test/bleu"] == (found["bleu/xx-yy"] + found["bleu/yy-xx"]) / 2
    words = sum(len(sentence.split()) + 1 for sentence in references)
    assert found["tokens/yy"] == words / len(references)
    assert found["unigram/yy"] == pytest.approx(found["unigram_per_token/yy"] * words / len(references))
    assert found["kl_per_token/both"] == pytest.approx(found["kl/both"] / (found["tokens/xx"] + found["tokens/yy"]))


def test_active_units_and_kl_are_zero_for_a_collapsed_posterior_and_right_for_others(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model(data)
    with torch.no_grad():
        for parameter in made.encoders[0].parameters():
            parameter.zero_()
        made.encoders[0].output.bias[LATENTS:] = 15.0  # type: ignore[union-attr, operator]
    active, kl = latent_use(made, data.test, (0,))
    assert (active, kl) == pytest.approx((0, 0), abs=1e-5)

    means = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.05]]).repeat(3, 1)
    q = Gaussian(means, torch.full_like(means, -2.0))
    monkeypatch.setattr(made, "infer_at", lambda _values: q)
    active, kl = latent_use(made, data.test, (1,))
    expected = 0.5 * (means.square() + torch.tensor(-2.0).exp() - 1 + 2).sum(1).mean()
    assert (active, kl) == pytest.approx((1 / 3, float(expected)), rel=1e-5)


def test_log_likelihoods_per_token_are_means_over_tokens_including_stops(data: Dataset) -> None:
    found = likelihood_metrics(model(data), data, samples=4, seed=0)
    lengths = data.test.lengths
    assert lengths is not None
    for name, tokens in (("log_marginal", lengths[:, 0]), ("log_x2", lengths[:, 1]), ("log_joint", lengths.sum(1))):
        expected = found[f"test/{name}"] * len(tokens) / tokens.sum()
        assert found[f"test/{name}_per_token"] == pytest.approx(expected)


def test_a_likelihood_without_unk_sums_the_other_tokens_given_all_previous_ones(data: Dataset) -> None:
    made = without_z(model(data))
    found = split_likelihoods(made, data.test, samples=4, seed=0, known=True)
    for m, name in enumerate(("log_marginal", "log_x2")):
        classes, decoder = data.modalities[m].classes, made.decoders[m]
        for i, row in enumerate(data.test.take(m, torch.arange(len(data.test)))):
            tokens = row[: row.tolist().index(classes - 2) + 1]
            log_p = decoder(torch.zeros(1, LATENTS), tokens[None])[0].log_softmax(-1)
            each = log_p[torch.arange(len(tokens)), tokens].detach().double()
            assert float(found[name][i]) == pytest.approx(float(each.sum()), rel=1e-4)
            assert float(found[f"{name}_known"][i]) == pytest.approx(float(each[tokens != 0].sum()), rel=1e-4)
    whole, parts = found["log_joint_known"], found["log_marginal_known"] + found["log_x2_known"]
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-3)


def without_z(made: Multimodal) -> Multimodal:
    """A model whose posteriors are the prior and whose decoders ignore z, so that its likelihoods are exact."""
    with torch.no_grad():
        for encoder, decoder in zip(made.encoders, made.decoders, strict=True):
            for parameter in encoder.parameters():
                parameter.zero_()
            encoder.output.bias[LATENTS:] = 15.0  # type: ignore[union-attr, operator]
            decoder.state.weight.zero_()  # type: ignore[union-attr, operator]
            decoder.output.weight[:, -LATENTS:] = 0.0  # type: ignore[union-attr, operator]
    return made


def test_numbers_without_unk_are_per_known_token_and_change_no_other_number(data: Dataset) -> None:
    made = model(data)
    plain = likelihood_metrics(made, data, samples=4, seed=0)
    found = likelihood_metrics(made, data, samples=4, seed=0, known=True)
    assert {name: found[name] for name in plain} == pytest.approx(plain, rel=1e-6)
    sentences = [sentences_in(data.test, m) for m in (0, 1)]
    words = [
        [sum(word in known(data, m) for word in text.split()) for text in as_written(data.modalities[m], one)]
        for m, one in enumerate(sentences)
    ]
    counts = {"marginal": sum(words[0]), "x2": sum(words[1]), "joint": sum(map(sum, words))}
    stops = {"marginal": len(data.test), "x2": len(data.test), "joint": 2 * len(data.test)}
    for kind, count in counts.items():
        total = found[f"test/log_{kind}_known"] * len(data.test)
        assert found[f"test/log_{kind}_known_per_token"] == pytest.approx(total / (count + stops[kind]))


def known(data: Dataset, m: int) -> set[str]:
    return set(data.modalities[m].words[1 : data.modalities[m].classes - 2])


def test_the_share_of_unk_is_per_part_and_language_and_the_unigram_model_excludes_it(data: Dataset) -> None:
    found = unknown_metrics(data)
    for m, name in enumerate(("xx", "yy")):
        for part in ("train", "validation", "test"):
            texts = " ".join(as_written(data.modalities[m], sentences_in(getattr(data, part), m))).split()
            share = sum(word not in known(data, m) for word in texts) / len(texts)
            assert found[f"unknown_share_{part}/{name}"] == pytest.approx(share)
        train, test = (data_of.take(m, torch.arange(len(data_of))) for data_of in (data.train, data.test))
        stop = data.modalities[m].classes - 2
        counts = Counter(token for row in train.tolist() for token in row[: row.index(stop) + 1])
        shown = [token for row in test.tolist() for token in row[: row.index(stop) + 1] if token]
        each = [log((counts[token] + 1) / (counts.total() + stop + 1)) for token in shown]
        assert found[f"unigram_known_per_token/{name}"] == pytest.approx(sum(each) / len(each))
    assert found["unknown_share_test/xx"] > found["unknown_share_train/xx"]


def test_likelihoods_of_sentences_do_not_depend_on_the_other_sentences(data: Dataset) -> None:
    made, whole = model(data), list(range(len(data.test)))
    together = split_likelihoods(made, data.test, samples=8, seed=0)
    for order in (whole[::-1], whole[:1], whole[2:4]):
        apart = split_likelihoods(made, data.test, samples=8, seed=0, examples=order, rows=3)
        for name in ("log_marginal", "log_joint", "log_x2"):
            torch.testing.assert_close(apart[name], together[name][order], rtol=1e-6, atol=1e-5)


def test_validation_scores_the_target_words_given_the_source(data: Dataset) -> None:
    made = model(data)
    found = validation_translation_metrics(made, data)
    assert set(found) == {"validation/log_likelihood_xx-yy", "validation/log_likelihood_yy-xx"}
    index = torch.arange(len(data.validation))
    z = made.infer_at({0: data.validation.take(0, index)}).mean
    total = made.log_prob(1, z, data.validation.take(1, index)).sum()
    words = sum(len(pair[1].split()) + 1 for pair in PAIRS)
    assert found["validation/log_likelihood_xx-yy"] == pytest.approx(float(total.detach()) / words, rel=1e-5)


def test_the_tables_show_samples_reconstructions_and_both_directions_next_to_the_corpus(data: Dataset) -> None:
    made = model(data)
    tables = translation_tables(made, data.test, seed=0)
    assert tables == translation_tables(made, data.test, seed=0) != translation_tables(made, data.test, seed=1)
    shown = word_tables(tables)
    heads = [line for line in shown.splitlines() if line.startswith("###")]
    assert [head.split(":")[0] for head in heads] == ["### Table 6", "### Table 6", "### Table 7", "### Table 8"]
    assert "| xx | yy, ours | yy, the corpus' |" in shown and "| yy | xx, ours | xx, the corpus' |" in shown
    assert Counter(line.count(" | ") for line in shown.splitlines() if line.startswith("| the unseen cat"))[2] == 1


@pytest.mark.parametrize("token", [token for token, known in ARMS.items() if Feature.IMAGELESS in known.handles])
def test_translation_is_measured_for_every_arm_without_images_and_refused_for_others(token: str, data: Dataset) -> None:
    trial = Trial.create(dataset="translation", model=token, latents=LATENTS)
    assert compute(TRANSLATION, model(data, token), trial, data)["test/bleu"] >= 0


def test_a_refusal_names_what_the_data_set_or_arm_lacks(data: Dataset) -> None:
    with pytest.raises(Refusal, match="digits has no sentences in two languages to translate: choose among transl"):
        check_measurable(TRANSLATION, "mvae", load("digits"))
    with pytest.raises(Refusal, match="translation has no label or text to predict from an image: choose among dig"):
        check_measurable(ACCURACY, "mvae", data)
    with pytest.raises(
        Refusal, match="arm 'vae' needs images, which translation does not have: choose one of jmvae, mv"
    ):
        Trial.create(dataset="translation", model="vae")
    with pytest.raises(Refusal, match="image network 'mlp' does not fit translation: choose none"):
        Trial.create(dataset="translation", model="mvae", image_network="mlp")
