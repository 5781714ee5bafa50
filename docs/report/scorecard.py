"""Makes the scorecard: for each item of the supplement, how many numbers we have and how well they agree.

An item is a table, a figure, or one data set's column of Tables 1 and 2. Each has a line in items.csv. Most columns of
items.csv are fields of `Item`. The others:

    arms        published rows
    networks    our image networks; the paper's network comes first
    weight      option for the likelihood weight of the second modality
    table       for items without published numbers: name of the line in tables.csv that lists our runs
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from docs.report import findings
from docs.report.numbers import Committed, identity, lines_of
from docs.report.sources import Sources, Value
from docs.report.tables import TABLES, Place, cells, published, report
from mvae.models import ARMS, arm
from mvae.trial import Trial
from sweeps.cli.words import between
from sweeps.store.results import Result
from sweeps.table.comparison import Entry
from sweeps.table.entries import grouped
from sweeps.table.findings import verdict_words
from sweeps.table.judgement import FEWEST_SEEDS, Verdict, by_chance
from sweeps.table.markdown import markdown_table

ABSENT = ("Section 7", "Figure 3", "Table 3")
"""Items that the supplement's numbering implies but its text does not contain."""
SEEDS = "--seeds 0-4"
"""Seeds to look for. A cell counts the seeds that have a committed number."""
EPOCHS = {
    "likelihoods": ("500", "100", "50", "20"),
    "weak_supervision": ("100 --annealing-epochs 200", "100", "20", "20 --annealing-epochs 40"),
}
"""Numbers of epochs to look for. The paper's number comes first."""
FEWEST_EPOCHS = 20
"""Fewest epochs of a run that fills a cell."""
SLIGHT = {
    Verdict.SLIGHTLY_ABOVE: "above, within the tolerance",
    Verdict.SLIGHTLY_BELOW: "below, within the tolerance",
}
"""Words for these verdicts in items whose cells have different tolerances."""
BEST_FIRST = (
    Verdict.REPRODUCED,
    Verdict.AGREES,
    Verdict.SLIGHTLY_ABOVE,
    Verdict.SLIGHTLY_BELOW,
    Verdict.UNRESOLVED,
    Verdict.ABOVE,
    Verdict.BELOW,
    Verdict.FEW_SEEDS,
)
"""Verdicts in the order in which the scorecard counts them."""
FEW_SEEDS = f"without a verdict (fewer than {FEWEST_SEEDS} seeds)"
NOT_RUN, NO_DATA, MISSING = "not run", "no data", "absent from the supplement's text"


@dataclass(frozen=True)
class Item:
    """A line of the scorecard."""

    name: str  # number in the supplement
    line: str  # line of the short table; items that share a line are added up
    line_shows: str  # what that line shows; given at the line's first item
    shows: str  # what the item shows, in a few words
    paper: str  # the paper's data, epochs and seeds
    data: str  # our data; empty if there are none
    pipeline: str  # module in pipelines/; empty if nothing is trained
    dataset: str  # our data set; with the pipeline it names the file of numbers
    same_runs_as: str  # item whose hours already include this item's runs
    no_data: str  # why the data are unavailable; empty if they are available
    test: str  # test of an architecture, in tests/test_networks.py
    command: str  # command for the paper's set-up; for architectures, the test's command
    published: Mapping[Place, float | None]  # by arm and column: all numbers that the item prints
    runs: tuple[str, ...]  # arguments of runs to look for; for an arm, the set-up nearest to the paper's first


class Filled(NamedTuple):
    """One of our numbers, and the published number of its cell."""

    run: str  # arguments of the command behind the number
    entry: Entry


@dataclass(frozen=True)
class Line:
    """An item with our numbers."""

    item: Item
    filled: Mapping[tuple[str, Place], Filled]  # by our row, published arm and column
    ours: Committed  # results of all trials that the item's runs ask for

    @property
    def cells(self) -> dict[Place, Filled]:
        """Our numbers by arm and column. If several of our rows match a published row, the first of them counts."""
        found: dict[Place, Filled] = {}
        for (_, place), one in self.filled.items():
            found.setdefault(place, one)
        return found

    @property
    def without_ours(self) -> int:
        """Number of published numbers for which we have no number: not run, or no data."""
        return len(self.item.published) - len(self.cells)


def _items() -> Iterator[Item]:
    for line in lines_of(Path(__file__).with_name("items.csv")):
        fields: dict[str, Any] = dict(line)
        arms, networks, weight, ours = (fields.pop(name) for name in ("arms", "networks", "weight", "table"))
        table = published(line["pipeline"], line["dataset"])
        if table is None:
            yield Item(**fields, published={}, runs=(TABLES[ours]["arguments"],) if ours else ())
            continue
        parts = {"Table 1": table.columns[:3], "Table 2": table.columns[3:]}
        columns = parts.get(line["name"].partition(",")[0], table.columns)
        places = {place: table.published(*place) for place in product(arms.split(), columns)}
        runs = tuple(run for token in arms.split() for run in _runs(token, line, networks.split(), weight))
        yield Item(**fields, published=places, runs=runs)


