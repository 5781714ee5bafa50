"""What the pages say about their tables: derived numbers, and sentences that are held against the numbers.

`holds(condition, sentence)` refuses to fill a page whose sentence is no longer true.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from docs.report.sources import Sources, Value, holds
from docs.report.tables import DIRECTIONS, mean, table
from mvae.models import arm
from sweeps.table.comparison import Report, Verdict
from sweeps.table.judgement import paired
from sweeps.table.markdown import markdown_table
from sweeps.table.published import TABLE_4, column_label
from sweeps.table.published_likelihoods import BY_BOTH, BY_IMAGE

CLOSE = 0.03
"""Loss of accuracy that still counts as close in Figure 5, as in Table 4."""
JOINT, FREE, FIXED = (
    f"MVAE19 {row}" for row in ("free noise log joint", "free noise var joint", "fixed noise var joint")
)
"""Rows of Figure 6 (a), (b) and (c)."""
CHANGED = {
    "Figure 7": ("reconstruction", "edges", "mask"),
    "Figure 8": ("colour-cbcr",),
    "Figure 9": ("fill_in-hidden",),
    "Figure 10": ("watermark-marked",),
}
"""Part of the image that each figure's task changes, as the metrics call it."""


def figures(sources: Sources) -> dict[str, Value]:
    """Everything that is derived from several cells, by name."""
    found: dict[str, Value] = {}
    for derive in (_fashion, _dcgan, _likelihoods, _figure_5, _figure_6, _faces_and_sentences):
        found |= derive(sources)
    return found


def _fashion(sources: Sources) -> dict[str, Value]:
    """Sentences above README's scorecard, the rows without a run, and the MVAE's accuracy minus NN's."""
    shown = table(sources, "fashion")
    from_one = [one for one in shown.in_order() if float(one.column) >= 0.01]
    of_mvae = [one.difference or 0 for one in from_one if one.arm == "mvae"]
    holds(max(of_mvae, default=0) < 0, "every run of the MVAE is below the paper from 1 % of the pairs on")
    reproduced = [one.row for one in shown.in_order() if one.verdict is Verdict.REPRODUCED]
    holds(reproduced == ["LOGREG"] * 3, "LOGREG alone reproduces, at three fractions")
    features = [one.verdict for one in from_one if one.row in ("RBM", "VAE")]
    holds(features == [Verdict.AGREES] * 12, "RBM and VAE agree with the paper at every fraction from 1 % on")
    missing = [arm(token).title for token in TABLE_4.rows if not any(one.arm == token for one in shown.in_order())]
    said = f"Not run yet: {', '.join(missing)}." if missing else "Every arm of the table has at least one run."
    means = {place: entry.mean for place, entry in shown.entries.items()}
    lines = {
        f"{row} minus NN, ours": [(means.get((row, share)), means.get(("NN", share))) for share in TABLE_4.shares]
        for row in ("MVAE (own)", "MVAE (all)")
    }
    lines["MVAE minus NN, paper"] = list(zip(TABLE_4.rows["mvae"], TABLE_4.rows["nn"], strict=True))
    rows = [
        [name, *("-" if one is None or nn is None else f"{one - nn:+.3f}" for one, nn in pairs)]
        for name, pairs in lines.items()
    ]
    minus_nn = markdown_table(["accuracy"], list(map(column_label, TABLE_4.shares)), rows)
    return {"fashion.missing": f"- {said}", "fashion.minus_nn": minus_nn}


def _dcgan(sources: Sources) -> dict[str, Value]:
    """Table 4 as the paper trains it except for the annealing, with `all` targets, on a GPU."""
    shown = table(sources, "dcgan")
    near = {(entry.row, entry.column) for entry in shown.in_order() if entry.within_tolerance}
    said = "the DCGAN's NN is near the paper at 1 % and 10 %"
    holds(near == {("MVAE (all)", 0.001), ("NN", 0.01), ("NN", 0.1)}, said)
    few, *gaps = (mean(shown, "MVAE (all)", share) - mean(shown, "NN", share) for share in (0.001, 0.01, 0.1, 1.0))
    apart = max(map(abs, gaps))
    holds(apart < 0.01, "the MVAE and NN are alike from 1 % on")
    holds(few < -0.1, "the MVAE is worse than NN at 0.1 %")
    (first,) = shown.entries["MVAE (all)", 0.001].runs
    numbers = sources.numbers("weak_supervision-fashion_mnist").among([first.key]).numbers
    values = {number.metric: number.value for number in numbers}
    holds(values["best/epoch"] == 1, "at 0.1 % the first epoch is the best")
    return {"dcgan.first": values["best/validation_accuracy"], "dcgan.apart": apart}


