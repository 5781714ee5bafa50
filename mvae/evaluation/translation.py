"""Translates sentences, compares the translations' scores with baselines, and measures how much z is used.

A translation is decoded at z = the mean of q(z | the source sentence), greedily or by beam search. Neither method
writes <unk>. The paper's Tables 7 and 8 (supplement, section 11) show example translations without scores. Sources and
references keep all words of the corpus, including words outside the model's vocabulary. The scores are BLEU and chrF in
percent. sacrebleu computes them on the tokens of the corpus.

There are three baselines: the most frequent training sentence as every answer, the copied source, and the
log-likelihood of a unigram model. A decoder that reads the previous words may learn to ignore z. So two metrics show
how much z is used: the share of latent dimensions whose posterior mean varies, and the KL to the prior.

Shapes: n sentences, D latents.
"""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from mvae.data.dataset import SPLITS, Modality, directions
from mvae.data.examples import Dataset, Split
from mvae.data.sentences.sentences import Sentences, sentence_of
from mvae.data.sentences.text import UNKNOWN, stop_token
from mvae.evaluation.accuracy import evaluated
from mvae.evaluation.tokens import sentences_in
from mvae.evaluation.words import WordTable
from mvae.measure import BOTH, KNOWN
from mvae.models.gaussian import Gaussian
from mvae.models.multimodal import Multimodal
from mvae.networks.text import TextDecoder
from mvae.streams import torch_generator

SENTENCES_PER_PASS = 250

SHOWN = 12
"""Sentences per table of examples."""


def bleu_and_chrf(answers: list[str], references: list[str]) -> tuple[float, float]:
    """Returns BLEU and chrF of a corpus of answers with one reference each, in percent. Words are split at spaces."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    bleu = BLEU(tokenize="none", force=True).corpus_score(answers, [references])
    return float(bleu.score), float(CHRF().corpus_score(answers, [references]).score)


@torch.no_grad()
def written_at(model: Multimodal, m: int, z: Tensor, beam: int | None = None) -> list[str]:
    """Returns the sentences that modality m's decoder generates from z [n, D].

    Args:
        beam: width of the beam search. None means greedy decoding.
    """
    modality, decoder = model.modalities[m], model.decoders[m]
    assert isinstance(decoder, TextDecoder)
    tokens = decoder.greedy(z) if beam is None else decoder.beam(z, beam)
    return [sentence_of(row, modality.words, stop_token(modality.classes)) for row in tokens.tolist()]


@torch.no_grad()
def translations(model: Multimodal, split: Split, source: int, target: int, beam: int | None = None) -> list[str]:
    """Translates a split's sentences from the source modality to the target modality."""
    with evaluated(model):
        posteriors = _posteriors(model, split, (source,))
        return [sentence for q in posteriors for sentence in written_at(model, target, q.mean, beam)]


def as_written(modality: Modality, sentences: Sentences) -> list[str]:
    """Returns the sentences as written in the corpus, including words outside the model's vocabulary."""
    return [sentence_of(sentences.words(position), modality.words) for position in range(len(sentences))]


def most_frequent(modality: Modality, sentences: Sentences) -> str:
    """Returns the most frequent sentence. If several sentences are equally frequent, returns the first of them."""
    return Counter(as_written(modality, sentences)).most_common(1)[0][0]


def unigram_log_likelihood(training: Sentences, test: Sentences, *, known: bool = False) -> tuple[float, int]:
    """Returns the unigram log-likelihood of all test tokens in nats, and the number of these tokens.

    The log-likelihood of a token is log((count + 1) / (T + C - 1)). T is the number of training tokens, and C - 1 the
    number of different tokens in the model's vocabulary, including <unk> and the stop token.

    Args:
        known: whether to leave out <unk> among the test tokens.
    """
    counts = _token_counts(training).double()
    log_p = torch.log((counts + 1) / (counts.sum() + len(counts)))
    of_test = _token_counts(test)
    if known:
        of_test[UNKNOWN] = 0
    return float((of_test * log_p).sum()), int(of_test.sum())


@torch.no_grad()
def latent_use(model: Multimodal, split: Split, given: tuple[int, ...]) -> tuple[float, float]:
    """Returns the share of active latent dimensions, and the mean KL(q(z | given) || p(z)) per example in nats.

    A dimension is active if the variance of its posterior mean over the split is above 0.01 (Burda et al.).
    """
    with evaluated(model):
        means, kls = zip(
            *((q.mean.double(), q.kl_to_prior().double()) for q in _posteriors(model, split, given)), strict=True
        )
    varying = torch.cat(means).var(0, correction=0) > 0.01
    return float(varying.double().mean()), float(torch.cat([kl.reshape(-1) for kl in kls]).mean())


