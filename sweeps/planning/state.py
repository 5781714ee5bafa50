"""Where a trial stands: the one vocabulary of plans, tables, searches and MLflow's views."""

from __future__ import annotations

from enum import StrEnum

WORDS = {"pending": "missing", "interrupted": "partial", "running": "open"}
"""States that tables and their CSV files name otherwise; files of earlier releases hold these words."""


class TrialState(StrEnum):
    """Where a trial stands. A cell and a whole sweep stand in one of the same states."""

    PENDING = "pending"
    """Nothing of it is stored, or it waits to be resumed."""
    RUNNING = "running"
    """A driver is at work on it; in a search, also a trial that the next command resumes."""
    DONE = "done"
    """Every result is stored."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """A checkpoint is stored, and the next command resumes from it."""
    PRUNED = "pruned"
    """A search ended it at a rung, because others were better there."""
    DIVERGED = "diverged"
    """Its numbers ceased to be finite."""

    @property
    def word(self) -> str:
        """Its name in tables and CSV files."""
        return WORDS.get(self, self.value)
