"""Checks whether an arm and a data set support a measure. Imports no torch, so that users see errors quickly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mvae.data import DATASETS, source
from mvae.data.dataset import (
    ATTRIBUTE_KINDS,
    Kind,
    Modality,
    Source,
    all_sentences,
    directions,
    first_input,
    has_views,
    position,
)
from mvae.measure import ACCURACY, OWN, Measure, accuracy, watched_of
from mvae.models import ARMS, arm
from mvae.refusal import Refusal

if TYPE_CHECKING:
    from mvae.data.examples import Dataset

PREDICTED = {
    "accuracy": frozenset({Kind.LABEL, Kind.TEXT}),
    "readout": frozenset({Kind.LABEL}),
    "attributes": ATTRIBUTE_KINDS,
}
"""Kinds of modality that each measure predicts. A data set must have at least one of these kinds."""

COLOURS = 3
"""Number of channels of an Inception network's input images."""


def check_measurable(measure: Measure, token: str, data: Source | Dataset | None = None) -> None:
    """Checks that an arm and a data set support a measure.

    Args:
        data: the data set. If None, only the arm is checked.
    Raises:
        Refusal: the arm lacks the measure, or the data set lacks what the measure predicts. The message lists the arms
            or data sets to choose from.
    """
    if own := OWN.get((measure.name, measure.version)):
        if own.arms and arm(token).token not in own.arms:
            raise Refusal(f"arm {token} has no {measure.name}: choose among {', '.join(sorted(own.arms))}")
        if data is not None and own.datasets and data.name not in own.datasets:
            raise Refusal(f"{data.name} has no {measure.name}: choose among {', '.join(sorted(own.datasets))}")
        return
    if measure.given and not (arm(token).infers and arm(token).predicts):
        able = ", ".join(other.token for other in ARMS.values() if other.infers and other.predicts)
        raise Refusal(f"arm {token} cannot predict a label from chosen modalities: choose among {able}")
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
            "fid": "images of three colours in every modality",
        }
        raise Refusal(f"{data.name} has no {missing[measure.name]}: choose among {able}")
    if measure.given and data is not None:
        _check_given(measure.given, data)


def _check_given(given: Sequence[str], data: Source | Dataset) -> None:
    names = [modality.name for modality in data.modalities]
    if Kind.TEXT in {modality.kind for modality in data.modalities}:
        raise Refusal(f"the text of {data.name} is predicted only from the image: give no modalities to predict from")
    label = names[position(data.modalities, Kind.LABEL)]
    others = ", ".join(name for name in names if name != label)
    for name in given:
        if name not in names:
            raise Refusal(f"{data.name} has no modality {name!r}: predict {label} from {others}, or some of them")
        if name == label:
            raise Refusal(f"{label} of {data.name} cannot be given: predict it from {others}, or some of them")


def accuracy_given(given: Sequence[str] | None, token: str, data: Source) -> Measure | None:
    """Returns the accuracy measure for an arm that predicts the label from the modalities in `given`.

    The order of `given` does not matter. Returns None for the default: `given` is None, or contains only the first
    image or vector.

    Raises:
        Refusal: the arm, a modality's name or the data set does not fit. The message lists the valid choices.
    """
    if given is None:
        return None
    check_measurable(ACCURACY, "mvae", data)
    if list(given) == [data.modalities[first_input(data.modalities)].name]:
        return None
    _check_given(given, data)
    found = accuracy([modality.name for modality in data.modalities if modality.name in given])
    check_measurable(found, token, data)
    return found


def _has_predicted(measure: Measure, data: Source | Dataset) -> bool:
    if measure.name == "translation":
        return len(data.modalities) > 1 and all_sentences(data.modalities)
    if measure.name in ("real", "coherence"):
        return bool(source(data.name).hidden)
    if measure.name == "fid":
        return all(one.kind is Kind.IMAGE and one.shape[0] == COLOURS for one in data.modalities)
    if measure.name == "vision":
        return has_views(data.modalities)
    predicted = PREDICTED.get(measure.name)
    kinds = {modality.kind for modality in data.modalities}
    from_vector = measure.name in ("accuracy", "attributes") and Kind.VECTOR in kinds
    return predicted is None or ((_has_image(data) or from_vector) and not predicted.isdisjoint(kinds))


def _has_image(data: Source | Dataset) -> bool:
    return any(modality.kind is Kind.IMAGE for modality in data.modalities)


def has_accuracy(token: str, modalities: tuple[Modality, ...]) -> bool:
    """Whether an arm makes predictions, and these modalities include a label or a text to predict."""
    return arm(token).predicts and any(modality.kind in (Kind.LABEL, Kind.TEXT) for modality in modalities)


def validation_metrics(token: str, modalities: tuple[Modality, ...], dataset: str = "") -> tuple[str, ...]:
    """Returns the names of the metrics that `validated` (mvae/training/loop.py) computes for an arm.

    Args:
        dataset: name of the data set, needed to include plug-ins' measures that are computed during training. If
            empty, these measures are left out.
    """
    watched = watched_of(token, dataset) if dataset else []
    return _validation_metrics(token, modalities) + tuple(own.validation_metric for own in watched)


def maximised(metric: str, token: str, dataset: str) -> bool:
    """Whether larger values of a validation metric are better."""
    for own in watched_of(token, dataset):
        if own.validation_metric == metric:
            return own.measure.higher_is_better
    return not metric.endswith(("error", "loss"))


def _validation_metrics(token: str, modalities: tuple[Modality, ...]) -> tuple[str, ...]:
    chosen, kinds = arm(token), {modality.kind for modality in modalities}
    if chosen.watch is not None:
        return (chosen.watched,) if chosen.watched else ()
    if "translation" in chosen.measures and all_sentences(modalities):
        return tuple(f"validation/log_likelihood_{name}" for name in directions(modalities))
    accuracy = has_accuracy(token, modalities)
    attributes = "attributes" in chosen.measures and not kinds.isdisjoint(ATTRIBUTE_KINDS)
    of_attributes = ("validation/attribute_accuracy", "validation/attribute_balanced_accuracy")
    return ("validation/accuracy",) * accuracy + of_attributes * attributes