def translation_metrics(model: Multimodal, data: Dataset, beam: int) -> dict[str, float]:
    """Returns the translation metrics of the test split.

    Returns:
        - bleu/<direction>, chrf/<direction>: scores of greedy translations, for each direction such as en-vi.
        - bleu_beam, bleu_frequent, bleu_copy and likewise chrf: scores of beam search, of always answering with the
          most frequent sentence, and of copying the source.
        - tokens/<language>: mean number of tokens per sentence, stop token included.
        - unigram/<language>, unigram_per_token/<language>: unigram log-likelihood per sentence and per token in nats.
        - active_units (a share), kl, kl_per_token (nats): how much z is used, given each language and given both.
        - test/bleu: mean of bleu over directions.
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
        found |= {
            f"tokens/{modality.name}": tokens[m],
            f"unigram/{modality.name}": total / len(data.test),
            f"unigram_per_token/{modality.name}": total / count,
        }
    everything = tuple(range(len(texts)))
    for given, name in (*(((m,), data.modalities[m].name) for m in everything), (everything, BOTH)):
        active, kl = latent_use(model, data.test, given)
        found |= {
            f"active_units/{name}": active,
            f"kl/{name}": kl,
            f"kl_per_token/{name}": kl / sum(tokens[m] for m in given),
        }
    return {"test/bleu": sum(found[f"bleu/{direction}"] for direction in pairs) / len(pairs), **found}


def unknown_metrics(data: Dataset) -> dict[str, float]:
    """Returns metrics of words outside the vocabulary (<unk>), for each language.

    Returns:
        - unknown_share_<split>/<language>: share of <unk> among the words of each split.
        - unigram_known_per_token/<language>: the unigram model's log-likelihood per test token without <unk>, in nats.
    """
    found = {}
    for m, modality in enumerate(data.modalities):
        for split in SPLITS:
            sentences = sentences_in(getattr(data, split), m)
            found[f"unknown_share_{split}/{modality.name}"] = float(sentences.unknown.sum()) / int(
                (sentences.lengths - 1).sum()
            )
        total, count = unigram_log_likelihood(sentences_in(data.train, m), sentences_in(data.test, m), known=True)
        found[f"unigram{KNOWN}_per_token/{modality.name}"] = total / count
    return found


@torch.no_grad()
def validation_translation_metrics(model: Multimodal, data: Dataset) -> dict[str, float]:
    """Returns validation/log_likelihood_<direction>: the mean over tokens of log p(token | z, tokens before) in nats.

    The tokens are those of the target sentence, and z is the mean of q(z | source). Restores the model's former mode
    (training or evaluation).
    """
    found, split = {}, data.validation
    assert split.lengths is not None
    with evaluated(model):
        for name, (source, target) in directions(data.modalities).items():
            total = 0.0
            for rows in split.passes(SENTENCES_PER_PASS):
                z = model.infer_at({source: split.take(source, rows)}).mean
                total += float(model.log_prob(target, z, split.take(target, rows)).double().sum())
            found[f"validation/log_likelihood_{name}"] = total / int(split.lengths[:, target].sum())
    return found


@torch.no_grad()
def translation_tables(model: Multimodal, split: Split, seed: int) -> tuple[WordTable, ...]:
    """Returns the examples of Tables 6 to 8, decoded greedily.

    Table 6 shows joint samples of the prior, and pairs with their reconstructions. Tables 7 and 8 show translations in
    both directions. The paper shows Google's translations next to the model's. Our tables show the corpus's instead of
    Google's.
    """
    names = [modality.name for modality in model.modalities]
    device = split.values[0].device
    rows = torch.arange(min(SHOWN, len(split)), device=device)
    truth = [as_written(modality, sentences_in(split, m))[: len(rows)] for m, modality in enumerate(model.modalities)]
    every = range(len(names))
    with evaluated(model):
        noise = torch_generator(seed, "prior samples", 0, device)
        prior = torch.randn(len(rows), model.latents, generator=noise, device=device)
        of_prior = [written_at(model, m, prior) for m in every]
        joint_mean = model.infer_at({m: split.take(m, rows) for m in every}).mean
        reconstructed = [written_at(model, m, joint_mean) for m in every]
        heads = [*names, *(f"{name}, reconstructed" for name in names)]
        tables = [
            _table("Table 6: joint samples of the prior", names, of_prior),
            _table(
                "Table 6: pairs of the test split, and their reconstruction given both",
                heads,
                [*truth, *reconstructed],
            ),
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
    """Returns the count of each token except the start token: int64 [C - 1], on the CPU."""
    stop = stop_token(sentences.classes)
    first, last = sentences.offsets[[0, -1]].tolist()
    words = sentences.tokens[first:last].to(torch.int64)
    counts = torch.bincount(torch.where(words < stop, words, 0), minlength=stop + 1).cpu()
    counts[stop] += len(sentences)
    return counts


def _posteriors(model: Multimodal, split: Split, given: tuple[int, ...]) -> Iterator[Gaussian]:
    for rows in split.passes(SENTENCES_PER_PASS):
        yield model.infer_at({m: split.take(m, rows) for m in given})
