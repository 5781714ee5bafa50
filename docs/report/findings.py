"""Statements of the pages about the numbers: values derived from several others, and sentences held against them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from docs.report.sources import Sources, Value, holds
from docs.report.tables import DIRECTIONS, Means, table
from mvae.models import arm
from sweeps.table.comparison import Entry, Report, Verdict
from sweeps.table.judgement import SLACK, paired
from sweeps.table.markdown import markdown_table
from sweeps.table.published import TABLE_4, column_label
from sweeps.table.published_likelihoods import BY_BOTH, BY_IMAGE, PUBLISHED

CLOSE = 0.03
"""Loss of accuracy that still counts as close in Figure 5, as in Table 4."""
JMVAE, OWN, ALL = "JMVAE", "MVAE (own)", "MVAE (all)"
LOG, CONDITIONAL = "log p(x1) by ", "var conditional by "
LOGS = tuple(f"log p({variables}) by {BY_BOTH}" for variables in ("x1", "x1,x2", "x1|x2"))
ACCURACY, BALANCED, LIKELIEST = "MVAE19 accuracy", "MVAE19 balanced accuracy", "MVAE19 likeliest balanced accuracy"
JOINT, FREE, FIXED = "MVAE19 free noise log joint", "MVAE19 free noise var joint", "MVAE19 fixed noise var joint"
"""Rows of Figure 6 (a), (b) and (c)."""
WAYS = {"eager": "eager", "graphed": "recorded", "replayed": "replay only", "compiled": "torch.compile"}
"""Ways to run a step on a GPU, and what the page calls them."""
CHANGED = {
    "Figure 7": ("reconstruction", "edges", "mask"),
    "Figure 8": ("colour-cbcr",),
    "Figure 9": ("fill_in-hidden",),
    "Figure 10": ("watermark-marked",),
}
"""Part of the image that each figure's task changes, as the metrics call it."""


def figures(sources: Sources) -> dict[str, Value]:
    """Everything that is derived from several cells or benchmarks, by name.

    Raises:
        Refusal: a sentence of a page is no longer true.
    """
    for true, sentence in (*_claims(sources), *_claims_on_speed(sources.benchmarks())):
        holds(true, sentence)
    names = ("dcgan", "likelihoods", "likelihoods.s100", "figure5", "figure6")
    dcgan, most, few, figure5, figure6 = (Means(table(sources, name)) for name in names)
    paper = PUBLISHED["binary_mnist"]
    below = [
        theirs - most[row, log]
        for row, token in ((JMVAE, "jmvae"), (OWN, "mvae"))
        for log, theirs in zip(LOGS, paper[token], strict=False)
    ]
    lower = [most[row, log] - few[row, log] for row in (JMVAE, OWN) for log in LOGS]
    effective = [most[row, f"ESS joint by {BY_BOTH}"] for row in (JMVAE, OWN)]
    return {
        "fashion.missing": _missing(table(sources, "fashion")),
        "fashion.minus_nn": _minus_nn(table(sources, "fashion")),
        "dcgan.first": _first_epoch(sources)["best/validation_accuracy"],
        "dcgan.apart": max(abs(dcgan[ALL, share] - dcgan["NN", share]) for share in (0.01, 0.1, 1.0)),
        "likelihoods.gap": most[OWN, LOG + BY_IMAGE] - most[OWN, LOG + BY_BOTH],
        "likelihoods.below.low": min(below),
        "likelihoods.below.high": max(below),
        "likelihoods.conditional.ours": most[JMVAE, CONDITIONAL + BY_BOTH] - most[OWN, CONDITIONAL + BY_BOTH],
        "likelihoods.conditional.paper": paper["jmvae"][-1] - paper["mvae"][-1],
        "likelihoods.ess.low": min(effective),
        "likelihoods.ess.high": max(effective),
        "likelihoods.lower.low": min(lower),
        "likelihoods.lower.high": max(lower),
        "likelihoods.image.mvae_conditional": most[OWN, CONDITIONAL + BY_IMAGE],
        "likelihoods.image.jmvae_conditional": most[JMVAE, CONDITIONAL + BY_IMAGE],
        "figure5.from": figure5.report.columns[0],
        "figure5.sampled_share": figure5[BALANCED, 0.1] / figure5[BALANCED, 1.0],
        "figure5.likeliest_share": figure5[LIKELIEST, 0.1] / figure5[LIKELIEST, 1.0],
        "figure5.loss": figure5[ACCURACY, 1.0] - figure5[ACCURACY, 0.1],
        "figure5.above_majority": figure5[ACCURACY, 1.0] - figure5["MVAE19 majority rate", 1.0],
        "figure5.above_coin_full": figure5[LIKELIEST, 1.0] - 0.5,
        "figure5.above_coin_few": figure5[LIKELIEST, 0.1] - 0.5,
        "figure5.nats": figure5["MVAE19 log p(x1)", 1.0] - figure5["MVAE19 log p(x1)", 0.1],
        "figure6.seeds": figure6.report.in_order()[0].n,
        "figure6.free_ratio": figure6[FREE, "k=1"] / figure6[FREE, "k=0"],
        "figure6.fixed_ratio": figure6[FIXED, "k=1"] / figure6[FIXED, "k=0"],
        "figure6.most_ratio": figure6[FREE, "k=50"] / figure6[FREE, "k=0"],
        "figure6.first_nats": figure6[JOINT, "k=1"] - figure6[JOINT, "k=0"],
        "figure6.nats": figure6[JOINT, "k=50"] - figure6[JOINT, "k=0"],
        **_speeds(sources.benchmarks()),
    }