def _likelihoods(sources: Sources) -> dict[str, Value]:
    """Tables 1 and 2 with 1,000 and with 100 importance samples."""
    most, few = table(sources, "likelihoods"), table(sources, "likelihoods.s100")
    jmvae, mvae = "JMVAE", "MVAE (own)"
    log, conditional = "log p(x1)", "var conditional"

    def at(row: str, quantity: str, proposal: str = BY_BOTH, shown: Report = most) -> float:
        return mean(shown, row, f"{quantity} by {proposal}")

    holds(at(mvae, log) < at(jmvae, log), "by q(z given x1, x2) JMVAE is ahead, and by q(z given x1) MVAE")
    holds(at(mvae, log, BY_IMAGE) > at(jmvae, log, BY_IMAGE), "the order of the two models turns round")
    published = [entry for entry in most.in_order() if entry.published is not None]
    below = [-(entry.difference or 0) for entry in published if str(entry.column).startswith("log")]
    variances = [entry for entry in published if str(entry.column).startswith("var")]
    within = [entry.within_tolerance for entry in variances if entry.arm == "mvae"]
    holds(within == [True] * 3, "MVAE's three variances are within 10 % of the paper's")
    paper = {entry.row: entry.published or 0 for entry in variances if "conditional" in str(entry.column)}
    logs = [(row, quantity) for row in (jmvae, mvae) for quantity in (log, "log p(x1,x2)", "log p(x1|x2)")]
    lower = [at(*place) - at(*place, shown=few) for place in logs]
    effective = [at(row, "ESS joint") for row in (jmvae, mvae)]
    return {
        "likelihoods.gap": at(mvae, log, BY_IMAGE) - at(mvae, log),
        "likelihoods.below.low": min(below),
        "likelihoods.below.high": max(below),
        "likelihoods.conditional.ours": at(jmvae, conditional) - at(mvae, conditional),
        "likelihoods.conditional.paper": paper[jmvae] - paper[mvae],
        "likelihoods.ess.low": min(effective),
        "likelihoods.ess.high": max(effective),
        "likelihoods.lower.low": min(lower),
        "likelihoods.lower.high": max(lower),
        "likelihoods.image.mvae_conditional": at(mvae, conditional, BY_IMAGE),
        "likelihoods.image.jmvae_conditional": at(jmvae, conditional, BY_IMAGE),
    }


def _figure_5(sources: Sources) -> dict[str, Value]:
    shown = table(sources, "figure5")

    def at(row: str, probability: float | str) -> float:
        return mean(shown, f"MVAE19 {row}", probability)

    sampled, likeliest = "balanced accuracy", "likeliest balanced accuracy"
    above = {p: at("accuracy", p) - at("majority rate", p) for p in shown.columns}
    loss = at("accuracy", 1.0) - at("accuracy", 0.1)
    holds(loss > 0.15, "accuracy at p = 0.1 is far below that at p = 1")
    better = [p for p, more in above.items() if more > 0]
    holds(better == [0.3, 1.0], "sampled attributes beat the more frequent value from p = 0.3 on")
    return {
        "figure5.from": shown.columns[0],
        "figure5.sampled_share": at(sampled, 0.1) / at(sampled, 1.0),
        "figure5.likeliest_share": at(likeliest, 0.1) / at(likeliest, 1.0),
        "figure5.loss": loss,
        "figure5.above_majority": above[1.0],
        "figure5.above_coin_full": at(likeliest, 1.0) - 0.5,
        "figure5.above_coin_few": at(likeliest, 0.1) - 0.5,
        "figure5.nats": at("log p(x1)", 1.0) - at("log p(x1)", 0.1),
    }


def _figure_6(sources: Sources) -> dict[str, Value]:
    shown = table(sources, "figure6")
    rises = {k: mean(shown, JOINT, f"k={k}") - mean(shown, JOINT, "k=0") for k in (1, 50)}
    first, most = _ratio(shown, FREE, "k=1"), _ratio(shown, FREE, "k=50")
    holds(1 - first < first - most, "most of the fall of the variance comes after k = 1")
    holds(rises[1] > 0, "the likelihood rises from k = 0 to k = 1")
    fixed = _judged(shown, FIXED, "k=0", "k=1")
    holds(fixed == "not resolved", "whether the variance drops with fixed noise is not resolved")
    counts = {entry.n for entry in shown.in_order()}
    holds(len(counts) == 1, "all points of Figure 6 have as many seeds")
    return {
        "figure6.seeds": counts.pop(),
        "figure6.free_ratio": first,
        "figure6.fixed_ratio": _ratio(shown, FIXED, "k=1"),
        "figure6.most_ratio": most,
        "figure6.first_nats": rises[1],
        "figure6.nats": rises[50],
    }


