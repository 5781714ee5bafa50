"""PolyMNIST: do generated images show the digit of the given images? Compares the MVAE and later models.

Type    python pipelines/coherence.py                                          # small PolyMNIST, minutes on 2 cores
        python pipelines/coherence.py --dataset polymnist_free --train-examples 10000 --epochs 40 --batch-size 64
        python pipelines/coherence.py --dataset polymnist --preset paper       # the published set-up, on GPUs
        python pipelines/coherence.py --dataset polymnist --preset paper --study multivae --missing 0.2,0.5
        The second command has MNIST's digits and takes hours of one core.

Paper   not in the MVAE paper: coherence became the usual measure for later models. With --dataset polymnist, the table
        shows the numbers of a published study next to ours: MVTCAE's figure 2 (--study mvtcae), or MultiVae's
        study (--study multivae).
Runs    First trains one classifier per modality; all arms and sweeps use the same classifiers. The table shows
        coherence by number of given images, coherence of samples from the prior, and the accuracy of a linear probe
        on z. An arm is compared only if at least 0.8 of the images that it rebuilds from all five modalities keep
        their digit. No arm is compared if a classifier's accuracy is below 0.95.
        --preset demo: polymnist_digits, 3 arms, 1 seed, 12 epochs, beta 1; --preset paper: 5 arms, 5 seeds, 300
        epochs, beta 2.5
"""

from collections.abc import Collection, Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from mvae.data import source
from mvae.data.registry import names_of
from mvae.evaluation.judges import judge_trials
from mvae.evaluation.measurable import check_measurable
from mvae.measure import COHERENCE, REAL, Measure
from mvae.models import arm
from mvae.refusal import Refusal
from sweeps.cli.options import CommonOptions
from sweeps.cli.shared import Preset, arms_for
from sweeps.cli.values import Folder, Token, Written, listed
from sweeps.start import start
from sweeps.sweep import Cell, Sweep
from sweeps.table.files import Report
from sweeps.table.protocol import remarks
from sweeps.table.published_polymnist import BESIDE, COLUMNS, PROBES, STUDIES, published
from sweeps.table.quantities import check_reads

ARMS = ("mvae", "mmvae", "mopoe", "mvtcae", "mmvae_plus")
DEMO_ARMS = ("mvae", "mopoe", "mvtcae")
REAL_IMAGES = "real images"
TRAINED = 0.8
"""Fraction of the images rebuilt from all inputs that must keep their digit. An arm with a lower fraction is not
compared."""
JUDGES = 0.95
"""Accuracy that each classifier needs on real test images. If a classifier has less, no arm is compared."""
REBUILT = "rebuilt"
QUANTITIES = {
    **{name: f"test/coherence-{n}" for n, name in enumerate(COLUMNS, start=1)},
    "prior": "test/joint_coherence",
    REBUILT: "test/reconstruction",
    "shuffled": "test/shuffled",
    **{name: f"test/probe-{n}" for n, name in enumerate(PROBES, start=1)},
}
"""Maps each column heading to its metric."""
FIDS = {"FID prior": "test/fid-prior", "FID 1 input": "test/fid-given-1"}
"""Maps the headings of the columns that --inception adds to their metrics."""


def share(item: str) -> tuple[float]:
    """Parses a fraction of missing images, from 0 to below 1.

    Raises:
        Refusal: the text is not a number from 0 to below 1.
    """
    try:
        number = float(item)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise Refusal(f"{item} is not a fraction of missing images; write numbers from 0 to below 1, such as 0,0.2,0.5")
    return (number,)


class Options(CommonOptions):
    """Coherence"""

    offers: ClassVar = {"dataset": names_of("image"), "arms": arms_for(COHERENCE)}

    dataset: Token = "polymnist_digits"
    """Data set: {names}. polymnist needs five background pictures of yours."""
    study: Literal["mvtcae", "multivae"] = "mvtcae"
    """Published study to show next to our numbers on polymnist. With multivae, table rows with missing images train the
    MVAE only by its joint ELBO term, as MultiVae's study does."""
    missing: Annotated[tuple[float, ...], BeforeValidator(listed(share)), Written("0.2,0.5")] = (0.0,)
    """Fractions of the training images to drop once, before training; one row per value. The first modality is never
    dropped. The other modalities are dropped independently of each other, as in MultiVae's study."""
    inception: Annotated[Folder, Written("FILE")] | None = None
    """TorchScript file of an Inception network, for FID. The network maps uint8 images [n, 3, H, W] to features
    [n, F]."""


PRESETS = {
    "demo": Preset(arms=DEMO_ARMS, trial={"epochs": 12, "annealing_epochs": 0}),
    "paper": Preset(
        seeds=(0, 1, 2, 3, 4), arms=ARMS, trial={"epochs": 300, "image_network": "conv", "annealing_epochs": 0}
    ),
}
BETA = 2.5
"""Weight of the KL term in both published studies, also used for polymnist_free. The short demo uses 1 instead."""


