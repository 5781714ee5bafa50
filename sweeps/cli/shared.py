"""Presets, options and checks that several pipelines share.

    PRESETS = {"demo": Preset((0, 1, 4), samples=20, trial={"epochs": 1}), "paper": Preset(seeds=(0, 1, 2))}

    chosen = PRESETS[options.preset].under(options)
    trials = chosen.trials(options, "mvae", k=4)

Options of every pipeline are in options.py, options of only one pipeline in that pipeline's file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Self

from pydantic import Field

from mvae.data import training_examples
from mvae.measure import Measure
from mvae.models import ARMS, arm
from mvae.refusal import Refusal
from mvae.supervision import check_fraction
from mvae.trial import Trial
from sweeps.cli.options import CommonOptions, TargetSets
from sweeps.cli.values import Names, Samples, Share

PAPER_SAMPLES = 1000
"""Importance samples per test example in Tables 1 and 2."""

SampleCount = Annotated[
    Samples | None,
    Field(description="Importance samples per test example, at least 2 (default: the preset's; 1,000 in the paper)."),
]
PairedFraction = Annotated[
    Share | None, Field(description="Fraction of the training pairs to keep, 0 < f <= 1 (default: all).")
]
Given = Annotated[
    Names | None,
    Field(description="Modalities that predict the label, such as image,sound (default: the first image or vector)."),
]
TargetRows = Annotated[
    TargetSets,
    Field(
        description="Modalities that an ELBO term reconstructs, one row per value: own (only its inputs) or all (every"
        " modality of the example)."
    ),
]


def arms_for(*measures: Measure, reads: str = "model") -> list[str]:
    """Returns the arms that `--help` lists: all arms that have one of the measures and read the field named `reads`."""
    names = {measure.name for measure in measures}
    return [token for token, arm in ARMS.items() if reads in arm.reads and names & arm.measures]


@dataclass(frozen=True)
class Preset:
    """Default values that the command line can override. `trial` sets fields of every trial."""

    columns: tuple[float, ...] = ()
    """Values of the table's columns: numbers of subsets, keep probabilities or fractions of pairs."""
    seeds: tuple[int, ...] = (0,)
    arms: tuple[str, ...] = ("mvae",)
    samples: int = PAPER_SAMPLES
    trial: Mapping[str, Any] = field(default_factory=dict)

    def under(self, options: CommonOptions) -> Self:
        """Returns the preset, overridden by the options of the same names. No option overrides `columns`."""
        given = {own.name: getattr(options, own.name, None) for own in fields(self)}
        chosen = replace(self, **{name: value for name, value in given.items() if value is not None})
        for name, _ in options.set:
            check_declared(name, chosen.arms)
        return chosen

    def trials(self, options: CommonOptions, model: str, **fields: Any) -> list[Trial]:
        """Returns one trial of the arm `model` per seed.

        Args:
            fields: fields set by the pipeline. These fields override options and preset.
        Raises:
            Refusal: the settings contradict each other.
        """
        fields = {"dataset": options.dataset, **self.trial, **options.trial_fields(), **fields}
        declared = {each.name: each for each in arm(model).hyperparameters}
        typed = {name: declared[name].read(text) for name, text in options.set if name in declared}
        fields["own"] = {**fields.get("own", {}), **typed}
        return [Trial.create(model=model, seed=seed, **fields) for seed in self.seeds]


def check_declared(name: str, arms: Sequence[str]) -> None:
    """Checks that at least one of the arms declares the hyper-parameter that `--set` names.

    Raises:
        Refusal: none of the arms declares the hyper-parameter.
    """
    if not any(each.name == name for token in arms for each in arm(token).hyperparameters):
        having = [token for token in arms if arm(token).hyperparameters] or ARMS
        known = [f"{each.name} ({token})" for token in having for each in arm(token).hyperparameters]
        raise Refusal(
            f"--set {name}: none of the arms ({', '.join(arms)}) has this hyper-parameter:"
            f" choose among {', '.join(known)}"
        )


def report_name(name: str, samples: int) -> str:
    """Returns a report's name. A number of samples other than the paper's is part of the name."""
    return name if samples == PAPER_SAMPLES else f"{name}-s{samples}"


def check_pairs(options: CommonOptions, *fractions: float | None) -> None:
    """Checks that each fraction keeps enough training pairs. None keeps all pairs.

    Raises:
        Refusal: a fraction keeps too few pairs, or raw files are missing.
    """
    examples = training_examples(options.dataset, options.data_root)
    for fraction in fractions:
        check_fraction(min(examples, options.train_examples or examples), fraction or 1.0, options.dataset)


def folder_as_data_set(typed: Any, option: str, dataset: str, conflict: str) -> Any:
    """Replaces an option whose value is a folder by `--dataset` and `--data-root`.

    Args:
        typed: options by name, before validation.
        dataset: the data set that reads the folder.
        conflict: error message if the user gives another data set, with `{}` for the name of this other data set.
    Raises:
        Refusal: `--data-root` or another data set is given too.
    """
    if not isinstance(typed, dict) or typed.get(option) is None:
        return typed
    if typed.get("data_root") is not None:
        raise Refusal(f"--{option} and --data-root both name the folder of the raw files: give only one of them")
    if typed.get("dataset") not in (None, dataset):
        raise Refusal(conflict.format(typed["dataset"]))
    return {**typed, "dataset": dataset, "data_root": typed[option]}
