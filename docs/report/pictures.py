"""Draws docs/pictures/NAME.png from committed numbers.

The bytes of a PNG depend on the versions of matplotlib and fonts, so each picture holds a digest of its numbers. A
picture is drawn again only if its numbers have changed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from docs.report import table4
from docs.report.sources import Sources
from docs.report.tables import TABLES, options, table
from mvae.storage.files import write_atomically
from pipelines import k_sweep, missing_modalities
from sweeps.table.comparison import Report
from sweeps.table.plot import COLOURS, picture, saved
from sweeps.table.published import TABLE_4, column_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTE = "mvae-suite numbers"
"""Name of the text field in a PNG that contains the digest."""
PAPER_BATCHES = 100 * 500
"""Batches in 100 epochs of the paper's training. With 100 % of the pairs, every batch is paired."""

MARKERS = {"reserved": "o", "proportional": "^", "resampled": "s"}


class Drawn(NamedTuple):
    """A picture and its numbers."""

    draw: Callable[[], bytes]
    shows: Sequence[object]

    @property
    def digest(self) -> str:
        """Digest of the numbers, not of the picture's bytes."""
        return hashlib.sha256(repr(list(self.shows)).encode()).hexdigest()


def drawn(sources: Sources) -> dict[str, Drawn]:
    """Returns every picture by file name."""
    fashion, digits, figure5, figure6 = (table(sources, name) for name in ("fashion", "digits", "figure5", "figure6"))
    of_figure5 = options("missing_modalities", TABLES["figure5"]["arguments"])
    of_figure6 = options("k_sweep", TABLES["figure6"]["arguments"])
    cells, precisions = table4.by_set_up(sources), table4.precisions(sources)
    batches, weights = table4.accuracy_by_batches(cells).items(), table4.by_weight(cells).items()
    of_table4 = (*batches, *weights, *map(repr, precisions.values()))
    return {
        "digits-accuracy.png": Drawn(partial(saved, lambda: picture(digits), "png"), _numbers(digits)),
        "fashion-mnist-accuracy.png": Drawn(partial(saved, lambda: picture(fashion), "png"), _numbers(fashion)),
        "figure-5-mnist19.png": Drawn(
            missing_modalities.pictures(figure5, figure5, of_figure5)["figure-5.png"], _numbers(figure5)
        ),
        "figure-6-mnist19.png": Drawn(k_sweep.pictures(figure6, of_figure6)["figure-6.png"], _numbers(figure6)),
        "table-4-batches.png": Drawn(partial(_batches, cells), of_table4),
        "table-4-weights.png": Drawn(partial(_weights, cells, precisions), of_table4),
    }


def _numbers(report: Report) -> list[object]:
    """Returns every number of a table, ours and the paper's, with its row, column and seed."""
    pairs = ((entry, run) for entry in report.in_order() for run in entry.runs)
    return [(run.row, run.column, run.seed, run.value, entry.published) for entry, run in pairs]


def stale(folder: Path, pictures: dict[str, Drawn]) -> list[str]:
    """Returns the names of pictures whose files are missing or show outdated numbers."""
    return [name for name, one in pictures.items() if _digest(folder / name) != one.digest]


def draw(path: Path, one: Drawn) -> None:
    """Writes a picture with its digest."""
    about = PngInfo()
    about.add_text(NOTE, one.digest)
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(one.draw())) as image:
        image.save(buffer, format="png", pnginfo=about, optimize=True)
    write_atomically(path, buffer.getvalue())


def _digest(path: Path) -> str | None:
    if not path.exists():
        return None
    with Image.open(path) as image:
        image.load()
        return image.info.get(NOTE)


def _batches(cells: table4.Cells) -> bytes:
    """Draws our and the published test accuracy against the number of paired batches, one panel per final beta.

    The colour shows the fraction of pairs, the line style shows the targets, and the marker shows the pairing.
    """
    figure, panels = _panels(2)
    colours = dict(zip(sorted({share for _, share in table4.accuracy_by_batches(cells)}), COLOURS, strict=False))
    published = [(share * PAPER_BATCHES, TABLE_4.published("mvae", share)) for share in TABLE_4.shares]
    for axes, beta in zip(panels, (1.0, 0.5), strict=True):
        axes.plot(*zip(*published, strict=True), color="black", linestyle="--", marker="s", ms=3, label="published row")
        plain = {
            (set_up, share): points
            for (set_up, share), points in table4.accuracy_by_batches(cells).items()
            if (set_up.arm, set_up.label_weight, set_up.final_beta) == ("mvae", 1.0, beta)
        }
        for (set_up, share), points in plain.items():
            label = f"{set_up.targets}, {set_up.pairing}, {column_label(share)}"
            style, marker = ":" if set_up.targets == "own" else "-", MARKERS[set_up.pairing]
            axes.plot(*zip(*points, strict=True), style, color=colours[share], marker=marker, ms=3, label=label)
        _dress(axes, f"beta rises to {beta:g}", xscale="log", xlabel="paired batches shown", ylabel="test accuracy")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False, fontsize=7)
    return saved(lambda: figure, "png")


def _weights(cells: table4.Cells, measured: Mapping[float, Any]) -> bytes:
    """Draws the test accuracy of the MVAE (own) against the label weight, and both experts' precisions at some weights.

    Args:
        measured: precisions by label weight, from `table4.precisions`.
    """
    figure, (first, *others) = _panels(1 + len(measured))
    for number, (share, points) in enumerate(table4.by_weight(cells).items()):
        first.plot(*zip(*points, strict=True), color=COLOURS[number], marker="o", label=column_label(share))
    _dress(first, "accuracy of MVAE (own)", xscale="log", xlabel="label weight", ylabel="test accuracy")
    for axes, (weight, values) in zip(others, measured.items(), strict=True):
        for name, colour in (("label", COLOURS[1]), ("image", COLOURS[0])):
            axes.plot(range(1, 1 + len(values[name])), values[name], color=colour, label=f"{name}'s expert")
        title, precision = f"label weight {weight:g}, all pairs", "precision (the prior has 1)"
        _dress(axes, title, yscale="log", xlabel="latent dimension", ylabel=precision)
    return saved(lambda: figure, "png")


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * n, 4.4), layout="constrained")
    return figure, list(figure.subplots(1, n, squeeze=False).flat)


def _dress(axes: Axes, title: str, **settings: str) -> None:
    axes.set(**settings)
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7)
