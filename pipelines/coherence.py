"""PolyMNIST: do generated images show the digit of the given ones? The MVAE and its successors.

Type    python pipelines/coherence.py                                          # small PolyMNIST, minutes on 2 cores
        python pipelines/coherence.py --dataset polymnist_free                 # MNIST's digits, hours of one core
        python pipelines/coherence.py --dataset polymnist --preset paper       # the published set-up, on GPUs

Paper   none of the MVAE's: "coherence" is the measure of the models that came after it. Two studies are next to our
        numbers on --dataset polymnist: MVTCAE's figure 2 (--study mvtcae) and MultiVae's (--study multivae).
Runs    A classifier per modality comes first: trials that all arms and sweeps share. The table has coherence by number
        of given images, coherence of samples from the prior, and the accuracy of a linear probe on z.
        --preset demo: polymnist_digits, 5 arms, 1 seed, 10 epochs; --preset paper: 5 seeds, 300 epochs, beta 2.5
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from mvae.data import source
from mvae.data.registry import names_of
from mvae.evaluation.judges import judge_trials
from mvae.evaluation.measurable import check_measurable
from mvae.measure import COHERENCE, REAL
from mvae.models import arm
from sweeps.cli.options import CommonOptions
from sweeps.cli.shared import Preset, arms_for
from sweeps.cli.values import Token, Written, names
from sweeps.start import start
from sweeps.sweep import Cell, Sweep
from sweeps.table.files import Report
from sweeps.table.protocol import remarks
from sweeps.table.published_polymnist import COLUMNS, STUDIES

ARMS = ("mvae", "mmvae", "mopoe", "mvtcae", "mmvae_plus")
CLASSIFIER, REAL_IMAGES = "Classifier", "real images"
TRAINED = 0.8
"""Smallest accuracy of images reconstructed from all inputs at which an arm counts as trained."""
QUANTITIES = {
    **{name: f"test/coherence-{n}" for n, name in enumerate(COLUMNS, start=1)},
    "prior": "test/joint_coherence",
    "rebuilt": "test/reconstruction",
    "shuffled": "test/shuffled",
    **{f"probe {n}": f"test/probe-{n}" for n in range(1, 6)},
}
"""Columns by heading, with their metrics."""


class Options(CommonOptions):
    """Coherence"""

    offers: ClassVar = {"dataset": names_of("image"), "arms": arms_for(COHERENCE)}

    dataset: Token = "polymnist_digits"
    """Data set: {names}. polymnist needs five background pictures of yours."""
    study: Literal["mvtcae", "multivae"] = "mvtcae"
    """Published study next to our numbers on polymnist."""
    missing: Annotated[tuple[float, ...], BeforeValidator(names), Written("0.2,0.5")] = (0.0,)
    """Shares of the training images to drop, once before training; one row each."""


PRESETS = {
    "demo": Preset(arms=ARMS, trial={"epochs": 10, "annealing_epochs": 0}),
    "paper": Preset(
        seeds=(0, 1, 2, 3, 4), arms=ARMS, trial={"epochs": 300, "image_network": "conv", "annealing_epochs": 0}
    ),
}
BETA = 2.5
"""Weight of the KL in both studies; the demo and polymnist_free use it too."""


def own(token: str) -> dict[str, Any]:
    """Hyper-parameters of an arm in the published set-ups."""
    declared = {each.name for each in arm(token).hyperparameters}
    return {"beta": BETA} if "beta" in declared else {}


def cells(options: Options) -> Iterator[Cell]:
    """Returns the classifiers' accuracy on real images, then the quantities of every arm.

    Raises:
        Refusal: the data set has no hidden label, or an arm has no coherence.
    """
    table = STUDIES[options.study] if options.dataset == "polymnist" else None
    for trial in judge_trials(options.dataset):
        yield Cell(REAL_IMAGES, f"{trial.own_value('modality')}", trial, REAL, None, trial.model)
    chosen = PRESETS[options.preset].under(options)
    for token in chosen.arms:
        check_measurable(COHERENCE, token, source(options.dataset))
        for missing in options.missing:
            row = arm(token).title + (f" ({missing:g} missing)" if missing else "")
            for trial in chosen.trials(options, token, own=own(token), **dropped(missing)):
                for column, metric in QUANTITIES.items():
                    published = table.published(token, column) if table and not missing else None
                    yield Cell(row, column, trial, COHERENCE, published, token, quantity=metric)


def dropped(missing: float) -> dict[str, Any]:
    """Fields of a trial that drops a share of the training images."""
    return {"keep_probability": 1 - missing, "pairing": "proportional"} if missing else {}


def statements(report: Report) -> Iterator[str]:
    """Names the arms that are under-trained, and classifiers that are too weak to judge."""
    for row in dict.fromkeys(run.row for run in report.runs if run.row != REAL_IMAGES):
        rebuilt = report.mean(row, "rebuilt")
        if rebuilt is not None and rebuilt < TRAINED:
            yield f"{row} is under-trained: {rebuilt:.2f} of the images reconstructed from all inputs keep their digit."


def sweep(options: Options) -> Sweep:
    """Returns the table, with the classifiers' trials first.

    Raises:
        Refusal: as `cells`.
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
    )


if __name__ == "__main__":
    start(Options, sweep)
