"""The scorecard: every published item, how many of its numbers have ours beside them, and how well they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from docs.report import claims
from docs.report.committed import Committed, identity
from docs.report.published_items import ABSENT, ITEMS, LINES, Item, Place, Row
from docs.report.sources import Sources
from docs.report.tabled import available, report
from mvae.trial import Trial
from pipelines import k_sweep, likelihoods, missing_modalities, translation, vision, weak_supervision
from sweeps.cli.options import read
from sweeps.planning.plan import Cell
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

NOT_RUN = "not run"
NO_DATA = "no data"
NO_NUMBERS = "none printed"

TRIALS: Mapping[str, tuple[Any, Callable[[Any], Iterable[Trial]]]] = {
    "k_sweep": (k_sweep.Options, lambda options: (one.trial for one in k_sweep.trained(options))),
    "missing_modalities": (
        missing_modalities.Options,
        lambda options: (one.trial for one in missing_modalities.trained(options)),
    ),
    "translation": (translation.Options, lambda options: (one.trial for one in translation.trained(options))),
    "vision": (vision.Options, vision.trials),
}
"""Options of a pipeline without published numbers, and the trials that its options ask for."""

CELLS: Mapping[str, tuple[Any, Callable[[Any], Iterable[Cell]]]] = {
    "likelihoods": (likelihoods.Options, likelihoods.cells),
    "weak_supervision": (weak_supervision.Options, weak_supervision.cells),
}
"""Options of a pipeline with published numbers, and the cells that its options ask for."""


@dataclass(frozen=True)
class Filled:
    """A published number with ours beside it."""

    row: Row
    run: str
    """Arguments of the command that gave the number."""
    entry: Entry


@dataclass(frozen=True)
class Line:
    """One item, counted."""

    item: Item
    filled: Mapping[tuple[str, Place], Filled]
    """By the row's label and the published place: one number of ours per reading of a row."""
    trials: Mapping[str, Trial]
    """By key: committed trials that the item's commands ask for."""
    numbers: Committed
    """The committed numbers of those trials."""

    @property
    def cells(self) -> dict[Place, Filled]:
        """Published numbers that have ours beside them; of several readings, the first."""
        found: dict[Place, Filled] = {}
        for row in self.item.rows:
            for (label, place), one in self.filled.items():
                if label == row.label:
                    found.setdefault(place, one)
        return found

    @property
    def no_data(self) -> int:
        """Published numbers without ours because the data are unavailable."""
        return len(self.item.published) - len(self.cells) if self.item.no_data else 0

    @property
    def not_run(self) -> int:
        """Published numbers without ours although the data are at hand."""
        return len(self.item.published) - len(self.cells) - self.no_data


def figures(sources: Sources) -> dict[str, str]:
    """Everything that documents say of the scorecard, by name."""
    lines = [counted(item, _numbers(sources, item)) for item in ITEMS]
    said = {line.item.name: agreement(line, sources) for line in lines}
    published = sum(len(line.item.published) for line in lines)
    filled = sum(len(line.cells) for line in lines)
    no_data, not_run = sum(line.no_data for line in lines), sum(line.not_run for line in lines)
    return {
        "scorecard.short": _short(lines, said),
        "scorecard.table": _whole(lines, said),
        "scorecard.rows": _rows(lines),
        "scorecard.commands": _commands(lines),
        "scorecard.published": str(published),
        "scorecard.filled": str(filled),
        "scorecard.no_data": str(no_data),
        "scorecard.not_run": str(not_run),
        "scorecard.fewest_epochs": str(FEWEST_EPOCHS),
        "scorecard.absent": _list(ABSENT),
        **claims.findings(sources),
    }


def counted(item: Item, committed: Committed) -> Line:
    """An item beside the committed numbers of its file."""
    candidates: dict[tuple[str, Place], list[Filled]] = {}
    trials: dict[str, Trial] = {}
    for row in item.rows:
        for run in row.runs:
            asked = _cells(item.pipeline, run) if committed.numbers else ()
            made = [cell for cell, name in asked if name in committed.identities and long_enough(cell.trial)]
            there = available(made, committed)
            if not there:
                continue
            trials |= {key: made[index].trial for index, key in there.items()}
            places: dict[Place, Filled] = {}
            for entry in report(made, committed, table=item.table).in_order():
                if (entry.arm, entry.column) in item.published:
                    places.setdefault((entry.arm, entry.column), Filled(row, run, entry))
            for place, one in places.items():
                candidates.setdefault((row.label, place), []).append(one)
    for run in item.runs:
        keys = {committed.key_of(trial): trial for trial in _trials(item.pipeline, run)}
        trials |= {key: trial for key, trial in keys.items() if key is not None}
    filled = {place: preferred(found) for place, found in candidates.items()}
    return Line(item, filled, trials, committed.among(trials))


