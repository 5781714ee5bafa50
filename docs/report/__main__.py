"""Fills README.md and docs/ from the committed results (`make report`).

Type    python -m docs.report                                           fill the pages
        python -m docs.report --storage runs                            first add numbers from a storage
        python -m docs.report --storage runs --sweeps k_sweep-digits    the same, for a sweep without a CSV file
        python -m docs.report --check                                   write nothing; exit code 1 if a file is stale
        python -m docs.report --names                                   list the values that pages can show
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from docs.report import findings, scorecard, sources, speed, table4, tables
from docs.report.pictures import draw, drawn, stale
from docs.report.refresh import refresh
from docs.report.sources import Sources, Value
from docs.report.spans import fill
from mvae.refusal import Refusal
from mvae.storage.files import write_atomically
from sweeps.cli.words import error
from sweeps.store.store import Store

TOPICS = (sources, tables, findings, scorecard, speed, table4)


def figures(sources: Sources) -> dict[str, Value]:
    """Returns all values that a page can show, by name."""
    found: dict[str, Value] = {}
    for topic in TOPICS:
        of_topic = topic.figures(sources)
        assert not found.keys() & of_topic.keys(), "two topics define the same name"
        found |= of_topic
    return found


def documents(root: Path) -> list[Path]:
    """Returns the pages that may contain generated text."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def refilled(root: Path, values: dict[str, Value]) -> dict[Path, str]:
    """Fills the pages in memory. Returns the new text of each page that would change.

    Raises:
        Refusal: a span cannot be filled; the message names file and line.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in documents(root)}
    filled = {path: fill(text, values, str(path.relative_to(root))) for path, text in texts.items()}
    return {path: text for path, text in filled.items() if text != texts[path]}


def run(options: Namespace, sources: Sources) -> int:
    """Runs the command and returns its exit code.

    Raises:
        Refusal: the storage has no results, or a committed file or a page has an error.
    """
    if options.storage:
        store = Store.open(options.storage, options.name, create=False)
        for line in refresh(sources.results, store, filter(None, options.sweeps.split(","))):
            print(line)
    values = figures(sources)
    if options.names:
        for name, value in sorted(values.items()):
            print(f"{name}    {str(value).partition(chr(10))[0]}")
        return 0
    texts, pictures = refilled(sources.root, values), drawn(sources)
    folder = sources.root / "docs" / "pictures"
    outdated = stale(folder, pictures)
    for path in [*texts, *(folder / name for name in outdated)]:
        print(f"{'would change' if options.check else 'changed'}: {path.relative_to(sources.root)}")
    if options.check:
        return int(bool(texts or outdated))
    for path, text in texts.items():
        write_atomically(path, text.encode())
    for name in outdated:
        draw(folder / name, pictures[name])
    return 0


def main(argv: Sequence[str] | None = None, sources: Sources | None = None) -> int:
    """Runs the command line. A `Refusal` becomes one line on stderr and exit code 2."""
    parser = ArgumentParser("python -m docs.report", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--storage", metavar="FOLDER", help="first add new numbers from this storage to docs/results/")
    parser.add_argument("--name", default="main", help="name of the experiment in the storage (default: %(default)s)")
    parser.add_argument("--sweeps", metavar="NAME,...", default="", help="sweeps to add (default: all with a CSV file)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if anything would change")
    parser.add_argument(
        "--names", action="store_true", help="list the values that pages can show, by name; fill nothing"
    )
    options = parser.parse_args(argv)
    try:
        return run(options, sources or Sources())
    except Refusal as refusal:
        error(str(refusal))
        return 2


if __name__ == "__main__":
    sys.exit(main())
