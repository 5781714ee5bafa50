"""Derives values from several committed numbers, and checks that the pages' sentences are still true."""

from __future__ import annotations

import math
from functools import cache

from docs.report.sources import Sources, Value, holds, span_of
from docs.report.tables import DIRECTIONS, Means, by_metric, table
from mvae.models import arm
from pipelines import coherence
from sweeps.cli.words import counted
from sweeps.table.comparison import Contrast, Entry, Verdict
from sweeps.table.entries import contrast
from sweeps.table.judgement import SLACK
from sweeps.table.markdown import markdown_table
from sweeps.table.published import TABLE_4, column_label
from sweeps.table.published_likelihoods import BY_BOTH, BY_IMAGE, PUBLISHED

CLOSE = 0.03
"""Largest loss of accuracy that counts as close in Figure 5. Equals the tolerance of Table 4."""
JMVAE, OWN, ALL, DYNAMIC = "JMVAE", "MVAE (own)", "MVAE (all)", "MVAE, dynamic (own)"
ROWS = ("NN", "LOGREG", "RBM", "VAE", "JMVAE")
FAR = (Verdict.ABOVE, Verdict.BELOW)
"""Verdicts of cells that differ from the paper by more than the tolerance."""
LOG, CONDITIONAL = "log p(x1) by ", "var conditional by "
LOGS = tuple(f"log p({variables}) by {BY_BOTH}" for variables in ("x1", "x1,x2", "x1|x2"))
ACCURACY, MAJORITY, LOG_X1 = "MVAE19 accuracy", "MVAE19 majority rate", "MVAE19 log p(x1)"
BALANCED, LIKELIEST = "MVAE19 balanced accuracy", "MVAE19 likeliest balanced accuracy"
JOINT, FREE, FIXED = "MVAE19 free noise log joint", "MVAE19 free noise var joint", "MVAE19 fixed noise var joint"
"""Rows of Figure 6 (a), (b) and (c)."""
CHANGED = {
    "Figure 7": ("reconstruction", "edges", "mask"),
    "Figure 8": ("colour-cbcr",),
    "Figure 9": ("fill_in-hidden",),
    "Figure 10": ("watermark-marked",),
}
"""Maps each figure to what its task changes in the image, by the names in metrics."""


@cache
def figures(sources: Sources) -> dict[str, Value]:
    """Returns every derived value by name. For items without published numbers, includes whether our runs agree.

    Raises:
        Refusal: a sentence of a page is no longer true.
    """
    pages = (_table_4, _digits, _dcgan, _likelihoods, _figure_5, _figure_6, _vision, _translation, _coherence)
    return {name: value for page in pages for name, value in page(sources).items()}


def agreement(item: str) -> str:
    """Returns the name of the value that says whether our runs agree with an item, for example agreement.figure5."""
    return f"agreement.{item.replace(' ', '').lower()}"


def _table_4(sources: Sources) -> dict[str, Value]:
    fashion = table(sources, "fashion")
    entries = fashion.in_order()
    from_one = [one for one in entries if float(one.column) >= 0.01]
    below = [one.difference or 0 for one in from_one if one.arm == "mvae"]
    holds(max(below, default=0) < 0, "every run of the MVAE is below the paper from 1 % of the pairs on")
    reproduced = [one.row for one in entries if one.verdict is Verdict.REPRODUCED]
    holds(reproduced == ["LOGREG"] * 3, "only LOGREG reproduces, at three fractions")
    features = [one.verdict for one in from_one if one.row in ("RBM", "VAE")]
    holds(features == [Verdict.AGREES] * 12, "RBM and VAE agree with the paper at every fraction from 1 % on")
    plain = [one.verdict for one in from_one if one.row == "NN"]
    holds(plain.count(Verdict.AGREES) == 3, "NN agrees with the paper at three fractions")
    joint = [column_label(one.column) for one in entries if one.row == "JMVAE" and one.verdict is Verdict.AGREES]
    holds(joint == ["10%"], "JMVAE agrees with the paper at 10 %")
    apart = {
        row: [column_label(one.column) for one in entries if one.row == row and one.verdict in FAR] for row in ROWS
    }
    holds(apart["NN"] == ["0.1%", "1%", "100%"], "NN is below the paper at 0.1, 1 and 100 %")
    holds(apart["LOGREG"] == ["0.1%"], "LOGREG is below the paper at 0.1 %")
    holds(apart["JMVAE"] == ["1%"] and apart["RBM"] == apart["VAE"] == [], "JMVAE is above the paper at 1 %")

    not_run = ", ".join(arm(token).title for token in TABLE_4.rows if all(one.arm != token for one in entries))
    ours = {row: [fashion.mean(row, share) for share in TABLE_4.shares] for row in ("NN", OWN, ALL)}
    gaps = [one - nn for row in (OWN, ALL) for one, nn in zip(ours[row], ours["NN"], strict=True) if one and nn]
    holds(max(gaps) < 0, "in our runs the MVAE is below NN in every column")
    lines = [
        [name, *("-" if one is None or nn is None else f"{one - nn:+.3f}" for one, nn in zip(mvae, nns, strict=True))]
        for name, mvae, nns in (
            (f"{OWN} minus NN, ours", ours[OWN], ours["NN"]),
            (f"{ALL} minus NN, ours", ours[ALL], ours["NN"]),
            ("MVAE minus NN, paper", TABLE_4.rows["mvae"], TABLE_4.rows["nn"]),
        )
    ]
    return {
        "fashion.missing": f"- Not run yet: {not_run}."
        if not_run
        else "- Every arm of the table has at least one run.",
        "fashion.minus_nn": markdown_table(["accuracy"], list(map(column_label, TABLE_4.shares)), lines),
    }


