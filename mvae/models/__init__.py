"""The arms of the tables, by the token that `--arms` takes."""

from __future__ import annotations

from mvae.models.arm import Arm
from mvae.models.classifiers import LOGREG_ARM, NN_ARM
from mvae.models.mvae import MVAE_ARM, MVAE_Q_ARM

ARMS: dict[str, Arm] = {known.token: known for known in (NN_ARM, LOGREG_ARM, MVAE_ARM, MVAE_Q_ARM)}


def arm(token: str) -> Arm:
    """The arm of that token.

    Raises:
        ValueError: there is none; the message names those that exist.
    """
    if token not in ARMS:
        raise ValueError(f"no arm {token!r}: there are {', '.join(ARMS)}")
    return ARMS[token]
