"""Tables 6 to 8: sentences in two languages, generated together and translated into each other.

Type    python pipelines/translation.py                                  # a small grammar, about 3 minutes on 2 cores
        python pipelines/translation.py --corpus DIR --preset paper      # your corpus, hours of a core per epoch

A corpus is a folder with train.en, train.vi, valid.en, valid.vi, test.en and test.vi, or any two other suffixes. Each
line is one sentence. Spaces separate the words.

Paper   supplement, section 11: IWSLT 2015 English-Vietnamese, about 133,000 pairs of at most 70 tokens; GRU networks,
        100 latents, word dropout, annealed KL. Table 6 has pairs sampled from the prior, and reconstructed pairs.
        Tables 7 (English to Vietnamese) and 8 (Vietnamese to English) compare examples with Google Translate's output.
        The paper prints no scores.
Expect  the same kinds of examples, next to the corpus' own translation, in translations.md of the report. In addition:
        - BLEU and chrF per direction, for the model and two baselines: the copied source and the most frequent
          sentence
        - log-likelihoods of the model and of a unigram model
        - the fraction of active latents
Runs    --preset demo: toy_translation, MVAE with two sets of targets
        --preset paper --corpus DIR: MVAE x 3 seeds, 20 epochs
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import model_validator

from mvae.data import Modality, modalities_of, source
from mvae.data.dataset import directions
from mvae.data.registry import names_of
from mvae.evaluation.measurable import check_measurable
from mvae.measure import BOTH, KNOWN, TRANSLATION, sentence_likelihood
from mvae.models import arm
from mvae.settings import Pairing
from sweeps.cli.options import CommonOptions, TargetSets
from sweeps.cli.shared import (
    PairedFraction,
    Preset,
    SampleCount,
    arms_for,
    check_pairs,
    folder_as_data_set,
)
from sweeps.cli.values import Count, Folder, Token, Written
from sweeps.start import start
from sweeps.store.store import Store
from sweeps.sweep import Sweep
from sweeps.table.files import Report
from sweeps.table.quantities import ShownQuantity, TrialAt, quantity_cells
from sweeps.trials.messages import TRANSLATIONS


class Options(CommonOptions):
    """Translation"""

    offers: ClassVar = {"dataset": names_of("sentences"), "arms": arms_for(TRANSLATION)}

    dataset: Token = "toy_translation"
    """Data set: {names}. translation is your own corpus; toy_translation needs no files."""
    corpus: Folder | None = None
    """Folder of your corpus; sets --dataset translation (default: the folder en-vi in the data root)."""
    vocabulary: Count | None = None
    """Number of words per language that the model knows (default: all words seen 5 times, at most 9,997)."""
    paired_fraction: PairedFraction = None
    pairing: Annotated[Pairing | None, Written("NAME")] = None
    """Sampling of the kept pairs: reserved, resampled, or proportional (every pair in every term) (default:
    proportional)."""
    targets: TargetSets | None = None
    """Languages that an ELBO term reconstructs, one row per value: own (only its inputs) or all (default: both)."""
    samples: SampleCount = None

    @model_validator(mode="before")
    @classmethod
    def _a_corpus_is_the_data_set(cls, typed: Any) -> Any:
        conflict = "--corpus needs --dataset translation, not {}: leave one of the two options out"
        return folder_as_data_set(typed, "corpus", "translation", conflict)


PRESETS = {"demo": Preset(samples=20), "paper": Preset(seeds=(0, 1, 2))}
"""The supplement states neither epochs nor samples for section 11. `paper` uses the 1,000 samples of Tables 1
and 2."""


def trained(options: Options) -> Iterator[TrialAt]:
    """Yields every trial: one per arm, targets and seed.

    Raises:
        Refusal: unknown arm or data set, or an arm that cannot translate.
    """
    chosen = PRESETS[options.preset].under(options)
    for token in chosen.arms:
        check_measurable(TRANSLATION, token, source(options.dataset))
        sets = options.targets or ("own", "all")
        sets = sets if "targets" in arm(token).reads else sets[:1]
        for targets in sets:
            title = f"{arm(token).title} {targets}" if len(sets) > 1 else arm(token).title
            for trial in chosen.trials(options, token, targets=targets):
                yield TrialAt(title, "", trial)


SCORES = {"greedy": "", "beam": "_beam", "source copied": "_copy", "most frequent": "_frequent"}
"""Maps the heading of each kind of translation to the suffix of its metrics."""

ESTIMATES = ("log_marginal-x1", "log_x2", "log_joint")
"""The log-likelihood of each language uses samples from that language's posterior. The log-likelihood of both languages
uses samples from the joint posterior."""


def known(estimate: str) -> str:
    """Returns the name of the estimate that leaves out <unk>: log_marginal-x1 becomes log_marginal_known-x1."""
    kind, dash, proposal = estimate.partition("-")
    return f"{kind}{KNOWN}{dash}{proposal}"


def _scores(modalities: tuple[Modality, ...]) -> Iterator[ShownQuantity]:
    for score, title in (("bleu", "BLEU"), ("chrf", "chrF")):
        for heading, suffix in SCORES.items():
            for direction in directions(modalities):
                yield ShownQuantity(f"{title} {heading}", f"{score}{suffix}/{direction}", TRANSLATION, direction)


def likelihoods(modalities: tuple[Modality, ...], samples: int) -> Iterator[ShownQuantity]:
    """Yields the table's log-likelihoods and measures of latent use, for each language and for both together."""
    one, other = (modality.name for modality in modalities)
    measure = sentence_likelihood(samples)
    for name, metric in zip((one, other, BOTH), ESTIMATES, strict=True):
        yield from (
            ShownQuantity("log p per token", f"test/{metric}_per_token", measure, name),
            ShownQuantity("log p per sentence", f"test/{metric}", measure, name),
            ShownQuantity("log p per known token", f"test/{known(metric)}_per_token", measure, name),
        )
    for name in (one, other):
        yield from (
            ShownQuantity("unigram log p per known token", f"unigram_known_per_token/{name}", measure, name),
            ShownQuantity("share of <unk>", f"unknown_share_test/{name}", measure, name),
            ShownQuantity("unigram log p per token", f"unigram_per_token/{name}", TRANSLATION, name),
            ShownQuantity("unigram log p per sentence", f"unigram/{name}", TRANSLATION, name),
        )
    for name in (one, other, BOTH):
        yield ShownQuantity("active units", f"active_units/{name}", TRANSLATION, name)
        yield ShownQuantity("KL per token", f"kl_per_token/{name}", TRANSLATION, name)


