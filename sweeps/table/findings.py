"""Words for a table: its verdicts, the order of its arms, and the lines of a difference between two arms.

Terminal, Markdown and LaTeX print these lines as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from sweeps.cli.words import counted, figures
from sweeps.table.comparison import Report
from sweeps.table.entries import Contrast, Entry, OverSeeds, grouped
from sweeps.table.judgement import FEWEST_SEEDS, MAGNITUDES, Ordering, Verdict, by_chance
from sweeps.table.published import Table, column_label
from sweeps.table.rounding import as_printed, shown_p, shown_spread, shown_value

Compared = TypeVar("Compared", bound=OverSeeds)

Line = tuple[str, Callable[[Compared], str]]
"""Label of a line, and its text for one cell or difference."""


def verdict_words(entry: Entry) -> str:
    """The verdict of a cell in words; empty if it has none."""
    if entry.failed:
        return "failed"
    verdict = entry.verdict
    if verdict in (Verdict.UNPUBLISHED, Verdict.FEW_SEEDS):
        return ""
    if verdict in (Verdict.SLIGHTLY_ABOVE, Verdict.SLIGHTLY_BELOW):
        return f"{'above' if verdict is Verdict.SLIGHTLY_ABOVE else 'below'} by less than {figures(entry.tolerance, 2)}"
    return str(verdict)


def shown_half_width(entry: Entry, mark: str = "±") -> str:
    """h of a cell that has a verdict, with its sign in front; empty for any other cell."""
    if entry.half_width is None or not entry.verdict.judged:
        return ""
    return f"{mark}{shown_value(entry.half_width, entry.half_width)}"


def seeds_in_words(report: Report, shown: str = "mean and standard deviation") -> str:
    """How many seeds the numbers are from: "one seed", or what is shown over how many."""
    seeds = sorted({entry.n for entry in report.entries.values() if entry.n})
    if not seeds:
        return "no seed yet"
    if seeds == [1]:
        return "one seed"
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"{shown} over {count} seeds"


def findings(report: Report) -> list[str]:
    """Returns the conclusions, one line each: verdicts, chance, the interval, protocols, order."""
    if report.table is None:
        return []
    lines = []
    if any(entry.verdict is Verdict.FEW_SEEDS for entry in report.in_order()):
        lines.append(f"Cells with fewer than {FEWEST_SEEDS} seeds get no verdict.")
    if judged := len(report.judged):
        chance = f"{figures(by_chance(judged), 2)} of {counted(judged, 'cell')} (5 %)"
        lines += [_verdicts(report), f"Expected above or below by chance: {chance}."]
        lines += [_interval(report, report.table), *_agreements(report)]
    return [*lines, *_order(report)]


def entry_lines(
    report: Report, row: str, first: list[Line[Entry]], difference: str, seeds: Callable[[Entry], str], mark: str = "±"
) -> list[Line[Entry]]:
    """The lines of a row's cells, each with its label; lines that are empty throughout are left out.

    Args:
        first: the lines with ours.
        difference: label of the line with the differences from the published values.
        seeds: text of the last line.
        mark: the sign in front of a half-width.
    """
    of_row = [entry for entry in report.in_order() if entry.row == row]
    lines = list(first)
    if report.published:
        lines.append(("paper", lambda entry: as_printed(entry.published) or "-"))
    if any(entry.published is not None for entry in of_row):
        lines.append((difference, lambda entry: shown_value(entry.difference, entry.spread, signed=True)))
    if any(entry.verdict.judged for entry in of_row):
        lines.append(("95%", lambda entry: shown_half_width(entry, mark)))
    return [*lines, ("seeds", seeds)]


def contrast_lines(contrasts: Collection[Contrast], mark: str = "±") -> list[Line[Contrast]]:
    """The lines that differences between arms have, each with its label; lines that are empty throughout are left out.

    Args:
        mark: the sign in front of a spread or a half-width.
    """
    lines: list[Line[Contrast]] = [
        ("mean", lambda one: shown_value(one.mean, one.spread, signed=True) or "-"),
        ("spread", lambda one: shown_spread(one.mean, one.spread, mark)),
        ("95%", lambda one: half_interval(one, mark)),
        ("p", lambda one: shown_p(None if one.test is None else one.test.p)),
        ("p perm.", lambda one: shown_p(None if one.test is None else one.test.permutation_p)),
        ("boot from", lambda one: _bootstrap(one, 0)),
        ("boot to", lambda one: _bootstrap(one, 1)),
        ("seeds", lambda one: str(one.n)),
        ("needed", _needed),
    ]
    return [(label, text) for label, text in lines if any(text(one) for one in contrasts)]


def half_interval(one: Contrast, mark: str) -> str:
    """Half the width of a difference's 95 % interval, with its sign in front; empty if there is none."""
    if one.interval is None:
        return ""
    half = (one.interval[1] - one.interval[0]) / 2
    return f"{mark}{shown_value(half, half)}"


