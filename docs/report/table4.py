"""Table 4's MVAE row: what each ingredient of the training does to it, from runs of the same length.

The runs are FashionMNIST, MLP networks, 20 epochs. They differ in what the supplement leaves open: pairing, targets,
label weight, how beta rises, and the rule that joins the experts (docs/examples/mvae_inverted.py).

    table4.ARM.PAIRING.TARGETS.wWEIGHT.bBETA.SHARE      mean accuracy of a set-up, beta at its end, share in percent
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from docs.report.numbers import DIAGNOSTIC, PAIRED_BATCHES, VALIDATION, know_examples, mean_and_spread
from docs.report.sources import Sources, Value, holds
from docs.report.tables import mean, table
from mvae.models import arm
from mvae.trial import Trial
from sweeps.table.markdown import markdown_table
from sweeps.table.plot import COLOURS, png
from sweeps.table.published import TABLE_4, column_label
from sweeps.table.rounding import as_printed, shown, shown_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE = "weak_supervision-fashion_mnist"
VARIED = ("pairing", "targets", "label_weight", "annealing_epochs", "paired_fraction", "seed")
PAPER_BATCHES = 100 * 500
"""Batches that 100 epochs of the paper's training show if every one is paired."""
COLUMNS = (0.001, 0.01, 0.05, 0.1, 1.0)
"""Shares of pairs that the candidates' table shows."""
FEW = 0.05
"""Share of pairs up to which the last epoch is compared with the best one."""


class SetUp(NamedTuple):
    """A way to train the MVAE of Table 4, except the share of pairs and the seed."""

    arm: str
    pairing: str
    targets: str
    label_weight: float
    final_beta: float

    @property
    def order(self) -> tuple[Any, ...]:
        """The plain MVAE first, `own` before `all`, then by weight."""
        reserved_first = ("reserved", "proportional", "resampled").index(self.pairing)
        return (self.arm, reserved_first, self.targets != "own", -self.final_beta, self.label_weight)


class Run(NamedTuple):
    """A trial's test accuracy after the last epoch, and its metrics by epoch."""

    accuracy: float
    curves: Mapping[str, tuple[float, ...]]


Cells = Mapping[tuple[SetUp, float], list[Run]]
"""Runs of every seed, by set-up and share of pairs."""


def by_set_up(sources: Sources) -> Cells:
    """The runs of the investigation, in the order of the table."""
    know_examples()
    curves = sources.curves(FILE)
    found: dict[tuple[SetUp, float], list[Run]] = {}
    for number in sources.numbers(FILE).numbers:
        trial = number.trial
        if number.metric == TABLE_4.metric and _is_one(trial):
            set_up = SetUp(trial.model, trial.pairing, trial.targets, trial.label_weight, trial.final_beta)
            own = {metric: values for (key, metric), values in curves.items() if key == number.key}
            found.setdefault((set_up, trial.paired_fraction), []).append(Run(number.value, own))
    return dict(sorted(found.items(), key=lambda item: (item[0][0].order, item[0][1])))


def _is_one(trial: Trial) -> bool:
    """Whether a trial differs from the default one only in its set-up, its share of pairs and its seed."""
    if trial.model != "mvae" and not trial.model.startswith("mvae_inverted"):
        return False
    same = {name: getattr(trial, name) for name in VARIED}
    usual = Trial.create(dataset=trial.dataset, model=trial.model, epochs=20, image_network="mlp", **same)
    return trial.hashed_fields() == usual.hashed_fields()


