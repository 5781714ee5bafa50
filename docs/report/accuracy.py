"""Weak supervision: Table 4 beside ours, the DCGAN's columns from a GPU, and digits."""

from __future__ import annotations

from docs.report import table4
from docs.report.sources import Sources, holds
from docs.report.tabled import caption, grid, report
from mvae.models import arm
from pipelines.weak_supervision import Options, cells
from sweeps.cli.options import read
from sweeps.table.comparison import Entry, Report, Verdict
from sweeps.table.markdown import markdown_table
from sweeps.table.published import TABLE_4, Table, column_label, table_for
from sweeps.table.rounding import as_printed, shown_value

FASHION = "--dataset fashion_mnist --preset paper --image-network mlp --epochs 20 --seeds 0-4"
DCGAN = (
    "--dataset fashion_mnist --preset paper --arms mvae,nn --targets all --seeds 0 --fractions 0.001,0.005,0.01,0.1,1"
    " --label-weight 50"
)
DIGITS = "--seeds 0-4"


def table(sources: Sources, arguments: str) -> Report:
    """What `pipelines/weak_supervision.py` with these arguments shows, of the cells that are committed."""
    options = read(Options, arguments.split())
    numbers = sources.numbers(f"weak_supervision-{options.dataset}")
    axis = "paired fraction"
    return report(tuple(cells(options)), numbers, table=table_for(options.dataset), axis=axis)


def figures(sources: Sources) -> dict[str, str]:
    """Everything that documents say of weak supervision, by name."""
    fashion, digits = table(sources, FASHION), table(sources, DIGITS)
    found = {
        "fashion.table": grid(fashion, stub="accuracy, FashionMNIST"),
        "fashion.caption": caption(fashion),
        "fashion.missing": _missing(fashion),
        "table4.minus_nn": _minus_nn(fashion),
        "digits.table": grid(digits, stub="accuracy, digits"),
        "digits.caption": caption(digits),
        "accuracy.tolerance": f"{Table.tolerance:g}",
    }
    for token, values in TABLE_4.rows.items():
        for column, value in zip(TABLE_4.columns, values, strict=True):
            found[f"paper.fashion.{token}.{column_label(column).removesuffix('%')}"] = as_printed(value)
    for entry in fashion.in_order():
        if entry.mean is not None:
            place = f"{entry.row}.{column_label(entry.column).removesuffix('%')}"
            found[f"ours.fashion.{place.replace(' (', '.').replace(')', '').lower()}"] = shown_value(
                entry.mean, entry.spread
            )
    _first_page(fashion)
    return found | _dcgan(sources) | table4.figures(sources)


def _first_page(fashion: Report) -> None:
    """The sentences above README's scorecard."""
    from_one = [one for one in fashion.in_order() if one.arm == "mvae" and float(one.column) >= 0.01]
    below = all(one.difference is not None and one.difference < 0 for one in from_one if one.n)
    holds(bool(from_one) and below, "every run of the MVAE is below the paper from 1 % of the pairs on")
    reproduced = [one.row for one in fashion.in_order() if one.verdict is Verdict.REPRODUCED]
    holds(reproduced == ["LOGREG"] * 3, "LOGREG alone reproduces, at three fractions")
    features = [one for one in fashion.in_order() if one.row in ("RBM", "VAE") and float(one.column) >= 0.01]
    agree = all(one.verdict is Verdict.AGREES for one in features)
    holds(len(features) == 12 and agree, "RBM and VAE agree with the paper at every fraction from 1 % on")


def _missing(fashion: Report) -> str:
    """Which rows of the published table have no run."""
    missing = [arm(token).title for token in TABLE_4.rows if not any(one.arm == token for one in fashion.in_order())]
    return f"- Not run yet: {', '.join(missing)}." if missing else "- Every arm of the table has at least one run."


def _minus_nn(fashion: Report) -> str:
    """The MVAE's accuracy minus NN's, ours and the paper's, by column."""
    columns = [column for column in TABLE_4.columns if not isinstance(column, str)]
    lines = []
    for row in ("MVAE (own)", "MVAE (all)"):
        gaps = [_gap(fashion.entries.get((row, column)), fashion.entries.get(("NN", column))) for column in columns]
        lines.append([f"{row} minus NN, ours", *gaps])
    paper = [TABLE_4.rows["mvae"][n] - TABLE_4.rows["nn"][n] for n in range(len(columns))]
    lines.append(["MVAE minus NN, paper", *(f"{gap:+.3f}" for gap in paper)])
    return markdown_table(["accuracy"], [column_label(column) for column in columns], lines)


def _gap(one: Entry | None, other: Entry | None) -> str:
    if one is None or other is None or one.mean is None or other.mean is None:
        return "-"
    return f"{one.mean - other.mean:+.3f}"


def _dcgan(sources: Sources) -> dict[str, str]:
    """Table 4 as the paper trains it but for the annealing, with `all` targets, on a GPU."""
    shown = table(sources, DCGAN)
    near = {(entry.row, entry.column) for entry in shown.in_order() if entry.within_tolerance}
    holds(
        near == {("MVAE (all)", 0.001), ("NN", 0.01), ("NN", 0.1)}, "the DCGAN's NN is near the paper at 1 % and 10 %"
    )
    means = {place: entry.mean for place, entry in shown.entries.items() if entry.mean is not None}
    gaps = [means["MVAE (all)", column] - means["NN", column] for column in (0.01, 0.1, 1.0)]
    holds(max(map(abs, gaps)) < 0.01, "the MVAE and NN are alike from 1 % on")
    holds(means["MVAE (all)", 0.001] < means["NN", 0.001] - 0.1, "the MVAE is worse than NN at 0.1 %")
    (first,) = shown.entries["MVAE (all)", 0.001].runs
    numbers = sources.numbers("weak_supervision-fashion_mnist").among([first.key])
    holds(numbers.values("best/epoch") == [1.0], "at 0.1 % the first epoch is the best")
    return {
        "dcgan.table": grid(shown, stub="accuracy, FashionMNIST, DCGAN, 100 epochs"),
        "dcgan.caption": caption(shown),
        "dcgan.first": f"{numbers.mean('best/validation_accuracy'):.2f}",
        "dcgan.apart": f"{max(map(abs, gaps)):.3f}",
        "ours.dcgan.nn.100": shown_value(means["NN", 1.0]),
    }
