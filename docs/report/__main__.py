"""`make report`: fill README.md and docs/ from the committed results.

Type    python -m docs.report                                           what `make report` does
        python -m docs.report --store sqlite:///$PWD/runs/mlflow.db     first takes new numbers from MLflow
        python -m docs.report --store URI --sweeps k_sweep-digits       of sweeps that have no file yet
        python -m docs.report --check                                   writes nothing; exit code 1 where it would
        python -m docs.report --names                                   every name that a span may have, and its value
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from docs.report import findings, options, scorecard, sources, table4, tables
from docs.report.pictures import draw, drawn, stale
from docs.report.refresh import refresh
from docs.report.sources import Sources, Value
from docs.report.spans import fill
from mvae.refusal import Refusal
from mvae.storage.files import write_atomically
from sweeps.cli.tracking_uri import tracking_uri
from sweeps.cli.words import error
from sweeps.store.sqlite import sqlite_path
from sweeps.tracking.tracker import check

TOPICS = (sources, tables, findings, scorecard, table4, options)


def figures(sources: Sources) -> dict[str, Value]:
    """Every name that a span may have, and its value."""
    found: dict[str, Value] = {}
    for topic in TOPICS:
        of_topic = topic.figures(sources)
        assert not found.keys() & of_topic.keys(), "two topics give one name"
        found |= of_topic
    return found


def documents(root: Path) -> list[Path]:
    """The files that are filled."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def refilled(root: Path, values: dict[str, Value]) -> dict[Path, str]:
    """The files whose text would change, with their new text.

    Raises:
        Refusal: a span that cannot be filled; the message names file and line.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in documents(root)}
    filled = {path: fill(text, values, str(path.relative_to(root))) for path, text in texts.items()}
    return {path: text for path, text in filled.items() if text != texts[path]}


def run(options: Namespace, sources: Sources) -> int:
    """Do what the options say, and return the exit code.

    Raises:
        Refusal: no tracking store; sources or spans that say nothing, or contradict one another.
    """
    if options.store:
        uri = tracking_uri(options.store)
        file = sqlite_path(uri)
        if file is not None and not file.is_file():
            raise Refusal(f"--store {options.store}: there is no database {file}; a sweep makes one in its --storage")
        check(uri)
        for line in refresh(sources.results, uri, filter(None, options.sweeps.split(","))):
            print(line)
    values = figures(sources)
    if options.names:
        print("\n".join(f"{name}    {str(value).partition(chr(10))[0]}" for name, value in sorted(values.items())))
        return 0
    texts, pictures = refilled(sources.root, values), drawn(sources)
    folder = sources.root / "docs" / "pictures"
    behind = stale(folder, pictures)
    for path in [*texts, *(folder / name for name in behind)]:
        print(f"{'would change' if options.check else 'changed'}: {path.relative_to(sources.root)}")
    if options.check:
        return int(bool(texts or behind))
    for path, text in texts.items():
        write_atomically(path, text.encode())
    for name in behind:
        draw(folder / name, pictures[name])
    return 0


def main(argv: Sequence[str] | None = None, sources: Sources | None = None) -> int:
    """The command; 2 if the input is wrong, after one line that says so."""
    parser = ArgumentParser("python -m docs.report", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--store", metavar="URI", help="MLflow server or database to take new numbers from")
    parser.add_argument(
        "--sweeps", metavar="NAME,...", default="", help="of these sweeps (default: of all that have a file)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where something would change")
    parser.add_argument("--names", action="store_true", help="list what spans may be called; write nothing")
    options = parser.parse_args(argv)
    try:
        return run(options, sources or Sources())
    except Refusal as refusal:
        error(str(refusal))
        return 2


if __name__ == "__main__":
    sys.exit(main())
