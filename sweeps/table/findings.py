"""Describes a report in words: verdicts, the order of the arms, and differences between arms.

The terminal and Markdown print these lines unchanged.
"""

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
"""A line's label, and a function that returns its text for a cell or a difference."""


def verdict_words(entry: Entry) -> str:
    """Returns a cell's verdict in words, or an empty string if the cell has no verdict."""
    if entry.failed:
        return "failed"
    verdict = entry.verdict
    if verdict in (Verdict.UNPUBLISHED, Verdict.FEW_SEEDS):
        return ""
    if verdict in (Verdict.SLIGHTLY_ABOVE, Verdict.SLIGHTLY_BELOW):
        return f"{'above' if verdict is Verdict.SLIGHTLY_ABOVE else 'below'} by less than {figures(entry.tolerance, 2)}"
    return str(verdict)


def seeds_in_words(report: Report, shown: str = "mean and standard deviation") -> str:
    """Describes the number of seeds per cell: "one seed", or "mean and standard deviation over 3 seeds"."""
    seeds = sorted({entry.n for entry in report.entries.values() if entry.n})
    if not seeds:
        return "no seeds yet"
    if seeds == [1]:
        return "one seed"
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"{shown} over {count} seeds"


def findings(report: Report) -> list[str]:
    """Returns the conclusions, one line per conclusion.

    The lines count the verdicts, give the number of "above" and "below" verdicts that chance explains, and explain the
    95 % interval. Further lines describe differences in protocol and the order of the arms. Without a published table
    there are no conclusions.
    """
    if report.table is None:
        return []
    lines = []
    if any(entry.verdict is Verdict.FEW_SEEDS for entry in report.in_order()):
        lines.append(f"Cells with fewer than {FEWEST_SEEDS} seeds get no verdict.")
    if judged := len(report.judged):
        chance = f"{figures(by_chance(judged), 2)} of {counted(judged, 'cell')} (5 %)"
        lines += [_verdict_counts(report), f"Expected by chance: {chance} above or below the paper."]
        lines += [_interval(report, report.table), *_protocols_of_agreement(report)]
    return [*lines, *_order(report)]


def entry_lines(
    report: Report, row: str, first: list[Line[Entry]], difference: str, seeds: Callable[[Entry], str], mark: str = "±"
) -> list[Line[Entry]]:
    """Returns the lines to print for a row. Lines that are empty in every cell are left out.

    Args:
        first: lines that hold our numbers, printed first.
        difference: label of the line with the differences from the published values.
        seeds: function that returns the text of one cell for the last line, which shows the seeds.
        mark: sign printed before a half-width.
    """

    def half_width(entry: Entry) -> str:
        width = entry.half_width if entry.verdict.judged else None
        return "" if width is None else f"{mark}{shown_value(width, width)}"

    of_row = [entry for entry in report.in_order() if entry.row == row]
    lines = list(first)
    if report.published:
        lines.append(("paper", lambda entry: as_printed(entry.published) or "-"))
    if any(entry.published is not None for entry in of_row):
        lines.append((difference, lambda entry: shown_value(entry.difference, entry.spread, signed=True)))
    if any(entry.verdict.judged for entry in of_row):
        lines.append(("95%", half_width))
    return [*lines, ("seeds", seeds)]


def contrast_lines(contrasts: Collection[Contrast], mark: str = "±") -> list[Line[Contrast]]:
    """Returns the lines to print for differences between arms. Lines that are empty everywhere are left out.

    Args:
        mark: sign printed before a spread or a half-width.
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
    """Returns `mark` and half the width of a difference's 95 % interval; empty if there is no interval."""
    if one.interval is None:
        return ""
    half = (one.interval[1] - one.interval[0]) / 2
    return f"{mark}{shown_value(half, half)}"


def contrast_legend(contrasts: Collection[Contrast]) -> list[str]:
    """Explains the labels of the lines that `contrast_lines` returns. Absent labels are not explained."""
    labels = {label for label, _ in contrast_lines(contrasts)}
    words = {
        "95%": "95%: Student's interval of the mean difference over the seeds that both arms have; p: paired t test.",
        "p perm.": "p perm.: p of the permutation test.",
        "boot from": "boot from, boot to: 95 % bootstrap interval.",
        "needed": "needed: number of seeds that would resolve the difference (order of magnitude).",
    }
    return [text for label, text in words.items() if label in labels]


def _verdict_counts(report: Report) -> str:
    words = {
        Verdict.REPRODUCED: "reproduced",
        Verdict.AGREES: "agree under a different protocol",
        Verdict.UNRESOLVED: "unresolved",
        Verdict.SLIGHTLY_ABOVE: f"above by less than {report.tolerance}",
        Verdict.SLIGHTLY_BELOW: f"below by less than {report.tolerance}",
        Verdict.ABOVE: "above",
        Verdict.BELOW: "below",
    }
    judged = [entry.verdict for entry in report.judged]
    counts = ", ".join(f"{judged.count(verdict)} {text}" for verdict, text in words.items() if verdict in judged)
    return f"Verdicts on {counted(len(judged), 'cell')} with at least {FEWEST_SEEDS} seeds: {counts}."


def _interval(report: Report, table: Table) -> str:
    shared = [of_range for of_range in grouped(report.columns, table.range_of).values() if len(of_range) > 1]
    pooled = " and ".join(f"{column_label(first)} to {column_label(last)}" for first, *_, last in shared)
    over = f", with s pooled over {pooled}" if pooled else ""
    return (
        f"95%: h = t(.975, nu) s sqrt(1 + 1/n){over}. One more run lies within our mean plus or minus h"
        " with 95 % probability, if the paper's runs vary as much as ours."
    )


def _protocols_of_agreement(report: Report) -> list[str]:
    agreeing = (entry for entry in report.judged if entry.verdict is Verdict.AGREES)
    return [
        "Agrees under a different protocol:"
        f" {_places(((entry.row, entry.column) for entry in cells), report)}: {'; '.join(departures)}."
        for departures, cells in grouped(agreeing, lambda entry: entry.departures).items()
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
    if reversed_pairs := order.of(Ordering.REVERSED):
        places = ((f"{pair.row} is below {pair.baseline}", pair.column) for pair in reversed_pairs)
        lines.append(f"Reversed: {_places(places, report)}.")
    if order.tau:
        taus = ", ".join(f"{tau:.2f} at {column_label(column)}" for column, tau in order.tau)
        lines.append(f"Kendall's tau-b between our order and the paper's (descriptive, not a test): {taus}.")
    return lines


def _places(places: Iterable[tuple[str, float | str]], report: Report) -> str:
    """Lists cells in words, grouped by row, for example "NN at 1%, 2%; MVAE in all columns"."""
    texts = []
    for head, of_head in grouped(places, lambda place: place[0]).items():
        columns = [column for _, column in of_head]
        everywhere = len(report.columns) > 1 and set(report.columns) <= set(columns)
        texts.append(f"{head} " + ("in all columns" if everywhere else f"at {', '.join(map(column_label, columns))}"))
    return "; ".join(texts)


def _bootstrap(one: Contrast, end: int) -> str:
    if one.test is None or one.test.bootstrap is None:
        return ""
    return shown_value(one.test.bootstrap[end], one.spread, signed=True)


def _needed(one: Contrast) -> str:
    if one.test is None or one.test.resolved:
        return ""
    return f">{MAGNITUDES[-1]}" if one.seeds_needed is None else f"~{one.seeds_needed}"
