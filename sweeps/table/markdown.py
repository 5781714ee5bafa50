"""Writes Markdown tables, and the report of a sweep as Markdown for README files and MLflow.

`markdown_table` writes all Markdown tables. The function escapes characters that would end a cell, and fails if a line
has more or fewer cells than there are columns.
"""

import re
from collections.abc import Iterable, Sequence

from mvae.evaluation.words import WordTable
from sweeps.table.comparison import Entry, Report, Run
from sweeps.table.findings import (
    Compared,
    Line,
    contrast_legend,
    contrast_lines,
    entry_lines,
    findings,
    seeds_in_words,
    verdict_words,
)
from sweeps.table.metric_names import axis_words, metric_words
from sweeps.table.published import column_label
from sweeps.table.rounding import shown_spread, shown_value


def markdown_table(
    stubs: Sequence[str], columns: Sequence[str], lines: Iterable[Sequence[str]], *, padded: bool = False
) -> str:
    """Returns a Markdown table: first the stubs, aligned left, then the columns, aligned right.

    Args:
        stubs: headings of the columns that hold words.
        columns: headings of the columns that hold numbers.
        lines: Markdown text of each cell; bars and line breaks are escaped here.
        padded: whether to align the Markdown source, for people who read the file itself.
    """
    head = [*stubs, *columns]
    cells = [[_in_cell(text) for text in line] for line in (head, *lines)]
    assert all(len(line) == len(head) for line in cells), "a line has more or fewer cells than the table has columns"
    if not padded:
        rule = "|" + "---|" * len(stubs) + "---:|" * len(columns)
        first, *others = (f"| {' | '.join(line)} |" for line in cells)
        return "\n".join([first, rule, *others])
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    sides = ["<"] * len(stubs) + [">"] * len(columns)
    marks = ["-" * width if side == "<" else "-" * (width - 1) + ":" for side, width in zip(sides, widths, strict=True)]

    def joined(line: Sequence[str]) -> str:
        return (
            f"| {' | '.join(f'{text:{side}{width}}' for text, side, width in zip(line, sides, widths, strict=True))} |"
        )

    first, *others = map(joined, cells)
    return "\n".join([first, joined(marks), *others])


def word_tables(tables: Iterable[WordTable]) -> str:
    """Returns the given tables of generated sentences as Markdown, each below a heading; empty without tables."""

    def without_html(row: Sequence[str]) -> list[str]:
        return [text.replace("<", "&lt;") or "-" for text in row]

    return "\n\n".join(
        f"### {one.heading}\n\n{markdown_table(one.heads, [], map(without_html, one.rows))}\n" for one in tables
    )


def _in_cell(text: str) -> str:
    """Escapes bars and removes line breaks, because both would end the cell."""
    return re.sub(r"(\\*)\|", lambda bar: bar[1] * 2 + r"\|", " ".join(text.splitlines()))


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {' '.join(line.splitlines())}" for line in lines)


def markdown(report: Report, *, every_run: bool = True) -> str:
    """Returns the report as Markdown that GitHub and MLflow render.

    The Markdown has the table, the conclusions, the protocol, the differences between arms and, if `every_run`, each
    run.
    """
    columns = [column_label(column) for column in report.columns]
    lines: list[list[str]] = []
    for row in report.rows:
        of_row = entry_lines(report, row, [("ours", _mean_words)], "difference", _seeds_words)
        lines += _lines(row, of_row, [report.entries.get((row, column)) for column in report.columns])
    parts = [
        f"### {report.title}",
        markdown_table([axis_words(report.axis), ""], columns, lines, padded=True),
        _list(report.statements),
        _legend_words(report),
        _list([*findings(report), *report.caption]),
    ]
    contrasts = report.contrasts.values()
    if any(contrast.n for contrast in contrasts):
        lines = []
        for row, baseline in {contrast.row: contrast.baseline for contrast in contrasts}.items():
            across = [report.contrasts.get((row, column)) for column in report.columns]
            lines += _lines(f"{row} - {baseline}", contrast_lines(contrasts), across)
        parts += [
            f"#### {report.contrast_title}",
            markdown_table(["", ""], columns, lines, padded=True),
            _list(contrast_legend(contrasts)),
        ]
    parts.append(_list(report.notes()))
    if every_run:
        runs = markdown_table(
            ["row"],
            [axis_words(report.axis), "seed", metric_words(report.metric) or "value", "epochs", "key"],
            [
                [
                    run.row,
                    column_label(run.column),
                    str(run.seed),
                    shown_value(run.value) or run.state.word,
                    "" if run.epochs is None else str(run.epochs),
                    _linked(run),
                ]
                for run in report.runs
            ],
        )
        parts.append(f"<details><summary>Every run</summary>\n\n{runs}\n\n</details>")
    return "\n\n".join(part for part in parts if part) + "\n"


def _legend_words(report: Report) -> str:
    shown = metric_words(report.metric) or f"the quantity of its {'row' if report.rows_are_quantities else 'column'}"
    legend = f"Each number: {shown}, {seeds_in_words(report, 'mean ± standard deviation')}."
    if report.table is not None and report.published:
        legend += f" Published values: {report.table.source}."
        legend += f" A difference of at most {report.tolerance} counts as agreement."
    return legend


def _mean_words(entry: Entry) -> str:
    if entry.mean is None:
        return "-"
    return f"**{shown_value(entry.mean, entry.spread)}** {shown_spread(entry.mean, entry.spread)}".rstrip()


def _seeds_words(entry: Entry) -> str:
    return f"{entry.n}/{entry.of} {verdict_words(entry)}".strip()


def _lines(name: str, lines: Iterable[Line[Compared]], cells: Sequence[Compared | None]) -> list[list[str]]:
    texts = [[label, *("" if cell is None else text(cell) for cell in cells)] for label, text in lines]
    return [["" if place else f"**{name}**", *of_line] for place, of_line in enumerate(texts)]


def _linked(run: Run) -> str:
    if run.link is None:
        return f"`{run.key}`"
    return f"[`{run.key}`]({run.link})" if "://" in run.link else f"`{run.key}` (run `{run.link}`)"
