"""A trial of a search: its settings, its state, and its metric at the rungs."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mvae.trial import Trial
from sweeps.planning.state import TrialState

STATES = (TrialState.DONE, TrialState.PRUNED, TrialState.DIVERGED, TrialState.RUNNING)
"""States of a search's trials, in the order of the report."""


@dataclass(frozen=True)
class TriedTrial:
    """A trial of the study. Settings that the sampler repeated are not counted as trials."""

    number: int
    key: str
    trial: Trial
    state: TrialState
    """One of STATES. RUNNING includes trials that the next command resumes."""
    value: float | None
    """The metric: at the last epoch of a finished trial, or at the rung where a trial was pruned."""
    steps: Mapping[int, float] = field(default_factory=dict)
    """Metric by epoch, at the rungs that the trial has passed and at the rung where it was pruned."""
    why: str = ""
    """The error message, if the trial diverged."""

    @property
    def ended(self) -> bool:
        """Whether the trial needs no more training."""
        return self.state is not TrialState.RUNNING


def counts(known: Iterable[TriedTrial]) -> str:
    """Returns the number of trials in each state, for example "3 done, 1 pruned"."""
    numbers = Counter(one.state for one in known)
    return ", ".join(f"{numbers[state]} {state.word}" for state in STATES if numbers[state])
