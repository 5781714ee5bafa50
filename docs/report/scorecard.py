"""The scorecard: every published item, how many of its numbers have ours beside them, and how well they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from docs.report.findings import said, seeds
from docs.report.items import ABSENT, ITEMS, Item, Place, Row
from docs.report.numbers import Committed
from docs.report.sources import Sources, Value
from docs.report.tables import available, cells, report
from mvae.trial import Trial
from sweeps.table.comparison import Entry
from sweeps.table.findings import verdict_words
from sweeps.table.judgement import FEWEST_SEEDS, Verdict
from sweeps.table.markdown import markdown_table

FEWEST_EPOCHS = 20
"""A run of fewer epochs fills no cell."""
WORDS = {
    Verdict.FEW_SEEDS: f"without a verdict (fewer than {FEWEST_SEEDS} seeds)",
    Verdict.SLIGHTLY_ABOVE: "above, within the tolerance",
    Verdict.SLIGHTLY_BELOW: "below, within the tolerance",
}
"""Verdicts whose names do not follow a number well."""
NOT_RUN, NO_DATA, NO_NUMBERS = "not run", "no data", "none printed"
MISSING = "absent from the supplement's text"
ABSENT_WORDS = f"{', '.join(ABSENT[:-1])} and {ABSENT[-1]}"


@dataclass(frozen=True)
class Filled:
    """A published number with ours beside it."""

    row: Row
    run: str  # arguments of the command that gave the number
    entry: Entry


@dataclass(frozen=True)
class Line:
    """One item, counted."""

    item: Item
    filled: Mapping[tuple[str, Place], Filled]  # by row and place, in the rows' order: one number per reading of a row
    numbers: Committed  # numbers of the trials that the item's commands ask for

    @property
    def cells(self) -> dict[Place, Filled]:
        """Published numbers that have ours beside them; of several readings, the first."""
        found: dict[Place, Filled] = {}
        for (_, place), one in self.filled.items():
            found.setdefault(place, one)
        return found

    @property
    def trials(self) -> dict[str, Trial]:
        """Trials with committed numbers, by key."""
        return {number.key: number.trial for number in self.numbers.numbers}

    @property
    def no_data(self) -> int:
        """Published numbers without ours because the data are unavailable."""
        return len(self.item.published) - len(self.cells) if self.item.no_data else 0

    @property
    def not_run(self) -> int:
        """Published numbers without ours although the data are at hand."""
        return len(self.item.published) - len(self.cells) - self.no_data


def figures(sources: Sources) -> dict[str, Value]:
    """Everything that documents say of the scorecard, by name."""
    lines = [counted(item, sources.numbers(f"{item.pipeline}-{item.dataset}")) for item in ITEMS]
    agreements = {line.item.name: agreement(line, sources) for line in lines}
    no_data, not_run = sum(line.no_data for line in lines), sum(line.not_run for line in lines)
    last = ["All", "", _of_all(lines), f"{no_data} {NO_DATA}, {not_run} {NOT_RUN}"]
    short = [*_short(lines, agreements), last, [ABSENT_WORDS, MISSING, "-", "-"]]
    whole = [*_whole(lines, agreements), *([name, MISSING, *["-"] * 7] for name in ABSENT)]
    count = "numbers with ours"
    heads = ["item", "shows", count, "agreement", "paper", "ours", "CPU hours", "GPU hours", "command"]
    return {
        "scorecard.short": markdown_table(["item", "shows", count, "agreement"], [], short),
        "scorecard.table": markdown_table(heads, [], whole),
        "scorecard.rows": markdown_table(["item", "row", count, "agreement", "ours"], [], _rows(lines)),
        "scorecard.commands": "\n".join(["```sh", *dict.fromkeys(_commands(lines)), "```"]),
        "scorecard.published": sum(len(line.item.published) for line in lines),
        "scorecard.filled": sum(len(line.cells) for line in lines),
        "scorecard.no_data": no_data,
        "scorecard.not_run": not_run,
        "scorecard.fewest_epochs": FEWEST_EPOCHS,
        "scorecard.absent": ABSENT_WORDS,
    }


def counted(item: Item, committed: Committed) -> Line:
    """An item beside the committed numbers of its file.

    A cell takes the run nearest to the paper among those with enough seeds for a verdict, if there are any.
    """
    filled: dict[tuple[str, Place], Filled] = {}
    keys: dict[str, None] = {}
    for row in item.rows if committed.numbers else ():
        for run in row.runs:  # nearest to the paper first
            asked = [cell for cell in cells(item.pipeline, run) if _long_enough(cell.trial)]
            there = available(asked, committed)
            keys |= dict.fromkeys(there.values())
            for entry in report(item.pipeline, asked, committed).in_order() if there else ():
                place = row.label, (entry.arm, entry.column)
                before = filled.get(place)
                better = before is None or before.entry.n < FEWEST_SEEDS <= entry.n
                if place[1] in item.published and better:
                    filled[place] = Filled(row, run, entry)
    for run in item.runs:
        keys |= dict.fromkeys(available(cells(item.pipeline, run), committed).values())
    return Line(item, filled, committed.among(keys))


def _long_enough(trial: Trial) -> bool:
    """Whether a trial can fill a cell: LOGREG has no epochs and is fitted to the end."""
    epochs = trial.hashed_fields().get("epochs")
    return epochs is None or epochs >= FEWEST_EPOCHS


def agreement(line: Line, sources: Sources) -> str:
    """How an item agrees, in a few words."""
    if line.item.test:
        return f"numbers of parameters, held by `{line.item.test}`"
    if line.cells:
        return _verdicts(line.cells.values())
    if line.item.no_data:
        return f"{NO_DATA}: {line.item.no_data}"
    return said(line.item.name, sources) if line.trials else NOT_RUN


def hours(numbers: Committed) -> tuple[float, float]:
    """Hours of training and measuring on CPUs, and on GPUs; each trial, and each measure, once."""
    seconds: dict[tuple[bool, str, str], float] = {}
    for number in numbers.numbers:
        gpu = number.about.get("device", "").startswith("cuda")
        for measure, column in (("", "training_seconds"), (number.measure, "measured_in_seconds")):
            place = gpu, number.key, measure
            seconds[place] = max(seconds.get(place, 0.0), float(number.about.get(column) or 0))
    cpu, cuda = (sum(value for (gpu, *_), value in seconds.items() if gpu is kind) / 3600 for kind in (False, True))
    return cpu, cuda


def _short(lines: Sequence[Line], agreements: Mapping[str, str]) -> Iterable[list[str]]:
    """Items that share a line, added up."""
    for first in lines:
        if not first.item.line_shows:
            continue
        own = [line for line in lines if line.item.line == first.item.line]
        words = "; ".join(dict.fromkeys(agreements[line.item.name] for line in own))
        filled = [one for line in own for one in line.cells.values()]
        if first.item.test:
            words = "numbers of parameters hold (tests)"
        elif filled:
            words = _verdicts(filled)
        elif any(line.item.no_data for line in own):
            words = NO_DATA
        yield [first.item.line, first.item.line_shows, _of_all(own), words]


def _whole(lines: Sequence[Line], agreements: Mapping[str, str]) -> Iterable[list[str]]:
    for line in lines:
        item, spent = line.item, [_hours(value) for value in hours(line.numbers)]
        if item.same_runs_as and line.trials:
            spent = [f"as {item.same_runs_as}"] * 2
        counts = [_of_all([line]), agreements[item.name]]
        yield [item.name, item.shows, *counts, item.paper, _ours(line), *spent, f"`{item.command}`"]


def _rows(lines: Sequence[Line]) -> Iterable[list[str]]:
    """Rows that have a number: each reading of an arm on a line of its own."""
    for line in lines:
        for row in line.item.rows:
            found = [one for one in line.filled.values() if one.row == row]
            of = sum(arm == row.arm for arm, _ in line.item.published)
            if found:
                yield [line.item.name, row.label, f"{len(found)} of {of}", _verdicts(found), _set_ups(found)]


def _commands(lines: Sequence[Line]) -> Iterable[str]:
    """Commands behind every number counted."""
    for line in lines:
        used = {one.run for one in line.filled.values()}
        runs = [run for row in line.item.rows for run in row.runs if run in used]
        for run in [*runs, *(line.item.runs if line.trials else ())]:
            yield f"python pipelines/{line.item.pipeline}.py {run}"


def _ours(line: Line) -> str:
    """Our data, epochs and seeds."""
    if line.filled:
        return f"{line.item.data}; {_set_ups(line.cells.values())}"
    if not line.trials:
        return line.item.data if line.item.test else "-"
    counts = Counter(trial.with_(seed=0).model_dump_json() for trial in line.trials.values())
    epochs = _range([trial.epochs for trial in line.trials.values()])
    return f"{line.item.data}; {epochs} epochs, {_seeds(list(counts.values()))}"


def _set_ups(filled: Iterable[Filled]) -> str:
    """Networks, epochs and seeds of the numbers, one part for each set-up; and what differs from our defaults."""
    by_set_up: dict[str, list[int]] = {}
    for one in filled:
        options = dict(zip(one.run.split(), one.run.split()[1:], strict=False))
        epochs, weight = one.entry.runs[0].epochs, options.get("--label-weight", "1")
        words = [
            options.get("--image-network", "").upper(),
            f"label weight {weight}" * (weight != "1"),
            "beta to 0.5" * ("--annealing-epochs" in options),
            "fitted" if epochs is None else f"{epochs} epochs",
        ]
        by_set_up.setdefault(", ".join(filter(None, words)), []).append(one.entry.n)
    return "; ".join(f"{words}, {_seeds(counts)}" for words, counts in by_set_up.items())


def _verdicts(filled: Iterable[Filled]) -> str:
    """How many numbers have which verdict, the most frequent first."""
    counts: Counter[str] = Counter()
    for verdict, entry in ((one.entry.verdict, one.entry) for one in filled):
        slight = verdict in (Verdict.SLIGHTLY_ABOVE, Verdict.SLIGHTLY_BELOW)
        one_tolerance = "accuracy" in entry.metric  # a table of quantities has one in each cell, which is left out
        counts[verdict_words(entry) if slight and one_tolerance else WORDS.get(verdict, str(verdict))] += 1
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())


def _of_all(lines: Sequence[Line]) -> str:
    of = sum(len(line.item.published) for line in lines)
    return f"{sum(len(line.cells) for line in lines)} of {of}" if of else NO_NUMBERS


def _seeds(counts: Sequence[int]) -> str:
    return seeds(counts[0]) if len(set(counts)) == 1 else f"{_range(counts)} seeds"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def _hours(value: float) -> str:
    if value == 0:
        return "-"
    return f"{value:.1f}" if value >= 0.05 else "under 0.1"
