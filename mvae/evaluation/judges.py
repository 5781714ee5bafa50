"""Defines the trials that train the classifiers of generated images. Imports no torch."""

from collections.abc import Iterable
from typing import Any

from mvae.data import source
from mvae.measure import COHERENCE, Measure
from mvae.trial import Trial

JUDGE_EPOCHS = 20
"""Number of epochs for which each classifier of generated images is trained."""


def judge_trials(dataset: str) -> tuple[Trial, ...]:
    """Returns the trials of the classifiers that judge a data set's models, one per modality.

    Raises:
        Refusal: the data set has no hidden label.
    """
    names = [modality.name for modality in source(dataset).modalities]
    fields: dict[str, Any] = {"epochs": JUDGE_EPOCHS, "batch_size": 128, "learning_rate": 1e-3}
    return tuple(Trial.create(dataset=dataset, model="judge", own={"modality": name}, **fields) for name in names)


def needed(measures: Iterable[Measure], dataset: str) -> tuple[Trial, ...]:
    """Returns the trials whose models must be trained before these measures can be computed on a data set."""
    return judge_trials(dataset) if COHERENCE in measures else ()