def long_enough(trial: Trial) -> bool:
    """Whether a trial can fill a cell: LOGREG has no epochs and is fitted to the end."""
    epochs = trial.hashed_fields().get("epochs")
    return epochs is None or epochs >= FEWEST_EPOCHS


def preferred(candidates: Sequence[Filled]) -> Filled:
    """The run that speaks for a cell: nearest to the paper among those with seeds enough for a verdict, if there are
    any.

    Args:
        candidates: nearest to the paper first.
    """
    enough = [one for one in candidates if one.entry.n >= FEWEST_SEEDS]
    return (enough or candidates)[0]


def agreement(line: Line, sources: Sources) -> str:
    """How an item agrees, in a few words."""
    item = line.item
    if item.tests:
        return f"numbers of parameters, held by `{'`, `'.join(item.tests)}`"
    if item.published:
        if line.cells:
            return _verdicts(line.cells.values())
        return f"{NO_DATA}: {item.no_data}" if item.no_data else NOT_RUN
    if not line.trials:
        return NOT_RUN
    if item.pipeline == "vision":
        return claims.vision(item.name, line.numbers)
    if item.pipeline == "translation":
        return claims.translation(item.name, line.numbers)
    return claims.figure_5(sources) if item.pipeline == "missing_modalities" else claims.figure_6(sources)


def hours(numbers: Committed) -> tuple[float, float]:
    """Hours of training and measuring on CPUs, and on GPUs; each trial, and each measure, once."""
    seconds: dict[tuple[str, ...], tuple[bool, float]] = {}
    for number in numbers.numbers:
        gpu = number.about.get("device", "").startswith("cuda")
        parts = {
            (number.key,): number.about.get("training_seconds"),
            (number.key, number.measure): number.about.get("measured_in_seconds"),
        }
        for place, text in parts.items():
            _, before = seconds.get(place, (gpu, 0.0))
            seconds[place] = gpu, max(before, float(text or 0))
    cpu, cuda = (sum(value for gpu, value in seconds.values() if gpu is wanted) / 3600 for wanted in (False, True))
    return cpu, cuda


def _short(lines: Sequence[Line], said: Mapping[str, str]) -> str:
    by_line: dict[str, list[Line]] = {}
    for line in lines:
        by_line.setdefault(line.item.line, []).append(line)
    rows = [[title, shows, _of_all(by_line[title]), _together(by_line[title], said)] for title, shows in LINES.items()]
    no_data, not_run = sum(line.no_data for line in lines), sum(line.not_run for line in lines)
    rows.append(["All", "", _of_all(lines), f"{no_data} {NO_DATA}, {not_run} {NOT_RUN}"])
    rows.append([_list(ABSENT), "absent from the supplement's text", "-", "-"])
    return markdown_table(["item", "shows", "numbers with ours", "agreement"], [], rows)


def _together(lines: Sequence[Line], said: Mapping[str, str]) -> str:
    """Agreement of the items of one line of the short table."""
    if lines[0].item.tests:
        return "numbers of parameters hold (tests)"
    filled = [one for line in lines for one in line.cells.values()]
    if filled:
        return _verdicts(filled)
    if any(line.item.no_data for line in lines):
        return NO_DATA
    return "; ".join(dict.fromkeys(said[line.item.name] for line in lines))


def _whole(lines: Sequence[Line], said: Mapping[str, str]) -> str:
    rows = []
    for line in lines:
        item, (cpu, gpu) = line.item, hours(line.numbers)
        spent = [f"as {item.same_runs_as}"] * 2 if item.same_runs_as and line.trials else [_hours(cpu), _hours(gpu)]
        cells = [_of_all([line]), said[item.name], item.paper, _ours(line), *spent, f"`{item.command}`"]
        rows.append([item.name, item.shows, *cells])
    rows += [[name, "absent from the supplement's text", *["-"] * 7] for name in ABSENT]
    heads = ["item", "shows", "numbers with ours", "agreement", "paper", "ours", "CPU hours", "GPU hours", "command"]
    return markdown_table(heads, [], rows)


