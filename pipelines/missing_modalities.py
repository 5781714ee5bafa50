"""Figure 5: what is left of the MVAE19 when values are missing from most training examples.

Paper   supplement, section 6, Figure 5: each x_i of each training example is kept with probability p, once, before
        training; p from 0.001 to 1, trained from scratch on CelebA with 19 modalities. Plotted (no numbers are
        printed): (a) accuracy of sampling the right attribute given an image, (b) log marginal, (c) log conditional;
        "even with p = 0.1, we still see accuracy close to the prediction accuracy with full data"
Runs    --preset demo: mnist19, 3 keep probabilities x 1 seed, 5 epochs, about 3 minutes on 2 CPU cores
        --preset paper: 9 keep probabilities x 3 seeds, 100 epochs, likelihoods from 1,000 samples
        mnist19 is made of MNIST's files; without them --dataset faces19 is drawn here, on the DCGAN and so for longer
Type    python pipelines/missing_modalities.py
        python pipelines/missing_modalities.py --dataset celeba19 --preset paper
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from mvae.data import source, training_examples
from mvae.data.dataset import attribute_names
from mvae.evaluation.measurable import check_measurable
from mvae.measure import ATTRIBUTE_ACCURACY, likelihood
from mvae.supervision import kept_values
from sweeps.cli.options import CommonOptions
from sweeps.cli.shared import Preset, SampleCount, report_name
from sweeps.cli.values import Probabilities, Token
from sweeps.start import start
from sweeps.sweep import Sweep
from sweeps.table.files import Pictures, Report
from sweeps.table.plot import Line, figure, forms, heat_map
from sweeps.table.protocol import remarks
from sweeps.table.quantities import ShownQuantity, TrialAt, arm_title, check_reads, quantity_cells, variants
from sweeps.table.rounding import shown_value

KEEP_PROBABILITIES = (0.001, 0.002, 0.005, 0.01, 0.03, 0.1, 0.2, 0.5, 1.0)
"""Nine points from 0.001 to 1, logarithms about equally far apart; 0.1 among them, since the text speaks of it."""

ACCURACY = ShownQuantity("accuracy", "test/attribute_accuracy", ATTRIBUTE_ACCURACY)
BALANCED = ShownQuantity("balanced accuracy", "test/attribute_balanced_accuracy", ATTRIBUTE_ACCURACY)
MAJORITY = ShownQuantity("majority rate", "test/attribute_majority", ATTRIBUTE_ACCURACY)
LIKELIEST = (
    ShownQuantity("likeliest accuracy", "test/attribute_accuracy_likeliest", ATTRIBUTE_ACCURACY),
    ShownQuantity("likeliest balanced accuracy", "test/attribute_balanced_accuracy_likeliest", ATTRIBUTE_ACCURACY),
)
"""Of sampled attributes, as in the figure; of always saying the more frequent value; of the likelier values."""

LOG_MARGINAL, LOG_CONDITIONAL = "log p(x1)", "log p(x1|others)"
"""The rows of Figure 5 (b) and (c)."""

CLAIMED, FULL = 0.1, 1.0
"""The keep probabilities that the paper's claim compares."""


class Options(CommonOptions):
    """Missing modalities"""

    dataset: Token = "mnist19"
    """Data set with attributes; mnist19 is made of MNIST's raw files, faces19 needs none."""
    keep_probabilities: Probabilities | None = None
    """Probabilities p, 0 < p <= 1, with which each value of each training example is kept (default: the preset's).
    The caption of Figure 5 says "drop with probability p"; the text of section 6 says keep, and so does the claim of
    both that p = 0.1 comes close to the full data, 10 % of it."""
    samples: SampleCount = None


PRESETS = {
    "demo": Preset((0.01, CLAIMED, FULL), samples=20, trial={"epochs": 5}),
    "paper": Preset(KEEP_PROBABILITIES, seeds=(0, 1, 2)),
}
"""The text gives no number of importance samples for Figure 5; paper uses that of Tables 1 and 2."""


def trained(options: Options) -> tuple[TrialAt, ...]:
    """Every trial: an arm, a keep probability and a seed.

    Raises:
        Refusal: a data set without attributes, or an arm that cannot be trained with values missing.
    """
    chosen = PRESETS[options.preset].under(options)
    for token in chosen.arms:
        check_measurable(ATTRIBUTE_ACCURACY, token, source(options.dataset))
        check_reads(token, "keep_probability", "is not trained with values missing")
    return tuple(
        TrialAt(arm_title(token, options.dataset), probability, trial)
        for token in chosen.arms
        for probability in options.keep_probabilities or chosen.columns
        for trial in chosen.trials(options, token, keep_probability=probability, pairing="proportional")
    )


def quantities(samples: int) -> tuple[ShownQuantity, ...]:
    """The rows of the table, for each arm."""
    likelihoods = (
        ShownQuantity(LOG_MARGINAL, "test/log_marginal", likelihood(samples)),
        ShownQuantity(LOG_CONDITIONAL, "test/log_conditional", likelihood(samples)),
    )
    return (ACCURACY, BALANCED, MAJORITY, *LIKELIEST, *likelihoods)


def of_attribute(shown: ShownQuantity, name: str) -> ShownQuantity:
    """The same quantity of one attribute."""
    return ShownQuantity(f"{name} {shown.label}", f"{shown.metric}/{name}", shown.measure)


def statements(report: Report, arms: tuple[str, ...]) -> Iterator[str]:
    """The paper's claim, measured: of each arm, over the seeds that have both keep probabilities."""
    for arm in arms:
        pair = [report.entries.get((BALANCED.row(arm), probability)) for probability in (CLAIMED, FULL)]
        by_seed = [{run.seed: run.value for run in entry.runs if run.value is not None} for entry in pair if entry]
        both = set.intersection(*map(set, by_seed)) if len(by_seed) == len(pair) else set()
        if both:
            few, full = (sum(values[seed] for seed in both) / len(both) for values in by_seed)
            yield (
                f"{arm}: balanced accuracy at keep_probability {CLAIMED:g} is {shown_value(few)}, {few / full:.1%} of"
                f" the {shown_value(full)} at {FULL:g} (a coin has 0.5)."
            )


def pictures(report: Report, details: Report | None, options: Options) -> Pictures:
    """The figure's three plots, and the balanced accuracy of every attribute."""
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
    """The table and the figure that the options ask for; another number of samples is another report.

    Raises:
        Refusal: an unknown name, a keep probability that leaves nothing, missing data.
    """
    trials = trained(options)
    samples, modalities = PRESETS[options.preset].under(options).samples, source(options.dataset).modalities
    there = training_examples(options.dataset, options.data_root)
    for one in trials:
        examples = min(there, one.trial.train_examples or there)
        kept_values(examples, len(modalities), one.trial.keep_probability, one.trial.seed)
    each = (ACCURACY, BALANCED, MAJORITY)
    per_attribute = [of_attribute(shown, name) for name in attribute_names(modalities) for shown in each]
    title = f"Figure 5 on {options.dataset}"
    cells = quantity_cells(quantities(samples), trials)
    return Sweep(
        report_name(f"missing_modalities-{options.dataset}", samples),
        title,
        cells,
        remarks=remarks(cells, network_given=options.image_network is not None),
        axis="keep_probability",
        heading=f"{title}: training examples with values missing (likelihoods in nats, {samples:,} samples)",
        source="supplement, section 6, Figure 5",
        statements=lambda report: statements(report, variants(trials)),
        details=quantity_cells(per_attribute, trials),
        pictures=lambda report, details: pictures(report, details, options),
    )


if __name__ == "__main__":
    start(Options, sweep)
