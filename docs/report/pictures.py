"""Pictures drawn from committed numbers: docs/pictures/NAME.png, each with the digest of what it shows inside.

Bytes of a PNG depend on versions of matplotlib and fonts; the digest does not. A picture is drawn again only if its
numbers have changed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
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
"""Name of the PNG's text that holds the digest."""


class Drawn(NamedTuple):
    """A picture, and every number that it shows."""

    draw: Callable[[], bytes]
    shows: Sequence[object]

    @property
    def digest(self) -> str:
        """Digest of the numbers, not of the picture's bytes."""
        return hashlib.sha256(repr(list(self.shows)).encode()).hexdigest()


def drawn(sources: Sources) -> dict[str, Drawn]:
    """Every picture of numbers, by file name."""
    fashion, digits, missing, subsets = (table(sources, name) for name in ("fashion", "digits", "figure5", "figure6"))
    of_missing = options("missing_modalities", TABLES["figure5"]["arguments"])
    of_subsets = options("k_sweep", TABLES["figure6"]["arguments"])
    figure_5 = missing_modalities.pictures(missing, missing, of_missing)["figure-5.png"]
    figure_6 = k_sweep.pictures(subsets, of_subsets)["figure-6.png"]
    cells, numbers = table4.by_set_up(sources), table4.shown_numbers(sources)
    found = {
        "digits-accuracy.png": Drawn(lambda: saved(lambda: picture(digits), "png"), _numbers(digits)),
        "fashion-mnist-accuracy.png": Drawn(lambda: saved(lambda: picture(fashion), "png"), _numbers(fashion)),
        "figure-5-mnist19.png": Drawn(figure_5, _numbers(missing)),
        "figure-6-mnist19.png": Drawn(figure_6, _numbers(subsets)),
        "table-4-batches.png": Drawn(lambda: table4.picture_of_batches(cells), numbers),
    }
    if table4.by_weight(cells):
        found["table-4-weights.png"] = Drawn(lambda: table4.picture_of_weights(sources), numbers)
    return found


def _numbers(shown: Report) -> list[object]:
    """Every number of a table, ours and the paper's, with its place."""
    pairs = ((entry, run) for entry in shown.in_order() for run in entry.runs)
    return [(run.row, run.column, run.seed, run.value, entry.published) for entry, run in pairs]


def stale(folder: Path, pictures: dict[str, Drawn]) -> list[str]:
    """Names of the pictures that do not exist or show other numbers."""
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