def _runs(token: str, line: Mapping[str, str], networks: list[str], weight: str) -> Iterator[str]:
    """Yields the arguments of an arm's runs: targets `own` before `all`, and the paper's set-up before the others."""
    reads = arm(token if token in ARMS else "mvae").reads
    epochs = [length for length in EPOCHS[line["pipeline"]] if length.isdecimal() or "annealing_epochs" in reads]
    of_networks = [f" --image-network {network}" for network in networks] if "image_network" in reads else [""]
    of_epochs = [f" --epochs {length}" for length in epochs] if "epochs" in reads else [""]
    set_ups = [network + length for network, length in product(of_networks, of_epochs)]
    if weight.removeprefix("--").replace("-", "_") in reads:
        heavy = [f"{network} --epochs 100 {weight} 50" for network in of_networks if weight == "--label-weight"]
        set_ups = [*(f"{set_up} {weight} 1" for set_up in set_ups), *heavy]
    for targets in (" --targets own", " --targets all") if "targets" in reads else ("",):
        for set_up in set_ups:
            yield f"--dataset {line['dataset']} --preset paper {SEEDS} --arms {token}{targets}{set_up}"


ITEMS = tuple(_items())
"""All items in the supplement's order: tables, then figures."""


def figures(sources: Sources) -> dict[str, Value]:
    """Returns the tables and counts of the scorecard by name."""
    lines = [compared(item, sources.numbers(f"{item.pipeline}-{item.dataset}")) for item in ITEMS]
    agreements = {line.item.name: agreement(line, sources) for line in lines}
    no_data = sum(line.without_ours for line in lines if line.item.no_data)
    not_run = sum(line.without_ours for line in lines if not line.item.no_data)
    absent = f"{', '.join(ABSENT[:-1])} and {ABSENT[-1]}"

    table_4 = next(line for line in lines if line.item.name == "Table 4")
    judged = sum(one.entry.verdict.judged for one in table_4.cells.values())

    short = []
    for items in grouped(lines, lambda line: line.item.line).values():
        first, filled = items[0].item, [one for line in items for one in line.cells.values()]
        words = _in_one_line([line.item.name for line in items], agreements)
        if first.test:
            words = "numbers of parameters hold (tests)"
        elif filled:
            words = _verdicts(filled)
        elif any(line.item.no_data for line in items):
            words = NO_DATA
        short.append([first.line, first.line_shows, _share(items), words])
    short.append(["All", "", _share(lines), f"{no_data} {NO_DATA}, {not_run} {NOT_RUN}"])

    whole, rows, commands = [], [], dict[str, None]()  # each command once
    for line in lines:
        item, spent = line.item, [_hours(value) for value in hours(line.ours)]
        if item.same_runs_as and line.ours.trials:
            spent = [f"as {item.same_runs_as}"] * 2
        count = [_share([line]), agreements[item.name]]
        whole.append([item.name, item.shows, *count, item.paper, _ours(line), *spent, f"`{item.command}`"])
        for row, of_row in grouped(line.filled.values(), lambda one: one.entry.row).items():
            of = sum(arm == of_row[0].entry.arm for arm, _ in item.published)
            rows.append([item.name, row, f"{len(of_row)} of {of}", _verdicts(of_row), _set_ups(of_row)])
        used = {one.run for one in line.filled.values()}
        runs = [run for run in item.runs if (run in used if item.published else line.ours.trials)]
        commands |= dict.fromkeys(f"python pipelines/{item.pipeline}.py {run}" for run in runs)

    heads = ["item", "shows", "numbers with ours", "agreement", "paper", "ours", "CPU hours", "GPU hours", "command"]
    absent_lines = [[name, MISSING, *["-"] * 7] for name in ABSENT]
    return {
        "scorecard.short": markdown_table(heads[:4], [], [*short, [absent, MISSING, "-", "-"]]),
        "scorecard.table": markdown_table(heads, [], [*whole, *absent_lines]),
        "scorecard.rows": markdown_table(["item", "row", *heads[2:4], "ours"], [], rows),
        "scorecard.commands": "\n".join(["```sh", *commands, "```"]),
        "scorecard.published": sum(len(line.item.published) for line in lines),
        "scorecard.filled": sum(len(line.cells) for line in lines),
        "scorecard.no_data": no_data,
        "scorecard.judged": judged,
        "scorecard.chance": f"{by_chance(judged):.0f}",
        "scorecard.not_run": not_run,
        "scorecard.fewest_epochs": FEWEST_EPOCHS,
        "scorecard.absent": absent,
    }


