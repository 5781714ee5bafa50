"""The finished table as Markdown: for README files, and for the description of the sweep's MLflow run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sweeps.comparison import Contrast, Entry, Report, Run, Verdict
from sweeps.metric_names import axis_words, metric_words
from sweeps.tables import column_label, number, signed


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
        "\n".join(f"- {_escaped(line)}" for line in report.caption),
    ]
    contrasts = report.contrasts()
    if any(contrast.n for contrast in contrasts):
        by_place = {(contrast.row, contrast.column): contrast for contrast in contrasts}
        lines = [
            [
                f"**{_escaped(row)} - {_escaped(baseline)}**",
                *(_contrast_words(by_place.get((row, c))) for c in report.columns),
            ]
            for row, baseline in dict.fromkeys((contrast.row, contrast.baseline) for contrast in contrasts)
        ]
        parts += [f"#### {report.contrast_title}", _markdown_grid([""], report.columns, lines)]
    parts.append("\n".join(f"- {_escaped(line)}" for line in report.notes()))
    if not every_run:
        return "\n\n".join(part for part in parts if part) + "\n"
    runs = [
        f"| {_escaped(run.row)} | {column_label(run.column)} | {run.seed} | {number(run.value) or run.state} "
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
        said += f" Reproduced: within {report.tolerance} of the paper ({report.table.source})."
    return said


def _markdown_rows(report: Report, row: str) -> list[list[str]]:
    entries = [report.entries.get((row, column)) for column in report.columns]
    published = any(entry is not None and entry.published is not None for entry in entries)

    def line(head: str, label: str, words: Callable[[Entry], str]) -> list[str]:
        return [head, label, *("" if entry is None else words(entry) for entry in entries)]

    lines = [line(f"**{_escaped(row)}**", "ours", _mean_words)]
    if report.table is not None:
        lines.append(line("", "paper", lambda entry: number(entry.published) or "-"))
    if published:
        lines.append(line("", "difference", lambda entry: signed(entry.difference)))
    return [*lines, line("", "seeds", _verdict_words)]


def _mean_words(entry: Entry) -> str:
    if entry.mean is None:
        return "-"
    return f"**{number(entry.mean)}**" + ("" if entry.spread is None else f" ±{entry.spread:.4f}")


def _verdict_words(entry: Entry) -> str:
    words = "failed" if entry.failed else "" if entry.verdict is Verdict.UNPUBLISHED else str(entry.verdict)
    return f"{entry.n}/{entry.of} {words}".strip()


def _contrast_words(contrast: Contrast | None) -> str:
    if contrast is None or contrast.mean is None:
        return "" if contrast is None else "-"
    spread = "" if contrast.spread is None else f" ±{contrast.spread:.4f}"
    return f"{signed(contrast.mean)}{spread} ({contrast.n})"


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
