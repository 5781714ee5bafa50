"""Reads the committed files that fill the pages: numbers, benchmarks, output of commands, and values noted by hand.

The table of all options is the only value that comes from the code itself.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pipelines
from docs.report.numbers import CURVES, Committed, Curves, know_examples, lines_of, read, read_curves
from mvae.refusal import Refusal
from sweeps.cli.help import explanation
from sweeps.cli.options import CommonOptions
from sweeps.table.markdown import markdown_table

REPOSITORY = Path(__file__).resolve().parents[2]
NOTED = ("name", "value", "what", "command", "made", "commit", "machine")
MOST_ITEMS = 9
"""Largest length of a list in a benchmark's file at which each item gets a name. Longer lists are histories."""

Value = str | int | float
"""Value that a page shows. Text is shown unchanged, and a number in the format that the page gives."""

_read = cache(read)


@dataclass(frozen=True)
class Sources:
    """The committed files of a checkout."""

    root: Path = REPOSITORY

    @property
    def results(self) -> Path:
        """The folder docs/results/."""
        return self.root / "docs" / "results"

    def numbers(self, name: str) -> Committed:
        """Returns the numbers of docs/results/NAME.csv; empty if the file does not exist."""
        know_examples()  # a cached file may have been read before the arms were unloaded
        return _read(self.results / f"{name}.csv")

    def curves(self, name: str) -> Curves:
        """Returns the metrics per epoch of docs/results/curves/NAME.csv."""
        return read_curves(self.results / CURVES / f"{name}.csv")

    def benchmarks(self) -> dict[str, Any]:
        """Returns the contents of benchmarks/results/*.json, by name."""
        files = sorted((self.root / "benchmarks" / "results").glob("*.json"))
        return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}

    def outputs(self) -> dict[str, str]:
        """Returns the output of commands in docs/output/*.txt as code blocks, by name."""
        files = sorted((self.root / "docs" / "output").glob("*.txt"))
        return {path.stem: f"```text\n{path.read_text(encoding='utf-8').rstrip()}\n```" for path in files}

    def noted(self) -> dict[str, str]:
        """Returns the values of docs/results/noted.csv by name. They are noted by hand, because no command writes them.

        Raises:
            Refusal: a line has an empty field, or a name is repeated.
        """
        found: dict[str, str] = {}
        for line, row in enumerate(lines_of(self.results / "noted.csv"), start=2):
            if tuple(row) != NOTED or not all(row[name] for name in NOTED):
                raise Refusal(f"noted.csv:{line}: write {','.join(NOTED)}, and `not kept` for an unknown value")
            if row["name"] in found:
                raise Refusal(f"noted.csv:{line}: {row['name']} is already noted")
            found[row["name"]] = row["value"]
        return found


def figures(sources: Sources) -> dict[str, Value]:
    """Returns the values of these names:

    - options.table: table of all options
    - noted.NAME: value noted by hand
    - output.NAME: output of a command
    - output.demo.short: the demo's output, reduced to the first and last trials, the table, and the report's folder
    - output.demo.again: the first lines and the last line of the demo's second run
    - benchmarks.FILE.PATH: value at a path in a benchmark's JSON file
    """
    outputs = sources.outputs()
    demo, again = outputs["demo"].splitlines(), outputs["demo-again"].splitlines()
    trials = [number for number, line in enumerate(demo) if line.startswith("[")]
    caption = next(number for number, line in enumerate(demo) if line.startswith("Settings: "))
    report = next(number for number, line in enumerate(demo) if line.startswith("Report: "))
    after = demo.index("", caption)  # the first empty line after the caption, which may take several lines
    short = [*demo[: trials[2]], "...", *demo[trials[-2] : after], "...", *demo[report:]]
    options = [[f"`{option}`", meaning, where] for option, meaning, where in OPTION_ROWS]
    return {
        "options.table": markdown_table(["option", "meaning", "pipeline"], [], options),
        **{f"noted.{name}": value for name, value in sources.noted().items()},
        **{f"output.{name}": block for name, block in outputs.items()},
        "output.demo.short": "\n".join(short),
        "output.demo.again": "\n".join([*again[:2], "... the same table", again[-1]]),
        **dict(_leaves(sources.benchmarks(), "benchmarks")),
    }


def holds(condition: bool, claim: str) -> None:
    """Checks that a sentence of the pages is still true.

    Raises:
        Refusal: the sentence is not true.
    """
    if not condition:
        raise Refusal(
            f"the text says that {claim}, but the numbers contradict it: correct the text, then its check"
            " in docs/report/"
        )


def span_of(name: str, values: list[float]) -> dict[str, Value]:
    """Returns the smallest and the largest value as NAME.low and NAME.high."""
    return {f"{name}.low": min(values), f"{name}.high": max(values)}


def _leaves(value: Any, address: str) -> Iterator[tuple[str, Value]]:
    """Yields every number and text of a JSON value, with a name made of the keys and positions on its path."""
    if isinstance(value, list):
        value = dict(enumerate(value)) if len(value) <= MOST_ITEMS else {}
    if not isinstance(value, dict):
        yield address, value
        return
    for name, inner in value.items():
        yield from _leaves(inner, f"{address}.{name}")


def option_rows() -> list[tuple[str, str, str]]:
    """Returns rows (option, help, pipelines with this option and help). Options that all pipelines share come first."""
    classes = option_classes()
    found: dict[tuple[str, str], list[str]] = {}
    for name, options in classes.items():
        for field, about in options.model_fields.items():
            option = f"--{'no-' if about.default is True else ''}{field.replace('_', '-')}"
            found.setdefault((option, " ".join(explanation(options, field).split())), []).append(name)
    where = {key: "all" if len(names) == len(classes) else ", ".join(names) for key, names in found.items()}
    return [(*key, where[key]) for key in sorted(found, key=lambda key: (where[key] != "all", key[0]))]


def option_classes() -> dict[str, type[CommonOptions]]:
    """Returns the options class of every pipeline, by the pipeline's name."""
    names = [module.name for module in pkgutil.iter_modules(pipelines.__path__)]
    found = {name: getattr(importlib.import_module(f"pipelines.{name}"), "Options", None) for name in names}
    return {name: one for name, one in found.items() if one is not None and issubclass(one, CommonOptions)}


OPTION_ROWS = option_rows()
"""Rows of the options table, computed at import, before a documented plug-in adds arms or data sets."""
