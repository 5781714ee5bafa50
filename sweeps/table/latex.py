"""Writes the table as LaTeX for \\input in a paper. The LaTeX code needs only the package booktabs.

A wide table is not scaled to fit the page. Instead, the first layout that fits is used: smaller type, then spreads
below their means, then columns split into bands below one another. A long table continues in further floats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sweeps.table.comparison import Contrast, Entry, Report
from sweeps.table.latex_text import escaped, stacked, typeset, width, wrapped
from sweeps.table.metric_names import axis_words, capitalised, dataset_words, metric_words
from sweeps.table.published import column_label
from sweeps.table.rounding import as_printed, shown_spread, shown_value

TEXT_WIDTH, TEXT_HEIGHT = 345.0, 550.0
"""Size of the text area in points: class article at 10 pt, the narrowest in common use."""

HEAD = 12
"""Maximum number of characters per line in a column's heading."""

PAPER, MINUS = "paper", "\u2212"
MISSING, FAILED = "--", "failed"


@dataclass(frozen=True)
class Style:
    """Font size and spacing of a table."""

    size: str
    """Font size, a key of `SIZES`."""
    gap: float
    """Points between two columns."""
    below: str = ""
    """Font size of spreads printed below their means; empty: spreads are printed after their means."""
    name: int = 22
    """Maximum number of characters per line in a row's name."""


SIZES = {"small": (0.93, 11.0), "footnotesize": (0.86, 9.5), "scriptsize": (0.81, 8.0), "tiny": (0.70, 6.0)}
"""Font sizes by LaTeX command: width of characters relative to 10 pt, and points from one line to the next."""

STYLES = (
    Style("small", 8.0),
    Style("footnotesize", 6.0),
    Style("footnotesize", 5.0, below="scriptsize"),
    Style("footnotesize", 5.0, below="tiny"),
    Style("scriptsize", 3.0, below="tiny"),
    Style("scriptsize", 3.0, below="tiny", name=12),
)
"""Styles to try, from the most readable to the narrowest."""
BANDED = STYLES[1]
"""Style of tables that are split into bands because even the narrowest of `STYLES` is too wide."""


@dataclass(frozen=True)
class Value:
    """Printed text of a cell: the number and its spread."""

    text: str = ""
    spread: str = ""
    partial: bool = False
    """Whether some seeds of this cell have no result."""


@dataclass(frozen=True)
class Line:
    """One printed line: a label (the row's name, or "paper") and a value per column."""

    name: str
    values: tuple[Value, ...]


Block = tuple[Line, ...]
"""The lines of one row: our numbers and the paper's."""


@dataclass(frozen=True)
class Content:
    """A table before its layout is chosen."""

    caption: str
    """LaTeX source."""
    label: str
    axis: str
    columns: tuple[str, ...]
    blocks: tuple[Block, ...]

    def band(self, places: slice) -> Content:
        blocks = tuple(tuple(replace(line, values=line.values[places]) for line in block) for block in self.blocks)
        return replace(self, columns=self.columns[places], blocks=blocks)


def latex(report: Report, part: str = "") -> str:
    """Returns the table: our mean and spread in each cell, with the published value below.

    Args:
        part: suffix of the LaTeX label, for a report with several tables.
    """
    blocks = tuple(_block(report, row) for row in report.rows)
    return _document(report, _caption(report, blocks), part, blocks)


def latex_differences(report: Report) -> str:
    """Returns the table of differences between arms, seed by seed; empty if no two rows have a seed in common."""
    contrasts = report.contrasts
    most = max((contrast.n for contrast in contrasts.values()), default=0)
    if not most:
        return ""
    values = {place: _value(contrast, most, signed=True) for place, contrast in contrasts.items()}
    blocks = tuple(
        (Line(f"{row} {MINUS} {baseline}", tuple(values.get((row, column), Value()) for column in report.columns)),)
        for row, baseline in dict.fromkeys((contrast.row, contrast.baseline) for contrast in contrasts.values())
    )
    caption = [
        f"{typeset(capitalised(metric_words(report.metric) if report.metric else 'each quantity'))}: difference"
        f" between two rows on {escaped(dataset_words(report.dataset))}, seed by seed:"
        f" {_spread_words(most)}.",
        _partial_words(blocks),
    ]
    return _document(report, caption, "differences", blocks)