def _digits(sources: Sources) -> dict[str, Value]:
    means = Means(table(sources, "digits"))
    few, rows = (0.01, 0.05, 0.2), ("NN", "LOGREG", OWN, ALL)
    above = [means[row, share] > means["NN", share] for row in (OWN, ALL) for share in (*few, 1.0)]
    holds(above == [True, True, True, False] * 2, "with few pairs of digits the MVAE is above NN")
    best = [max(rows, key=lambda row: means[row, share]) for share in few]
    holds(best == [ALL, "LOGREG", "LOGREG"], "the best arms on digits are MVAE (all) at 1 %, then LOGREG")
    return {}


def _dcgan(sources: Sources) -> dict[str, Value]:
    shown = table(sources, "dcgan")
    near = {(entry.row, entry.column) for entry in shown.in_order() if _within_tolerance(entry)}
    holds(near == {(ALL, 0.001), ("NN", 0.01), ("NN", 0.1)}, "the DCGAN's NN is near the paper at 1 % and 10 %")
    means = Means(shown)
    few, *gaps = (means[ALL, share] - means["NN", share] for share in (0.001, 0.01, 0.1, 1.0))
    holds(max(map(abs, gaps)) < 0.01, "the MVAE and NN differ little from 1 % on")
    holds(few < -0.1, "the MVAE is worse than NN at 0.1 %")
    (run,) = shown.entries[ALL, 0.001].runs
    fewest = sources.numbers("weak_supervision-fashion_mnist").read(run.key, run.measure)
    assert fewest is not None
    holds(fewest.metrics["best/epoch"] == 1, "at 0.1 % the first epoch is the best")
    return {"dcgan.first": fewest.metrics["best/validation_accuracy"], "dcgan.apart": max(map(abs, gaps))}


def _likelihoods(sources: Sources) -> dict[str, Value]:
    most, few, light = (Means(table(sources, f"likelihoods{name}")) for name in ("", ".s100", ".w1"))
    ahead = most[OWN, LOG + BY_BOTH] < most[JMVAE, LOG + BY_BOTH]
    holds(ahead, "JMVAE is ahead with q(z given x1, x2), and the MVAE is ahead with q(z given x1)")
    holds(most[OWN, LOG + BY_IMAGE] > most[JMVAE, LOG + BY_IMAGE], "the proposal reverses the order of the two models")
    entries = table(sources, "likelihoods").in_order()
    variances = [one for one in entries if str(one.column).startswith("var") and one.arm == "mvae" and one.published]
    within = [_within_tolerance(one) for one in variances]
    holds(within == [True] * 3, "MVAE's three variances are within 10 % of the paper's")
    paper = {row: PUBLISHED["binary_mnist"][token] for row, token in ((JMVAE, "jmvae"), (OWN, "mvae"))}
    between = [most[OWN, log] + 2 < light[OWN, log] < theirs for log, theirs in zip(LOGS, paper[OWN], strict=False)]
    holds(
        all(between), "with label weight 1 all three likelihoods are higher than with weight 50 and below the paper's"
    )
    gaps = {
        row: [theirs - light[row, log] for log, theirs in zip(LOGS, paper[OWN], strict=False)] for row in (OWN, DYNAMIC)
    }
    ratios = [light[DYNAMIC, str(one.column)] / one.published for one in variances if one.published]
    holds(
        0 < max(gaps[DYNAMIC]) < 0.5 and max(ratios) < 0.75, "with dynamic bits only the likelihoods are near the paper"
    )
    return {
        **span_of("likelihoods.fixed_gap", gaps[OWN]),
        **span_of("likelihoods.dynamic_gap", gaps[DYNAMIC]),
        **span_of("likelihoods.dynamic_lower", [100 * (1 - ratio) for ratio in ratios]),
        "likelihoods.gap": most[OWN, LOG + BY_IMAGE] - most[OWN, LOG + BY_BOTH],
        **span_of(
            "likelihoods.below",
            [theirs - most[row, log] for row in paper for log, theirs in zip(LOGS, paper[row], strict=False)],
        ),
        **span_of("likelihoods.lower", [most[row, log] - few[row, log] for row in paper for log in LOGS]),
        **span_of("likelihoods.ess", [most[row, f"ESS joint by {BY_BOTH}"] for row in paper]),
        "likelihoods.conditional.ours": most[JMVAE, CONDITIONAL + BY_BOTH] - most[OWN, CONDITIONAL + BY_BOTH],
        "likelihoods.conditional.paper": paper[JMVAE][-1] - paper[OWN][-1],
        "likelihoods.image.mvae_conditional": most[OWN, CONDITIONAL + BY_IMAGE],
        "likelihoods.image.jmvae_conditional": most[JMVAE, CONDITIONAL + BY_IMAGE],
    }


