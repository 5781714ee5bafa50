"""A trial of a search: its settings, where it stands, and its values at the rungs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from mvae.trial import Trial

if TYPE_CHECKING:
    pass


class Standing(StrEnum):
    """Where a trial of a study stands."""

    DONE = "done"
    PRUNED = "pruned"
    """Given up at a rung, since others were better there."""
    DIVERGED = "diverged"
    """Its numbers ceased to be finite."""
    OPEN = "open"
    """It was begun, or chosen at least, and goes on with the next command."""


@dataclass(frozen=True)
class TriedTrial:
    """A trial of the study; a setting that the sampler repeated is none."""

    number: int
    key: str
    trial: Trial
    standing: Standing
    value: float | None
    """The metric: at the last epoch of one that is done, where a pruned one was given up."""
    steps: Mapping[int, float] = field(default_factory=dict)
    """Epoch to metric, at the rungs that it has passed; of a pruned one, also where it did not."""
    why: str = ""
    """What was said of one that diverged."""

    @property
    def ended(self) -> bool:
        """Whether it is not to be trained on."""
        return self.standing is not Standing.OPEN
