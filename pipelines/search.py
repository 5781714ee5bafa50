"""Searches for better settings: Optuna proposes settings, and ASHA prunes the trials that fall behind.

Type    python pipelines/search.py --paired-fraction 0.05                # digits, 20 trials, about a minute on 2 cores
        python pipelines/search.py --paired-fraction 0.05 --trials 40    # 20 more
        python pipelines/search.py --dataset fashion_mnist --arms mvae --paired-fraction 0.01 --epochs 20 --trials 60

Paper   none: the supplement uses one setting per data set, and does not state pairing, targets or label weight
Expect  digits with 5 % of the pairs: within 20 trials, a better validation accuracy than with the default settings
Runs    digits, 20 trials of 20 epochs

By default the search varies learning rate, latents, likelihood weights, annealing share, pairing, targets, image
network and decoder depth, except settings that the arm ignores. A setting that you give, for example --learning-rate
0.001, is fixed. --trials is a total: after an interruption the same command resumes, and a larger total adds trials. At
the end the search prints a command that trains the best settings with more seeds.
"""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

import pipelines
from mvae.data import Kind, fingerprint, source
from mvae.decimals import plain
from mvae.evaluation.measurable import maximised, validation_metrics
from mvae.measure import ACCURACY, Measure, readout
from mvae.models import arm
from mvae.refusal import Refusal
from mvae.settings import Pairing, Targets
from mvae.storage.place import Place
from mvae.trial import Trial
from pipelines.train import PRESETS, measure_of
from sweeps.cli.options import CommonOptions
from sweeps.cli.programs import from_here
from sweeps.cli.shared import PairedFraction, check_pairs
from sweeps.cli.tracking_uri import tracking_uri, without_credentials
from sweeps.cli.trial_options import TrialOptions
from sweeps.cli.values import Count, Names, Uri, Written
from sweeps.search.space import Search, ranges
from sweeps.start import start
from sweeps.store.store import Store
from sweeps.sweep import Sweep
from sweeps.table.protocol import remarks


def _metric(value: str) -> str:
    if not value.startswith("validation/") or value == "validation/":
        raise Refusal("write a validation metric, such as validation/accuracy: a search must not use the test set")
    return value


Metric = Annotated[str, AfterValidator(_metric), Written("METRIC")]


class Options(CommonOptions):
    """Search"""

    trials: Annotated[Count, Field(le=100_000)] = 20
    """Total number of distinct settings to try, including settings that earlier commands tried."""
    objective: Metric | None = None
    """Validation metric that ranks the trials, for example validation/accuracy (default: the arm's)."""
    vary: Names | None = None
    """Settings to vary (default: all settings that the arm reads and that you do not give)."""
    prune: bool = True
    """Train every trial for all epochs, even if it falls behind (no ASHA)."""
    paired_fraction: PairedFraction = None
    pairing: Annotated[Pairing | None, Written("NAME")] = None
    """Sampling of the kept pairs: reserved, proportional or resampled (default: varied)."""
    targets: Annotated[Targets | None, Written("own|all")] = None
    """Modalities that an ELBO term reconstructs: own (only its inputs) or all (default: varied)."""
    study_uri: Uri | None = None
    """Database of the Optuna study (default: a SQLite file in the storage, next to MLflow's)."""


def search(options: Options) -> Search:
    """Returns the search that the options ask for.

    Raises:
        Refusal: unknown name, contradictory settings, nothing to vary, or a metric that the arm does not have.
    """
    if len(options.arms or ()) > 1 or len(options.seeds or ()) > 1:
        raise Refusal("a search has one arm and one seed: give one value to --arms and one to --seeds")
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
        maximize=maximised(metric, token, options.dataset),
        total=options.trials,
        prune=options.prune,
        fingerprint=fingerprint(options.dataset, options.data_root, options.cache),
        measure=measured(token, options),
        command=lambda trial: command(trial, options),
    )


def objective(options: Options, token: str) -> str:
    """Returns the metric that ranks the trials.

    Raises:
        Refusal: the arm does not have the requested metric. The message lists the metrics of the arm.
    """
    able = validation_metrics(token, source(options.dataset).modalities, options.dataset)
    if not able:
        raise Refusal(f"arm {token} on {options.dataset} has no validation metric: choose another arm or data set")
    if options.objective is not None and options.objective not in able:
        raise Refusal(
            f"--objective {options.objective}: arm {token} on {options.dataset} does not have this metric: choose among"
            f" {', '.join(able)}"
        )
    return options.objective or able[0]


def measured(token: str, options: Options) -> Measure:
    """Returns the measure of finished trials, as in pipelines/train.py. A read-out uses --paired-fraction."""
    found = measure_of(token, options.dataset)
    return readout(options.paired_fraction or 1.0) if found.name == "readout" else found


def command(trial: Trial, options: Options) -> str:
    """Returns the command that trains a trial's settings with three seeds. The trial itself has the first seed."""
    labelled = Kind.LABEL in {modality.kind for modality in source(trial.dataset).modalities}
    of_table = labelled and (measured(trial.model, options) == ACCURACY or "readout" in arm(trial.model).measures)
    pipeline = "weak_supervision" if of_table else "train"
    fraction = "fractions" if of_table else "paired_fraction"
    words: dict[str, object] = {
        "dataset": trial.dataset,
        "arms": trial.model,
        "seeds": f"{trial.seed}-{trial.seed + 2}",
    }
    if options.paired_fraction is not None or of_table:
        words[fraction] = plain(options.paired_fraction or 1.0)
    reads = trial.hashed_fields()
    settings = ("epochs", *TrialOptions.model_fields, "pairing", "targets")
    words |= {name: reads[name] for name in settings if reads.get(name) is not None}
    if trial.own:
        words["set"] = ",".join(f"{name}={value}" for name, value in trial.own)
    places = ("name", "storage", "data_root", "cache", "tracking_uri", "plugins")
    words |= {
        name: _for_any_folder(name, getattr(options, name)) for name in places if name in options.model_fields_set
    }
    typed = [part for name, value in words.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    file = Path(pipelines.__path__[0], f"{pipeline}.py")  # not Path(__file__), because `ray submit` runs a copy
    return shlex.join(["python", from_here(file), *typed])


def _for_any_folder(name: str, given: object) -> object:
    """Returns an option's value with absolute paths and no credentials, so that the command works anywhere."""
    if isinstance(given, Place):
        return given.uri
    if name == "tracking_uri":
        return without_credentials(tracking_uri(str(given)))
    return ",".join(map(str, given)) if isinstance(given, tuple) else given


def sweep(options: Options) -> Sweep:
    """Returns the search that the options ask for, with all trials that are already stored.

    Raises:
        Refusal: `search` refuses, data are missing, or the study cannot be read.
    """
    from sweeps.search.database import check_can_be_made, study_uri
    from sweeps.search.driver import sweep_of

    wanted = search(options)
    check_pairs(options, options.paired_fraction)
    store = Store.open(options.storage, options.name, create=False)
    if options.study_uri is not None and not (options.plan or options.report):
        check_can_be_made(options.study_uri)
    found = sweep_of(wanted, study_uri(store, options.study_uri))
    return replace(found, remarks=remarks(found.cells, network_given=True))


if __name__ == "__main__":
    start(Options, sweep)