def _rows(lines: Sequence[Line]) -> str:
    """Rows that have a number: each reading of an arm on a line of its own."""
    rows = []
    for line in lines:
        for row in line.item.rows:
            found = [one for (label, _), one in line.filled.items() if label == row.label]
            of = sum(arm == row.arm for arm, _ in line.item.published)
            if found:
                rows.append([line.item.name, row.label, f"{len(found)} of {of}", _verdicts(found), _set_ups(found)])
    return markdown_table(["item", "row", "numbers with ours", "agreement", "ours"], [], rows)


def _commands(lines: Sequence[Line]) -> str:
    """Commands behind every number counted, each once."""
    typed: dict[str, None] = {}
    for line in lines:
        used = {one.run for one in line.filled.values()}
        ordered = [run for row in line.item.rows for run in row.runs if run in used]
        ordered += line.item.runs if line.trials else ()
        typed |= {f"python pipelines/{line.item.pipeline}.py {run}": None for run in ordered}
    return "\n".join(["```sh", *typed, "```"])


def _ours(line: Line) -> str:
    if line.filled:
        return f"{line.item.data}; {_set_ups(list(line.cells.values()))}"
    if not line.trials:
        return line.item.data if line.item.tests else "-"
    epochs = _range([trial.epochs for trial in line.trials.values()])
    alike: dict[str, set[int]] = {}
    for trial in line.trials.values():
        alike.setdefault(trial.with_(seed=0).model_dump_json(), set()).add(trial.seed)
    return f"{line.item.data}; {epochs} epochs, {_seeds([len(those) for those in alike.values()])}"


def _set_ups(filled: Sequence[Filled]) -> str:
    """Networks, epochs and seeds of the numbers, one part for each set-up."""
    by_set_up: dict[str, list[int]] = {}
    for one in filled:
        (run, *_) = one.entry.runs
        words = "fitted" if run.epochs is None else f"{_network(one)}{run.epochs} epochs"
        by_set_up.setdefault(words, []).append(one.entry.n)
    return "; ".join(f"{words}, {_seeds(counts)}" for words, counts in by_set_up.items())


def _network(one: Filled) -> str:
    """Image network, and what differs from our defaults."""
    words = one.run.split()
    network = words[words.index("--image-network") + 1] if "--image-network" in words else ""
    said = {"mlp": "MLP, ", "dcgan": "DCGAN, "}.get(network, "")
    if "--label-weight" in words and (weight := words[words.index("--label-weight") + 1]) != "1":
        said += f"label weight {weight}, "
    return said + ("beta to 0.5, " if "--annealing-epochs" in words else "")


def _words(entry: Entry) -> str:
    """A cell's verdict; a table of quantities has a tolerance of its own in each cell, which is left out."""
    slight = entry.verdict in (Verdict.SLIGHTLY_ABOVE, Verdict.SLIGHTLY_BELOW)
    if slight and "accuracy" in entry.metric:
        return verdict_words(entry)
    return WORDS.get(entry.verdict, str(entry.verdict))


def _verdicts(filled: Iterable[Filled]) -> str:
    """How many numbers have which verdict, the most frequent first."""
    counts = Counter(_words(one.entry) for one in filled)
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())


def _of_all(lines: Sequence[Line]) -> str:
    of = sum(len(line.item.published) for line in lines)
    return f"{sum(len(line.cells) for line in lines)} of {of}" if of else NO_NUMBERS


def _list(names: Sequence[str]) -> str:
    """A, B and C."""
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _seeds(counts: Sequence[int]) -> str:
    return claims.seeds(counts[0]) if len(set(counts)) == 1 else f"{_range(counts)} seeds"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def _hours(value: float) -> str:
    if value == 0:
        return "-"
    return f"{value:.1f}" if value >= 0.05 else "under 0.1"


def _numbers(sources: Sources, item: Item) -> Committed:
    """The committed numbers of an item's file, none if there is no file."""
    exists = bool(item.pipeline) and (sources.results / f"{item.file}.csv").is_file()
    return sources.numbers(item.file) if exists else Committed(())


@cache
def _cells(pipeline: str, arguments: str) -> tuple[tuple[Cell, str], ...]:
    """Cells that a command asks for, each with its trial's identity."""
    options, cells = CELLS[pipeline]
    return tuple((cell, identity(cell.trial)) for cell in cells(read(options, arguments.split())))


@cache
def _trials(pipeline: str, arguments: str) -> tuple[Trial, ...]:
    options, trials = TRIALS[pipeline]
    return tuple(trials(read(options, arguments.split())))
