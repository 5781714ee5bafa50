"""The scorecard: for each item of the supplement, how many of its numbers we have, and how well they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from docs.report.findings import without_numbers
from docs.report.items import ABSENT, ITEMS, Item, Row
from docs.report.numbers import Committed, identity
from docs.report.sources import Sources, Value
from docs.report.tables import Place, cells, report
from mvae.trial import Trial
from sweeps.cli.words import counted
from sweeps.store.results import Result
from sweeps.table.comparison import Entry
from sweeps.table.entries import grouped
from sweeps.table.findings import verdict_words
from sweeps.table.judgement import FEWEST_SEEDS, Verdict
from sweeps.table.markdown import markdown_table

FEWEST_EPOCHS = 20
"""Epochs that a run needs to fill a cell."""
SLIGHT = (Verdict.SLIGHTLY_ABOVE, Verdict.SLIGHTLY_BELOW)
WORDS = {
    Verdict.FEW_SEEDS: f"without a verdict (fewer than {FEWEST_SEEDS} seeds)",
    Verdict.SLIGHTLY_ABOVE: "above, within the tolerance",
    Verdict.SLIGHTLY_BELOW: "below, within the tolerance",
}
"""Verdicts that need other words after a count."""
NOT_RUN, NO_DATA = "not run", "no data"
MISSING = "absent from the supplement's text"


@dataclass(frozen=True)
class Filled:
    """One of our numbers beside a published one."""

    row: Row
    run: str  # arguments of the command behind the number
    entry: Entry


@dataclass(frozen=True)
class Line:
    """An item with our numbers."""

    item: Item
    filled: Mapping[tuple[str, Place], Filled]  # by row label, arm and column, in the order of the rows
    results: Sequence[Result]  # of all trials that the item's commands ask for
    trials: Mapping[str, Trial]  # of these results, by key

    @property
    def cells(self) -> dict[Place, Filled]:
        """Our numbers by arm and column. Of several readings of a published row, the first counts."""
        found: dict[Place, Filled] = {}
        for (_, place), one in self.filled.items():
            found.setdefault(place, one)
        return found

    @property
    def no_data(self) -> int:
        """Published numbers without ours because the data are unavailable."""
        return len(self.item.published) - len(self.cells) if self.item.no_data else 0

    @property
    def not_run(self) -> int:
        """Published numbers without ours although the data are available."""
        return len(self.item.published) - len(self.cells) - self.no_data


def figures(sources: Sources) -> dict[str, Value]:
    """Returns the tables and counts of the scorecard by name."""
    lines = [compared(item, sources.numbers(f"{item.pipeline}-{item.dataset}")) for item in ITEMS]
    agreements = {line.item.name: agreement(line, sources) for line in lines}
    no_data, not_run = sum(line.no_data for line in lines), sum(line.not_run for line in lines)
    absent = f"{', '.join(ABSENT[:-1])} and {ABSENT[-1]}"
    total = ["All", "", _share(lines), f"{no_data} {NO_DATA}, {not_run} {NOT_RUN}"]
    short = [*_short(lines, agreements), total, [absent, MISSING, "-", "-"]]
    whole = [*(_whole(line, agreements[line.item.name]) for line in lines)]
    whole += [[name, MISSING, *["-"] * 7] for name in ABSENT]
    commands = [command for line in lines for command in _commands(line)]
    count = "numbers with ours"
    heads = ["item", "shows", count, "agreement", "paper", "ours", "CPU hours", "GPU hours", "command"]
    return {
        "scorecard.short": markdown_table(["item", "shows", count, "agreement"], [], short),
        "scorecard.table": markdown_table(heads, [], whole),
        "scorecard.rows": markdown_table(["item", "row", count, "agreement", "ours"], [], _rows(lines)),
        "scorecard.commands": "\n".join(["```sh", *dict.fromkeys(commands), "```"]),
        "scorecard.published": sum(len(line.item.published) for line in lines),
        "scorecard.filled": sum(len(line.cells) for line in lines),
        "scorecard.no_data": no_data,
        "scorecard.not_run": not_run,
        "scorecard.fewest_epochs": FEWEST_EPOCHS,
        "scorecard.absent": absent,
    }


def compared(item: Item, committed: Committed) -> Line:
    """Puts the committed numbers of an item's file beside the published ones.

    A cell takes the set-up nearest to the paper's of those with enough seeds for a verdict; if none has enough, the
    nearest of all.
    """
    filled: dict[tuple[str, Place], Filled] = {}
    keys: set[str] = set()
    for row in item.rows if committed.trials else ():
        for run in row.runs:  # nearest to the paper first
            asked = [cell for cell in cells(item.pipeline, run) if _long_enough(cell.trial)]
            made = report(item.pipeline, asked, committed)
            for entry in made.in_order() if made else ():
                keys |= {one.key for one in entry.runs}
                place = row.label, (entry.arm, entry.column)
                better = place not in filled or filled[place].entry.n < FEWEST_SEEDS <= entry.n
                if place[1] in item.published and better:
                    filled[place] = Filled(row, run, entry)
    for run in item.runs:
        keys |= {key for _, key in committed.having(cells(item.pipeline, run))}
    trials = {key: trial for key, trial in committed.trials.items() if key in keys}
    return Line(item, filled, [result for result in committed if result.key in keys], trials)


def _long_enough(trial: Trial) -> bool:
    """Whether a trial can fill a cell. LOGREG has no epochs: it is fitted until it converges."""
    return bool(trial.hashed_fields().get("epochs", FEWEST_EPOCHS) >= FEWEST_EPOCHS)


def agreement(line: Line, sources: Sources) -> str:
    """Returns how well an item agrees, in a few words."""
    if line.item.test:
        return f"numbers of parameters, held by `{line.item.test}`"
    if line.cells:
        return _verdicts(line.cells.values())
    if line.item.no_data:
        return f"{NO_DATA}: {line.item.no_data}"
    return without_numbers(line.item.name, sources) if line.trials else NOT_RUN


def hours(results: Iterable[Result]) -> tuple[float, float]:
    """Returns hours of training and measuring on CPUs and on GPUs. The training of a trial counts once."""
    spent = {"cpu": 0.0, "cuda": 0.0}
    for of_trial in grouped(results, lambda result: result.key).values():
        seconds = [float(result.provenance["measured_in_seconds"] or 0) for result in of_trial]
        trained = max(float(result.provenance["training_seconds"] or 0) for result in of_trial)
        spent["cuda" if of_trial[0].provenance["device"].startswith("cuda") else "cpu"] += trained + sum(seconds)
    return spent["cpu"] / 3600, spent["cuda"] / 3600


def _short(lines: Sequence[Line], agreements: Mapping[str, str]) -> Iterator[list[str]]:
    """Yields the lines of the short table, which add up several items."""
    for items in grouped(lines, lambda line: line.item.line).values():
        first, filled = items[0].item, [one for line in items for one in line.cells.values()]
        words = "; ".join(dict.fromkeys(agreements[line.item.name] for line in items))
        if first.test:
            words = "numbers of parameters hold (tests)"
        elif filled:
            words = _verdicts(filled)
        elif any(line.item.no_data for line in items):
            words = NO_DATA
        yield [first.line, first.line_shows, _share(items), words]


def _whole(line: Line, agrees: str) -> list[str]:
    item, spent = line.item, [_hours(value) for value in hours(line.results)]
    if item.same_runs_as and line.trials:
        spent = [f"as {item.same_runs_as}"] * 2
    return [item.name, item.shows, _share([line]), agrees, item.paper, _ours(line), *spent, f"`{item.command}`"]


def _rows(lines: Sequence[Line]) -> Iterator[list[str]]:
    """Yields the rows with at least one number. Each reading of a published row is one of them."""
    for line in lines:
        for row, found in grouped(line.filled.values(), lambda one: one.row).items():
            of = sum(arm == row.arm for arm, _ in line.item.published)
            yield [line.item.name, row.label, f"{len(found)} of {of}", _verdicts(found), _set_ups(found)]


def _commands(line: Line) -> Iterator[str]:
    """Yields the commands behind the numbers that count, nearest to the paper first."""
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
    trials = line.trials.values()
    seeds = Counter(identity(trial.with_(seed=0)) for trial in trials)
    return f"{line.item.data}; {_range([trial.epochs for trial in trials])} epochs, {_seeds([*seeds.values()])}"


def _set_ups(filled: Iterable[Filled]) -> str:
    """Networks, epochs and seeds of each set-up, and what differs from our defaults."""
    seeds: dict[str, list[int]] = {}
    for one in filled:
        options = dict(zip(one.run.split(), one.run.split()[1:], strict=False))
        epochs, weight = one.entry.runs[0].epochs, options.get("--label-weight", "1")
        words = [
            options.get("--image-network", "").upper(),
            f"label weight {weight}" * (weight != "1"),
            "beta to 0.5" * ("--annealing-epochs" in options),
            "fitted" if epochs is None else f"{epochs} epochs",
        ]
        seeds.setdefault(", ".join(filter(None, words)), []).append(one.entry.n)
    return "; ".join(f"{words}, {_seeds(counts)}" for words, counts in seeds.items())


def _verdicts(filled: Iterable[Filled]) -> str:
    """Counts the verdicts, the most frequent first."""
    counts: Counter[str] = Counter()
    for entry in (one.entry for one in filled):
        # in a table of quantities each cell has its own tolerance, so it is left out
        in_words = entry.verdict in SLIGHT and "accuracy" in entry.metric
        counts[verdict_words(entry) if in_words else WORDS.get(entry.verdict, str(entry.verdict))] += 1
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())


def _share(lines: Sequence[Line]) -> str:
    published = sum(len(line.item.published) for line in lines)
    return f"{sum(len(line.cells) for line in lines)} of {published}" if published else "none printed"


def _seeds(counts: Sequence[int]) -> str:
    return counted(counts[0], "seed") if len(set(counts)) == 1 else f"{_range(counts)} seeds"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def _hours(value: float) -> str:
    if value == 0:
        return "-"
    return f"{value:.1f}" if value >= 0.05 else "under 0.1"
