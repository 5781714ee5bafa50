"""Symbols and colours for verdicts and states in the terminal."""

from dataclasses import dataclass

from rich.console import Console

from sweeps.planning.state import TrialState
from sweeps.table.comparison import Entry, Verdict


@dataclass(frozen=True)
class Marks:
    """A set of symbols for verdicts and states."""

    verdicts: str
    """One symbol per member of Verdict, in the order of the members."""
    failed: str
    states: tuple[str, str, str]
    """One symbol per state in STATE_STYLES, in the order of the states."""
    spread: str

    def verdict(self, entry: Entry) -> str:
        """Returns the symbol of a cell's verdict, or the symbol for a failure if any seed failed."""
        if entry.failed:
            return self.failed
        return self.verdicts[list(Verdict).index(entry.verdict)]

    def seeds(self, entry: Entry) -> str:
        """Returns a cell's symbol, the number of seeds with a result, and the number of seeds asked for: "✓ 3/3"."""
        return f"{self.verdict(entry)} {entry.n}/{entry.of}".strip()


UNICODE = Marks(verdicts="✓≈?△▽▲▼ … ∅", failed="✗", states=("●", "◐", "○"), spread="±")
ASCII = Marks(verdicts="=~?+-^v . u", failed="x", states=("#", "~", "."), spread="+-")

STYLES = {
    Verdict.REPRODUCED: "green",
    Verdict.AGREES: "green",
    Verdict.SLIGHTLY_ABOVE: "cyan",
    Verdict.SLIGHTLY_BELOW: "cyan",
    Verdict.ABOVE: "red",
    Verdict.BELOW: "red",
    Verdict.UNRESOLVED: "yellow",
    Verdict.INCOMPLETE: "yellow",
    Verdict.UNDER_TRAINED: "yellow",
}
STATE_STYLES = {TrialState.DONE: "green", TrialState.INTERRUPTED: "yellow", TrialState.PENDING: "dim"}


def marks_of(console: Console) -> Marks:
    """Returns the symbols that the console's encoding supports."""
    return UNICODE if console.encoding.startswith("utf") else ASCII