def _block(report: Report, row: str) -> Block:
    entries = [report.entries.get((row, column)) for column in report.columns]
    ours = Line(row, tuple(Value() if entry is None else _value(entry, entry.of) for entry in entries))
    if not any(entry is not None and entry.published is not None for entry in entries):
        return (ours,)
    paper = (Value() if entry is None else Value(as_printed(entry.published) or MISSING) for entry in entries)
    return ours, Line(PAPER, tuple(paper))


def _value(numbers: Entry | Contrast, seeds: int, *, signed: bool = False) -> Value:
    if numbers.mean is None:
        return Value(FAILED if isinstance(numbers, Entry) and numbers.failed else MISSING)
    spread = shown_spread(numbers.mean, numbers.spread, mark="")
    return Value(shown_value(numbers.mean, numbers.spread, signed=signed), spread, partial=numbers.n < seeds)


def _caption(report: Report, blocks: Sequence[Block]) -> list[str]:
    table, dataset = report.table, dataset_words(report.dataset)
    if table is not None:
        title = f"{table.title.replace(report.dataset, dataset)} ({table.name} of the paper)"
    else:
        shown = f"{metric_words(report.metric)} by {axis_words(report.axis)}" if report.metric else report.axis
        title = report.heading or f"{shown} on {dataset}"
    several = max(entry.of for entry in report.entries.values())
    failed = len({run.key for run in report.failed})
    return [
        f"{typeset(capitalised(title.rstrip('.')))}.",
        f"Each number: {_spread_words(several)}.",
        f"{PAPER.capitalize()}: the published value ({escaped(table.source)})."
        if table is not None and report.published
        else "",
        _partial_words(blocks),
        f"Failed trials: {failed}." if failed else "",
        *(typeset(line) for line in report.caption),
    ]


def _spread_words(seeds: int) -> str:
    return "one seed" if seeds == 1 else rf"mean $\pm$ standard deviation over {seeds} seeds"


def _partial_words(blocks: Sequence[Block]) -> str:
    values = [value for block in blocks for line in block for value in line.values]
    notes = [
        r"$\dagger$: fewer seeds" if any(value.partial for value in values) else "",
        f"{MISSING}: no value" if any(value.text == MISSING for value in values) else "",
    ]
    return "; ".join(note for note in notes if note) + "." * any(notes)


def _slug(report: Report) -> str:
    """Returns the table's name for LaTeX labels, for example table-4-fashion-mnist."""
    if report.table is not None:
        name = f"{report.table.name} {report.dataset}"
    else:
        name = report.heading.partition(":")[0] or f"{report.dataset} {report.metric or report.axis}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _document(report: Report, caption: Sequence[str], part: str, blocks: tuple[Block, ...]) -> str:
    content = Content(
        caption="\n  ".join(sentence for sentence in caption if sentence),
        label=f"tab:{_slug(report)}{part and f'-{part}'}",
        axis=axis_words(report.axis),
        columns=tuple(column_label(column) for column in report.columns),
        blocks=blocks,
    )
    style, bands = _layout(content)
    head = (
        "% Generated by a sweep's report. Put \\usepackage{booktabs} in the preamble, and \\input this file.\n"
        f"% Fits a text width of {TEXT_WIDTH:g} pt (article, 10 pt). In two-column text, replace table with table*.\n"
    )
    return head + "\n".join(_float(content, style, *numbered) for numbered in enumerate(_floats(content, style, bands)))


def _layout(content: Content) -> tuple[Style, list[Content]]:
    for style in STYLES:
        if _width(content, style) <= TEXT_WIDTH:
            return style, [content]
    columns = len(content.columns)
    for number in range(2, columns + 1):
        size = math.ceil(columns / number)
        bands = [content.band(slice(start, start + size)) for start in range(0, columns, size)]
        if all(_width(band, BANDED) <= TEXT_WIDTH for band in bands):
            return BANDED, bands
    return STYLES[-1], [content.band(slice(place, place + 1)) for place in range(columns)]


def _width(content: Content, style: Style) -> float:
    scale = SIZES[style.size][0]
    lines = [line for block in content.blocks for line in block]
    points = scale * max(width(name) for line in lines for name in wrapped(line.name, style.name))
    for place, column in enumerate(content.columns):
        cells = (_value_width(line.values[place], style) for line in lines)
        points += style.gap + max(*cells, *(scale * width(line) for line in wrapped(column, HEAD)))
    return points