def _titles_by_key(report: Report, variants: dict[str, str]) -> dict[str, str]:
    return {run.key: f"{variants[run.row]} seed {run.seed}" for run in report.runs}


def statements(models: dict[str, str], store: Store, modalities: tuple[Modality, ...], samples: int) -> Iterator[str]:
    """Yields lines about each model.

    The lines compare the log-likelihood per token with the unigram model's, with and without <unk>. The lines also
    report the active latents and the share of padding.
    """
    one, other = (modality.name for modality in modalities)
    for key, model in models.items():
        translated, likely = (
            store.results.read(key, measure.token) for measure in (TRANSLATION, sentence_likelihood(samples))
        )
        if translated is None:
            continue
        if likely is not None:
            estimates = dict(zip((one, other), ESTIMATES, strict=False))
            parts = [
                f"{name} {likely.metrics[f'test/{metric}_per_token']:.3f}"
                f" (unigram {translated.metrics[f'unigram_per_token/{name}']:.3f})"
                for name, metric in estimates.items()
            ]
            yield f"{model}: log p per token in nats, {samples:,} samples: {', '.join(parts)}."
            parts = [
                f"{name} {likely.metrics[f'test/{known(metric)}_per_token']:.3f}"
                f" (unigram {likely.metrics[f'unigram_known_per_token/{name}']:.3f},"
                f" {likely.metrics[f'unknown_share_test/{name}']:.1%} of the words are <unk>)"
                for name, metric in estimates.items()
            ]
            yield f"{model}: log p per token other than <unk>: {', '.join(parts)}."
        uses = [
            f"{name} {translated.metrics[f'active_units/{name}']:.0%}, {translated.metrics[f'kl_per_token/{name}']:.2f}"
            for name in (one, other, BOTH)
        ]
        yield f"{model}: active latent units, and KL per token in nats, by given language: {'; '.join(uses)}."
        padding = translated.history[-1]["metrics"].get("train/padding_share") if translated.history else None
        if padding is not None:
            yield f"{model}: {padding:.1%} of the tokens of the last epoch were padding."


def _example_tables(models: dict[str, str], store: Store) -> bytes:
    parts = []
    for key, model in models.items():
        path = store.artifacts(key) / TRANSLATIONS
        if path.is_file():
            parts.append(f"## {model} ({key})\n\n{path.read_bytes().decode()}")
    return "\n".join(parts).encode()


def sweep(options: Options) -> Sweep:
    """Returns the table that the options ask for.

    Raises:
        Refusal: `trained` refuses, or the corpus is missing or damaged.
    """
    check_measurable(TRANSLATION, "mvae", source(options.dataset))
    modalities = modalities_of(options.dataset, options.data_root)
    check_pairs(options, options.paired_fraction)
    samples = PRESETS[options.preset].under(options).samples
    store = Store.open(options.storage, options.name, create=False)
    grid = quantity_cells((*_scores(modalities), *likelihoods(modalities, samples)), tuple(trained(options)))
    variants = {cell.row: cell.variant for cell in grid}
    return Sweep(
        f"translation-{options.dataset}",
        f"Translation on {options.dataset}",
        grid,
        axis="direction",
        heading=f"Tables 6 to 8 on {options.dataset}: BLEU and chrF of the test part, in percent;"
        f" log-likelihoods in nats, {samples:,} samples",
        source="supplement, section 11, Tables 6 to 8",
        statements=lambda report: statements(_titles_by_key(report, variants), store, modalities, samples),
        pictures=lambda report, _: {TRANSLATIONS: lambda: _example_tables(_titles_by_key(report, variants), store)},
    )


if __name__ == "__main__":
    start(Options, sweep)