def _figure_5(sources: Sources) -> dict[str, Value]:
    report = table(sources, "figure5")
    shown, shares = Means(report), [float(share) for share in report.columns]
    loss = shown[ACCURACY, 1.0] - shown[ACCURACY, 0.1]
    holds(loss > 0.15, "accuracy at p = 0.1 is far below that at p = 1")
    better = [p for p in shares if shown[ACCURACY, p] > shown[MAJORITY, p]]
    holds(better == [0.3, 1.0], "sampled attributes beat the more frequent value from p = 0.3 on")
    losses = contrast(report.entries[ACCURACY, 1.0], report.entries[ACCURACY, 0.1])
    return {
        "figure5.from": shares[0],
        "figure5.sampled_share": shown[BALANCED, 0.1] / shown[BALANCED, 1.0],
        "figure5.likeliest_share": shown[LIKELIEST, 0.1] / shown[LIKELIEST, 1.0],
        "figure5.loss": loss,
        "figure5.above_majority": shown[ACCURACY, 1.0] - shown[MAJORITY, 1.0],
        "figure5.above_coin_full": shown[LIKELIEST, 1.0] - 0.5,
        "figure5.above_coin_few": shown[LIKELIEST, 0.1] - 0.5,
        "figure5.nats": shown[LOG_X1, 1.0] - shown[LOG_X1, 0.1],
        agreement("Figure 5"): f"p = 0.1 close to full data: {judged(losses, -math.inf, CLOSE)}",
    }


def _figure_6(sources: Sources) -> dict[str, Value]:
    report = table(sources, "figure6")
    shown, cells = Means(report), report.entries
    ratios = {(row, k): shown[row, f"k={k}"] / shown[row, "k=0"] for row in (FREE, FIXED) for k in (1, 50)}
    drops = {place: judged(contrast(cells[place[0], "k=0"], cells[place[0], f"k={place[1]}"])) for place in ratios}
    nats = {k: shown[JOINT, f"k={k}"] - shown[JOINT, "k=0"] for k in (1, 50)}
    rises = judged(contrast(cells[JOINT, "k=50"], cells[JOINT, "k=0"]))
    counts = {entry.n for entry in report.in_order()}
    holds(
        1 - ratios[FREE, 1] < ratios[FREE, 1] - ratios[FREE, 50], "most of the fall of the variance comes after k = 1"
    )
    holds(nats[1] > 0, "the likelihood rises from k = 0 to k = 1")
    holds(drops[FIXED, 1] == "not resolved", "whether the variance drops with fixed noise is not resolved")
    holds(len(counts) == 1, "all points of Figure 6 have the same number of seeds")
    claims = (
        ("(b) variance falls at k = 1", (FREE, 1)),
        ("(c) with fixed noise", (FIXED, 1)),
        ("variance falls by k = 50", (FREE, 50)),
    )
    return {
        "figure6.seeds": counts.pop(),
        "figure6.free_ratio": ratios[FREE, 1],
        "figure6.fixed_ratio": ratios[FIXED, 1],
        "figure6.most_ratio": ratios[FREE, 50],
        "figure6.first_nats": nats[1],
        "figure6.nats": nats[50],
        agreement("Figure 6"): "; ".join(
            [f"(a) likelihood rises: {rises}", *(f"{claim}: {drops[place]}" for claim, place in claims)]
        ),
    }