def _speeds(benchmarks: dict[str, Any]) -> dict[str, Value]:
    """Derived speeds, and the tables of docs/speed.md; single numbers have the addresses `benchmarks.FILE.PATH`."""
    runs, speeds = benchmarks["orchestration-cpu"]["trivial"], benchmarks["gpu-h200"]["throughput"]
    assert len({run["trials"] for run in runs}) == 1
    cpu, start = ([run[name] for run in runs] for name in ("a_trial_cpu", "start"))
    times = [ways["graphed"] / ways["eager"] for ways in speeds.values()]
    lines = [[label, *(f"{ways[way]:,.0f}" if way in ways else "-" for way in WAYS)] for label, ways in speeds.items()]
    machines = []
    for name, found in benchmarks.items():
        machine, versions = found.get("machine", {}), found.get("versions", {})
        processor = machine.get("gpu") or machine.get("processor") or machine.get("cpu") or "not recorded"
        torch = machine.get("torch") or versions.get("torch") or found.get("torch", "not recorded")
        machines.append([f"`benchmarks/results/{name}.json`", processor, f"torch {torch}"])
    scaling = {one["batch"]: one["ratio"] for one in benchmarks["scaling-cpu"]["compared"]}
    recorded = speeds["mvae mnist mlp"]["graphed"]
    return {
        "speed.engine.repeats": len(runs),
        "speed.engine.each": ", ".join(f"{seconds:.2f}" for seconds in sorted(run["a_trial"] for run in runs)),
        "speed.engine.cpu.low": min(cpu),
        "speed.engine.cpu.high": max(cpu),
        "speed.engine.start.low": min(start),
        "speed.engine.start.high": max(start),
        "speed.engine.again": max(run["again"] for run in runs),
        **{f"speed.scaling.{batch}.{part}": ratio[part] for batch, ratio in scaling.items() for part in ratio},
        "speed.gpu.table": markdown_table(["examples per second"], list(WAYS.values()), lines),
        "speed.gpu.times.low": min(times),
        "speed.gpu.times.high": max(times),
        "speed.gpu.lockstep": benchmarks["gpu-h200"]["lockstep"]["16 models"]["graphed"] / recorded,
        "speed.machines": markdown_table(["file", "processor", "software"], [], machines),
    }


def _claims_on_speed(benchmarks: dict[str, Any]) -> Iterator[tuple[bool, str]]:
    """Sentences of docs/speed.md."""
    training, likelihood = benchmarks["training-cpu"], benchmarks["likelihood-cpu"]
    released, loaded = (training["compared"][0][name]["median"] for name in ("released", "loaded"))
    yield released < training["claim"] <= loaded, "only images in memory miss the benchmark's target"
    mlp, dcgan = likelihood["compared"]
    missed = likelihood["claim"] - mlp["literal"]["median"]
    yield 0 < missed < 0.5, "the literal loop just misses the benchmark's target"
    yield abs(mlp["batched"]["median"] - 1) < 0.1, "a loop over 100 images is about as fast with the MLP"
    yield dcgan["batched"]["median"] < 1, "a loop over 100 images is faster with the DCGAN"
    speeds = benchmarks["gpu-h200"]["throughput"].values()
    compiled = [ways["compiled"] < ways["eager"] for ways in speeds if "compiled" in ways]
    yield all(compiled), "--compile slows such small networks down on a GPU"


