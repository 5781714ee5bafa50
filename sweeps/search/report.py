"""Writes the report of a search: the best settings next to the default, every trial, and a command line to paste.

The files are table.md, trials.csv and runs.csv (the MLflow run of each key). The plots history, parallel and
importances are saved as PNG, PDF and SVG. All these files are also in the search's MLflow run.
"""

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from mvae.storage.place import Place
from sweeps.planning.state import TrialState
from sweeps.search.plots import history, importances, parallel
from sweeps.search.space import Search
from sweeps.search.tried import TriedTrial, counts
from sweeps.store.store import Store
from sweeps.table.markdown import markdown_table
from sweeps.table.metric_names import metric_words
from sweeps.table.plot import forms
from sweeps.table.rounding import shown_value

SHOWN = 8
"""Number of trials in the terminal's table, the best first."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a search so far."""

    search: Search
    known: tuple[TriedTrial, ...]
    tested: Mapping[str, float] = field(default_factory=dict)
    """Test metric of each finished trial, by key."""
    importances: Mapping[str, float] = field(default_factory=dict)
    """Share of the metric's variance that each setting explains."""
    links: Mapping[str, str] = field(default_factory=dict)
    """MLflow run of each trial, by key."""

    @property
    def ranked(self) -> list[TriedTrial]:
        """Finished trials, best first. Tied trials stay in the order in which they were tried."""
        sign = -1.0 if self.search.maximize else 1.0
        done = [one for one in self.known if one.state is TrialState.DONE and one.value is not None]
        return sorted(done, key=lambda one: (sign * (one.value or 0.0), one.number))

    @property
    def best(self) -> TriedTrial | None:
        return next(iter(self.ranked), None)

    @property
    def default(self) -> TriedTrial | None:
        return next((one for one in self.known if one.trial == self.search.default), None)

    @property
    def title(self) -> str:
        default = self.search.default
        return f"{default.dataset}: {metric_words(self.search.metric)} of {default.model}'s settings"

    def counts(self) -> str:
        """Returns as text the number of trials that have ended, and the number in each state."""
        ended = sum(one.ended for one in self.known)
        return f"{ended} of {self.search.total} trials: {counts(self.known) or 'none begun'}"

    def statements(self) -> list[str]:
        """Returns the summary: trial counts, metric of the best and default trials, best settings, next command."""
        best, default = self.best, self.default
        if best is None:
            return [self.counts()]
        if best == default:
            comparison = "which is the default"
        elif default is None or default.value is None:
            comparison = "the default is not done yet"
        else:
            comparison = f"the default's {shown_value(default.value)}"
        metric = metric_words(self.search.measure.quantity)
        of_best = f"{metric_words(self.search.metric)} {shown_value(best.value)} (trial {best.number})"
        lines = [f"Best: {of_best}, {comparison}"]
        if best.key in self.tested:
            line = f"Best trial's {metric}: {shown_value(self.tested[best.key])}"
            if default is not None and best != default and default.key in self.tested:
                line += f", the default's {shown_value(self.tested[default.key])}"
            lines.append(line)
        settings = self.search.settings(best.trial)
        lines.append("Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()))
        lines.append(f"To train these settings with more seeds: {self.search.command(best.trial)}")
        return [self.counts(), *lines]

    def line(self, one: TriedTrial, number: Callable[[float | None], str] = shown_value) -> dict[str, str]:
        """Returns a trial's row of the table: the text in each column, by the column's name.

        Args:
            number: converts a metric to text; by default, rounds it for readers.
        """
        epochs = max(one.steps, default=0) if one.state is not TrialState.DONE else one.trial.epochs
        return {
            "trial": str(one.number),
            "state": one.state.word,
            "epochs": str(epochs),
            self.search.metric: number(one.value),
            self.search.measure.quantity: number(self.tested.get(one.key)),
            **{name: str(value) for name, value in self.search.settings(one.trial).items()},
            "note": "default" if one.trial == self.search.default else "",
            "key": one.key,
        }


def show(outcome: Outcome, console: Console) -> None:
    """Prints a table of the best trials and the default, then the lines of the summary."""
    console.print(Text(outcome.title, style="bold"))
    first = outcome.ranked[:SHOWN]
    if outcome.default is not None and outcome.default not in first:
        first = [*first, outcome.default]
    if first:
        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        lines = [{name: text for name, text in outcome.line(one).items() if name != "key"} for one in first]
        for name in lines[0]:
            grid.add_column(name.rpartition("/")[0] + "\n" + name.rpartition("/")[2], justify="right")
        for line in lines:
            grid.add_row(*line.values(), style="bold" if line is lines[0] else "")
        console.print(grid)
    for text in outcome.statements():
        console.print(text, soft_wrap=True)


def write(folder: Place, outcome: Outcome) -> None:
    """Writes the report's files, each atomically."""
    plots = forms("history", partial(history, outcome.search, outcome.known))
    if outcome.best is not None:
        plots |= forms("parallel", partial(parallel, outcome.search, outcome.known))
    if outcome.importances:
        plots |= forms("importances", partial(importances, outcome.search, outcome.known, outcome.importances))
    for name, draw in plots.items():
        (folder / name).write_bytes(draw())
    lines = [outcome.line(one, _exact) for one in outcome.known]
    trials = [list(line) for line in lines[:1]] + [list(line.values()) for line in lines]
    runs = [[one.key, outcome.search.measure.token, outcome.links.get(one.key, "")] for one in outcome.known]
    (folder / "trials.csv").write_bytes(_csv(trials))
    (folder / "runs.csv").write_bytes(_csv([["key", "measure", "link"], *runs]))
    (folder / "table.md").write_bytes(markdown(outcome).encode())


def markdown(outcome: Outcome) -> str:
    """Returns the report as Markdown for GitHub and MLflow."""
    *statements, last = outcome.statements()
    parts = [f"### {outcome.title}", "\n".join(f"- {line}" for line in statements)]
    purpose, colon, command = last.partition(": ")
    parts.append(f"{purpose}:\n\n    {command}" if outcome.best is not None and colon else f"- {last}")
    if outcome.importances:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in outcome.importances.items())
        parts.append(f"Importance of the settings: {shares}")
    if lines := [outcome.line(one) for one in outcome.known]:
        parts.append(markdown_table(list(lines[0]), [], [list(line.values()) for line in lines]))
    return "\n\n".join(parts) + "\n"


def tested(store: Store, search: Search, known: tuple[TriedTrial, ...]) -> dict[str, float]:
    """Returns the test metric of each finished trial, by key."""
    done = {one.key for one in known if one.state is TrialState.DONE}
    found = store.results.where(lambda key, measure: key in done and measure == search.measure.token)
    metric = search.measure.metric
    return {result.key: result.metrics[metric] for result in found if metric in result.metrics}


def _csv(lines: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def _exact(value: float | None) -> str:
    """Returns a number at full precision, for programs to read, or "" for None."""
    return "" if value is None else repr(value)
