"""Pictures drawn from committed numbers: docs/pictures/NAME.png, each with the digest of what it shows inside.

Bytes of a PNG depend on versions of matplotlib and fonts; the digest does not. A picture is drawn again only where the
numbers are others than those that it was drawn from.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from docs.report import accuracy, many, table4
from docs.report.sources import Sources
from mvae.storage.files import write_atomically
from sweeps.table.comparison import Report
from sweeps.table.plot import picture, png

NOTE = "mvae-suite numbers"
"""Name of the PNG's text that holds the digest."""


@dataclass(frozen=True)
class Drawn:
    """A picture, and the tables that it shows."""

    reports: tuple[Report, ...]
    draw: Callable[[], bytes]
    curves: tuple[object, ...] = ()
    """What it shows besides."""

    @property
    def digest(self) -> str:
        """Of every number shown, ours and the paper's, with its place."""
        shown = [
            (run.row, run.column, run.seed, run.value, entry.published)
            for report in self.reports
            for entry in report.in_order()
            for run in entry.runs
        ]
        return hashlib.sha256(repr([*shown, *self.curves]).encode()).hexdigest()


def drawn(sources: Sources) -> dict[str, Drawn]:
    """Every picture of numbers, by file name."""
    fashion, digits = accuracy.table(sources, accuracy.FASHION), accuracy.table(sources, accuracy.DIGITS)
    missing, subsets = many.missing(sources), many.subsets(sources)
    of_table_4 = tuple(table4.shown_numbers(sources))
    weights = {"table-4-weights.png": Drawn((), lambda: table4.picture_of_weights(sources), of_table_4)}
    return {
        **(weights if table4.by_weight(table4.by_set_up(sources)) else {}),
        "digits-accuracy.png": Drawn((digits,), lambda: png(picture(digits))),
        "fashion-mnist-accuracy.png": Drawn((fashion,), lambda: png(picture(fashion))),
        "figure-5-mnist19.png": Drawn(missing, lambda: many.figure_5(sources)["figure-5.png"]()),
        "figure-6-mnist19.png": Drawn((subsets,), lambda: many.figure_6(sources)["figure-6.png"]()),
        "table-4-batches.png": Drawn((), lambda: table4.picture_of_batches(sources), of_table_4),
    }


def stale(folder: Path, pictures: dict[str, Drawn]) -> list[str]:
    """Names of those that are not there, or show other numbers."""
    return [name for name, one in pictures.items() if _noted(folder / name) != one.digest]


def draw(path: Path, one: Drawn) -> None:
    """Write a picture with its digest."""
    about = PngInfo()
    about.add_text(NOTE, one.digest)
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(one.draw())) as image:
        image.save(buffer, format="png", pnginfo=about, optimize=True)
    write_atomically(path, buffer.getvalue())


def _noted(path: Path) -> str | None:
    if not path.exists():
        return None
    with Image.open(path) as image:
        image.load()
        return image.info.get(NOTE)