def _faces_and_sentences(sources: Sources) -> dict[str, Value]:
    """Sentences of docs/experiments/vision.md and translation.md about the runs that they show."""
    parts = ("colour-cbcr", "fill_in-hidden", "watermark-marked", "edges_from_image", "mask_from_image")
    gaps = [_above_plain(sources, part) for part in parts]
    holds(min(gaps) > 0, "each task beats both plain answers where it changes the image")
    holds(min(gaps[:3]) == gaps[0], "of the changed parts colour has the narrowest gap")
    scores = _by_metric(sources, "sentences")
    for score in ("bleu", "chrf"):
        for pair in DIRECTIONS.values():
            plain = max(scores[f"{score}_{kind}/{pair}"] for kind in ("copy", "frequent"))
            ours = min(scores[f"{score}{kind}/{pair}"] for kind in ("", "_beam"))
            holds(ours > 1.5 * plain, "both directions score well above both answers that need no model")
    return {}


def said(name: str, sources: Sources) -> str:
    """What our runs say about an item of the supplement that prints no numbers."""
    if name in CHANGED:
        better = all(_above_plain(sources, part) > 0 for part in CHANGED[name])
        n = table(sources, "faces").in_order()[0].n
        return f"PSNR {'above' if better else 'not above'} the plain baselines ({seeds(n)})"
    if name in DIRECTIONS:
        scores, n = _by_metric(sources, "sentences"), table(sources, "sentences").in_order()[0].n
        ours, copied = (scores[f"{score}/{DIRECTIONS[name]}"] for score in ("bleu", "bleu_copy"))
        return f"BLEU {ours:.1f}, source copied {copied:.1f} ({seeds(n)})"
    if name == "Figure 5":
        loss = _judged(table(sources, "figure5"), "MVAE19 accuracy", 1.0, 0.1, -math.inf, CLOSE)
        return f"p = 0.1 close to full data: {loss}"
    if name == "Figure 6":
        shown = table(sources, "figure6")
        last = str(shown.columns[-1])
        drops = {
            "(b) variance drops at k = 1": (FREE, "k=1"),
            "(c) with fixed noise too": (FIXED, "k=1"),
            f"variance drops by {last.replace('=', ' = ')}": (FREE, last),
        }
        lines = (
            f"{label}: {_judged(shown, row, 'k=0', column)}, {_ratio(shown, row, column):.3f} of k = 0"
            for label, (row, column) in drops.items()
        )
        return "; ".join([f"(a) likelihood rises: {_judged(shown, JOINT, last, 'k=0')}", *lines])
    return "examples only"


def judged(ours: Sequence[float], theirs: Sequence[float], low: float = 0.0, high: float = math.inf) -> str:
    """Whether ours minus theirs lies between two bounds, by Student's interval of the mean over seeds.

    Args:
        ours, theirs: one value per seed, in the same order.
    Returns:
        "seen" if the whole interval lies between the bounds, "not seen" if none of it does, else "not resolved";
        with too few seeds, that there is no verdict.
    """
    test = paired(ours, theirs)
    if test is None:
        return f"no verdict ({seeds(len(ours))})"
    start, end = test.interval
    if low < start and end < high:
        return "seen"
    return "not seen" if end <= low or high <= start else "not resolved"


def seeds(n: int) -> str:
    """1 seed, 2 seeds."""
    return f"{n} seed{'' if n == 1 else 's'}"


def _judged(
    shown: Report, row: str, first: float | str, second: float | str, low: float = 0.0, high: float = math.inf
) -> str:
    """`judged` for two columns, over the seeds that both have."""
    one, other = (
        {run.seed: run.value for run in shown.entries[row, column].runs if run.value is not None}
        for column in (first, second)
    )
    both = sorted(one.keys() & other.keys())
    return judged([one[seed] for seed in both], [other[seed] for seed in both], low, high)


def _ratio(shown: Report, row: str, column: str) -> float:
    """Mean of a column, over the mean without random subsets."""
    return mean(shown, row, column) / mean(shown, row, "k=0")


def _by_metric(sources: Sources, name: str) -> dict[str, float]:
    """Means of a table that shows each metric once."""
    return {entry.quantity: entry.mean for entry in table(sources, name).in_order() if entry.mean is not None}


def _above_plain(sources: Sources, part: str) -> float:
    """PSNR of ours above the better plain answer: the input, if the task has one, or the mean image."""
    psnr = _by_metric(sources, "faces")
    plain = (f"psnr_input/{part}", f"psnr_mean/{part}")
    return psnr[f"psnr/{part}"] - max(psnr[name] for name in plain if name in psnr)
