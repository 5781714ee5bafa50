"""Claims about items that print no numbers: what figures claim, and scores of pictures and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from docs.report import many
from docs.report.committed import Committed
from docs.report.sources import Sources, holds
from sweeps.table.comparison import Report
from sweeps.table.judgement import paired

CLOSE = 0.03
"""Loss of accuracy that still counts as close in Figure 5, as in Table 4."""

CHANGED = {
    "Figure 7": ("reconstruction", "edges", "mask"),
    "Figure 8": ("colour-cbcr",),
    "Figure 9": ("fill_in-hidden",),
    "Figure 10": ("watermark-marked",),
}
"""Part of the image that each figure's task changes, as the metrics call it."""

FREE, FIXED = "MVAE19 free noise var joint", "MVAE19 fixed noise var joint"
"""Rows of Figure 6 (b) and (c)."""

DIRECTIONS = {"Table 7": "en-vi", "Table 8": "vi-en"}


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


def figure_5(sources: Sources) -> str:
    """Whether the accuracy with a tenth of the values is close to that with all of them."""
    full, few = _by_seed(many.missing(sources)[0], "MVAE19 accuracy", 1.0, 0.1)
    return f"p = 0.1 close to full data: {judged(full, few, -math.inf, CLOSE)}"


def figure_6(sources: Sources) -> str:
    """The figure's three claims, and what the largest k does to the variance."""
    shown = many.subsets(sources)
    rises = judged(*_by_seed(shown, "MVAE19 free noise log joint", shown.columns[-1], "k=0"))
    said = [f"(a) likelihood rises: {rises}"]
    for label, row in (("(b) variance drops at k = 1", FREE), ("(c) with fixed noise too", FIXED)):
        said.append(f"{label}: {judged(*_by_seed(shown, row, 'k=0', 'k=1'))}, {_ratio(shown, row, 'k=1'):.3f} of k = 0")
    last = str(shown.columns[-1])
    dropped = judged(*_by_seed(shown, FREE, "k=0", last))
    said.append(f"variance drops by {last.replace('=', ' = ')}: {dropped}, {_ratio(shown, FREE, last):.3f} of k = 0")
    return "; ".join(said)


def findings(sources: Sources) -> dict[str, str]:
    """Numbers of the findings about Figures 5 and 6."""
    of_missing, of_subsets = many.missing(sources)[0], many.subsets(sources)
    _hold_pages(sources)
    none, one = _by_seed(of_subsets, FIXED, "k=0", "k=1")
    holds(judged(none, one) == "not resolved", "whether the variance drops with fixed noise is not resolved")
    return {
        "scorecard.figure_6.ratio": f"{_ratio(of_subsets, FIXED, 'k=1'):.3f}",
        "scorecard.figure_6.seeds": seeds(len(none)),
        "scorecard.figure_5.from": f"{of_missing.columns[0]:g}",
    }


def _hold_pages(sources: Sources) -> None:
    """Sentences of docs/experiments/vision.md and translation.md about the runs that they show."""
    faces = sources.numbers("vision-vision_faces").where(epochs=8, image_network="mlp")
    parts = ("colour-cbcr", "fill_in-hidden", "watermark-marked", "edges_from_image", "mask_from_image")
    gaps = {part: _gap(faces, part) for part in parts[:3]}
    holds(all(_gap(faces, part) > 0 for part in parts), "each task beats both plain answers where it changes the image")
    holds(min(gaps, key=lambda part: gaps[part]) == "colour-cbcr", "of the changed parts colour has the narrowest gap")
    sentences = sources.numbers("translation-translation").where(epochs=8, targets="all")
    for score in ("bleu", "chrf"):
        for direction in DIRECTIONS.values():
            plain = max(sentences.mean(f"{score}_{kind}/{direction}") for kind in ("copy", "frequent"))
            ours = min(sentences.mean(f"{score}{kind}/{direction}") for kind in ("", "_beam"))
            holds(ours > 1.5 * plain, "both directions score well above both answers that need no model")


def _gap(numbers: Committed, part: str) -> float:
    """PSNR of ours above the better plain answer."""
    plain = max(numbers.mean(f"{kind}/{part}") for kind in ("psnr_input", "psnr_mean"))
    return numbers.mean(f"psnr/{part}") - plain


def vision(name: str, numbers: Committed) -> str:
    """Whether the changed part comes out better than the input and than the mean image."""
    known = {number.metric for number in numbers.numbers}
    better = [
        numbers.mean(f"psnr/{part}")
        > max(numbers.mean(f"{kind}/{part}") for kind in ("psnr_input", "psnr_mean") if f"{kind}/{part}" in known)
        for part in CHANGED[name]
    ]
    n = len(numbers.values(f"psnr/{CHANGED[name][0]}"))
    return f"PSNR {'above' if all(better) else 'not above'} the plain baselines ({seeds(n)})"


def translation(name: str, numbers: Committed) -> str:
    """BLEU beside that of the source copied; pairs from the prior have no reference."""
    if name not in DIRECTIONS:
        return "examples only"
    direction = DIRECTIONS[name]
    ours, copied = numbers.mean(f"bleu/{direction}"), numbers.mean(f"bleu_copy/{direction}")
    n = len(numbers.values(f"bleu/{direction}"))
    return f"BLEU {ours:.1f}, source copied {copied:.1f} ({seeds(n)})"


def _ratio(shown: Report, row: str, column: str) -> float:
    """Mean of a column, over the mean without random subsets."""
    none, some = shown.entries[row, "k=0"].mean, shown.entries[row, column].mean
    assert none is not None and some is not None
    return some / none


def _by_seed(shown: Report, row: str, first: float | str, second: float | str) -> tuple[list[float], list[float]]:
    """Values of two columns, for each seed that both have; none if a column is absent."""
    columns = [
        {run.seed: run.value for run in entry.runs if run.value is not None}
        if (entry := shown.entries.get((row, column))) is not None
        else {}
        for column in (first, second)
    ]
    both = sorted(columns[0].keys() & columns[1].keys())
    return [columns[0][seed] for seed in both], [columns[1][seed] for seed in both]
