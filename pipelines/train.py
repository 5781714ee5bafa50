"""One model on the whole cluster: data-parallel training of any arm on any data set.

Paper   sections 1, 6 and 8 to 11 train each model on one GPU; the batch size here is theirs, shared by the workers
Expect  the numbers of one worker, up to rounding, with networks without batch normalisation; with it, only if the
        workers share its statistics (--sync-batchnorm)
Runs    digits, 20 epochs, 2 workers on 2 CPU cores: half a minute, most of it the start of the workers
Type    python pipelines/train.py --workers 2
        ray submit cluster/gpu.yaml pipelines/train.py --dataset celeba --workers 4 --precision bfloat16 --compile
        ray submit cluster/gpu.yaml pipelines/train.py --dataset celeba --workers 2-4

With a range, as 2-4, training is elastic: it begins with as many workers as there are, goes on with fewer when machines
are lost, and grows when they come back; it wants the cluster for itself. Such a run's numbers depend on what happened,
so they fill no table's cell. Its speed is in MLflow: speed/examples_per_second of each epoch, and
speed/scaling_efficiency, which is that speed over the workers times the speed of one that trains alone for a few steps.
"""

from __future__ import annotations

from collections.abc import Iterator

from mvae.data import Kind, source
from mvae.data.dataset import ATTRIBUTE_KINDS, all_sentences, has_views
from mvae.measure import ACCURACY, ATTRIBUTE_ACCURACY, TRANSLATION, VISION, Measure, likelihood, readout
from mvae.models import arm
from mvae.refusal import Refusal
from mvae.settings import Pairing, Precision, Targets
from sweeps.cli.options import CommonOptions
from sweeps.cli.shared import PairedFraction, Preset, check_pairs
from sweeps.cli.values import Whole, WorkerRange
from sweeps.start import start
from sweeps.store.store import Store
from sweeps.sweep import Cell, Sweep
from sweeps.table.files import Report
from sweeps.table.protocol import remarks

PRESETS = {"demo": Preset(trial={"epochs": 20}), "paper": Preset()}


class Options(CommonOptions):
    """One model"""

    workers: WorkerRange = (1, 1)
    """Processes that share each training step, on as many machines as it takes; MIN-MAX: elastic (default: 1)."""
    precision: Precision = "float32"
    """Number format of the networks in training."""
    compile: bool = False
    """Run the networks through torch.compile."""
    paired_fraction: PairedFraction = None
    pairing: Pairing | None = None
    """How often the paired set is shown (default: the data set's)."""
    targets: Targets = "own"
    """What an ELBO term reconstructs."""
    k: Whole | None = None
    """Random subsets of modalities a step (default: the data set's)."""


def cells(options: Options) -> Iterator[Cell]:
    """One cell an arm and seed; the column says how many workers.

    Raises:
        Refusal: an unknown name, settings that mean nothing together.
    """
    if options.workers_per_trial is not None:
        raise Refusal("--workers-per-trial: of the one model here --workers says how many train it; give that alone")
    fewest, most = options.workers
    shown = f"{fewest} to {most} workers" if fewest < most else f"{most} worker{'s' * (most > 1)}"
    chosen = PRESETS[options.preset].under(options)
    workers = {"workers": most, "fewest_workers": fewest if fewest < most else None}
    for token in chosen.arms:
        for trial in chosen.trials(options, token, **workers):
            yield Cell(arm(token).title, shown, trial, measure_of(token, options.dataset), None, arm=token)


def measure_of(token: str, dataset: str) -> Measure:
    """What shows best whether an arm has learnt the data set."""
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
    """How fast each model was trained, and what its workers gained."""
    for run in (run for run in report.runs if run.value is not None):
        result = store.results.read(run.key, run.measure)
        speed = result.provenance.get("speed", {}) if result else {}
        if speed:
            said = f"{speed['examples_per_second']:,.0f} examples/s"
            if "scaling_efficiency" in speed:
                alone, share = speed["examples_per_second_alone"], speed["scaling_efficiency"]
                said += f", one worker alone {alone:,.0f}: scaling efficiency {share:.0%}"
            yield f"{run.row} {run.column} seed {run.seed}: {said}."


def sweep(options: Options) -> Sweep:
    """The models that the options ask for.

    Raises:
        Refusal: as `cells`; missing data.
    """
    made = tuple(cells(options))
    check_pairs(options, options.paired_fraction)
    title = f"Training on {options.dataset}"
    return Sweep(
        f"train-{options.dataset}",
        title,
        made,
        axis="workers",
        heading=title,
        source="supplement, section 1",
        statements=lambda report: statements(report, Store.open(options.storage, options.name, create=False)),
        speeds=True,
        remarks=remarks(made, network_given=options.image_network is not None),
    )


if __name__ == "__main__":
    start(Options, sweep)
