"""The finished table as Markdown: for README files, and for the description of the sweep's MLflow run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sweeps.comparison import Contrast, Entry, Report, Run
from sweeps.findings import contrast_legend, contrast_lines, findings, shown_half_width, verdict_words
from sweeps.metric_names import axis_words, metric_words
from sweeps.rounding import as_printed, shown_spread, shown_value
from sweeps.tables import column_label


def markdown(report: Report, *, every_run: bool = True) -> str:
    """The table, what it says, its protocol, the differences between arms and every run (if wanted), as GitHub and
    MLflow render them."""
    parts = [
        f"### {_escaped(report.title)}",
        _markdown_grid(
            [_escaped(axis_words(report.axis)), ""],
            report.columns,
            [line for row in report.rows for line in _markdown_rows(report, row)],
        ),
        "\n".join(f"- {_escaped(line)}" for line in report.statements),
        _escaped(_legend_words(report)),
        "\n".join(f"- {_escaped(line)}" for line in (*findings(report), *report.caption)),
    ]
    contrasts = report.contrasts()
    if any(contrast.n for contrast in contrasts):
        lines = [line for row in report.rows for line in _contrast_rows(row, contrasts, report.columns)]
        parts += [
            f"#### {_escaped(report.contrast_title)}",
            _markdown_grid(["", ""], report.columns, lines),
            "\n".join(f"- {_escaped(line)}" for line in contrast_legend(contrasts)),
        ]
    parts.append("\n".join(f"- {_escaped(line)}" for line in report.notes()))
    if not every_run:
        return "\n\n".join(part for part in parts if part) + "\n"
    runs = [
        f"| {_escaped(run.row)} | {column_label(run.column)} | {run.seed} | {shown_value(run.value) or run.state} "
        f"| {'' if run.epochs is None else run.epochs} | {_linked(run)} |"
        for run in report.runs
    ]
    axis, value = axis_words(report.axis), metric_words(report.metric) or "value"
    head = f"| row | {axis} | seed | {value} | epochs | key |\n|---|---:|---:|---:|---:|---|"
    parts.append("\n".join(["<details><summary>Every run</summary>", "", head, *runs, "", "</details>"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _legend_words(report: Report) -> str:
    whose = "row" if report.rows_are_quantities else "column"
    shown = metric_words(report.metric) or f"the quantity of its {whose}"
    said = f"Each number: {shown}, mean over seeds ± their standard deviation."
    if report.table is not None:
        said += f" Published: {report.table.source}; a difference up to {report.tolerance} counts as agreement."
    return said


def _markdown_rows(report: Report, row: str) -> list[list[str]]:
    entries = [report.entries.get((row, column)) for column in report.columns]
    published = any(entry is not None and entry.published is not None for entry in entries)

    def line(head: str, label: str, words: Callable[[Entry], str]) -> list[str]:
        return [head, label, *("" if entry is None else words(entry) for entry in entries)]

    lines = [line(f"**{_escaped(row)}**", "ours", _mean_words)]
    if report.table is not None:
        lines.append(line("", "paper", lambda entry: as_printed(entry.published) or "-"))
    if published:
        lines.append(line("", "difference", lambda entry: shown_value(entry.difference, entry.spread, signed=True)))
    if any(entry is not None and entry.verdict.judged for entry in entries):
        lines.append(line("", "95%", shown_half_width))
    return [*lines, line("", "seeds", _verdict_words)]


def _mean_words(entry: Entry) -> str:
    if entry.mean is None:
        return "-"
    return f"**{shown_value(entry.mean, entry.spread)}** {shown_spread(entry.mean, entry.spread)}".rstrip()


def _verdict_words(entry: Entry) -> str:
    return f"{entry.n}/{entry.of} {verdict_words(entry)}".strip()


def _contrast_rows(row: str, contrasts: Sequence[Contrast], columns: Sequence[float | str]) -> list[list[str]]:
    """The lines of one row's differences; none if it is a baseline."""
    of_row = {contrast.column: contrast for contrast in contrasts if contrast.row == row}
    if not of_row:
        return []
    baseline = next(iter(of_row.values())).baseline
    return [
        [
            f"**{_escaped(row)} - {_escaped(baseline)}**" if place == 0 else "",
            label,
            *(text(of_row[column]) if column in of_row else "" for column in columns),
        ]
        for place, (label, text) in enumerate(contrast_lines(contrasts))
    ]


def _markdown_grid(stubs: Sequence[str], columns: Sequence[float | str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose source is aligned too."""
    head = [*stubs, *(_escaped(column_label(column)) for column in columns)]
    widths = [max(3, *(len(line[place]) for line in [head, *lines])) for place in range(len(head))]

    def joined(line: Sequence[str]) -> str:
        padded = [
            text.ljust(width) if place < len(stubs) else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if place < len(stubs) else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return "\n".join([joined(head), joined(rule), *map(joined, lines)])


def _linked(run: Run) -> str:
    if run.link is None:
        return f"`{run.key}`"
    return f"[`{run.key}`]({run.link})" if "://" in run.link else f"`{run.key}` (run `{run.link}`)"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
