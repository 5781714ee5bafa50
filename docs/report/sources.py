"""Where all that is measured stands: numbers, benchmarks, real output, and what was noted by hand once.

docs/results/noted.csv holds what no command writes into a file: seconds on a clock, an outcome of a run that was not
kept. Each line says what it is, how it was got, when, on which commit and machine, as far as that is known.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from docs.report.committed import Committed, read
from mvae.refusal import Refusal

REPOSITORY = Path(__file__).resolve().parents[2]
NOTED = ("name", "value", "what", "command", "made", "commit", "machine")


@dataclass(frozen=True)
class Sources:
    """The committed files of a checkout."""

    root: Path = REPOSITORY

    @property
    def results(self) -> Path:
        """The folder of numbers."""
        return self.root / "docs" / "results"

    def numbers(self, name: str) -> Committed:
        """Those of docs/results/NAME.csv."""
        return _numbers(self.results / f"{name}.csv")

    def benchmark(self, name: str) -> Any:
        """What benchmarks/results/NAME.json holds."""
        return json.loads((self.root / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))

    def output(self, name: str) -> str:
        """What a command printed: docs/output/NAME.txt as a block."""
        text = (self.root / "docs" / "output" / f"{name}.txt").read_text(encoding="utf-8")
        return f"```text\n{text.rstrip()}\n```"

    def noted(self) -> dict[str, str]:
        """What was noted by hand, as `noted.NAME`.

        Raises:
            Refusal: a line that does not say what it is, or a name that stands twice.
        """
        path = self.results / "noted.csv"
        found: dict[str, str] = {}
        with path.open(newline="", encoding="utf-8") as file:
            for line, row in enumerate(csv.DictReader(file), start=2):
                if tuple(row) != NOTED or not all(row[name] for name in NOTED):
                    raise Refusal(f"noted.csv:{line}: write {','.join(NOTED)}, and `not kept` for what is not known")
                if row["name"] in found:
                    raise Refusal(f"noted.csv:{line}: {row['name']} stands there already")
                found[row["name"]] = row["value"]
        return {f"noted.{name}": value for name, value in found.items()}


def holds(condition: bool, claim: str) -> None:
    """A sentence of the text is still true of the numbers.

    Raises:
        Refusal: it is not.
    """
    if not condition:
        raise Refusal(f"the text says that {claim}, and the numbers do not: mend the text, then docs/report/")


@cache
def _numbers(path: Path) -> Committed:
    return read(path)
