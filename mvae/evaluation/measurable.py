"""Checks whether an arm and a data set support a measure. Imports no torch, so that users see errors quickly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvae.data import DATASETS, source
from mvae.data.dataset import ATTRIBUTE_KINDS, Kind, Modality, Source, all_sentences, directions, has_views
from mvae.measure import OWN, Measure
from mvae.models import ARMS, arm
from mvae.refusal import Refusal

if TYPE_CHECKING:
    from mvae.data.examples import Dataset

PREDICTED = {
    "accuracy": frozenset({Kind.LABEL, Kind.TEXT}),
    "readout": frozenset({Kind.LABEL}),
    "attributes": ATTRIBUTE_KINDS,
}
"""Kinds of modality that each measure predicts. A data set must have at least one of them."""


def check_measurable(measure: Measure, token: str, data: Source | Dataset | None = None) -> None:
    """Checks that an arm and a data set support a measure.

    Args:
        data: None skips the check of the data set.
    Raises:
        Refusal: the arm lacks the measure, or the data set lacks what the measure predicts. The message lists the arms
            or data sets to choose from.
    """
    if own := OWN.get((measure.name, measure.version)):
        if own.arms and arm(token).token not in own.arms:
            raise Refusal(f"arm {token} has no {measure.name}: choose among {', '.join(sorted(own.arms))}")
        return
    if measure.name not in arm(token).measures:
        able = ", ".join(other.token for other in ARMS.values() if measure.name in other.measures)
        raise Refusal(f"arm {token} has no {measure.name}: choose among {able}")
    if data is not None and not _has_predicted(measure, data):
        able = ", ".join(other.name for other in DATASETS.values() if _has_predicted(measure, other))
        given = "to predict" if _has_image(data) else "to predict from an image"
        missing = {
            "accuracy": f"label or text {given}",
            "readout": f"label {given}",
            "attributes": f"attributes {given}",
            "translation": "sentences in two languages to translate",
            "vision": "edges and masks of faces to predict",
            "real": "hidden label to classify",
            "coherence": "hidden label to judge generated images by",
        }
        raise Refusal(f"{data.name} has no {missing[measure.name]}: choose among {able}")


def _has_predicted(measure: Measure, data: Source | Dataset) -> bool:
    if measure.name == "translation":
        return len(data.modalities) > 1 and all_sentences(data.modalities)
    if measure.name in ("real", "coherence"):
        return bool(source(data.name).hidden)
    if measure.name == "vision":
        return has_views(data.modalities)
    predicted = PREDICTED.get(measure.name)
    kinds = {modality.kind for modality in data.modalities}
    return predicted is None or (_has_image(data) and not predicted.isdisjoint(kinds))


def _has_image(data: Source | Dataset) -> bool:
    return any(modality.kind is Kind.IMAGE for modality in data.modalities)


def has_accuracy(token: str, modalities: tuple[Modality, ...]) -> bool:
    """Whether an arm predicts the label or the text of these modalities."""
    return arm(token).predicts and any(modality.kind in (Kind.LABEL, Kind.TEXT) for modality in modalities)


def validation_metrics(token: str, modalities: tuple[Modality, ...]) -> tuple[str, ...]:
    """Returns the names of the metrics that `validated` (mvae/training/loop.py) computes for an arm. May be empty."""
    chosen, kinds = arm(token), {modality.kind for modality in modalities}
    if chosen.watch is not None:
        return (chosen.watched,) if chosen.watched else ()
    if "translation" in chosen.measures and all_sentences(modalities):
        return tuple(f"validation/log_likelihood_{name}" for name in directions(modalities))
    accuracy = has_accuracy(token, modalities)
    attributes = "attributes" in chosen.measures and not kinds.isdisjoint(ATTRIBUTE_KINDS)
    of_attributes = ("validation/attribute_accuracy", "validation/attribute_balanced_accuracy")
    return ("validation/accuracy",) * accuracy + of_attributes * attributes
