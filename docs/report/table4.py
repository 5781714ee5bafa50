"""Table 4's MVAE row: what each ingredient of the training does to it, from runs of the same length.

The runs are FashionMNIST, MLP networks, 20 epochs. They differ in what the supplement leaves open: pairing, targets,
label weight, how beta rises, and the rule that joins the experts (docs/examples/mvae_inverted.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from docs.report import curves
from docs.report.committed import know_examples
from docs.report.sources import Sources, holds
from mvae.models import arm
from mvae.trial import Trial
from sweeps.table.markdown import markdown_table
from sweeps.table.plot import COLOURS, png
from sweeps.table.published import TABLE_4, column_label
from sweeps.table.rounding import as_printed, shown, shown_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE = "weak_supervision-fashion_mnist"
EPOCHS, NETWORK = 20, "mlp"
PAIRED_BATCHES = 100 * 500
"""Batches that 100 epochs of the paper's training show if every one is paired."""
COLUMNS = (0.001, 0.01, 0.05, 0.1, 1.0)
"""Shares of pairs that the candidates' table shows."""
FEW = 0.05
"""Share of pairs up to which the last epoch is compared with the best one."""


@dataclass(frozen=True)
class SetUp:
    """A way to train the MVAE of Table 4, except the share of pairs and the seed."""

    arm: str
    pairing: str
    targets: str
    label_weight: float
    final_beta: float

    @classmethod
    def of(cls, trial: Trial) -> SetUp:
        """The set-up of a trial."""
        return cls(trial.model, trial.pairing, trial.targets, trial.label_weight, trial.final_beta)

    @property
    def order(self) -> tuple[Any, ...]:
        """The plain MVAE first, `own` before `all`, then by weight."""
        reserved_first = ("reserved", "proportional", "resampled").index(self.pairing)
        return (self.arm, reserved_first, self.targets != "own", -self.final_beta, self.label_weight)

    @property
    def words(self) -> list[str]:
        """Cells in front of a table's line."""
        return [arm(self.arm).title, self.pairing, self.targets, f"{self.label_weight:g}", f"{self.final_beta:g}"]


def trials(sources: Sources) -> dict[str, tuple[Trial, float]]:
    """The trials of the investigation and their test accuracy at the last epoch, by key."""
    know_examples()
    return {
        number.key: (number.trial, number.value)
        for number in sources.numbers(FILE).numbers
        if number.metric == TABLE_4.metric and _is_one(number.trial)
    }


def _is_one(trial: Trial) -> bool:
    """Whether a trial differs from the default one only in its set-up, its share of pairs and its seed."""
    if trial.model != "mvae" and not trial.model.startswith("mvae_inverted"):
        return False
    varied = ("pairing", "targets", "label_weight", "annealing_epochs", "paired_fraction", "seed")
    same = {name: getattr(trial, name) for name in varied}
    usual = Trial.create(dataset=trial.dataset, model=trial.model, epochs=EPOCHS, image_network=NETWORK, **same)
    return trial.hashed_fields() == usual.hashed_fields()


Cells = Mapping[tuple[SetUp, float], list[float]]
"""Accuracies of every seed, by set-up and share of pairs."""


def by_set_up(sources: Sources) -> Cells:
    """Accuracies over seeds, in the order of the table."""
    found: dict[tuple[SetUp, float], list[float]] = {}
    for trial, accuracy in trials(sources).values():
        found.setdefault((SetUp.of(trial), trial.paired_fraction), []).append(accuracy)
    return dict(sorted(found.items(), key=lambda item: (item[0][0].order, item[0][1])))


def figures(sources: Sources) -> dict[str, str]:
    """Everything that docs/table4.md says of these runs, by name."""
    cells = by_set_up(sources)
    found = {"table4.candidates": candidates(cells), "table4.trials": str(len(trials(sources)))}
    for (set_up, share), values in cells.items():
        name = f"{set_up.arm}.{set_up.pairing}.{set_up.targets}.w{set_up.label_weight:g}.b{set_up.final_beta:g}"
        found[f"table4.{name}.{column_label(share).removesuffix('%')}"] = _mean_of(values)
    return found | _best_epoch_of_nn(sources) | {"table4.chosen": chosen_epochs(sources)}