def _claims(sources: Sources) -> Iterator[tuple[bool, str]]:
    """Sentences of the pages, and whether the numbers bear them out."""
    # README.md and docs/table4.md
    fashion = table(sources, "fashion").in_order()
    from_one = [one for one in fashion if float(one.column) >= 0.01]
    below = [one.difference or 0 for one in from_one if one.arm == "mvae"]
    yield max(below, default=0) < 0, "every run of the MVAE is below the paper from 1 % of the pairs on"
    reproduced = [one.row for one in fashion if one.verdict is Verdict.REPRODUCED]
    yield reproduced == ["LOGREG"] * 3, "LOGREG alone reproduces, at three fractions"
    features = [one.verdict for one in from_one if one.row in ("RBM", "VAE")]
    yield features == [Verdict.AGREES] * 12, "RBM and VAE agree with the paper at every fraction from 1 % on"
    dcgan = Means(table(sources, "dcgan"))
    near = {(entry.row, entry.column) for entry in dcgan.report.in_order() if _within_tolerance(entry)}
    expected = {(ALL, 0.001), ("NN", 0.01), ("NN", 0.1)}
    yield near == expected, "the DCGAN's NN is near the paper at 1 % and 10 %"
    few, *gaps = (dcgan[ALL, share] - dcgan["NN", share] for share in (0.001, 0.01, 0.1, 1.0))
    yield max(map(abs, gaps)) < 0.01, "the MVAE and NN are alike from 1 % on"
    yield few < -0.1, "the MVAE is worse than NN at 0.1 %"
    yield _first_epoch(sources)["best/epoch"] == 1, "at 0.1 % the first epoch is the best"
    # docs/experiments/likelihoods.md
    most = Means(table(sources, "likelihoods"))
    ahead = most[OWN, LOG + BY_BOTH] < most[JMVAE, LOG + BY_BOTH]
    yield ahead, "by q(z given x1, x2) JMVAE is ahead, and by q(z given x1) MVAE"
    yield most[OWN, LOG + BY_IMAGE] > most[JMVAE, LOG + BY_IMAGE], "the order of the two models turns round"
    variances = [one for one in most.report.in_order() if str(one.column).startswith("var") and one.arm == "mvae"]
    within = [_within_tolerance(one) for one in variances if one.published is not None]
    yield within == [True] * 3, "MVAE's three variances are within 10 % of the paper's"
    light = Means(table(sources, "likelihoods.w1"))
    yield (
        all(
            most[OWN, log] + 2 < light[OWN, log] < theirs
            for log, theirs in zip(LOGS, PUBLISHED["binary_mnist"]["mvae"], strict=False)
        ),
        ("with label weight 1 all three likelihoods are higher than with weight 50 and below the paper's"),
    )
    # docs/experiments/missing_modalities.md
    figure5 = Means(table(sources, "figure5"))
    loss = figure5[ACCURACY, 1.0] - figure5[ACCURACY, 0.1]
    yield loss > 0.15, "accuracy at p = 0.1 is far below that at p = 1"
    better = [p for p in figure5.report.columns if figure5[ACCURACY, p] > figure5["MVAE19 majority rate", p]]
    yield better == [0.3, 1.0], "sampled attributes beat the more frequent value from p = 0.3 on"
    # docs/experiments/k_sweep.md
    figure6 = Means(table(sources, "figure6"))
    first, last = (figure6[FREE, "k=0"] - figure6[FREE, k] for k in ("k=1", "k=50"))
    yield first < last - first, "most of the fall of the variance comes after k = 1"
    yield figure6[JOINT, "k=1"] > figure6[JOINT, "k=0"], "the likelihood rises from k = 0 to k = 1"
    fixed = _judged(figure6.report, FIXED, "k=0", "k=1")
    yield fixed == "not resolved", "whether the variance drops with fixed noise is not resolved"
    yield len({one.n for one in figure6.report.in_order()}) == 1, "all points of Figure 6 have as many seeds"
    # docs/experiments/vision.md and translation.md
    parts = ("colour-cbcr", "fill_in-hidden", "watermark-marked", "edges_from_image", "mask_from_image")
    gaps = [_above_plain(sources, part) for part in parts]
    yield min(gaps) > 0, "each task beats both plain answers where it changes the image"
    yield min(gaps[:3]) == gaps[0], "of the changed parts colour has the narrowest gap"
    scores = Means(table(sources, "sentences")).by_metric
    for score, pair in ((score, pair) for score in ("bleu", "chrf") for pair in DIRECTIONS.values()):
        plain = max(scores[f"{score}_{kind}/{pair}"] for kind in ("copy", "frequent"))
        ours = min(scores[f"{score}{kind}/{pair}"] for kind in ("", "_beam"))
        yield ours > 1.5 * plain, "both directions score well above both answers that need no model"


