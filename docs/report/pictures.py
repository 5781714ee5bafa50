"""Draws docs/pictures/NAME.png from committed numbers.

The bytes of a PNG depend on the versions of matplotlib and fonts, so each picture holds a digest of its numbers. It is
drawn again only if its numbers have changed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from docs.report import table4
from docs.report.sources import Sources
from docs.report.tables import TABLES, options, table
from mvae.storage.files import write_atomically
from pipelines import k_sweep, missing_modalities
from sweeps.table.comparison import Report
from sweeps.table.plot import picture, saved

NOTE = "mvae-suite numbers"
"""Name of the text in a PNG that holds the digest."""


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
        "table-4-batches.png": Drawn(partial(table4.picture_of_batches, cells), of_table4),
        "table-4-weights.png": Drawn(partial(table4.picture_of_weights, cells, precisions), of_table4),
    }


def _numbers(report: Report) -> list[object]:
    """Returns every number of a table, ours and the paper's, with its place."""
    pairs = ((entry, run) for entry in report.in_order() for run in entry.runs)
    return [(run.row, run.column, run.seed, run.value, entry.published) for entry, run in pairs]


def stale(folder: Path, pictures: dict[str, Drawn]) -> list[str]:
    """Returns the names of pictures that do not exist or show other numbers."""
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
