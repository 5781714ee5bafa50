"""The report of a sweep: the table beside the published one, in the terminal and as files that others read.

The numbers are made in sweeps/table/comparison.py; how they look is sweeps/table/terminal.py (terminal),
sweeps/table/markdown.py, sweeps/table/latex.py and sweeps/table/plot.py (picture). This module offers all of it:
`tabulate`, then `show` and `write`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from mvae.storage.objects import place
from mvae.storage.place import AnyPlace, Place
from sweeps.store.provenance import source_digest
from sweeps.table.comparison import Report, tabulate
from sweeps.table.latex import latex, latex_differences
from sweeps.table.markdown import markdown
from sweeps.table.plot import forms, picture
from sweeps.table.terminal import show

__all__ = [
    "Pictures",
    "Report",
    "known_links",
    "markdown",
    "own_name",
    "show",
    "tabulate",
    "write",
]

MARK = "--"
"""Between the name of a sweep and the options that tell one of its tables from another, in a folder's name."""

LONGEST = 80
"""Characters of such options at most; a digest stands for the rest."""

MADE_OF = ".made_of"
"""Folder of one record per report: digests of what its files were made of, and of the files. If none has
changed, nothing is drawn or written."""

Pictures = Mapping[str, Callable[[], bytes]]
"""Name of a file to what makes its content; `sweeps.table.plot.forms` makes those of a figure."""


def write(
    folder: AnyPlace, report: Report, details: Report | None = None, pictures: Pictures | None = None
) -> list[Place]:
    """Write the table, its runs and the pictures into a folder, each file atomically; files that are up to date stay.

    Files:
        table.md, table.tex: the table to read, and to \\input into a paper; differences.tex: that between arms;
        table.csv, table.parquet: one line per (row, column);
        runs.csv, runs.parquet: one line per (row, column, seed), with key and MLflow run;
        details.md, .tex, .csv, .parquet: the second table, likewise;
        pictures, each as PNG, PDF and SVG.

    Args:
        details: a second table.
        pictures: None: one, named after the metric.
    Returns:
        The paths of all of them.
    """
    folder = place(folder)
    record = folder.parent / MADE_OF / f"{folder.name}.json"
    made_of = _digest(report, details, sorted(pictures or ()))
    files = _up_to_date(folder, record, made_of)
    if not files:
        files = _write(folder, report, details, pictures)
        with suppress(OSError):  # a storage that may only be read: the next command compares the files again
            record.write_bytes(json.dumps({"made_of": made_of, "files": files}, indent=1).encode())
    return [folder / name for name in files]


def _write(folder: Place, report: Report, details: Report | None, pictures: Pictures | None) -> dict[str, str]:
    """Makes the files and writes those that are not up to date; returns name and sha256 of each."""
    from sweeps.table.arrow_tables import as_csv, as_parquet, entry_table, run_table

    cells, runs = entry_table(report), run_table(report)
    texts = {
        "table.md": markdown(report).encode(),
        "table.tex": latex(report).encode(),
        "table.csv": as_csv(cells),
        "runs.csv": as_csv(runs),
    }
    if differences := latex_differences(report):
        texts["differences.tex"] = differences.encode()
    others: dict[str, Callable[[], bytes]] = {
        "table.parquet": lambda: as_parquet(cells),
        "runs.parquet": lambda: as_parquet(runs),
    }
    if details is not None:
        more = entry_table(details)
        texts |= {
            "details.md": markdown(details, every_run=False).encode(),
            "details.tex": latex(details, "details").encode(),
            "details.csv": as_csv(more),
        }
        others["details.parquet"] = lambda: as_parquet(more)
    if pictures is None:
        pictures = forms(report.metric.rpartition("/")[2] or "quantities", lambda: picture(report))
    others |= pictures
    written = all((folder / name).is_file() for name in others)
    if not (written and all(_holds(folder / name, data) for name, data in texts.items())):
        # The texts come last: where they are as they should be, the others were made from the same numbers.
        for name, make in others.items():
            (folder / name).write_bytes(make())
        for name, data in texts.items():
            (folder / name).write_bytes(data)
    # Of the texts as they were made: another command may have written its own meanwhile.
    made = {name: hashlib.sha256(data).hexdigest() for name, data in texts.items()}
    return made | {name: (folder / name).digest() for name in others}


def _digest(*inputs: object) -> str:
    """Digest of everything that a report's files are made from, source code included."""
    return hashlib.sha256(repr((source_digest(), inputs)).encode(errors="surrogatepass")).hexdigest()


def _up_to_date(folder: Place, record: Place, made_of: str) -> dict[str, str]:
    """Name and sha256 of the files that the record says were made of the same; none if any has changed since."""
    try:
        kept = json.loads(record.read_bytes())
        files = dict[str, str](kept["files"])
        same = kept["made_of"] == made_of and all((folder / name).digest() == sha for name, sha in files.items())
        return files if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def own_name(reports: AnyPlace, name: str, cells: Iterable[tuple[str, str]], asked: str) -> str:
    """The folder of a report, such that no report is overwritten, except by one that has all of its cells and more.

    The first of these that is free: `name`; `name--asked`; `name--asked-DIGEST`. A report of these cells that an
    earlier version called `name-DIGEST` keeps its folder.

    Args:
        cells: key and measure of each.
        asked: what tells this table from others of the same name, from the command line.
    """
    mine = set(cells)
    digest = hashlib.sha256(repr(sorted(mine)).encode()).hexdigest()[:8]

    def free(folder: str) -> bool:
        return {(run["key"], run["measure"]) for run in _runs(reports / folder)} <= mine

    if free(name):
        return name
    if _runs(reports / f"{name}-{digest}"):
        return f"{name}-{digest}"
    telling = f"{name}{MARK}{asked}"
    if len(asked) > LONGEST:
        return f"{telling[: len(name) + len(MARK) + LONGEST].rstrip('-_.')}-{digest}"
    return telling if free(telling) else f"{telling}-{digest}"


def known_links(folder: AnyPlace) -> dict[str, str]:
    """Key to MLflow run, as the report in the folder has it."""
    return {run["key"]: run["link"] for run in _runs(folder) if run["link"]}


def _runs(folder: AnyPlace) -> list[dict[str, str]]:
    """The lines of a report's runs.csv; none where there is none that can be read."""
    try:
        lines = csv.DictReader(io.StringIO((folder / "runs.csv").read_bytes().decode(), newline=""))
        return [{name: line[name] or "" for name in ("key", "measure", "link")} for line in lines]
    except (OSError, KeyError, ValueError, csv.Error):
        return []


def _holds(path: Place, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False