def _best_epoch_of_nn(sources: Sources) -> dict[str, str]:
    """NN's largest gain with all pairs if the best epoch were chosen on the test split."""
    recorded = curves.read(sources.results / curves.FOLDER / f"{FILE}.csv")
    of_nn = sources.numbers(FILE).where(model="nn", epochs=EPOCHS, image_network=NETWORK, paired_fraction=1.0)
    keys = {number.key for number in of_nn.numbers}
    gains = [
        max(values) - values[-1]
        for (key, metric), values in recorded.items()
        if key in keys and metric == curves.DIAGNOSTIC
    ]
    published = TABLE_4.published("nn", 1.0)
    assert published is not None
    gap = published - of_nn.mean(TABLE_4.metric)
    holds(bool(gains) and max(gains) < gap / 2, "choosing the best epoch explains less than half of NN's gap")
    return {"table4.nn.best_epoch": f"{max(gains):.3f}", "table4.nn.gap": f"{gap:.3f}"}


def chosen_epochs(sources: Sources) -> str:
    """A Markdown table: the last epoch beside the one that is best on the validation split, of the MVAE with few pairs.

    Lines: set-ups with label weight 1 and at most FEW of the pairs; means over seeds.
    """
    recorded = curves.read(sources.results / curves.FOLDER / f"{FILE}.csv")
    found: dict[tuple[SetUp, float], list[tuple[float, float, float]]] = {}
    for key, (trial, last) in trials(sources).items():
        set_up, test = SetUp.of(trial), recorded.get((key, curves.DIAGNOSTIC))
        if test is None or set_up.arm != "mvae" or set_up.label_weight != 1.0 or trial.paired_fraction > FEW:
            continue
        validation = recorded[key, curves.METRIC]
        best = max(range(len(validation)), key=validation.__getitem__)
        found.setdefault((set_up, trial.paired_fraction), []).append((last, test[best], best + 1))
    lines = []
    for (set_up, share), seeds in sorted(found.items(), key=lambda item: (item[0][0].order, item[0][1])):
        of_last, of_best, epochs = ([one[place] for one in seeds] for place in range(3))
        words = [set_up.pairing, set_up.targets, f"{set_up.final_beta:g}"]
        lines.append([*words, column_label(share), _shown(of_last), _shown(of_best), f"{statistics.fmean(epochs):.0f}"])
        holds(
            statistics.fmean(of_best) > statistics.fmean(of_last), f"{set_up} at {share} was better in an earlier epoch"
        )
    nn = sources.numbers(FILE).where(model="nn", epochs=EPOCHS, image_network=NETWORK, paired_fraction=0.01)
    own, every = SetUp("mvae", "reserved", "own", 1.0, 1.0), [best for at in found.values() for _, best, _ in at]
    best_of_own = statistics.fmean(best for _, best, _ in found[own, 0.01])
    holds(best_of_own > nn.mean(TABLE_4.metric), "the best epoch of `own` is above NN's last one")
    published = TABLE_4.published("mvae", 0.01)
    holds(published is not None and max(every) < published - 0.03, "no best epoch comes near the published row")
    heads = ["pairing", "targets", "beta at the end"]
    return markdown_table(heads, ["pairs", "last epoch", "best on validation", "which epoch"], lines)


def candidates(cells: Cells) -> str:
    """A Markdown table: a line per set-up, a column per share of pairs, and the published row."""
    lines = [
        [*set_up.words, *(_shown(cells.get((set_up, share), [])) for share in COLUMNS)]
        for set_up in dict.fromkeys(set_up for set_up, _ in cells)
    ]
    paper = [as_printed(TABLE_4.published("mvae", share)) for share in COLUMNS]
    heads = ["arm", "pairing", "targets", "label weight", "beta at the end"]
    return markdown_table(
        heads, [column_label(share) for share in COLUMNS], [*lines, ["MVAE, published", "-", "-", "-", "-", *paper]]
    )


def _mean_of(values: Sequence[float]) -> str:
    return shown_value(*_mean_and_spread(values))


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _shown(values: Sequence[float]) -> str:
    if not values:
        return "-"
    said = shown(*_mean_and_spread(values))
    return said if len(values) == 1 else f"{said} ({len(values)} seeds)"


Points = list[tuple[float, float]]
"""Paired batches shown so far, and accuracy on the test split."""


def accuracy_by_batches(sources: Sources) -> dict[tuple[SetUp, float], Points]:
    """Test accuracy after every epoch against the paired batches shown up to then, mean over seeds."""
    known = trials(sources)
    recorded = curves.read(sources.results / curves.FOLDER / f"{FILE}.csv")
    each: dict[tuple[SetUp, float], list[Points]] = {}
    for key, (trial, _) in known.items():
        accuracy = recorded.get((key, curves.DIAGNOSTIC))
        if accuracy is None:
            continue
        batches = accumulate(recorded[key, curves.PAIRED_BATCHES])
        place = (SetUp.of(trial), trial.paired_fraction)
        each.setdefault(place, []).append(list(zip(batches, accuracy, strict=True)))
    ordered = sorted(each.items(), key=lambda item: (item[0][0].order, item[0][1]))
    return {place: [_mean(points) for points in zip(*seeds, strict=True)] for place, seeds in ordered}


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    x, y = zip(*points, strict=True)
    return statistics.fmean(x), statistics.fmean(y)


