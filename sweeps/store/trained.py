"""Loads the model of a finished trial from storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvae.models import arm
from mvae.training.records import MODEL
from sweeps.store.store import Store

if TYPE_CHECKING:
    from torch import nn

    from mvae.data.dataset import Modality
    from mvae.trial import Trial


def trained_model(store: Store, key: str, trial: Trial, modalities: tuple[Modality, ...]) -> nn.Module | None:
    """Returns a trial's model from its newest checkpoint, or None if it has no checkpoint.

    The model is on the CPU and in evaluation mode.

    Args:
        key: the trial's key.
        modalities: modalities of the data set that the trial was trained on.
    """
    checkpoints = store.checkpoints(key)
    newest = checkpoints.latest()
    if newest is None:
        return None
    module = arm(trial.model).build(trial, modalities)
    module.load_state_dict(checkpoints.load(newest, MODEL))
    return module.eval()
