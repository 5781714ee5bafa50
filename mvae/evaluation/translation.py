"""Sentences of one language written given another's: BLEU and chrF beside plain baselines, and what z is used for.

A translation is what the decoder of one language writes at z = the mean of q(z | the other language's sentence),
greedily or by beam search, both of which never write <unk> (supplement, section 11, Tables 7 and 8, which show examples
and no scores). References and sources are the words of the corpus, those included that the model does not know. BLEU
and chrF are sacrebleu's, in percent, on the corpus' own tokens.

Beside them: always answering with the training part's most frequent sentence; answering with the source itself; the
log-likelihood of a model that draws each token for itself (unigram); and how much of z is used, since a decoder that
reads the words before may learn to do without it: the share of latent dimensions whose posterior mean varies, and the
KL to the prior.

Shapes: n sentences, N of a split, L tokens a row, D latents.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import permutations

import torch
from torch import Tensor

from mvae.data.dataset import SPLITS, Modality
from mvae.data.examples import Dataset, Split
from mvae.data.sentences.sentences import Sentences, sentence_of
from mvae.data.sentences.text import UNKNOWN, stop_token
from mvae.evaluation.accuracy import evaluated
from mvae.evaluation.tokens import KNOWN, sentences_in
from mvae.evaluation.words import WordTable
from mvae.models.gaussian import Gaussian
from mvae.models.multimodal import Multimodal
from mvae.networks.text import TextDecoder
from mvae.streams import torch_generator

ROWS = 250
"""Sentences a pass."""

BOTH = "both"
"""What stands for all languages together in the names of metrics."""

SHOWN = 12
"""Sentences of each table of examples."""


def directions(modalities: tuple[Modality, ...]) -> dict[str, tuple[int, int]]:
    """Every language with every other: positions of source and target by the direction's name, en-vi."""
    pairs = permutations(range(len(modalities)), 2)
    return {f"{modalities[source].name}-{modalities[target].name}": (source, target) for source, target in pairs}


def bleu_and_chrf(answers: list[str], references: list[str]) -> tuple[float, float]:
    """Of a corpus of answers, one reference each, in percent; words are what stands between blanks."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    bleu = BLEU(tokenize="none", force=True).corpus_score(answers, [references])
    return float(bleu.score), float(CHRF().corpus_score(answers, [references]).score)


@torch.no_grad()
def written_at(model: Multimodal, m: int, z: Tensor, beam: int | None = None) -> list[str]:
    """The sentences that modality m's decoder writes at z [n, D]: greedily, or by a beam of that width."""
    modality, decoder = model.modalities[m], model.decoders[m]
    assert isinstance(decoder, TextDecoder)
    tokens = decoder.greedy(z) if beam is None else decoder.beam(z, beam)
    return [sentence_of(row, modality.words, stop_token(modality.classes)) for row in tokens.tolist()]


@torch.no_grad()
def translations(model: Multimodal, split: Split, source: int, target: int, beam: int | None = None) -> list[str]:
    """A split's sentences of one language, in the other."""
    with evaluated(model):
        posteriors = _posteriors(model, split, (source,))
        return [said for q in posteriors for said in written_at(model, target, q.mean, beam)]


def as_written(modality: Modality, sentences: Sentences) -> list[str]:
    """The sentences of the corpus, words that no model knows included."""
    return [sentence_of(sentences.words(position), modality.words) for position in range(len(sentences))]


def most_frequent(modality: Modality, sentences: Sentences) -> str:
    """The sentence that occurs most often, of equals the first."""
    return Counter(as_written(modality, sentences)).most_common(1)[0][0]


def unigram_log_likelihood(training: Sentences, test: Sentences, *, known: bool = False) -> tuple[float, int]:
    """Of all test sentences in nats, by log((count + 1) / (T + C - 1)) of each token, T training tokens, stops counted;
    and how many tokens these are. It has the vocabulary of the models, <unk> and stop among its tokens.

    Args:
        known: count the test tokens without <unk>.
    """
    counts = _token_counts(training).double()
    log_p = torch.log((counts + 1) / (counts.sum() + len(counts)))
    of_test = _token_counts(test)
    if known:
        of_test[UNKNOWN] = 0
    return float((of_test * log_p).sum()), int(of_test.sum())


@torch.no_grad()
def latent_use(model: Multimodal, split: Split, given: tuple[int, ...]) -> tuple[float, float]:
    """Share of the latent dimensions that are active, and the mean KL(q(z | given) || p(z)) of an example in nats.

    A dimension is active if the variance of its posterior mean over the split is above 0.01 (Burda et al.).
    """
    with evaluated(model):
        means, kls = zip(
            *((q.mean.double(), q.kl_to_prior().double()) for q in _posteriors(model, split, given)), strict=True
        )
    varying = torch.cat(means).var(0, correction=0) > 0.01
    return float(varying.double().mean()), float(torch.cat([kl.reshape(-1) for kl in kls]).mean())