def figures(sources: Sources) -> dict[str, Value]:
    """Everything that docs/table4.md says of these runs, by name."""
    cells, fashion = by_set_up(sources), table(sources, "fashion")
    found: dict[str, Value] = {
        "table4.candidates": candidates(cells),
        "table4.trials": sum(map(len, cells.values())),
        "table4.chosen": chosen_epochs(cells, mean(fashion, "NN", 0.01)),
    }
    for (set_up, share), runs in cells.items():
        name = f"{set_up.arm}.{set_up.pairing}.{set_up.targets}.w{set_up.label_weight:g}.b{set_up.final_beta:g}"
        value = shown_value(*mean_and_spread([run.accuracy for run in runs]))
        found[f"table4.{name}.{column_label(share).removesuffix('%')}"] = value
    keys = {run.key for run in fashion.entries["NN", 1.0].runs}
    curves = [values for (key, metric), values in sources.curves(FILE).items() if key in keys and metric == DIAGNOSTIC]
    best = max((max(values) - values[-1] for values in curves), default=math.inf)
    gap = -(fashion.entries["NN", 1.0].difference or 0)
    holds(best < gap / 2, "choosing the best epoch explains less than half of NN's gap")
    return found | {"table4.nn.best_epoch": best, "table4.nn.gap": gap}


def candidates(cells: Cells) -> str:
    """A Markdown table: a line per set-up, a column per share of pairs, and the published row."""
    lines = []
    for set_up in dict.fromkeys(set_up for set_up, _ in cells):
        words = [arm(set_up.arm).title, set_up.pairing, set_up.targets, f"{set_up.label_weight:g}"]
        values = [[run.accuracy for run in cells.get((set_up, share), [])] for share in COLUMNS]
        lines.append([*words, f"{set_up.final_beta:g}", *map(_shown, values)])
    paper = [as_printed(TABLE_4.published("mvae", share)) for share in COLUMNS]
    heads = ["arm", "pairing", "targets", "label weight", "beta at the end"]
    return markdown_table(heads, list(map(column_label, COLUMNS)), [*lines, ["MVAE, published", *["-"] * 4, *paper]])


def chosen_epochs(cells: Cells, nn: float) -> str:
    """A Markdown table: the last epoch beside the one that is best on the validation split, of the MVAE with few pairs.

    Lines: set-ups with label weight 1 and at most FEW of the pairs; means over seeds.

    Args:
        nn: accuracy of NN with 1 % of the pairs.
    """
    lines, best_of = [], {}
    for (set_up, share), runs in cells.items():
        measured = [run for run in runs if DIAGNOSTIC in run.curves]
        if not measured or set_up.arm != "mvae" or set_up.label_weight != 1.0 or share > FEW:
            continue
        epochs = [max(range(len(v)), key=v.__getitem__) for run in measured for v in [run.curves[VALIDATION]]]
        last = [run.accuracy for run in measured]
        best = [run.curves[DIAGNOSTIC][epoch] for run, epoch in zip(measured, epochs, strict=True)]
        words = [set_up.pairing, set_up.targets, f"{set_up.final_beta:g}", column_label(share)]
        lines.append([*words, _shown(last), _shown(best), f"{fmean(epochs) + 1:.0f}"])
        holds(fmean(best) > fmean(last), f"{set_up} at {share} was better in an earlier epoch")
        best_of[set_up, share] = best
    own = best_of[SetUp("mvae", "reserved", "own", 1.0, 1.0), 0.01]
    holds(fmean(own) > nn, "the best epoch of `own` is above NN's last one")
    near = (TABLE_4.published("mvae", 0.01) or 0) - 0.03
    holds(max(map(max, best_of.values())) < near, "no best epoch comes near the published row")
    heads = ["pairing", "targets", "beta at the end"]
    return markdown_table(heads, ["pairs", "last epoch", "best on validation", "which epoch"], lines)