def own(token: str, dataset: str) -> dict[str, Any]:
    """Returns the trial field `beta` and its value for an arm and a data set; empty if the arm declares no `beta`."""
    declared = {each.name for each in arm(token).hyperparameters}
    return {"beta": 1.0 if dataset == "polymnist_digits" else BETA} if "beta" in declared else {}


def dropped(options: Options, token: str, missing: float) -> dict[str, Any]:
    """Returns the trial fields that drop a fraction of the training images, as in MultiVae's protocol.

    Raises:
        Refusal: the arm cannot be trained on incomplete data.
    """
    if not missing:
        return {}
    check_reads(token, "keep_probability", "cannot be trained with missing images")
    fields = {"keep_probability": round(1 - missing, 12), "keep_first": True, "pairing": "proportional"}
    joint_only = options.study == "multivae" and "unimodal_terms" in arm(token).reads
    return {**fields, "unimodal_terms": False} if joint_only else fields


def fid_measure(options: Options) -> Measure | None:
    """Returns the measure of --inception; None without the option.

    Raises:
        Refusal: the file does not contain a network that maps images to features.
    """
    if options.inception is None:
        return None
    from mvae.evaluation.fid import measure_of  # imports torch

    return measure_of(options.inception)


def cells(options: Options) -> Iterator[Cell]:
    """Yields the cells of the classifiers' accuracy on real images, then the cells of each arm.

    Raises:
        Refusal: the data set has no hidden label, an arm has no coherence, or the --inception file is unusable.
    """
    fid = fid_measure(options)
    shown = [(column, metric, COHERENCE) for column, metric in QUANTITIES.items()]
    shown += [(column, metric, fid) for column, metric in FIDS.items() if fid is not None]
    for trial in judge_trials(options.dataset):
        yield Cell(
            REAL_IMAGES, f"{trial.own_value('modality')}", trial, REAL, None, trial.model, quantity=REAL.quantity
        )
    chosen = PRESETS[options.preset].under(options)
    for token in chosen.arms:
        for measure in dict.fromkeys(measure for _, _, measure in shown):
            check_measurable(measure, token, source(options.dataset))
        for missing in options.missing:
            beside = {column: beside_ours(options, token, column, missing) for column, _, _ in shown}
            trained = arm(token).title + (f", {missing:g} missing" if missing else "")
            named = any(value is not None for value in beside.values())
            row = trained + (f" ({BESIDE[options.study]})" if named else "")
            for trial in chosen.trials(
                options, token, own=own(token, options.dataset), **dropped(options, token, missing)
            ):
                for column, metric, measure in shown:
                    yield Cell(row, column, trial, measure, beside[column], token, quantity=metric, variant=trained)


def beside_ours(options: Options, token: str, column: str, missing: float) -> float | None:
    """Returns the published value of a cell; None if no value was published. Only polymnist has published values."""
    return published(options.study, token, column, missing) if options.dataset == "polymnist" else None


def weak_judges(report: Report) -> list[str]:
    """Returns the modalities whose classifier is too weak to judge generated images."""
    entries = [entry for entry in report.in_order() if entry.row == REAL_IMAGES]
    return [str(entry.column) for entry in entries if entry.mean is not None and entry.mean < JUDGES]


def under_trained(report: Report) -> Collection[str]:
    """Returns the rows that are not compared: arms that rebuild too few digits, or all arms if a classifier is weak."""
    rows = [row for row in report.rows if row != REAL_IMAGES]
    if weak_judges(report):
        return rows
    return [row for row in rows if (rebuilt := report.mean(row, REBUILT)) is not None and rebuilt < TRAINED]


def statements(report: Report) -> Iterator[str]:
    """Yields a line per classifier that is too weak to judge images, and a line per under-trained arm."""
    for name in weak_judges(report):
        yield (
            f"The classifier of {name} gets {report.mean(REAL_IMAGES, name):.2f} of the real test images right, below"
            f" {JUDGES}: no arm is compared."
        )
    for row in report.rows:
        rebuilt = report.mean(row, REBUILT)
        if rebuilt is not None and rebuilt < TRAINED:
            yield (
                f"{row} is under-trained and not compared: {rebuilt:.2f} of the images rebuilt from all inputs keep"
                f" their digit, below {TRAINED}."
            )


def sweep(options: Options) -> Sweep:
    """Returns the table, with the classifiers' trials first.

    Raises:
        Refusal: same as `cells`.
    """
    made = tuple(cells(options))
    return Sweep(
        f"coherence-{options.dataset}",
        f"Coherence on {options.dataset}",
        made,
        STUDIES[options.study] if options.dataset == "polymnist" else None,
        axis="given images",
        heading=f"Coherence on {options.dataset}: share of generated images with the given digit",
        source=STUDIES[options.study].source,
        remarks=remarks(made, network_given=options.image_network is not None),
        statements=statements,
        under_trained=under_trained,
    )


if __name__ == "__main__":
    start(Options, sweep)
