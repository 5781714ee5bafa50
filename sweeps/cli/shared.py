"""What several pipelines share: presets, options with their line of help, a folder typed in place of a data set.

    PRESETS = {"demo": Preset((0, 1, 4), samples=20, trial={"epochs": 1}), "paper": Preset(KS, seeds=(0, 1, 2))}

    chosen = PRESETS[options.preset].under(options)
    trials = chosen.trials(options, "mvae", k=4)

An option of one pipeline stands in that pipeline's file, an option of all in options.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

from pydantic import Field

from mvae.data import training_examples
from mvae.refusal import Refusal
from mvae.supervision import check_fraction
from mvae.trial import Trial
from sweeps.cli.options import CommonOptions, TargetSets
from sweeps.cli.values import Positive, Samples

PAPER_SAMPLES = 1000
"""Importance samples per test example in Tables 1 and 2."""

# The options of more than one pipeline, each with its line of `--help`.
SampleCount = Annotated[
    Samples | None, Field(description="Importance samples a test example, at least 2 (default: the preset's).")
]
PairedFraction = Annotated[
    Positive | None,
    Field(description="Share of the training pairs that stay together, 0 < f <= 1 (default: all)."),
]
TargetRows = Annotated[
    TargetSets,
    Field(
        description="Targets of an ELBO term: own (what it conditions on) or all (every modality present);"
        " each is a row."
    ),
]


@dataclass(frozen=True)
class Preset:
    """Values of a preset, used unless the command line gives others; None takes the data set's default."""

    columns: tuple[float, ...] = ()
    """Values of the pipeline's own axis: numbers of subsets, keep probabilities, fractions of pairs."""
    seeds: tuple[int, ...] = (0,)
    arms: tuple[str, ...] = ("mvae",)
    samples: int = PAPER_SAMPLES
    """Importance samples per test example."""
    trial: Mapping[str, Any] = field(default_factory=dict)
    """Fields of every trial."""

    def under(self, options: CommonOptions) -> Preset:
        """Returns the preset with the values that the command line gives; its own columns stay."""
        given = {own.name: getattr(options, own.name, None) for own in fields(self)}
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def trials(self, options: CommonOptions, model: str, **fields: Any) -> list[Trial]:
        """Returns a trial of this arm for each seed.

        Args:
            fields: what the pipeline decides; a field here overrides the option and the preset.
        Raises:
            Refusal: settings that mean nothing together.
        """
        fields = {"dataset": options.dataset, **self.trial, **options.trial_fields(), **fields}
        return [Trial.create(model=model, seed=seed, **fields) for seed in self.seeds]


def report_name(name: str, samples: int) -> str:
    """Name of a sweep's report: other numbers of samples than the paper's have a report each."""
    return name if samples == PAPER_SAMPLES else f"{name}-s{samples}"


def check_pairs(options: CommonOptions, *fractions: float | None) -> None:
    """Checks that fractions of the training pairs keep some; None keeps all.

    Raises:
        Refusal: one keeps too few; missing data.
    """
    examples = training_examples(options.dataset, options.data_root)
    for fraction in fractions:
        check_fraction(min(examples, options.train_examples or examples), fraction or 1.0, options.dataset)


def folder_as_data_set(typed: Any, option: str, dataset: str, otherwise: str) -> Any:
    """Reads an option that names a folder as `--dataset` and `--data-root`.

    Args:
        typed: options by name, before they are validated.
        dataset: the data set that the folder's files make.
        otherwise: what to say beside `--dataset {}` with another data set.
    Raises:
        Refusal: `--data-root` or another data set is typed too.
    """
    if not isinstance(typed, dict) or typed.get(option) is None:
        return typed
    if typed.get("data_root") is not None:
        raise Refusal(f"--{option} and --data-root both say where the files are: give one of them")
    if typed.get("dataset") not in (None, dataset):
        raise Refusal(otherwise.format(typed["dataset"]))
    return {**typed, "dataset": dataset, "data_root": typed[option]}
