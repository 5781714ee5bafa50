"""Tables 1 and 2 beside ours, and what can be said of the estimates."""

from __future__ import annotations

from dataclasses import replace

from docs.report.committed import Committed
from docs.report.sources import Sources, holds
from docs.report.tabled import caption, grid, of_columns, report
from pipelines.likelihoods import Options, cells
from sweeps.cli.options import read
from sweeps.table.comparison import Report
from sweeps.table.published import column_label
from sweeps.table.published_likelihoods import BY_BOTH, BY_IMAGE, likelihood_table

COMMAND = "--dataset binary_mnist --arms jmvae,mvae --seeds 0 --epochs 100 --samples {samples} --label-weight 50"


def table(sources: Sources, samples: int) -> Report:
    """BinaryMNIST, all quantities."""
    options = read(Options, COMMAND.format(samples=samples).split())
    numbers = sources.numbers("likelihoods-binary_mnist")
    return report(tuple(cells(options)), numbers, table=likelihood_table("binary_mnist"), axis="quantity")


def _by(shown: Report, proposal: str) -> Report:
    """The columns of one proposal, without its name."""
    wanted = [column for column in shown.columns if str(column).endswith(f" by {proposal}")]
    return of_columns(shown, [column for column in wanted if column != f"ESS marginal by {proposal}"])


def _short(column: float | str) -> str:
    return column_label(column).partition(" by ")[0]


def figures(sources: Sources) -> dict[str, str]:
    """Everything that documents say of likelihoods, by name."""
    most, few = table(sources, 1000), table(sources, 100)
    unpublished = replace(
        few, table=None, entries={place: replace(one, published=None) for place, one in few.entries.items()}
    )
    found = {
        "likelihoods.both": grid(_by(most, BY_BOTH), stub="q(z given x1, x2), S = 1,000", columns=_short),
        "likelihoods.both_s100": grid(
            _by(unpublished, BY_BOTH), stub="q(z given x1, x2), S = 100", columns=_short, seeds=False
        ),
        "likelihoods.image": grid(_by(most, BY_IMAGE), stub="q(z given x1), S = 1,000", columns=_short, seeds=False),
        "likelihoods.caption": caption(most),
    }
    numbers = sources.numbers("likelihoods-binary_mnist")
    return found | _claims(numbers.among(run.key for run in (*most.runs, *few.runs)), most)


def _claims(numbers: Committed, shown: Report) -> dict[str, str]:
    """Figures of the text; its words are held against the numbers."""
    by_both = {model: numbers.where(model=model, measure="likelihood-s1000-v1") for model in ("jmvae", "mvae")}
    few = {model: numbers.where(model=model, measure="likelihood-s100-v1") for model in ("jmvae", "mvae")}
    log = {
        (model, suffix): by_both[model].mean(f"test/log_marginal{suffix}")
        for model in by_both
        for suffix in ("", "-x1")
    }
    gap = {model: log[model, "-x1"] - log[model, ""] for model in by_both}
    holds(log["mvae", ""] < log["jmvae", ""], "by q(z given x1, x2) JMVAE is ahead, and by q(z given x1) MVAE")
    holds(log["mvae", "-x1"] > log["jmvae", "-x1"], "the order of the two models turns round")
    table = shown.table
    assert table is not None
    below = [
        entry.published - entry.mean
        for (_, column), entry in shown.entries.items()
        if str(column).startswith("log") and entry.mean is not None and entry.published is not None
    ]
    variances = [
        abs(entry.difference) / entry.published
        for (_, column), entry in shown.entries.items()
        if entry.arm == "mvae" and str(column).startswith("var") and entry.difference is not None and entry.published
    ]
    holds(max(variances) <= 0.1, "MVAE's three variances are within 10 % of the paper's")
    conditional = {model: by_both[model].mean("test/variance_conditional") for model in by_both}
    paper = {row: table.published(row, f"var conditional by {BY_BOTH}") for row in ("jmvae", "mvae")}
    assert paper["jmvae"] is not None
    assert paper["mvae"] is not None
    lower = [
        by_both[model].mean(f"test/log_{name}") - few[model].mean(f"test/log_{name}")
        for model in by_both
        for name in ("marginal", "joint", "conditional")
    ]
    return {
        "likelihoods.gap": f"{gap['mvae']:.1f}",
        "likelihoods.below.low": f"{min(below):.0f}",
        "likelihoods.below.high": f"{max(below):.0f}",
        "likelihoods.conditional.ours": f"{conditional['jmvae'] - conditional['mvae']:.1f}",
        "likelihoods.conditional.paper": f"{paper['jmvae'] - paper['mvae']:.1f}",
        "likelihoods.ess.low": f"{min(by_both[model].mean('test/ess_joint') for model in by_both):.1f}",
        "likelihoods.ess.high": f"{max(by_both[model].mean('test/ess_joint') for model in by_both):.1f}",
        "likelihoods.lower.low": f"{min(lower):.1f}",
        "likelihoods.lower.high": f"{max(lower):.1f}",
        "likelihoods.image.mvae_conditional": f"{by_both['mvae'].mean('test/variance_conditional-x1'):,.0f}",
        "likelihoods.image.jmvae_conditional": f"{by_both['jmvae'].mean('test/variance_conditional-x1'):.0f}",
    }