def _vision(sources: Sources) -> dict[str, Value]:
    faces = table(sources, "faces")
    psnr, gaps = by_metric(faces), dict[str, float]()
    for part in (name.removeprefix("psnr/") for name in psnr if name.startswith("psnr/")):
        plain = (f"psnr_input/{part}", f"psnr_mean/{part}")  # not every task has an input to compare with
        gaps[part] = psnr[f"psnr/{part}"] - max(psnr[name] for name in plain if name in psnr)
    changed = [gaps[part] for part in ("colour-cbcr", "fill_in-hidden", "watermark-marked")]
    made = [gaps[part] for part in ("edges_from_image", "mask_from_image")]
    holds(min(changed + made) > 0, "our output beats both plain answers in the part of the image that a task changes")
    holds(min(changed) == changed[0], "of the first three rows, colour has the narrowest gap")
    seeds = counted(faces.in_order()[0].n, "seed")
    above = {name: "above" if all(gaps[part] > 0 for part in parts) else "not above" for name, parts in CHANGED.items()}
    return {agreement(name): f"PSNR {words} the plain baselines ({seeds})" for name, words in above.items()}


def _translation(sources: Sources) -> dict[str, Value]:
    sentences = table(sources, "sentences")
    scores, seeds = by_metric(sentences), counted(sentences.in_order()[0].n, "seed")
    for score in ("bleu", "chrf"):
        for pair in DIRECTIONS.values():
            plain = max(scores[f"{score}_{kind}/{pair}"] for kind in ("copy", "frequent"))
            ours = min(scores[f"{score}{kind}/{pair}"] for kind in ("", "_beam"))
            holds(ours > 1.5 * plain, "translations in both directions score well above both answers without a model")
    shown = {name: (scores[f"bleu/{pair}"], scores[f"bleu_copy/{pair}"]) for name, pair in DIRECTIONS.items()}
    return {
        "sentences.likelihoods": _likelihoods_of_sentences(sources),
        agreement("Table 6"): "examples only",
        **{
            agreement(name): f"BLEU {ours:.1f}, against {copied:.1f} for the copied source ({seeds})"
            for name, (ours, copied) in shown.items()
        },
    }


def _likelihoods_of_sentences(sources: Sources) -> str:
    """Returns a Markdown table of log-likelihoods per token, active units and KLs, for each language and for both."""
    (run,) = table(sources, "sentences").in_order()[0].runs
    results = [result for result in sources.numbers("translation-translation") if result.key == run.key]
    metrics = {metric: value for result in results for metric, value in result.metrics.items()}
    logs = [metrics[f"test/log_{name}_per_token"] for name in ("marginal-x1", "x2", "joint")]
    unigram = [metrics[f"unigram_per_token/{language}"] for language in ("en", "vi")]
    holds(all(ours > plain for ours, plain in zip(logs, unigram, strict=False)), "the model beats the unigram model")
    lines = [
        ["log p per token, nats", *(f"{value:.2f}" for value in logs)],
        ["log p per token of a unigram model, nats", *(f"{value:.2f}" for value in unigram), "-"],
        *(
            [name, *(f"{metrics[f'{metric}/{given}']:.2f}" for given in ("en", "vi", "both"))]
            for name, metric in (("share of latents in use", "active_units"), ("KL per token, nats", "kl_per_token"))
        ),
    ]
    return markdown_table(["quantity"], ["English", "Vietnamese", "both"], lines)


def _coherence(sources: Sources) -> dict[str, Value]:
    report = table(sources, "coherence")
    shown = Means(report)
    rows = [row for row in report.rows if row != coherence.REAL_IMAGES]
    holds(all(shown[row, coherence.REBUILT] < coherence.TRAINED for row in rows), "every arm is under-trained")
    judges = [one.mean or 0 for one in report.in_order() if one.row == coherence.REAL_IMAGES]
    holds(min(judges) >= coherence.JUDGES, "every classifier is good enough to judge")
    one_input = {row: shown[row, "1 input"] for row in ("MVAE", "MoPoE", "MVTCAE")}
    holds(min(one_input, key=one_input.__getitem__) == "MVAE", "with one input the MVAE is below MoPoE and MVTCAE")
    return {"coherence.rise": shown["MVTCAE", "4 inputs"] - shown["MVTCAE", "1 input"]}


def _within_tolerance(entry: Entry) -> bool:
    """Whether the mean is within the tolerance of the published value. Ignores the number of seeds."""
    return entry.difference is not None and abs(entry.difference) <= entry.tolerance + SLACK


def judged(between: Contrast, low: float = 0.0, high: float = math.inf) -> str:
    """Judges whether a difference lies between two bounds, by Student's interval of its mean over seeds.

    Returns:
        "seen" if the whole interval lies between the bounds, "not seen" if it lies outside, else "not resolved";
        "no verdict" with too few seeds.
    """
    if between.interval is None:
        return f"no verdict ({counted(between.n, 'seed')})"
    start, end = between.interval
    if low < start and end < high:
        return "seen"
    return "not seen" if end <= low or high <= start else "not resolved"
