"""Figure 5: accuracy and likelihood of the MVAE19 when values are missing from most training examples.

Type    python pipelines/missing_modalities.py                                     # mnist19, about 3 minutes on 2 cores
        python pipelines/missing_modalities.py --dataset faces19                   # needs no files; DCGAN, so slower
        python pipelines/missing_modalities.py --dataset celeba19 --preset paper   # the figure

Paper   supplement, section 6, Figure 5: before training, each value x_i of each training example is kept
        with probability p, or else dropped for the whole training. p ranges from 0.001 to 1. Each model is trained from
        scratch on CelebA with 19 modalities. The figure prints no numbers.
        (a) accuracy of sampling the right attribute given an image, (b) log marginal, (c) log conditional
        "even with p = 0.1, we still see accuracy close to the prediction accuracy with full data"
Runs    --preset demo: 3 keep probabilities x 1 seed, 5 epochs
        --preset paper: 9 keep probabilities x 3 seeds, 100 epochs, likelihoods from 1,000 samples
"""

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

from mvae.data import source, training_examples
from mvae.data.dataset import attribute_names
from mvae.data.registry import names_of
from mvae.evaluation.measurable import check_measurable
from mvae.measure import ATTRIBUTE_ACCURACY, likelihood
from mvae.supervision import kept_values
from sweeps.cli.options import CommonOptions
from sweeps.cli.shared import Preset, SampleCount, arms_for, report_name
from sweeps.cli.values import Probabilities, Token
from sweeps.start import start
from sweeps.sweep import Sweep
from sweeps.table.files import Pictures, Report
from sweeps.table.plot import Line, figure, forms, heat_map
from sweeps.table.protocol import remarks
from sweeps.table.quantities import ShownQuantity, TrialAt, arm_title, check_reads, quantity_cells, variants
from sweeps.table.rounding import shown_value

KEEP_PROBABILITIES = (0.001, 0.002, 0.005, 0.01, 0.03, 0.1, 0.2, 0.5, 1.0)
"""Nine probabilities from 0.001 to 1, about equally spaced on a logarithmic axis. The paper's text discusses 0.1."""

ACCURACY = ShownQuantity("accuracy", "test/attribute_accuracy", ATTRIBUTE_ACCURACY)
BALANCED = ShownQuantity("balanced accuracy", "test/attribute_balanced_accuracy", ATTRIBUTE_ACCURACY)
MAJORITY = ShownQuantity("majority rate", "test/attribute_majority", ATTRIBUTE_ACCURACY)
LIKELIEST = (
    ShownQuantity("likeliest accuracy", "test/attribute_accuracy_likeliest", ATTRIBUTE_ACCURACY),
    ShownQuantity("likeliest balanced accuracy", "test/attribute_balanced_accuracy_likeliest", ATTRIBUTE_ACCURACY),
)
"""ACCURACY and BALANCED score sampled attributes, as in the figure. MAJORITY scores a guess that is always the
more frequent value. LIKELIEST scores the value to which the model gives the higher probability."""

LOG_MARGINAL, LOG_CONDITIONAL = "log p(x1)", "log p(x1|others)"
"""Rows of Figure 5 (b) and (c)."""

CLAIMED, FULL = 0.1, 1.0
"""Keep probabilities that the paper compares: accuracy at 0.1 is said to be close to accuracy at 1 (full data)."""


class Options(CommonOptions):
    """Missing modalities"""

    offers: ClassVar = {
        "dataset": names_of("image attributes", "image attribute"),
        "arms": arms_for(ATTRIBUTE_ACCURACY, reads="keep_probability"),
    }

    dataset: Token = "mnist19"
    """Data set: {names}. mnist19 is computed from MNIST's raw files; faces19 needs no files."""
    keep_probabilities: Probabilities | None = None
    """Probabilities p, 0 < p <= 1, of keeping each value of each training example, one column per p (default: the
    preset's).

    The caption of Figure 5 says "drop with probability p", but the text of section 6 says "keep". Caption and text
    claim that p = 0.1, 10 % of the data, comes close to the full data. Only "keep" fits this claim."""
    samples: SampleCount = None


PRESETS = {
    "demo": Preset((0.01, CLAIMED, FULL), samples=20, trial={"epochs": 5}),
    "paper": Preset(KEEP_PROBABILITIES, seeds=(0, 1, 2)),
}
"""The supplement states no number of importance samples for Figure 5. `paper` uses the number of Tables 1 and 2."""


