"""Signs and colours of verdicts and states in a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from sweeps.planning.state import TrialState
from sweeps.table.comparison import Entry, Verdict


@dataclass(frozen=True)
class Marks:
    """Signs of verdicts and states; a second set for outputs that cannot encode the first."""

    verdicts: str
    """One sign for each member of Verdict, in its order."""
    failed: str
    states: tuple[str, str, str]
    """One sign for each state in STATE_STYLES, in its order."""
    spread: str

    def verdict(self, entry: Entry) -> str:
        """The sign of a cell: a failed seed shows before an incomplete one."""
        if entry.failed:
            return self.failed
        return self.verdicts[list(Verdict).index(entry.verdict)]

    def seeds(self, entry: Entry) -> str:
        """The sign of a cell, with its seeds that have a result of those asked for."""
        return f"{self.verdict(entry)} {entry.n}/{entry.of}".strip()


UNICODE = Marks(verdicts="✓≈?△▽▲▼ … ", failed="✗", states=("●", "◐", "○"), spread="±")
ASCII = Marks(verdicts="=~?+-^v . ", failed="x", states=("#", "~", "."), spread="+-")

STYLES = {
    Verdict.REPRODUCED: "green",
    Verdict.AGREES: "green",
    Verdict.SLIGHTLY_ABOVE: "cyan",
    Verdict.SLIGHTLY_BELOW: "cyan",
    Verdict.ABOVE: "red",
    Verdict.BELOW: "red",
    Verdict.UNRESOLVED: "yellow",
    Verdict.INCOMPLETE: "yellow",
}
STATE_STYLES = {TrialState.DONE: "green", TrialState.INTERRUPTED: "yellow", TrialState.PENDING: "dim"}


def marks_of(console: Console) -> Marks:
    """The signs that a console can show."""
    return UNICODE if console.encoding.startswith("utf") else ASCII