def _within_tolerance(entry: Entry) -> bool:
    """Whether the mean is within the tolerance of the published value, however few seeds it has."""
    return entry.difference is not None and abs(entry.difference) <= entry.tolerance + SLACK


def _missing(fashion: Report) -> str:
    """Rows of the published table without a run."""
    missing = [arm(token).title for token in TABLE_4.rows if all(one.arm != token for one in fashion.entries.values())]
    return f"- Not run yet: {', '.join(missing)}." if missing else "- Every arm of the table has at least one run."


def _minus_nn(fashion: Report) -> str:
    """A Markdown table: the MVAE's accuracy minus NN's, ours and the paper's, by share of pairs."""
    ours = {row: [fashion.entries.get((row, share)) for share in TABLE_4.shares] for row in ("NN", OWN, ALL)}
    values = {row: [None if entry is None else entry.mean for entry in entries] for row, entries in ours.items()}
    pairs = {
        f"{OWN} minus NN, ours": zip(values[OWN], values["NN"], strict=True),
        f"{ALL} minus NN, ours": zip(values[ALL], values["NN"], strict=True),
        "MVAE minus NN, paper": zip(TABLE_4.rows["mvae"], TABLE_4.rows["nn"], strict=True),
    }
    lines = [
        [name, *("-" if one is None or nn is None else f"{one - nn:+.3f}" for one, nn in of_row)]
        for name, of_row in pairs.items()
    ]
    return markdown_table(["accuracy"], list(map(column_label, TABLE_4.shares)), lines)


def _first_epoch(sources: Sources) -> dict[str, float]:
    """Metrics of the DCGAN's MVAE with 0.1 % of the pairs."""
    (run,) = table(sources, "dcgan").entries[ALL, 0.001].runs
    numbers = sources.numbers("weak_supervision-fashion_mnist").among([run.key]).numbers
    return {number.metric: number.value for number in numbers}


def _above_plain(sources: Sources, part: str) -> float:
    """PSNR of ours above the better plain answer: the input, if the task has one, or the mean image."""
    psnr = Means(table(sources, "faces")).by_metric
    plain = (f"psnr_input/{part}", f"psnr_mean/{part}")
    return psnr[f"psnr/{part}"] - max(psnr[name] for name in plain if name in psnr)


def said(name: str, sources: Sources) -> str:
    """Result of our runs for an item of the supplement that prints no numbers."""
    if name in CHANGED:
        better = all(_above_plain(sources, part) > 0 for part in CHANGED[name])
        n = table(sources, "faces").in_order()[0].n
        return f"PSNR {'above' if better else 'not above'} the plain baselines ({seeds(n)})"
    if name in DIRECTIONS:
        shown = Means(table(sources, "sentences"))
        ours, copied = (shown.by_metric[f"{score}/{DIRECTIONS[name]}"] for score in ("bleu", "bleu_copy"))
        return f"BLEU {ours:.1f}, source copied {copied:.1f} ({seeds(shown.report.in_order()[0].n)})"
    if name == "Figure 5":
        close = _judged(table(sources, "figure5"), ACCURACY, 1.0, 0.1, -math.inf, CLOSE)
        return f"p = 0.1 close to full data: {close}"
    if name == "Figure 6":
        shown = Means(table(sources, "figure6"))
        last = str(shown.report.columns[-1])
        lines = [f"(a) likelihood rises: {_judged(shown.report, JOINT, last, 'k=0')}"]
        for label, row, column in (
            ("(b) variance drops at k = 1", FREE, "k=1"),
            ("(c) with fixed noise too", FIXED, "k=1"),
            (f"variance drops by {last.replace('=', ' = ')}", FREE, last),
        ):
            ratio = shown[row, column] / shown[row, "k=0"]
            lines.append(f"{label}: {_judged(shown.report, row, 'k=0', column)}, {ratio:.3f} of k = 0")
        return "; ".join(lines)
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


def seeds(n: int) -> str:
    """1 seed, 2 seeds."""
    return f"{n} seed{'' if n == 1 else 's'}"