def trained(options: Options) -> tuple[TrialAt, ...]:
    """Returns every trial: one per arm, keep probability and seed.

    Raises:
        Refusal: the data set has no attributes, or the arm cannot be trained with missing values.
    """
    chosen = PRESETS[options.preset].under(options)
    for token in chosen.arms:
        check_measurable(ATTRIBUTE_ACCURACY, token, source(options.dataset))
        check_reads(token, "keep_probability", "cannot be trained with missing values")
    return tuple(
        TrialAt(arm_title(token, options.dataset), probability, trial)
        for token in chosen.arms
        for probability in options.keep_probabilities or chosen.columns
        for trial in chosen.trials(options, token, keep_probability=probability, pairing="proportional")
    )


def quantities(samples: int) -> tuple[ShownQuantity, ...]:
    """Returns the quantities of the table. Each quantity has one row per arm."""
    return (
        *(ACCURACY, BALANCED, MAJORITY, *LIKELIEST),
        ShownQuantity(LOG_MARGINAL, "test/log_marginal", likelihood(samples)),
        ShownQuantity(LOG_CONDITIONAL, "test/log_conditional", likelihood(samples)),
    )


def of_attribute(shown: ShownQuantity, name: str) -> ShownQuantity:
    """Returns a quantity's version for a single attribute."""
    return ShownQuantity(f"{name} {shown.label}", f"{shown.metric}/{name}", shown.measure)


def statements(report: Report, arms: tuple[str, ...]) -> Iterator[str]:
    """Compares balanced accuracy at keep probabilities 0.1 and 1, as the paper does. Yields one line per arm.

    Only seeds with results for both probabilities count.
    """
    for arm in arms:
        pair = [report.entries.get((BALANCED.row(arm), probability)) for probability in (CLAIMED, FULL)]
        by_seed = [{run.seed: run.value for run in entry.runs if run.value is not None} for entry in pair if entry]
        both = set.intersection(*map(set, by_seed)) if len(by_seed) == len(pair) else set()
        if both:
            few, full = (sum(values[seed] for seed in both) / len(both) for values in by_seed)
            yield (
                f"{arm}: balanced accuracy is {shown_value(few)} at keep_probability = {CLAIMED:g} and"
                f" {shown_value(full)} at keep_probability = {FULL:g}: ratio {few / full:.1%} (guessing gives 0.5)."
            )


def pictures(report: Report, details: Report | None, options: Options) -> Pictures:
    """Returns the figure's three plots, and a heat map of every attribute's balanced accuracy."""
    assert details is not None
    names = attribute_names(source(options.dataset).modalities)
    arms = variants(trained(options))
    each = tuple(Line(details, of_attribute(ACCURACY, name).row(arm), faint=True) for arm in arms for name in names)

    def lines(label: str) -> tuple[Line, ...]:
        return tuple(Line(report, f"{arm} {label}", label=arm) for arm in arms)

    plots = {
        "(a) accuracy of sampled attributes: mean, grey: each": (*each, *lines(ACCURACY.label)),
        "(b) log p(x1), nats": lines(LOG_MARGINAL),
        "(c) log p(x1|others), nats": lines(LOG_CONDITIONAL),
    }
    shown = {
        of_attribute(BALANCED, name).row(arm): name if len(arms) == 1 else f"{arm} {name}"
        for arm in arms
        for name in names
    }
    return {
        **forms("figure-5", partial(figure, plots, report)),
        **forms("attributes", partial(heat_map, details, shown, "balanced accuracy of sampled attributes", 0.5, 1.0)),
    }


def sweep(options: Options) -> Sweep:
    """Returns the table and the figure. Runs with different numbers of samples have separate reports.

    Raises:
        Refusal: unknown arm or data set, keep probability that keeps no values, or missing data.
    """
    trials = trained(options)
    samples, modalities = PRESETS[options.preset].under(options).samples, source(options.dataset).modalities
    available = training_examples(options.dataset, options.data_root)
    for trial in (one.trial for one in trials):
        kept_values(
            min(available, trial.train_examples or available), len(modalities), trial.keep_probability, trial.seed
        )
    names = attribute_names(modalities)
    per_attribute = [of_attribute(shown, name) for name in names for shown in (ACCURACY, BALANCED, MAJORITY)]
    title = f"Figure 5 on {options.dataset}"
    cells = quantity_cells(quantities(samples), trials)
    return Sweep(
        report_name(f"missing_modalities-{options.dataset}", samples),
        title,
        cells,
        remarks=remarks(cells, network_given=options.image_network is not None),
        axis="keep_probability",
        heading=f"{title}: training examples with missing values (likelihoods in nats, {samples:,} samples)",
        source="supplement, section 6, Figure 5",
        statements=lambda report: statements(report, variants(trials)),
        details=quantity_cells(per_attribute, trials),
        pictures=lambda report, details: pictures(report, details, options),
    )


if __name__ == "__main__":
    start(Options, sweep)