def compared(item: Item, committed: Committed) -> Line:
    """Compares the committed numbers of an item's file with the published numbers.

    Among the set-ups with enough seeds for a verdict, the one nearest to the paper's fills the cell. If no set-up has
    enough seeds, the nearest one that has a number fills the cell.
    """
    filled: dict[tuple[str, Place], Filled] = {}
    keys: set[str] = set()
    for run in item.runs if committed.trials else ():
        asked = cells(item.pipeline, run)
        if item.published:
            asked = tuple(cell for cell in asked if _long_enough(cell.trial))
        keys |= {key for _, key in committed.having(asked)}
        made = report(item.pipeline, asked, committed) if item.published else None
        for entry in made.in_order() if made else ():
            place = entry.row, (entry.arm, entry.column)
            better = place not in filled or filled[place].entry.n < FEWEST_SEEDS <= entry.n
            if place[1] in item.published and better:
                filled[place] = Filled(run, entry)
    return Line(item, filled, Committed(result for result in committed if result.key in keys))


def _long_enough(trial: Trial) -> bool:
    """Whether a trial has enough epochs to fill a cell. LOGREG always does, because it is fitted until it converges."""
    return bool(trial.hashed_fields().get("epochs", FEWEST_EPOCHS) >= FEWEST_EPOCHS)


def agreement(line: Line, sources: Sources) -> str:
    """Returns in a few words how well our numbers agree with an item."""
    if line.item.test:
        return f"numbers of parameters, held by `{line.item.test}`"
    if line.cells:
        return _verdicts(line.cells.values())
    if line.item.no_data:
        return f"{NO_DATA}: {line.item.no_data}"
    return str(findings.figures(sources)[findings.agreement(line.item.name)]) if line.ours.trials else NOT_RUN


def _in_one_line(names: Sequence[str], agreements: Mapping[str, str]) -> str:
    """Returns how well the items of one line agree: one text if it is the same for all items, else one per item."""
    of_items = {name: agreements[name] for name in names}
    if len(set(of_items.values())) == 1:
        return of_items[names[0]]
    return "; ".join(f"{name}: {words}" for name, words in of_items.items())


def hours(results: Iterable[Result]) -> tuple[float, float]:
    """Returns hours of training and measuring on CPUs and on GPUs. Each trial's training counts once."""
    spent = {False: 0.0, True: 0.0}
    for of_trial in grouped(results, lambda result: result.key).values():
        measured = sum(float(result.provenance["measured_in_seconds"] or 0) for result in of_trial)
        trained = max(float(result.provenance["training_seconds"] or 0) for result in of_trial)
        spent[of_trial[0].provenance["device"].startswith("cuda")] += (trained + measured) / 3600
    return spent[False], spent[True]


def _ours(line: Line) -> str:
    """Returns a text that names our data, epochs and seeds."""
    if line.filled:
        return f"{line.item.data}; {_set_ups(line.cells.values())}"
    trials = line.ours.trials.values()
    if not trials:
        return line.item.data if line.item.test else "-"
    seeds = Counter(identity(trial.with_(seed=0)) for trial in trials).values()
    epochs = sorted(trial.epochs for trial in trials)
    return f"{line.item.data}; {between(str(epochs[0]), str(epochs[-1]))} epochs, {_seeds(seeds)}"


def _set_ups(filled: Iterable[Filled]) -> str:
    """Returns each set-up's networks, epochs and seeds, and its differences from our defaults."""
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
    """Returns the number of each verdict as text, the best verdict first: "3 reproduced, 15 agree, 1 above"."""
    by_verdict = grouped((one.entry for one in filled), lambda entry: entry.verdict)
    counts = []
    for verdict in sorted(by_verdict, key=BEST_FIRST.index):
        entries = by_verdict[verdict]
        words = FEW_SEEDS if verdict is Verdict.FEW_SEEDS else verdict_words(entries[0])
        if verdict in SLIGHT and "accuracy" not in entries[0].metric:
            words = SLIGHT[verdict]
        if verdict is Verdict.AGREES and len(entries) > 1:
            words = "agree"
        counts.append(f"{len(entries)} {words}")
    return ", ".join(counts)


def _share(lines: Sequence[Line]) -> str:
    of = sum(len(line.item.published) for line in lines)
    return f"{sum(len(line.cells) for line in lines)} of {of}" if of else "none printed"


def _seeds(counts: Collection[int]) -> str:
    return f"{between(str(min(counts)), str(max(counts)))} seed{'s' * (max(counts) > 1)}"


def _hours(value: float) -> str:
    if value == 0:
        return "-"
    return f"{value:.1f}" if value >= 0.05 else "under 0.1"