def picture_of_batches(sources: Sources) -> bytes:
    """Test accuracy against paired batches, one panel per way in which beta rises, beside the published row."""
    found = accuracy_by_batches(sources)
    kinds = (1.0, 0.5)

    def wanted(set_up: SetUp, beta: float) -> bool:
        return set_up.arm == "mvae" and set_up.label_weight == 1.0 and set_up.final_beta == beta

    panels = {
        f"beta rises to {beta:g}": {place: points for place, points in found.items() if wanted(place[0], beta)}
        for beta in kinds
    }
    return _side_by_side(panels, _draw_batches, "paired batches shown", "test accuracy")


def _draw_batches(axes: Axes, panel: Mapping[tuple[SetUp, float], Points]) -> None:
    shares = [share for share in TABLE_4.columns if not isinstance(share, str)]
    published = [(share * PAIRED_BATCHES, TABLE_4.published("mvae", share)) for share in shares]
    axes.plot(*zip(*published, strict=True), color="black", linestyle="--", marker="s", ms=3, label="published row")
    for number, ((set_up, share), points) in enumerate(panel.items()):
        label = f"{set_up.targets}, {set_up.pairing}, {column_label(share)}"
        style = ":" if set_up.targets == "own" else "-"
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(*zip(*points, strict=True), style, color=colour, marker="o", ms=2.5, label=label)
    axes.set_xscale("log")


def by_weight(cells: Cells) -> dict[float, list[tuple[float, float]]]:
    """(label weight, mean accuracy) of the plain MVAE with `own` targets and beta up to 1, by share of pairs."""
    found: dict[float, list[tuple[float, float]]] = {}
    for (set_up, share), values in cells.items():
        if (set_up.arm, set_up.pairing, set_up.targets, set_up.final_beta) == ("mvae", "reserved", "own", 1.0):
            found.setdefault(share, []).append((set_up.label_weight, statistics.fmean(values)))
    return {share: sorted(points) for share, points in sorted(found.items()) if len(points) > 1}


def picture_of_weights(sources: Sources) -> bytes:
    """Test accuracy of `own` against the label weight, and the precision of both experts at each weight."""
    curve = by_weight(by_set_up(sources))
    measured = precisions(sources)
    panels: dict[str, Any] = {"accuracy of MVAE (own)": curve}
    panels |= {f"label weight {weight:g}, all pairs": one for weight, one in measured.items()}

    def draw(axes: Axes, panel: Any) -> None:
        if panel is curve:
            for number, (share, points) in enumerate(curve.items()):
                axes.plot(*zip(*points, strict=True), color=COLOURS[number], marker="o", label=column_label(share))
            axes.set_xscale("log")
            axes.set_xlabel("label weight")
            axes.set_ylabel("test accuracy")
            return
        places = range(1, 1 + len(panel["label"]))
        axes.plot(places, panel["label"], color=COLOURS[1], label="label's expert")
        axes.plot(places, panel["image"], color=COLOURS[0], label="image's expert")
        axes.set_yscale("log")
        axes.set_xlabel("latent dimension")
        axes.set_ylabel("precision (the prior has 1)")

    return _side_by_side(panels, draw, "", "")


def precisions(sources: Sources) -> dict[float, Any]:
    """Precision of both experts per latent dimension of seed 0, all pairs, `own`, by label weight."""
    if not (sources.root / "benchmarks" / "results" / "expert-precisions-cpu.json").exists():
        return {}
    measured = sources.benchmark("expert-precisions-cpu")["trials"]
    wanted = {"targets": "own", "paired_fraction": 1.0, "pairing": "reserved", "final_beta": 1.0, "seed": 0}
    found = [one for one in measured if all(one[name] == value for name, value in wanted.items())]
    return {one["label_weight"]: one for one in sorted(found, key=lambda one: float(one["label_weight"]))}


def _side_by_side(panels: Mapping[str, Any], draw: Callable[[Axes, Any], None], x_label: str, y_label: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(panels), 4.4), layout="constrained")
    for axes, (title, panel) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True):
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        draw(axes, panel)
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7)
    return png(figure)


def shown_numbers(sources: Sources) -> Iterable[object]:
    """Every number in the pictures, for their digests."""
    return (
        *accuracy_by_batches(sources).items(),
        *by_weight(by_set_up(sources)).items(),
        *(repr(one) for one in precisions(sources).values()),
    )
