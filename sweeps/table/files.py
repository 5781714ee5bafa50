"""Builds the report of a sweep with `tabulate`, prints it with `show`, and writes its files with `write`.

sweeps/table/comparison.py defines `tabulate`, and sweeps/table/terminal.py defines `show`. The contents of the files
come from sweeps/table/markdown.py, latex.py, arrow_tables.py and plot.py.
"""

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
from sweeps.table.remembered import KNOWN
from sweeps.table.terminal import show

__all__ = [
    "Pictures",
    "Report",
    "keys_of",
    "known_links",
    "markdown",
    "own_name",
    "recall_statistics",
    "record_of",
    "show",
    "tabulate",
    "write",
]

MARK = "--"
"""Separates a sweep's name from its options in the name of a report folder."""

LONGEST = 80
"""Maximum number of characters of the options in a folder's name; longer options are cut and get a digest."""

RECORDS = ".made_of"
"""Folder with one record per report: its statistics, and digests of its inputs and files. If the digests match, nothing
is drawn or written."""

Pictures = Mapping[str, Callable[[], bytes]]
"""File names, each with a function that returns the file's content; `sweeps.table.plot.forms` makes them."""


def write(
    folder: AnyPlace, report: Report, details: Report | None = None, pictures: Pictures | None = None
) -> list[Place]:
    """Writes the report into a folder, each file atomically. Files that are up to date are not written again.

    Files:
        table.md, table.tex: the table for readers, and for \\input in a paper
        differences.tex: the differences between arms, if two arms share a seed
        table.csv, table.parquet: one line per (row, column)
        runs.csv, runs.parquet: one line per (row, column, seed), with key and MLflow run
        details.md, details.tex, details.csv, details.parquet: the second table, if there is one
        pictures, each as PNG, PDF and SVG

    Args:
        details: a second table.
        pictures: the pictures to write; by default, one plot named after the metric.
    Returns:
        The paths of all files.
    """
    folder = place(folder)
    record = record_of(folder)
    code = source_digest()
    inputs = repr((code, (report, details, sorted(pictures or ()))))
    digest = hashlib.sha256(inputs.encode(errors="surrogatepass")).hexdigest()
    files = _files_up_to_date(folder, record, digest)
    if not files:
        files = _write_files(folder, report, details, pictures)
        with suppress(OSError):  # on read-only storage, the next command compares the files again
            content = {"made_of": digest, "files": files, "code": code, "statistics": KNOWN}
            record.write_bytes(json.dumps(content, indent=1).encode())
    return [folder / name for name in files]


def recall_statistics(folder: Place) -> None:
    """Loads the statistics stored with a folder's report, if the same version of the code computed them."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        recorded = json.loads(record_of(folder).read_bytes())
        if recorded["code"] == source_digest():
            KNOWN.update(recorded["statistics"])


def record_of(folder: Place) -> Place:
    """Returns the path of the record that belongs to a report's folder (see RECORDS)."""
    return folder.parent / RECORDS / f"{folder.name}.json"


def _write_files(folder: Place, report: Report, details: Report | None, pictures: Pictures | None) -> dict[str, str]:
    """Writes all files of the report unless they are up to date. Returns the SHA-256 of each file by name."""
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
    binaries: dict[str, Callable[[], bytes]] = {
        "table.parquet": lambda: as_parquet(cells),
        "runs.parquet": lambda: as_parquet(runs),
    }
    if details is not None:
        detail_cells = entry_table(details)
        texts |= {
            "details.md": markdown(details, every_run=False).encode(),
            "details.tex": latex(details, "details").encode(),
            "details.csv": as_csv(detail_cells),
        }
        binaries["details.parquet"] = lambda: as_parquet(detail_cells)
    if pictures is None:
        pictures = forms(report.metric.rpartition("/")[2] or "quantities", lambda: picture(report))
    binaries |= pictures
    written = all((folder / name).is_file() for name in binaries)
    if not (written and all(_contains(folder / name, data) for name, data in texts.items())):
        # Texts are written last, so that up-to-date texts imply up-to-date binaries.
        for name, make in binaries.items():
            (folder / name).write_bytes(make())
        for name, data in texts.items():
            (folder / name).write_bytes(data)
    # Digests of the texts in memory, because another command may have overwritten the files.
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in texts.items()}
    return digests | {name: (folder / name).digest() for name in binaries}


def _files_up_to_date(folder: Place, record: Place, inputs: str) -> dict[str, str]:
    """Returns the SHA-256 of each file by name; empty if the inputs or any file have changed since the record."""
    try:
        recorded = json.loads(record.read_bytes())
        files = dict[str, str](recorded["files"])
        same = recorded["made_of"] == inputs and all((folder / name).digest() == sha for name, sha in files.items())
        return files if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def own_name(reports: AnyPlace, name: str, cells: Iterable[tuple[str, str]], asked: str) -> str:
    """Returns the name of a report's folder. Only a report with all cells of an existing report may overwrite it.

    Returns the first free name among `name`, `name--asked` and `name--asked-DIGEST`. If `name` is taken and an earlier
    release stored the same cells as `name-DIGEST`, returns `name-DIGEST`.

    Args:
        cells: key and measure of each cell.
        asked: the command-line options that distinguish this table from others of the same name.
    """
    mine = set(cells)
    digest = hashlib.sha256(repr(sorted(mine)).encode()).hexdigest()[:8]

    def free(folder: str) -> bool:
        return {(run["key"], run["measure"]) for run in _runs(reports / folder) or ()} <= mine

    if free(name):
        return name
    if _runs(reports / f"{name}-{digest}"):
        return f"{name}-{digest}"
    full = f"{name}{MARK}{asked}"
    if len(asked) > LONGEST:
        return f"{full[: len(name) + len(MARK) + LONGEST].rstrip('-_.')}-{digest}"
    return full if free(full) else f"{full}-{digest}"


def known_links(folder: AnyPlace) -> dict[str, str]:
    """Returns the MLflow run of each trial by the trial's key, read from the runs.csv of a report's folder."""
    return {run["key"]: run["link"] for run in _runs(folder) or () if run["link"]}


def keys_of(folder: AnyPlace) -> frozenset[str] | None:
    """Returns the keys of all trials in a report; None if the report's runs.csv is missing or damaged."""
    runs = _runs(folder)
    return None if runs is None else frozenset(run["key"] for run in runs)


def _runs(folder: AnyPlace) -> list[dict[str, str]] | None:
    """Returns the lines of a report's runs.csv; None if the file is missing or damaged."""
    try:
        lines = csv.DictReader(io.StringIO((folder / "runs.csv").read_bytes().decode(), newline=""))
        return [{name: line[name] or "" for name in ("key", "measure", "link")} for line in lines]
    except (OSError, KeyError, ValueError, csv.Error):
        return None


def _contains(path: Place, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False