def _value_width(value: Value, style: Style) -> float:
    scale, text = SIZES[style.size][0], width(value.text)
    spread = width(f"±{value.spread}") if value.spread else 0.0
    if style.below:
        return max(scale * text, SIZES[style.below][0] * spread)
    return scale * (text + spread + (5.0 if spread else 0.0))


def _floats(content: Content, style: Style, bands: Sequence[Content]) -> Iterator[list[list[str]]]:
    """Yields the table's floats. Each float is a list of tabulars, and each tabular is a list of lines."""
    room = TEXT_HEIGHT - 12 * (2 + len(content.caption) / 70)
    gathered: list[list[str]] = []
    height = 0.0
    for band in bands:
        head = _head(band)
        head_height = SIZES[style.size][1] * (2 + max(len(wrapped(column, HEAD)) for column in band.columns))
        blocks: list[str] = []
        height += head_height
        for block in band.blocks:
            block_height = _height(block, style)
            if (blocks or gathered) and height + block_height > room:
                yield [*gathered, *([_tabular(band, head, blocks)] if blocks else [])]
                gathered, blocks, height = [], [], head_height
            blocks.append(_rows(block, style))
            height += block_height
        gathered.append(_tabular(band, head, blocks))
    yield gathered


def _height(block: Block, style: Style) -> float:
    below = bool(style.below) and any(value.spread for line in block for value in line.values)
    names = sum(len(wrapped(line.name, style.name)) for line in block)
    return SIZES[style.size][1] * (max(names, len(block) + below) + 0.5)


def _head(content: Content) -> list[str]:
    count = len(content.columns)
    headings = [stacked(wrapped(column, HEAD), "r", "b") for column in content.columns]
    axis = rf" & \multicolumn{{{count}}}{{c}}{{{typeset(capitalised(content.axis))}}} \\"
    return [axis, rf"\cmidrule(l){{2-{count + 1}}}", " & ".join(["", *headings]).strip() + r" \\"]


def _rows(block: Block, style: Style) -> str:
    written = []
    for number, line in enumerate(block):
        name = (
            stacked(wrapped(line.name, style.name), "l", "t") if number == 0 else rf"\quad\emph{{{escaped(line.name)}}}"
        )
        written.append(" & ".join([name, *(_cell(value, style) for value in line.values)]) + r" \\")
        if style.below and any(value.spread for value in line.values):
            below = (rf"{{\{style.below}$\pm {value.spread}$}}" if value.spread else "" for value in line.values)
            written.append(" & ".join(["", *below]).strip() + r" \\")
    return "\n".join(written)


def _cell(value: Value, style: Style) -> str:
    mark = r"\rlap{$^\dagger$}" if value.partial else ""
    if not re.fullmatch(r"[-+]?[\d.]+", value.text):
        return escaped(value.text) + mark
    spread = rf" \pm {value.spread}" if value.spread and not style.below else ""
    return f"${value.text}{spread}${mark}"


def _tabular(content: Content, head: Sequence[str], blocks: Sequence[str]) -> list[str]:
    inner = "\n\\addlinespace\n".join(blocks).split("\n")
    lines = [r"\toprule", *head, r"\midrule", *inner, r"\bottomrule"]
    return [rf"\begin{{tabular}}{{@{{}}l{'r' * len(content.columns)}@{{}}}}", *lines, r"\end{tabular}"]


def _float(content: Content, style: Style, number: int, tabulars: Sequence[Sequence[str]]) -> str:
    """Returns the LaTeX source of one float. All floats of a table have the same table number."""
    first = [rf"\caption{{{content.caption}}}", rf"\label{{{content.label}}}"]
    caption = [r"\addtocounter{table}{-1}", r"\caption{Continued.}"] if number else first
    lines = [*(line for tabular in tabulars for line in [*tabular, r"\par\medskip"])][:-1]
    body = [r"\smallskip", rf"\{style.size}", rf"\setlength{{\tabcolsep}}{{{style.gap / 2:g}pt}}", *lines]
    return "\n".join([r"\begin{table}[tp]", r"\centering", *caption, *body, r"\end{table}"]) + "\n"
