"""A search for better settings: Optuna chooses them, ASHA gives up early what lags behind.

Paper   none: the supplement gives one setting a data set, and leaves some open (pairing, targets, label weight)
Expect  on digits with 5 % of the pairs, settings that beat the default's validation accuracy within 20 trials
Runs    digits, 20 trials of 20 epochs: about a minute on 2 CPU cores
Type    python pipelines/search.py --paired-fraction 0.05
        python pipelines/search.py --paired-fraction 0.05 --trials 40
        python pipelines/search.py --dataset fashion_mnist --arms mvae --paired-fraction 0.01 --epochs 20 --trials 60

What is varied: learning rate, latents, likelihood weights, annealing share, pairing, targets, image network and decoder
depth, as far as the arm reads them; an option that is given, as --learning-rate 0.001, is kept fixed. --trials is a
total: the same command goes on after any interruption, and with a larger total it goes further. At its end it prints
the best settings as a command line, to be trained with more seeds.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

import pipelines
from mvae.data import Kind, fingerprint, source
from mvae.measure import ACCURACY, Measure, readout
from mvae.models import arm
from mvae.refusal import Refusal
from mvae.settings import Pairing, Targets
from mvae.storage.objects import RemotePath
from mvae.training.loop import validation_metrics
from mvae.trial import Trial
from pipelines.train import PRESETS, measure_of
from sweeps.cli.options import CommonOptions
from sweeps.cli.programs import from_here
from sweeps.cli.shared import check_pairs
from sweeps.cli.tracking_uri import tracking_uri, without_credentials
from sweeps.cli.trial_options import TrialOptions
from sweeps.cli.values import Count, Names, Share, Uri, Written
from sweeps.search.database import check_can_be_made, study_uri
from sweeps.search.driver import sweep_of
from sweeps.search.space import Search, ranges
from sweeps.start import start
from sweeps.store.store import Store
from sweeps.sweep import Sweep
from sweeps.table.protocol import remarks


def _metric(value: str) -> str:
    if not value.startswith("validation/") or value == "validation/":
        raise Refusal("write a validation metric, as validation/accuracy: a search must not look at the test set")
    return value


Metric = Annotated[str, AfterValidator(_metric), Written("validation/NAME")]


class Options(CommonOptions):
    """Search"""

    trials: Annotated[Count, Field(le=100_000)] = 20
    """Distinct settings to try in all, those of earlier commands among them."""
    objective: Metric | None = None
    """Validation metric at the last epoch that decides (default: accuracy, or what the arm has)."""
    vary: Names | None = None
    """Settings to vary (default: all that the arm reads and that are not given)."""
    prune: bool = True
    """Train every trial to its end: none is given up for lagging behind at a rung (ASHA)."""
    paired_fraction: Share | None = None
    """Share of the training pairs that stay together, 0 < f <= 1 (default: all)."""
    pairing: Pairing | None = None
    """How often the paired set is shown; given, it is not varied."""
    targets: Targets | None = None
    """What an ELBO term reconstructs; given, it is not varied."""
    study_uri: Uri | None = None
    """Database of the study (default: a SQLite file in the storage, beside MLflow's)."""


def search(options: Options) -> Search:
    """What the options ask for.

    Raises:
        Refusal: an unknown name, settings that mean nothing, nothing to vary, a metric that the arm has not.
    """
    if len(options.arms or ()) > 1 or len(options.seeds or ()) > 1:
        raise Refusal("a search is for one arm and one seed: give --arms and --seeds one each")
    if (options.workers_per_trial or 1) > 1:
        raise Refusal("a search trains each trial in one process: leave --workers-per-trial out")
    chosen = PRESETS[options.preset].under(options)
    token = chosen.arms[0]
    paired = options.paired_fraction if "paired_fraction" in arm(token).reads else None
    (default,) = chosen.trials(options, token, paired_fraction=paired)
    metric = objective(options, token)
    return Search(
        default=default,
        varied=ranges(default, list(options.trial_fields()), options.vary),
        metric=metric,
        maximize=not metric.endswith(("error", "loss")),
        total=options.trials,
        prune=options.prune,
        fingerprint=fingerprint(options.dataset, options.data_root, options.cache),
        measure=measured(token, options),
        command=lambda trial: command(trial, options),
    )


def objective(options: Options, token: str) -> str:
    """The metric that decides.

    Raises:
        Refusal: the arm does not have the one that is asked for; the line names those that it has.
    """
    able = validation_metrics(token, source(options.dataset).modalities)
    if not able:
        raise Refusal(f"arm {token} on {options.dataset} has no validation metric to go by: choose another")
    if options.objective is not None and options.objective not in able:
        raise Refusal(
            f"--objective {options.objective}: arm {token} on {options.dataset} has {', '.join(able)}; choose one"
        )
    return options.objective or able[0]


def measured(token: str, options: Options) -> Measure:
    """What is computed of a trial that comes to its end: as pipelines/train.py does, of the paired fraction."""
    found = measure_of(token, options.dataset)
    return readout(options.paired_fraction or 1.0) if found.name == "readout" else found


def command(trial: Trial, options: Options) -> str:
    """The command line that trains a trial with three seeds, the search's own among them: that one is done already."""
    labelled = Kind.LABEL in {modality.kind for modality in source(trial.dataset).modalities}
    of_table = labelled and (measured(trial.model, options) == ACCURACY or "readout" in arm(trial.model).measures)
    pipeline = "weak_supervision" if of_table else "train"
    fraction = "--fractions" if of_table else "--paired-fraction"
    words: dict[str, object] = {"--dataset": trial.dataset, "--arms": trial.model}
    words["--seeds"] = f"{trial.seed}-{trial.seed + 2}"
    if options.paired_fraction is not None or of_table:
        words[fraction] = np.format_float_positional(options.paired_fraction or 1.0, trim="-")
    reads = trial.hashed_fields()
    for name in ("epochs", *TrialOptions.model_fields, "pairing", "targets"):
        if name in reads and reads[name] is not None:
            words[f"--{name.replace('_', '-')}"] = reads[name]
    for name in ("name", "storage", "data_root", "cache", "tracking_uri", "plugins"):
        if name in options.model_fields_set:
            words[f"--{name.replace('_', '-')}"] = _wherever_typed(name, getattr(options, name))
    typed = [part for name, value in words.items() for part in (name, str(value))]
    file = Path(pipelines.__path__[0], f"{pipeline}.py")  # not beside this file, of which `ray submit` runs a copy
    return shlex.join(["python", from_here(file), *typed])


def _wherever_typed(name: str, given: object) -> object:
    """The value of an option, with absolute paths and without credentials: it is typed in another folder, perhaps."""
    if isinstance(given, RemotePath):
        return given.uri
    if name == "tracking_uri":
        return without_credentials(tracking_uri(str(given)))
    return ",".join(map(str, given)) if isinstance(given, tuple) else given


def sweep(options: Options) -> Sweep:
    """The search that the options ask for, as far as it has come.

    Raises:
        Refusal: as `search`; missing data; a study that cannot be read.
    """
    wanted = search(options)
    check_pairs(options, options.paired_fraction)
    store = Store.open(options.storage, options.name, create=False)
    if options.study_uri is not None and not (options.plan or options.report):
        check_can_be_made(options.study_uri)
    made = sweep_of(wanted, study_uri(store, options.study_uri))
    return replace(made, remarks=remarks(made.cells, network_given=True))


if __name__ == "__main__":
    start(Options, sweep)
