"""`mvae prepare DATASET`: downloads a data set and converts it, so that a later sweep starts at once."""

from argparse import Namespace
from collections.abc import Sequence

from mvae.data import DATASETS, SPLITS, default_cache, source
from sweeps.cli.data_lines import preparing, shown
from sweeps.commands.options import Parser, load_plugins

ABOUT = """Downloads a data set's files if they are missing and no --data-root is given, and converts them into --cache.
Every sweep does the same when it starts. If the data set is already prepared, this command only checks the files."""


def parser() -> Parser:
    """Returns the parser of `mvae prepare`."""
    made = Parser("prepare", "DATASET", ABOUT)
    made.add_argument("dataset", metavar="DATASET", help=f"One of {', '.join(DATASETS)}.")
    made.data()
    return made


def prepare(options: Namespace) -> str:
    """Downloads missing raw files into the default data root, converts the data set, and returns a line to print.

    Raises:
        Refusal: unknown data set; raw files missing or damaged; the cache is unusable.
    """
    found = source(options.dataset)
    print(preparing(options.dataset), flush=True)
    from mvae.data import load  # only now, because it imports torch

    dataset = load(options.dataset, options.data_root, options.cache, grey=bool(found.grey))
    counts = ", ".join(f"{len(getattr(dataset, split)):,} {split}" for split in SPLITS)
    return f"{options.dataset} is ready: {counts} examples in {options.cache or default_cache()}"


def main(typed: Sequence[str]) -> int:
    """Prepares a data set, and for black-and-white images also the data set with their grey values. Returns 0.

    Raises:
        Refusal: unknown data set, missing or damaged files, or the cache cannot be written.
    """
    chosen = parser().parse_args(typed)
    load_plugins(chosen.plugins)
    with shown(print):
        print(prepare(chosen))
    return 0
