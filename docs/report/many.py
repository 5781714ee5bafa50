"""Figures 5 and 6 on mnist19: missing modalities, and more random subsets per step."""

from __future__ import annotations

from docs.report.committed import Committed
from docs.report.sources import Sources, holds
from docs.report.tabled import caption, grid, report
from mvae.data import source
from mvae.evaluation.attributes import attribute_names
from pipelines import k_sweep, missing_modalities
from sweeps.cli.options import read
from sweeps.table.comparison import Report
from sweeps.table.files import Pictures
from sweeps.table.quantities import quantity_cells

MISSING = "--keep-probabilities 0.01,0.1,0.3,1 --seeds 0 --epochs 10 --samples 100"
SUBSETS = "--train-examples 10000 --epochs 10 --samples 100 --seeds 0-2 --ks 0,1,4,16,50"

QUANTITIES = {
    "MVAE19 accuracy": "accuracy of sampled attributes",
    "MVAE19 balanced accuracy": "balanced (a coin has one half)",
    "MVAE19 likeliest accuracy": "accuracy of the likeliest attributes",
    "MVAE19 likeliest balanced accuracy": "balanced",
    "MVAE19 majority rate": "always the more frequent value",
    "MVAE19 log p(x1)": "log p(x1)",
    "MVAE19 log p(x1|others)": "log p(x1 given the attributes)",
}
VARIANCES = {
    "MVAE19 free noise log joint": "log p(x1, x2), free noise",
    "MVAE19 free noise var joint": "variance of the joint log weights, free noise",
    "MVAE19 fixed noise var joint": "variance of the joint log weights, fixed noise",
}


def _missing_options() -> missing_modalities.Options:
    return read(missing_modalities.Options, MISSING.split())


def _subset_options() -> k_sweep.Options:
    return read(k_sweep.Options, SUBSETS.split())


def missing(sources: Sources) -> tuple[Report, Report]:
    """Figure 5's table, and that of every attribute."""
    options, numbers = _missing_options(), sources.numbers("missing_modalities-mnist19")
    trained = missing_modalities.trained(options)
    samples = missing_modalities.PRESETS[options.preset].under(options).samples
    each = (missing_modalities.ACCURACY, missing_modalities.BALANCED, missing_modalities.MAJORITY)
    names = attribute_names(source(options.dataset).modalities)
    shown = [missing_modalities.of_attribute(quantity, name) for name in names for quantity in each]
    cells = (quantity_cells(missing_modalities.quantities(samples), trained), quantity_cells(shown, trained))
    main, details = (report(one, numbers, axis="keep_probability", heading="Figure 5 on mnist19") for one in cells)
    return main, details


def subsets(sources: Sources) -> Report:
    """Figure 6's table."""
    options = _subset_options()
    samples = k_sweep.PRESETS[options.preset].under(options).samples
    cells = quantity_cells(k_sweep.quantities(samples), k_sweep.trained(options))
    numbers = sources.numbers("k_sweep-mnist19")
    return report(cells, numbers, axis="random subsets per step", heading="Figure 6 on mnist19")


def figure_5(sources: Sources) -> Pictures:
    """Draws the figure as the pipeline does."""
    return missing_modalities.pictures(*missing(sources), _missing_options())


def figure_6(sources: Sources) -> Pictures:
    """Draws the figure as the pipeline does."""
    return k_sweep.pictures(subsets(sources), _subset_options())


def figures(sources: Sources) -> dict[str, str]:
    """Everything that documents say of Figures 5 and 6, by name."""
    of_missing, of_subsets = missing(sources)[0], subsets(sources)
    found = {
        "figure5.table": grid(of_missing, stub="Figure 5, keep probability p", rows=QUANTITIES, seeds=False),
        "figure5.caption": caption(of_missing),
        "figure6.table": grid(of_subsets, stub="random subsets per step", rows=VARIANCES, seeds=False),
        "figure6.caption": caption(of_subsets),
        "figure6.seeds": _seeds(of_subsets),
    }
    return (
        found
        | _missing_claims(sources.numbers("missing_modalities-mnist19").among(run.key for run in of_missing.runs))
        | _subset_claims(of_subsets)
    )


def _seeds(shown: Report) -> str:
    counts = {entry.n for entry in shown.in_order()}
    holds(len(counts) == 1, "all points of Figure 6 have as many seeds")
    return str(counts.pop())


def _missing_claims(numbers: Committed) -> dict[str, str]:
    def at(probability: float, metric: str) -> float:
        return numbers.where(keep_probability=probability).mean(f"test/{metric}")

    sampled, likeliest = "attribute_balanced_accuracy", "attribute_balanced_accuracy_likeliest"
    above = {p: at(p, "attribute_accuracy") - at(p, "attribute_majority") for p in (0.01, 0.1, 0.3, 1.0)}
    loss = at(1.0, "attribute_accuracy") - at(0.1, "attribute_accuracy")
    holds(loss > 0.15, "accuracy at p = 0.1 is far below that at p = 1")
    better = [p for p, more in above.items() if more > 0] == [0.3, 1.0]
    holds(better, "sampled attributes beat the more frequent value from p = 0.3 on")
    return {
        "figure5.sampled_share": f"{at(0.1, sampled) / at(1.0, sampled):.0%}".replace("%", " %"),
        "figure5.likeliest_share": f"{at(0.1, likeliest) / at(1.0, likeliest):.0%}".replace("%", " %"),
        "figure5.loss": f"{loss:.3f}",
        "figure5.above_majority": f"{above[1.0]:.3f}",
        "figure5.above_coin_full": f"{at(1.0, likeliest) - 0.5:.3f}",
        "figure5.above_coin_few": f"{at(0.1, likeliest) - 0.5:.3f}",
        "figure5.nats": f"{at(1.0, 'log_marginal') - at(0.1, 'log_marginal'):.0f}",
    }


def _subset_claims(shown: Report) -> dict[str, str]:
    def mean(row: str, k: int) -> float:
        value = shown.entries[f"MVAE19 {row}", f"k={k}"].mean
        assert value is not None
        return value

    none, few, most = (mean("free noise var joint", k) for k in (0, 1, 50))
    holds(none - few < none - most, "most of the fall of the variance comes after k = 1")
    holds(mean("free noise log joint", 1) > mean("free noise log joint", 0), "the likelihood rises from k = 0 to k = 1")
    return {
        "figure6.free_ratio": f"{mean('free noise var joint', 1) / mean('free noise var joint', 0):.2f}",
        "figure6.fixed_ratio": f"{mean('fixed noise var joint', 1) / mean('fixed noise var joint', 0):.3f}",
        "figure6.most_ratio": f"{most / none:.2f}",
        "figure6.first_nats": f"{mean('free noise log joint', 1) - mean('free noise log joint', 0):.1f}",
        "figure6.nats": f"{mean('free noise log joint', 50) - mean('free noise log joint', 0):.1f}",
    }
