"""Figure 6: the MVAE19 with more random subsets of modalities per step, that is, with more ELBO terms.

Type    python pipelines/k_sweep.py                                           # mnist19, about 3 minutes on 2 cores
        python pipelines/k_sweep.py --preset paper --train-examples 10000     # the figure, on a fifth of mnist19
        python pipelines/k_sweep.py --preset paper                            # the figure

Paper   supplement, section 9, Figure 6, over 3 runs: (a) joint log-likelihood, (b) variance of the log importance
        weights, (c) the same variance with one noise draw for all terms of a step. The figure prints no numbers.
        "switching from k = 0 to k = 1 greatly reduces the variance"
Runs    --preset demo: mnist19, k = 0, 1, 4, free and fixed noise, 1 seed, 1 epoch
        --preset paper: k = 0, 1, 2, 4, 8, 16, 32, 50, free and fixed noise, 3 seeds, 100 epochs, 1,000 samples
        With --train-examples, the table's caption says how many examples were used.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from mvae.data import source
from mvae.data.registry import names_of
from mvae.evaluation.measurable import check_measurable
from mvae.measure import likelihood
from sweeps.cli.options import CommonOptions
from sweeps.cli.shared import Preset, SampleCount, arms_for, report_name
from sweeps.cli.values import Counts, Token, Written, names
from sweeps.start import start
from sweeps.sweep import Sweep
from sweeps.table.files import Pictures, Report
from sweeps.table.plot import Line, figure, forms
from sweeps.table.quantities import ShownQuantity, TrialAt, arm_title, check_reads, quantity_cells, variants

Noise = Literal["free", "fixed"]

LOG_JOINT, VARIANCE = "log joint", "var joint"
"""Rows of the table. Figure 6 plots LOG_JOINT in (a) and VARIANCE in (b) and (c). The figure does not say which of
Table 2's variances it plots. We plot the variance of the joint log weights."""


class Options(CommonOptions):
    """Subsets of modalities"""

    offers: ClassVar = {
        "dataset": names_of("image attribute", "views"),
        "arms": arms_for(likelihood(2), reads="k"),
    }

    dataset: Token = "mnist19"
    """Data set: {names}. mnist19 is computed from MNIST's raw files; faces19 needs no files. With --ks 0, any data set
    works."""
    ks: Counts | None = None
    """Numbers k of random subsets of modalities per step, one column per k. The ELBO has the joint term, one term per
    modality, and k terms for the subsets (default: the preset's)."""
    noise: Annotated[tuple[Noise, ...], BeforeValidator(names), Written("NAME,...")] = ("free", "fixed")
    """Noise of the ELBO terms, one row per value: free (each term draws its own) or fixed (all terms of a step share
    one draw, as in Figure 6 c)."""
    samples: SampleCount = None


PRESETS = {
    "demo": Preset((0, 1, 4), samples=20, trial={"epochs": 1}),
    "paper": Preset((0, 1, 2, 4, 8, 16, 32, 50), seeds=(0, 1, 2)),
}
"""The supplement states no number of importance samples for Figure 6. `paper` uses the number of Tables 1 and 2."""


def trained(options: Options) -> tuple[TrialAt, ...]:
    """Returns every trial: one per arm, noise, k and seed.

    Raises:
        Refusal: the arm samples no subsets, or the data set has too few modalities for subsets.
    """
    chosen = PRESETS[options.preset].under(options)
    for token in chosen.arms:
        check_measurable(likelihood(chosen.samples), token, source(options.dataset))
        check_reads(token, "k", "samples no subsets of modalities")
    return tuple(
        TrialAt(_variant(token, noise, options.dataset), f"k={k}", trial)
        for token in chosen.arms
        for noise in options.noise
        for k in sorted(options.ks or chosen.columns)
        for trial in chosen.trials(options, token, k=k, fixed_noise=noise == "fixed")
    )


def _variant(token: str, noise: Noise, dataset: str) -> str:
    return f"{arm_title(token, dataset)} {noise} noise"


def quantities(samples: int) -> tuple[ShownQuantity, ...]:
    """Returns the quantities of the table. Each quantity has one row per arm and noise."""
    return (
        ShownQuantity(LOG_JOINT, "test/log_joint", likelihood(samples)),
        ShownQuantity(VARIANCE, "test/variance_joint", likelihood(samples)),
        ShownQuantity("var marginal", "test/variance_marginal", likelihood(samples)),
        ShownQuantity("var conditional", "test/variance_conditional", likelihood(samples)),
        ShownQuantity("ESS joint", "test/ess_joint", likelihood(samples)),
    )


def statements(report: Report, variants: tuple[str, ...]) -> Iterator[str]:
    """Compares the variances at k = 0 and k = 1, as the paper does. Yields one line per variant."""
    for one in variants:
        few, more = (report.mean(f"{one} {VARIANCE}", column) for column in ("k=0", "k=1"))
        if few is not None and more is not None:
            ratio = more / few
            yield f"{one}: variance of the joint log weights {few:.3f} at k=0, {more:.3f} at k=1 (ratio {ratio:.2f})."


def pictures(report: Report, options: Options) -> Pictures:
    """Returns the figure: plot (a), plot (b) if free noise is requested, and plot (c) if fixed noise is requested."""
    chosen = PRESETS[options.preset].under(options)

    def lines(label: str, noises: tuple[Noise, ...]) -> tuple[Line, ...]:
        variants = (_variant(token, noise, options.dataset) for token in chosen.arms for noise in noises)
        return tuple(Line(report, f"{one} {label}", label=one) for one in variants)

    letters: dict[Noise, str] = {"free": "(b)", "fixed": "(c)"}
    plots = {"(a) joint log-likelihood, nats": lines(LOG_JOINT, options.noise)} | {
        f"{letter} variance of log weights, {noise} noise": lines(VARIANCE, (noise,))
        for noise, letter in letters.items()
        if noise in options.noise
    }
    return forms("figure-6", partial(figure, plots, report))


def sweep(options: Options) -> Sweep:
    """Returns the table and the figure. Runs with different numbers of samples have separate reports.

    Raises:
        Refusal: unknown arm or data set, or too few modalities for subsets.
    """
    trials, samples = trained(options), PRESETS[options.preset].under(options).samples
    title = f"Figure 6 on {options.dataset}"
    return Sweep(
        report_name(f"k_sweep-{options.dataset}", samples),
        title,
        quantity_cells(quantities(samples), trials),
        axis="random subsets per step",
        heading=f"{title}: more ELBO terms per step (likelihoods in nats, {samples:,} samples)",
        source="supplement, section 9, Figure 6",
        statements=lambda report: statements(report, variants(trials)),
        pictures=lambda report, _: pictures(report, options),
    )


if __name__ == "__main__":
    start(Options, sweep)
