"""A trial of a search: its settings, where it stands, and its values at the rungs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mvae.trial import Trial
from sweeps.planning.state import TrialState

STATES = (TrialState.DONE, TrialState.PRUNED, TrialState.DIVERGED, TrialState.RUNNING)
"""States of a search's trials, in the order in which they are counted."""


@dataclass(frozen=True)
class TriedTrial:
    """A trial of the study; a setting that the sampler repeated is none."""

    number: int
    key: str
    trial: Trial
    state: TrialState
    """One of STATES; RUNNING also if the next command resumes it."""
    value: float | None
    """The metric: at the last epoch of one that is done, where a pruned one was given up."""
    steps: Mapping[int, float] = field(default_factory=dict)
    """Epoch to metric, at the rungs that it has passed; of a pruned one, also where it did not."""
    why: str = ""
    """What was said of one that diverged."""

    @property
    def ended(self) -> bool:
        """Whether it is not to be trained on."""
        return self.state is not TrialState.RUNNING


def counts(known: Iterable[TriedTrial]) -> str:
    """How many trials are in each state: 3 done, 1 pruned."""
    numbers = Counter(one.state for one in known)
    return ", ".join(f"{numbers[state]} {state.word}" for state in STATES if numbers[state])
