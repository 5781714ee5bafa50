"""Figure 6: what more random subsets of modalities a step, that is more ELBO terms, do to the MVAE19.

Paper   supplement, section 9, Figure 6, over 3 runs: (a) joint log-likelihood, (b) variance of the log importance
        weights, (c) the same with one noise draw shared by all terms of a step. Plotted, no numbers are printed;
        "switching from k = 0 to k = 1 greatly reduces the variance"
Runs    --preset demo: mnist19, k = 0, 1, 4, free and fixed noise, 1 seed, 1 epoch, about 3 minutes on 2 CPU cores
        --preset paper: k = 0, 1, 2, 4, 8, 16, 32, 50, free and fixed noise, 3 seeds, 100 epochs, 1,000 samples
        --train-examples 10000 makes an epoch a fifth of mnist19's; the table's caption says so
Type    python pipelines/k_sweep.py
        python pipelines/k_sweep.py --preset paper --train-examples 10000
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Literal

from pydantic import BeforeValidator

from mvae.data import source
from mvae.evaluation.measurable import check_measurable
from mvae.measure import likelihood
from sweeps.cli.options import CommonOptions
from sweeps.cli.shared import Preset, SampleCount, report_name
from sweeps.cli.values import Counts, Token, Written, names
from sweeps.start import start
from sweeps.sweep import Sweep
from sweeps.table.files import Pictures, Report
from sweeps.table.plot import Line, figure, forms
from sweeps.table.quantities import ShownQuantity, TrialAt, arm_title, check_reads, quantity_cells, variants

Noise = Literal["free", "fixed"]

KS = (0, 1, 2, 4, 8, 16, 32, 50)
"""Random subsets a step, from none to the figure's 50."""

FEW, MORE = "k=0", "k=1"
"""The columns that the paper's claim compares."""

LOG_JOINT, VARIANCE = "log joint", "var joint"
"""The rows of Figure 6 (a), and of (b) and (c): of which of Table 2's weights the figure does not say; the joint's."""


class Options(CommonOptions):
    """Subsets of modalities"""

    dataset: Token = "mnist19"
    """Data set of at least 3 modalities, where any k is above 0; mnist19 is made of MNIST's raw files, faces19 needs
    none."""
    ks: Counts | None = None
    """Random subsets of modalities a step, beside the joint and the unimodal ELBO terms (default: the preset's)."""
    noise: Annotated[tuple[Noise, ...], BeforeValidator(names), Written("NAME,...")] = ("free", "fixed")
    """free: each ELBO term draws its own; fixed: all terms of a step share one draw, as in Figure 6 (c)."""
    samples: SampleCount = None


PRESETS = {"demo": Preset((0, 1, 4), samples=20, trial={"epochs": 1}), "paper": Preset(KS, seeds=(0, 1, 2))}
"""The text gives no number of importance samples for Figure 6; paper uses that of Tables 1 and 2."""


def trained(options: Options) -> tuple[TrialAt, ...]:
    """Every trial: an arm, free or fixed noise, k and a seed.

    Raises:
        Refusal: an arm that samples no subsets; subsets of too few modalities.
    """
    chosen = PRESETS[options.preset].under(options)
    for token in chosen.arms:
        check_measurable(likelihood(chosen.samples), token, source(options.dataset))
        check_reads(token, "k", "samples no subsets of modalities")
    return tuple(
        TrialAt(variant(token, noise, options.dataset), f"k={k}", trial)
        for token in chosen.arms
        for noise in options.noise
        for k in sorted(options.ks or chosen.columns)
        for trial in chosen.trials(options, token, k=k, fixed_noise=noise == "fixed")
    )


def variant(token: str, noise: Noise, dataset: str) -> str:
    """What is trained, in words."""
    return f"{arm_title(token, dataset)} {noise} noise"


def quantities(samples: int) -> tuple[ShownQuantity, ...]:
    """The rows of the table, for each arm and noise."""
    names = {
        LOG_JOINT: "log_joint",
        VARIANCE: "variance_joint",
        "var marginal": "variance_marginal",
        "var conditional": "variance_conditional",
        "ESS joint": "ess_joint",
    }
    return tuple(ShownQuantity(label, f"test/{name}", likelihood(samples)) for label, name in names.items())


def statements(report: Report, variants: tuple[str, ...]) -> Iterator[str]:
    """The paper's claim, measured: the variance at k = 0 against that at k = 1."""
    for one in variants:
        few, more = (report.mean(f"{one} {VARIANCE}", column) for column in (FEW, MORE))
        if few is not None and more is not None:
            said = f"{few:.3f} at {FEW}, {more:.3f} at {MORE}, {more / few:.2f} of it"
            yield f"{one}: variance of the joint log weights {said}."


def pictures(report: Report, options: Options) -> Pictures:
    """The figure's plots: (b) and (c) where the noise is asked for."""
    chosen = PRESETS[options.preset].under(options)

    def lines(label: str, noises: tuple[Noise, ...]) -> tuple[Line, ...]:
        made = (variant(token, noise, options.dataset) for token in chosen.arms for noise in noises)
        return tuple(Line(report, f"{one} {label}", label=one) for one in made)

    letters: dict[Noise, str] = {"free": "(b)", "fixed": "(c)"}
    plots = {"(a) joint log-likelihood, nats": lines(LOG_JOINT, options.noise)} | {
        f"{letter} variance of log weights, {noise} noise": lines(VARIANCE, (noise,))
        for noise, letter in letters.items()
        if noise in options.noise
    }
    return forms("figure-6", partial(figure, plots, report))


def sweep(options: Options) -> Sweep:
    """The table and the figure that the options ask for; another number of samples is another report.

    Raises:
        Refusal: an unknown name, subsets of too few modalities.
    """
    trials, samples = trained(options), PRESETS[options.preset].under(options).samples
    title = f"Figure 6 on {options.dataset}"
    return Sweep(
        report_name(f"k_sweep-{options.dataset}", samples),
        title,
        quantity_cells(quantities(samples), trials),
        axis="random subsets a step",
        heading=f"{title}: more ELBO terms a step (likelihoods in nats, {samples:,} samples)",
        source="supplement, section 9, Figure 6",
        statements=lambda report: statements(report, variants(trials)),
        pictures=lambda report, _: pictures(report, options),
    )


if __name__ == "__main__":
    start(Options, sweep)
