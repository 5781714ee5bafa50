"""The committed files that pages are filled from: numbers, benchmarks, output of commands, and values noted by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from docs.report.numbers import CURVES, Committed, Curves, know_examples, lines_of, read, read_curves
from mvae.refusal import Refusal

REPOSITORY = Path(__file__).resolve().parents[2]
NOTED = ("name", "value", "what", "command", "made", "commit", "machine")
MOST_ITEMS = 9
"""Lists of more items in a benchmark's file have no addresses: a history, for example."""

Value = str | int | float
"""Value of a span: text as it is, a number in the format that the span gives."""


@dataclass(frozen=True)
class Sources:
    """The committed files of a checkout."""

    root: Path = REPOSITORY

    @property
    def results(self) -> Path:
        """The folder of numbers."""
        return self.root / "docs" / "results"

    def numbers(self, name: str) -> Committed:
        """The numbers of docs/results/NAME.csv, none if there is no file."""
        path = self.results / f"{name}.csv"
        know_examples()  # for numbers that were read before
        return _numbers(path) if path.is_file() else Committed(())

    def curves(self, name: str) -> Curves:
        """The metrics by epoch of docs/results/curves/NAME.csv."""
        return read_curves(self.results / CURVES / f"{name}.csv")

    def benchmarks(self) -> dict[str, Any]:
        """Contents of benchmarks/results/*.json, by name."""
        files = sorted((self.root / "benchmarks" / "results").glob("*.json"))
        return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}

    def outputs(self) -> dict[str, str]:
        """Output of commands, docs/output/*.txt, as blocks by name."""
        files = sorted((self.root / "docs" / "output").glob("*.txt"))
        return {path.stem: f"```text\n{path.read_text(encoding='utf-8').rstrip()}\n```" for path in files}

    def noted(self) -> dict[str, str]:
        """Values that no command writes into a file (docs/results/noted.csv), by name.

        Raises:
            Refusal: a line that does not say what it is, or a name that stands twice.
        """
        found: dict[str, str] = {}
        for line, row in enumerate(lines_of(self.results / "noted.csv"), start=2):
            if tuple(row) != NOTED or not all(row[name] for name in NOTED):
                raise Refusal(f"noted.csv:{line}: write {','.join(NOTED)}, and `not kept` for what is not known")
            if row["name"] in found:
                raise Refusal(f"noted.csv:{line}: {row['name']} stands there already")
            found[row["name"]] = row["value"]
        return found


def figures(sources: Sources) -> dict[str, Value]:
    """Values that need no table: `noted.NAME`, `output.NAME`, and `benchmarks.FILE.PATH` with the path in the JSON.

    The demo's output has two short forms, for which a README has room: the first and the last trials, the table with
    its caption, and where the report is; and of the same command again, the first lines and the last.
    """
    outputs = sources.outputs()
    demo, again = (outputs[name].splitlines() for name in ("demo", "demo-again"))
    trials = [number for number, line in enumerate(demo) if line.startswith("[")]
    caption = next(number for number, line in enumerate(demo) if line.startswith("Settings: "))
    after = demo.index("", caption)  # a long caption takes several lines
    short = [*demo[: trials[2]], "...", *demo[trials[-2] : after], "...", *demo[-3:]]
    return {
        **{f"noted.{name}": value for name, value in sources.noted().items()},
        **{f"output.{name}": block for name, block in outputs.items()},
        "output.demo.short": "\n".join(short),
        "output.demo.again": "\n".join([*again[:2], "... the same table", again[-1]]),
        **dict(_leaves(sources.benchmarks(), "benchmarks")),
    }


def holds(condition: bool, claim: str) -> None:
    """A sentence of the text is still true of the numbers.

    Raises:
        Refusal: it is not.
    """
    if not condition:
        raise Refusal(f"the text says that {claim}, and the numbers do not: mend the text, then docs/report/")


def _leaves(value: Any, address: str) -> Iterator[tuple[str, Value]]:
    """Every number and word in JSON, by the names and positions that lead to it."""
    if isinstance(value, list):
        value = dict(enumerate(value)) if len(value) <= MOST_ITEMS else {}
    if not isinstance(value, dict):
        yield address, value
        return
    for name, inner in value.items():
        yield from _leaves(inner, f"{address}.{name}")


@cache
def _numbers(path: Path) -> Committed:
    return read(path)
