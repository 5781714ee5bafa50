"""Trains one model on the whole cluster: data-parallel training of any arm on any data set.

Type    python pipelines/train.py --workers 2                            # digits, half a minute on 2 cores
        ray submit cluster/gpu.yaml pipelines/train.py --dataset celeba --workers 4 --precision bfloat16 --compile

Paper   sections 1, 6 and 8 to 11 train each model on one GPU. We use the paper's batch size and divide each batch among
        the workers.
Expect  the same numbers as with one worker, up to rounding. Models with batch normalisation give the
        same numbers only with --sync-batchnorm.
Runs    digits: 20 epochs. Starting the workers takes most of the half minute.

With a range, such as --workers 2-4, training is elastic. Elastic training starts with the available workers, continues
with fewer workers when machines are lost, and grows when machines return. Meanwhile, no other sweep may use the
cluster. The numbers of an elastic run depend on when machines were lost, so no table uses them. MLflow has the speed of
each epoch: speed/examples_per_second and speed/scaling_efficiency. The efficiency is the speed divided by the number of
workers and by the speed of a single worker. The speed of a single worker is measured over a few steps.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

from mvae.data import Kind, source
from mvae.data.dataset import ATTRIBUTE_KINDS, all_sentences, has_views
from mvae.evaluation.measurable import accuracy_given
from mvae.measure import ACCURACY, ATTRIBUTE_ACCURACY, TRANSLATION, VISION, Measure, given_suffix, likelihood, readout
from mvae.models import arm
from mvae.refusal import Refusal
from mvae.settings import Pairing, Precision, Targets
from sweeps.cli.options import CommonOptions
from sweeps.cli.shared import Given, PairedFraction, Preset, check_pairs
from sweeps.cli.values import Whole, WorkerRange, Written
from sweeps.start import start
from sweeps.store.store import Store
from sweeps.sweep import Cell, Sweep
from sweeps.table.files import Report
from sweeps.table.metric_names import metric_words
from sweeps.table.protocol import remarks

PRESETS = {"demo": Preset(trial={"epochs": 20}), "paper": Preset()}


class Options(CommonOptions):
    """One model"""

    workers: WorkerRange = (1, 1)
    """Number of processes that share each training step; MIN-MAX is elastic (default: 1).

    The processes run on as many machines as needed."""
    precision: Precision = "float32"
    compile: bool = False
    paired_fraction: PairedFraction = None
    pairing: Annotated[Pairing | None, Written("NAME")] = None
    targets: Targets = "own"
    k: Whole | None = None
    given: Given = None


def cells(options: Options) -> Iterator[Cell]:
    """Yields one cell per arm and seed. The column is the number of workers.

    Raises:
        Refusal: unknown arm, data set or modality, or contradictory settings.
    """
    if options.workers_per_trial is not None:
        raise Refusal("--workers-per-trial has no effect on a single model: give --workers instead")
    fewest, most = options.workers
    shown = f"{fewest} to {most} workers" if fewest < most else f"{most} worker{'s' * (most > 1)}"
    chosen = PRESETS[options.preset].under(options)
    for token in chosen.arms:
        measure = measure_of(token, options.dataset, options.given)
        for trial in chosen.trials(options, token, workers=most, fewest_workers=fewest if fewest < most else None):
            yield Cell(arm(token).title, shown, trial, measure, None, arm=token)


def measure_of(token: str, dataset: str, given: Sequence[str] | None = None) -> Measure:
    """Returns the measure that best shows whether an arm has learnt the data set.

    Args:
        given: names of the modalities to predict the label from. The measure is then the accuracy of these predictions.
            If None, or only the first image or vector, the measure depends on the data set and the arm alone.
    Raises:
        Refusal: the arm cannot predict from the given modalities, or the data set does not fit.
    """
    if (asked := accuracy_given(given, token, source(dataset))) is not None:
        return asked
    modalities = source(dataset).modalities
    kinds = {modality.kind for modality in modalities}
    if all_sentences(modalities):
        return TRANSLATION
    able = arm(token).measures
    if has_views(modalities) and "vision" in able:
        return VISION
    if kinds & ATTRIBUTE_KINDS and "attributes" in able:
        return ATTRIBUTE_ACCURACY
    if kinds & {Kind.LABEL, Kind.TEXT} and arm(token).predicts:
        return ACCURACY
    if Kind.LABEL in kinds and "readout" in able:
        return readout(1.0)
    return likelihood(samples=100)


def statements(report: Report, store: Store) -> Iterator[str]:
    """Yields a line per model with the training speed, and the scaling efficiency if it was measured."""
    for run in (run for run in report.runs if run.value is not None):
        result = store.results.read(run.key, run.measure)
        speed = result.provenance.get("speed", {}) if result else {}
        if speed:
            shown = f"{speed['examples_per_second']:,.0f} examples/s"
            if "scaling_efficiency" in speed:
                shown += f", single worker {speed['examples_per_second_alone']:,.0f}"
                shown += f": scaling efficiency {speed['scaling_efficiency']:.0%}"
            yield f"{run.row} {run.column} seed {run.seed}: {shown}."


def sweep(options: Options) -> Sweep:
    """Returns the models that the options ask for.

    Raises:
        Refusal: `cells` refuses, or data are missing.
    """
    grid = tuple(cells(options))
    check_pairs(options, options.paired_fraction)
    title = f"Training on {options.dataset}"
    measure = grid[0].measure
    return Sweep(
        f"train-{options.dataset}{given_suffix(measure.given)}",
        title,
        grid,
        axis="workers",
        heading=f"{title}: {metric_words(measure.quantity)}" if measure.given else title,
        source="supplement, section 1",
        statements=lambda report: statements(report, Store.open(options.storage, options.name, create=False)),
        speeds=True,
        remarks=remarks(grid, network_given=options.image_network is not None),
    )


if __name__ == "__main__":
    start(Options, sweep)
