"""Tables 4 and 5: test accuracy when only a fraction of the training pairs is kept.

Type    python pipelines/weak_supervision.py                                         # digits, 1.5 minutes on 2 cores
        python pipelines/weak_supervision.py --dataset fashion_mnist                 # smaller Table 4, 2 core hours
        python pipelines/weak_supervision.py --dataset fashion_mnist --preset paper  # Table 4, on GPUs
        python pipelines/weak_supervision.py --dataset multi_mnist --preset paper    # Table 5, on GPUs

Paper   supplement, section 8
        Table 4 (FashionMNIST), 0.1 % to 100 % of the pairs: MVAE 0.4548 to 0.9470, NN 0.6755 to 0.9318,
        LOGREG 0.6612 to 0.8412, RBM 0.6708 to 0.8115, VAE 0.5316 to 0.8311, JMVAE 0.5284 to 0.8828
        Table 5 (MultiMNIST): MVAE 0.0936 to 0.5288, JMVAE 0.0603 to 0.4955
        Table 3 (MNIST) is missing from the supplement's text.
Runs    --preset demo: digits, 4 rows x 4 fractions x 2 seeds
        --dataset fashion_mnist: 4 rows x 4 fractions x 3 seeds, 20 epochs, MLP
        --preset paper --dataset fashion_mnist: 9 rows x 9 fractions x 3 seeds, 100 epochs, DCGAN
        --preset paper --dataset multi_mnist: 5 rows x 9 fractions x 3 seeds, 100 epochs, DCGAN and GRU

An arm that reads `targets` (the MVAE) has two rows. Row (own) uses the paper's formula. In row (all), the image-only
ELBO term also reconstructs the label. RBM and VAE see no labels: each is trained once per seed, with one read-out per
fraction.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from pydantic import BeforeValidator

from mvae.data import Kind, source
from mvae.data.registry import names_of
from mvae.evaluation.measurable import accuracy_given, check_measurable
from mvae.measure import ACCURACY, Measure, given_suffix, readout
from mvae.models import ARMS, arm
from mvae.models.arm import Feature
from mvae.refusal import Refusal
from mvae.settings import Pairing, Targets
from sweeps.cli.options import CommonOptions
from sweeps.cli.shared import Given, Preset, TargetRows, arms_for, check_pairs
from sweeps.cli.values import Fractions, Written, names
from sweeps.start import start
from sweeps.sweep import Cell, Sweep
from sweeps.table.protocol import remarks
from sweeps.table.published import TABLE_4, TABLE_5, table_for
from sweeps.table.quantities import quick_network, readings

DEMO_ARMS = ("nn", "logreg", "mvae")


class Options(CommonOptions):
    """Weak supervision"""

    offers: ClassVar = {
        "dataset": names_of("image label", "image text"),
        "arms": arms_for(ACCURACY, readout(1.0)),
    }

    fractions: Fractions | None = None
    """Fractions of the training pairs to keep, 0 < f <= 1, one column per fraction (default: the preset's)."""
    pairing: Annotated[tuple[Pairing, ...], BeforeValidator(names), Written("NAME,...")] = ("reserved",)
    """Sampling of the kept pairs, one row per value: reserved, proportional or resampled."""
    targets: TargetRows = ("own", "all")
    given: Given = None


def preset(options: Options) -> Preset:
    """Returns the preset of the chosen data set.

    Raises:
        Refusal: the paper has no experiment on this data set.
    """
    if options.preset == "demo":
        quick = {"epochs": 20, "image_network": quick_network(options.dataset)}
        presets = {
            "digits": Preset((0.01, 0.05, 0.2, 1.0), (0, 1), DEMO_ARMS),
            TABLE_5.dataset: Preset((0.01, 0.1, 1.0), (0,), tuple(TABLE_5.rows), trial={"epochs": 20}),
        }
        return presets.get(options.dataset, Preset((0.005, 0.01, 0.1, 1.0), (0, 1, 2), DEMO_ARMS, trial=quick))
    if options.dataset == "digits":
        raise Refusal("--preset paper: the paper has no table for digits; give --dataset fashion_mnist or mnist")
    published = table_for(options.dataset) or TABLE_4
    return Preset(published.shares, (0, 1, 2), (*published.rows, "mvae_q"))


def cells(options: Options) -> Iterator[Cell]:
    """Yields one cell per row, fraction and seed. An arm has one row for each pairing and each kind of targets.

    Raises:
        Refusal: the data set has neither label nor text, or an arm does not fit the data set.
    """
    check_measurable(ACCURACY, "mvae", source(options.dataset))
    chosen = preset(options).under(options)
    for token in chosen.arms:
        for pairing, targets, row in variants(token, options):
            for fraction in options.fractions or chosen.columns:
                paired = fraction if "paired_fraction" in arm(token).reads else None
                measure = measure_of(token, fraction, options.dataset, options.given)
                table = table_for(options.dataset, measure.quantity)
                published = table.published(token, fraction) if table else None
                for trial in chosen.trials(options, token, paired_fraction=paired, pairing=pairing, targets=targets):
                    yield Cell(row, fraction, trial, measure, published, arm=token)


def measure_of(token: str, fraction: float, dataset: str, given: Sequence[str] | None = None) -> Measure:
    """Returns accuracy for an arm that predicts labels, and a read-out at `fraction` for an arm that sees no labels.

    Args:
        given: names of the modalities to predict from. If None, the first image or vector.
    Raises:
        Refusal: the arm has neither accuracy nor a read-out on this data set, or does not predict from the given
            modalities. The message lists the arms to choose from.
    """
    chosen = arm(token)
    labelled = any(modality.kind is Kind.LABEL for modality in source(dataset).modalities)
    if (asked := accuracy_given(given, token, source(dataset))) is not None:
        return asked
    if "readout" in chosen.measures and labelled:
        return readout(fraction)
    if chosen.predicts:
        return ACCURACY
    able = [
        other
        for other, known in ARMS.items()
        if (
            known.predicts or "readout" in known.measures
            if labelled
            else known.predicts and Feature.TEXTS in known.handles
        )
    ]
    raise Refusal(
        f"arm {token} cannot predict the {'label' if labelled else 'text'} of an image: choose among {', '.join(able)}"
    )


def variants(token: str, options: Options) -> list[tuple[Pairing, Targets, str]]:
    """Returns the pairing, targets and title of each row of an arm. An arm that ignores both settings has one row."""
    title, reads = arm(token).title, arm(token).reads
    pairings: tuple[Pairing, ...] = options.pairing if "pairing" in reads else ("reserved",)
    return [
        (pairing, targets, title + (f" {pairing}" if len(pairings) > 1 else "") + suffix)
        for pairing in pairings
        for targets, suffix in readings(token, options.targets)
    ]


def sweep(options: Options) -> Sweep:
    """Returns the table that the options ask for.

    Raises:
        Refusal: unknown arm, data set or modality, fraction that keeps fewer than 2 pairs, or missing data.
    """
    grid = tuple(cells(options))
    check_pairs(options, *(options.fractions or preset(options).columns))
    measure = grid[0].measure
    table = table_for(options.dataset, measure.quantity)
    title = f"{table.name}, {table.title}" if table else f"Weak supervision on {options.dataset}"
    no_table = f"{title}: test accuracy (Table 3 is missing from the supplement's text)"
    return Sweep(
        f"weak_supervision-{options.dataset}{given_suffix(measure.given)}",
        title,
        grid,
        table,
        heading=no_table if options.dataset == "mnist" else "",
        remarks=remarks(grid, network_given=options.image_network is not None),
    )


if __name__ == "__main__":
    start(Options, sweep)
