"""Downloads and converts a data set without training, for example on the one node of a cluster that has internet.

Type    python -m mvae.data fashion_mnist                           download if needed, then convert
        python -m mvae.data celeba --data-root ~/data               convert the raw files of this folder

Prints progress while it works. A second call only checks the files.
"""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from mvae.data import DATASETS, SPLITS, default_cache
from mvae.refusal import Refusal


def parser() -> ArgumentParser:
    """Returns the parser of the command line."""
    made = ArgumentParser("python -m mvae.data", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    made.add_argument("dataset", help=", ".join(DATASETS))
    made.add_argument("--data-root", type=Path, metavar="DIR", help="raw files (default: $MVAE_DATA or ~/.cache/mvae)")
    made.add_argument("--cache", type=Path, metavar="DIR", help="converted files (default: ~/.cache/mvae)")
    return made


def prepare(options: Namespace) -> str:
    """Downloads missing raw files into the default data root, converts them, and returns a line for the user.

    Raises:
        Refusal: unknown data set; raw files missing or damaged; the cache is unusable.
    """
    from mvae.data import load, source  # `load` imports torch, which --help does not need

    dataset = load(options.dataset, options.data_root, options.cache, grey=bool(source(options.dataset).grey))
    counts = ", ".join(f"{len(getattr(dataset, split)):,} {split}" for split in SPLITS)
    return f"{options.dataset} is ready: {counts} examples in {options.cache or default_cache()}"


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit code: 0, or 2 if the data set cannot be prepared."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        print(prepare(parser().parse_args(arguments)))
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
