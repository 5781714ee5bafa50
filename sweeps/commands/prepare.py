"""`mvae prepare DATASET`: downloads a data set and converts it, so that a later sweep starts at once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mvae.data import DATASETS, SPLITS, default_cache, fingerprint, source
from sweeps.commands.options import Parser, load_plugins

ABOUT = """Downloads a data set's files if they are missing and no --data-root is given, and converts them into --cache.
Every sweep does the same when it starts. A second time, this command only checks the files."""


def parser() -> Parser:
    """Returns the parser of `mvae prepare`."""
    made = Parser("prepare", "DATASET", ABOUT)
    made.add_argument("dataset", metavar="DATASET", help=f"One of {', '.join(DATASETS)}.")
    made.data()
    return made


def main(typed: Sequence[str]) -> int:
    """Prepares the data set, and the data set that its grey values come from; returns 0.

    Raises:
        Refusal: unknown data set, missing or damaged files, or the cache cannot be written.
    """
    chosen = parser().parse_args(typed)
    load_plugins(chosen.plugins)
    found = source(chosen.dataset)
    shown = logging.StreamHandler(sys.stdout)
    data_log = logging.getLogger("mvae.data")
    before = data_log.level
    data_log.addHandler(shown)
    data_log.setLevel(logging.INFO)
    try:
        for name in filter(None, (chosen.dataset, found.grey)):
            print(prepare(name, chosen.data_root, chosen.cache), flush=True)
    finally:
        data_log.removeHandler(shown)
        data_log.setLevel(before)
    return 0


def prepare(name: str, data_root: Path | None, cache: Path | None) -> str:
    """Downloads and converts one data set, and returns a line that says what was done.

    Raises:
        Refusal: as `main`.
    """
    mark = fingerprint(name, data_root, cache)
    from mvae.data import load, load_converted  # only now, because importing torch takes a second

    ready = load_converted(name, mark, cache)
    done = "was converted" if ready is None else "is ready; there was nothing to do"
    data = ready or load(name, data_root, cache)
    splits = ", ".join(f"{len(getattr(data, split)):,} {split}" for split in SPLITS)
    return f"{name} {done}: {splits} examples in {cache or default_cache()}"