def translation_metrics(model: Multimodal, data: Dataset, beam: int) -> dict[str, float]:
    """What is measured on the test split.

    Returns:
        For each direction (en-vi) bleu and chrf of greedy translations, the same of beam search (bleu_beam), of the
        most frequent sentence (bleu_frequent) and of the source (bleu_copy). For each language its tokens a sentence,
        stop counted, and unigram, unigram_per_token: log-likelihoods in nats. For each language and for both:
        active_units, a share, kl and kl_per_token in nats. test/bleu is the mean over directions.
    """
    found: dict[str, float] = {}
    texts = [as_written(modality, sentences_in(data.test, m)) for m, modality in enumerate(data.modalities)]

    def scored(kind: str, direction: str, answers: list[str], references: list[str]) -> None:
        found[f"bleu{kind}/{direction}"], found[f"chrf{kind}/{direction}"] = bleu_and_chrf(answers, references)

    pairs = directions(data.modalities)
    for direction, (source, target) in pairs.items():
        references = texts[target]
        frequent = most_frequent(data.modalities[target], sentences_in(data.train, target))
        scored("", direction, translations(model, data.test, source, target), references)
        scored("_beam", direction, translations(model, data.test, source, target, beam), references)
        scored("_frequent", direction, [frequent] * len(references), references)
        scored("_copy", direction, texts[source], references)
    tokens = [0.0] * len(texts)
    for m, modality in enumerate(data.modalities):
        total, count = unigram_log_likelihood(sentences_in(data.train, m), sentences_in(data.test, m))
        tokens[m] = count / len(data.test)
        found[f"tokens/{modality.name}"] = tokens[m]
        found[f"unigram/{modality.name}"] = total / len(data.test)
        found[f"unigram_per_token/{modality.name}"] = total / count
    everything = tuple(range(len(texts)))
    for given, name in (*(((m,), data.modalities[m].name) for m in everything), (everything, BOTH)):
        active, kl = latent_use(model, data.test, given)
        found |= {f"active_units/{name}": active, f"kl/{name}": kl}
        found[f"kl_per_token/{name}"] = kl / sum(tokens[m] for m in given)
    return {"test/bleu": sum(found[f"bleu/{direction}"] for direction in pairs) / len(pairs), **found}


def unknown_metrics(data: Dataset) -> dict[str, float]:
    """unknown_share_test/en: share of <unk> among the words, by part and language; unigram_known_per_token/en: the
    unigram model's log-likelihood per test token other than <unk>, in nats."""
    found = {}
    for m, modality in enumerate(data.modalities):
        for split in SPLITS:
            said = sentences_in(getattr(data, split), m)
            found[f"unknown_share_{split}/{modality.name}"] = float(said.unknown.sum()) / int((said.lengths - 1).sum())
        total, count = unigram_log_likelihood(sentences_in(data.train, m), sentences_in(data.test, m), known=True)
        found[f"unigram{KNOWN}_per_token/{modality.name}"] = total / count
    return found


@torch.no_grad()
def validation_translation_metrics(model: Multimodal, data: Dataset) -> dict[str, float]:
    """validation/log_likelihood_en-vi: mean over tokens of log p(target's token | z, those before), at z = the mean of
    q(z | source), for each direction, in nats. The module's mode stays."""
    found, split = {}, data.validation
    assert split.lengths is not None
    with evaluated(model):
        for name, (source, target) in directions(data.modalities).items():
            total = 0.0
            for rows in split.passes(ROWS):
                z = model.infer_at({source: split.take(source, rows)}).mean
                total += float(model.log_prob(target, z, split.take(target, rows)).double().sum())
            found[f"validation/log_likelihood_{name}"] = total / int(split.lengths[:, target].sum())
    return found


@torch.no_grad()
def translation_tables(model: Multimodal, split: Split, seed: int) -> tuple[WordTable, ...]:
    """Tables 6 to 8: joint samples of the prior, pairs and their reconstructions, and each language given
    the other beside the corpus' own translation, in place of the paper's rows by Google Translate. All are greedy."""
    names = [modality.name for modality in model.modalities]
    device = split.values[0].device
    rows = torch.arange(min(SHOWN, len(split)), device=device)
    truth = [as_written(modality, sentences_in(split, m))[: len(rows)] for m, modality in enumerate(model.modalities)]
    every = range(len(names))
    with evaluated(model):
        noise = torch_generator(seed, "prior samples", 0, device)
        prior = torch.randn(len(rows), model.latents, generator=noise, device=device)
        of_prior = [written_at(model, m, prior) for m in every]
        together = model.infer_at({m: split.take(m, rows) for m in every}).mean
        rebuilt = [written_at(model, m, together) for m in every]
        heads = [*names, *(f"{name}, reconstructed" for name in names)]
        tables = [
            _table("Table 6: joint samples of the prior", names, of_prior),
            _table("Table 6: pairs of the test split, and their reconstruction given both", heads, [*truth, *rebuilt]),
        ]
        for number, (source, target) in enumerate(directions(model.modalities).values(), start=7):
            z = model.infer_at({source: split.take(source, rows)}).mean
            heads = [names[source], f"{names[target]}, ours", f"{names[target]}, the corpus'"]
            columns = [truth[source], written_at(model, target, z), truth[target]]
            tables.append(_table(f"Table {number}: {names[target]} given {names[source]}", heads, columns))
    return tuple(tables)


def _table(heading: str, heads: list[str], columns: list[list[str]]) -> WordTable:
    return WordTable(heading, tuple(heads), tuple(zip(*columns, strict=True)))


def _token_counts(sentences: Sentences) -> Tensor:
    """How often each token that can be emitted occurs, stops counted: int64 [C - 1], on the CPU."""
    stop = stop_token(sentences.classes)
    first, last = sentences.offsets[[0, -1]].tolist()
    words = sentences.tokens[first:last].to(torch.int64)
    counts = torch.bincount(torch.where(words < stop, words, 0), minlength=stop + 1).cpu()
    counts[stop] += len(sentences)
    return counts


def _posteriors(model: Multimodal, split: Split, given: tuple[int, ...]) -> Iterator[Gaussian]:
    """q(z | the given languages) of a split, ROWS at a time."""
    for rows in split.passes(ROWS):
        yield model.infer_at({m: split.take(m, rows) for m in given})