def contrast_legend(contrasts: Collection[Contrast]) -> list[str]:
    """Returns the legend of the lines of differences that are shown."""
    labels = {label for label, _ in contrast_lines(contrasts)}
    words = {
        "95%": "95%: Student's interval of the mean difference, over seeds that both arms have; p: its paired t test.",
        "p perm.": "p perm.: permutation test.",
        "boot from": "boot: bootstrap interval of 95 %.",
        "needed": "needed: order of magnitude of the seeds that would resolve the difference.",
    }
    return [text for label, text in words.items() if label in labels]


def _verdicts(report: Report) -> str:
    words = {
        Verdict.REPRODUCED: "reproduced",
        Verdict.AGREES: "agree by another protocol",
        Verdict.UNRESOLVED: "unresolved",
        Verdict.SLIGHTLY_ABOVE: f"above by less than {report.tolerance}",
        Verdict.SLIGHTLY_BELOW: f"below by less than {report.tolerance}",
        Verdict.ABOVE: "above",
        Verdict.BELOW: "below",
    }
    judged = [entry.verdict for entry in report.judged]
    said = ", ".join(f"{judged.count(verdict)} {text}" for verdict, text in words.items() if verdict in judged)
    return f"Verdicts on {counted(len(judged), 'cell')} with {FEWEST_SEEDS} seeds or more: {said}."


def _interval(report: Report, table: Table) -> str:
    shared = [of_range for of_range in grouped(report.columns, table.range_of).values() if len(of_range) > 1]
    pooled = " and ".join(f"{column_label(first)} to {column_label(last)}" for first, *_, last in shared)
    over = f", s pooled over {pooled}" if pooled else ""
    return (
        f"95%: h = t(.975, nu) s sqrt(1 + 1/n){over}; one more run falls within ours"
        " plus or minus h, if the paper's runs vary as ours do."
    )


def _agreements(report: Report) -> list[str]:
    """By what other protocol cells agree, each protocol once."""
    agreeing = (entry for entry in report.judged if entry.verdict is Verdict.AGREES)
    return [
        f"Agrees by another protocol: {_places(((one.row, one.column) for one in cells), report)}: {'; '.join(found)}."
        for found, cells in grouped(agreeing, lambda entry: entry.departures).items()
    ]


def _order(report: Report) -> list[str]:
    order = report.order
    lines = []
    if order.pairs or order.close:
        counts = ", ".join(f"{len(order.of(ordering))} {ordering}" for ordering in Ordering)
        lines.append(
            f"Order of the arms: {counts}, of {counted(len(order.pairs), 'pair')} with a clear published gap"
            f" (above 2 sqrt(2) s); {order.close} too close to judge."
        )
    if below := order.of(Ordering.REVERSED):
        said = _places(((f"{one.row} is below {one.baseline}", one.column) for one in below), report)
        lines.append(f"Reversed: {said}.")
    if order.tau:
        said = ", ".join(f"{tau:.2f} at {column_label(column)}" for column, tau in order.tau)
        lines.append(f"Kendall's tau-b of the order, as a description: {said}.")
    return lines


def _places(places: Iterable[tuple[str, float | str]], report: Report) -> str:
    """NN at 1%, 2%; MVAE in all columns."""
    said = []
    for head, found in grouped(places, lambda place: place[0]).items():
        columns = [column for _, column in found]
        everywhere = len(report.columns) > 1 and set(report.columns) <= set(columns)
        said.append(f"{head} " + ("in all columns" if everywhere else f"at {', '.join(map(column_label, columns))}"))
    return "; ".join(said)


def _bootstrap(one: Contrast, end: int) -> str:
    if one.test is None or one.test.bootstrap is None:
        return ""
    return shown_value(one.test.bootstrap[end], one.spread, signed=True)


def _needed(one: Contrast) -> str:
    if one.test is None or one.test.resolved:
        return ""
    return f">{MAGNITUDES[-1]}" if one.seeds_needed is None else f"~{one.seeds_needed}"
