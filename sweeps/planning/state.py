"""The states of a trial, for plans, tables, searches and MLflow's views."""

from enum import StrEnum

WORDS = {"pending": "missing", "interrupted": "partial", "running": "open"}
"""Names of states in tables and CSV files, if different from the state's value. Earlier releases wrote these names."""


class TrialState(StrEnum):
    """The state of a trial, a cell or a whole sweep."""

    PENDING = "pending"
    """Nothing is stored, or the trial waits to be resumed."""
    RUNNING = "running"
    """A driver is running the trial. In a search, also a trial that the next command resumes."""
    DONE = "done"
    """Every result is stored."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """A checkpoint is stored, and the next command resumes from it."""
    PRUNED = "pruned"
    """A search stopped the trial at a rung, because other trials were better there."""
    DIVERGED = "diverged"
    """The loss or a weight became nan or infinite."""

    @property
    def word(self) -> str:
        """The state's name in tables and CSV files."""
        return WORDS.get(self, self.value)