def _shown(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return shown(*mean_and_spread(values)) + (f" ({len(values)} seeds)" if len(values) > 1 else "")


Points = list[tuple[float, float]]


def accuracy_by_batches(cells: Cells) -> dict[tuple[SetUp, float], Points]:
    """Test accuracy after every epoch against the paired batches shown up to then, mean over seeds."""
    found: dict[tuple[SetUp, float], Points] = {}
    for place, runs in cells.items():
        measured = [run.curves for run in runs if DIAGNOSTIC in run.curves]
        if measured:
            batches = zip(*(accumulate(curves[PAIRED_BATCHES]) for curves in measured), strict=True)
            accuracy = zip(*(curves[DIAGNOSTIC] for curves in measured), strict=True)
            found[place] = list(zip(map(fmean, batches), map(fmean, accuracy), strict=True))
    return found


def by_weight(cells: Cells) -> dict[float, Points]:
    """(label weight, mean accuracy) of the plain MVAE with `own` targets and beta up to 1, by share of pairs."""
    found: dict[float, Points] = {}
    for (set_up, share), runs in cells.items():
        if set_up._replace(label_weight=1.0) == SetUp("mvae", "reserved", "own", 1.0, 1.0):
            found.setdefault(share, []).append((set_up.label_weight, fmean(run.accuracy for run in runs)))
    return {share: sorted(points) for share, points in sorted(found.items()) if len(points) > 1}


def precisions(sources: Sources) -> dict[float, Any]:
    """Precision of both experts per latent dimension of seed 0, all pairs, `own`, by label weight."""
    measured = sources.benchmarks().get("expert-precisions-cpu", {"trials": []})["trials"]
    wanted = {"targets": "own", "paired_fraction": 1.0, "pairing": "reserved", "final_beta": 1.0, "seed": 0}
    found = [one for one in measured if all(one[name] == value for name, value in wanted.items())]
    return {one["label_weight"]: one for one in sorted(found, key=lambda one: float(one["label_weight"]))}


def picture_of_batches(cells: Cells) -> bytes:
    """Test accuracy against paired batches, one panel per way in which beta rises, beside the published row."""
    panels: dict[str, Any] = {}
    for beta in (1.0, 0.5):
        panels[f"beta rises to {beta:g}"] = {
            (set_up, share): points
            for (set_up, share), points in accuracy_by_batches(cells).items()
            if (set_up.arm, set_up.label_weight, set_up.final_beta) == ("mvae", 1.0, beta)
        }

    def draw(axes: Axes, panel: Mapping[tuple[SetUp, float], Points]) -> None:
        published = [(share * PAPER_BATCHES, TABLE_4.published("mvae", share)) for share in TABLE_4.shares]
        axes.plot(*zip(*published, strict=True), color="black", linestyle="--", marker="s", ms=3, label="published row")
        for number, ((set_up, share), points) in enumerate(panel.items()):
            label = f"{set_up.targets}, {set_up.pairing}, {column_label(share)}"
            style = ":" if set_up.targets == "own" else "-"
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(*zip(*points, strict=True), style, color=colour, marker="o", ms=2.5, label=label)
        axes.set(xscale="log", xlabel="paired batches shown", ylabel="test accuracy")

    return _side_by_side(panels, draw)


def picture_of_weights(sources: Sources) -> bytes:
    """Test accuracy of `own` against the label weight, and the precision of both experts at each weight."""
    curve = by_weight(by_set_up(sources))
    measured = {f"label weight {weight:g}, all pairs": one for weight, one in precisions(sources).items()}

    def draw(axes: Axes, panel: Any) -> None:
        if panel is curve:
            for number, (share, points) in enumerate(curve.items()):
                axes.plot(*zip(*points, strict=True), color=COLOURS[number], marker="o", label=column_label(share))
            axes.set(xscale="log", xlabel="label weight", ylabel="test accuracy")
            return
        places = range(1, 1 + len(panel["label"]))
        axes.plot(places, panel["label"], color=COLOURS[1], label="label's expert")
        axes.plot(places, panel["image"], color=COLOURS[0], label="image's expert")
        axes.set(yscale="log", xlabel="latent dimension", ylabel="precision (the prior has 1)")

    return _side_by_side({"accuracy of MVAE (own)": curve, **measured}, draw)


def _side_by_side(panels: Mapping[str, Any], draw: Callable[[Axes, Any], None]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(panels), 4.4), layout="constrained")
    for axes, (title, panel) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True):
        draw(axes, panel)
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7)
    return png(figure)


def shown_numbers(sources: Sources) -> tuple[object, ...]:
    """Every number in the pictures, for their digests."""
    cells = by_set_up(sources)
    weights = (repr(one) for one in precisions(sources).values())
    return (*accuracy_by_batches(cells).items(), *by_weight(cells).items(), *weights)
