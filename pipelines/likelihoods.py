"""Tables 1 and 2: log-likelihoods of the test set by importance sampling, and the variance of the log weights.

Type    python pipelines/likelihoods.py                                          # digits, about 2 minutes on 2 cores
        python pipelines/likelihoods.py --dataset binary_mnist --preset paper    # the tables' first column
        python pipelines/likelihoods.py --dataset celeba --preset paper          # or --dataset faces: needs no files
        python pipelines/likelihoods.py --dataset binary_mnist --binarisation fixed,dynamic

Paper   supplement, section 4: 1,000 samples from the proposal q(z|x1,x2). BinaryMNIST, MVAE:
        log p(x1) -86.051, log p(x1,x2) -86.278, log p(x1|x2) -83.940;
        variances 21.791 marginal, 21.917 joint, 23.035 conditional (JMVAE 40.646)
        The main paper has the same table with the proposal q(z|x1). For that proposal, our table shows only our
        own estimates.
Runs    --preset demo: digits, 5 arms x 1 seed
        --preset paper --dataset binary_mnist: 5 arms x 3 seeds, 500 epochs, MLP. Measuring one trial takes about
        20 minutes of one core: 10,000 test images, 1,000 samples, two proposals (with a DCGAN: 3 hours)
        --preset paper --dataset celeba: JMVAE, MVAE, MVAE19, VAE, CVAE x 3 seeds, 100 epochs, DCGAN. MVAE19 is trained
        on the same examples, with each attribute as a separate modality

binary_mnist draws each training pixel as 0 or 1. With `--binarisation fixed`, pixels are drawn once, as in the
supplement's reference [5]. With `--binarisation dynamic`, pixels are drawn again in each epoch.
"""

import itertools
from collections.abc import Iterator
from typing import ClassVar

from mvae.data import DATASETS, Kind, source
from mvae.evaluation.measurable import check_measurable
from mvae.measure import likelihood
from mvae.models import arm
from mvae.models.arm import features
from mvae.refusal import Refusal
from sweeps.cli.options import CommonOptions
from sweeps.cli.shared import Preset, SampleCount, TargetRows, arms_for, report_name
from sweeps.cli.trial_options import Binarisations
from sweeps.start import start
from sweeps.sweep import Cell, Sweep
from sweeps.table.protocol import remarks
from sweeps.table.published_likelihoods import QUANTITIES, likelihood_table
from sweeps.table.quantities import arm_title, check_reads, quick_network, readings

ARMS = ("jmvae", "mvae", "mvae_q", "vae", "cvae")
"""Rows of Tables 1 and 2, and of the main paper's table."""

SEPARATE = "mvae19"
"""Name of the MVAE trained with each attribute as a separate modality. Only data sets whose attributes form a single
modality offer this arm."""


class Options(CommonOptions):
    """Likelihoods"""

    offers: ClassVar = {"arms": [*arms_for(likelihood(2)), SEPARATE]}

    samples: SampleCount = None
    targets: TargetRows = ("own", "all")
    binarisation: Binarisations | None = None
    """When binary_mnist draws the pixels of its training images, one row per value: fixed (once) or dynamic (again in
    each epoch) (default: fixed)."""


def preset(options: Options) -> Preset:
    """Returns the preset for the chosen data set.

    `paper` follows section 1 of the supplement. `demo` uses a fast network if the data set has one.

    Raises:
        Refusal: the paper has no column for this data set.
    """
    if options.preset == "demo":
        if options.dataset == "digits":
            return Preset()
        return Preset(samples=100, trial={"epochs": 10, "image_network": quick_network(options.dataset)})
    published = likelihood_table(options.dataset)
    if published is None:
        raise Refusal(f"--preset paper: Tables 1 and 2 have no column for {options.dataset}")
    return Preset(
        seeds=(0, 1, 2),
        samples=published.protocol["samples"],
        trial={name: published.protocol[name] for name in ("epochs", "image_network", "latents")},
    )


def separated(dataset: str) -> str | None:
    """Returns the data set with the same examples and one modality per attribute; None if no such data set exists."""
    kinds = {modality.kind for modality in source(dataset).modalities}
    return f"{dataset}19" if Kind.ATTRIBUTES in kinds and f"{dataset}19" in DATASETS else None


def _default_arms(dataset: str) -> tuple[str, ...]:
    if separated(dataset):
        return ("jmvae", "mvae", SEPARATE, "vae", "cvae")
    modalities = source(dataset).modalities
    apart = any(modality.kind is Kind.ATTRIBUTE for modality in modalities)
    able = (token for token in ARMS if arm(token).single_attributes or not apart)
    return tuple(token for token in able if features(modalities) <= arm(token).handles)


def trained_as(token: str, dataset: str) -> tuple[str, str, str]:
    """Returns the title, data set and model of a row.

    Raises:
        Refusal: the arm needs a data set whose attributes form one modality.
    """
    if token != SEPARATE:
        return arm(token).title, dataset, token
    if (separate := separated(dataset)) is None:
        able = " or ".join(name for name in DATASETS if separated(name))
        raise Refusal(
            f"arm {SEPARATE} needs a data set with attributes as one modality, unlike {dataset}: give --dataset {able}"
        )
    return arm_title("mvae", separate), separate, "mvae"


def cells(options: Options) -> Iterator[Cell]:
    """Yields the cells. Rows are arms, and columns are the quantities that an arm can estimate.

    All cells of a row and seed share a trial. Dynamic binarisation has its own row.

    Raises:
        Refusal: the arm has no likelihood estimate.
    """
    from mvae.evaluation.measures import estimates

    chosen = preset(options).under(options)
    measure = likelihood(chosen.samples)
    table = likelihood_table(options.dataset)
    rows = itertools.product(options.arms or _default_arms(options.dataset), options.binarisation or ("fixed",))
    for (token, binarisation), (targets, suffix) in (
        (row, reading) for row in rows for reading in readings(trained_as(row[0], options.dataset)[2], options.targets)
    ):
        title, dataset, model = trained_as(token, options.dataset)
        check_measurable(measure, model)
        if binarisation == "dynamic":
            check_reads(model, "binarisation", "cannot be trained with dynamic binarisation")
        trials = chosen.trials(options, model, dataset=dataset, binarisation=binarisation, targets=targets)
        offered = estimates(trials[0])
        for quantity in (one for one in QUANTITIES if one.metric in offered):
            for trial in trials:
                yield Cell(
                    row=title + (f", {binarisation}" if binarisation != "fixed" else "") + suffix,
                    column=quantity.label,
                    trial=trial,
                    measure=measure,
                    published=table.published(token, quantity.label) if table else None,
                    arm=token,
                    quantity=quantity.metric,
                )


def sweep(options: Options) -> Sweep:
    """Returns the table that the options ask for. Runs with different numbers of samples have separate reports.

    Raises:
        Refusal: unknown arm or data set, or arm without a likelihood estimate.
    """
    grid = tuple(cells(options))
    table = likelihood_table(options.dataset)
    samples = int(grid[0].measure.parameter("s"))
    title = f"{table.name}, {table.title}" if table else f"Likelihoods on {options.dataset}"
    return Sweep(
        report_name(f"likelihoods-{options.dataset}", samples),
        title,
        grid,
        table,
        axis=f"quantity in nats, {samples:,} samples",
        remarks=remarks(grid, network_given=options.image_network is not None),
    )


if __name__ == "__main__":
    start(Options, sweep)
