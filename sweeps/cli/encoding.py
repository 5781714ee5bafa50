"""Names and messages where the locale is not UTF-8, for example under LC_ALL=C with PYTHONUTF8=0."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from mvae.refusal import Refusal

NAMED_BY = ("MVAE_STORAGE", "MVAE_DATA", "MLFLOW_TRACKING_URI", "HOME")
"""Environment variables that name files of a command."""


def check_names(typed: Sequence[str]) -> None:
    """Refuse names outside ASCII unless file names are UTF-8: Python, SQLite and Arrow would mean different files.

    Args:
        typed: the arguments of a command.
    Raises:
        Refusal: one line with the name.
    """
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return
    for name in (*typed, *(os.environ.get(variable, "") for variable in NAMED_BY), str(Path.cwd())):
        if not name.isascii():
            shown = os.fsencode(name).decode("utf-8", "replace")
            raise Refusal(
                f"{shown!a} has characters outside ASCII, but this locale names files in {encoding}: set PYTHONUTF8=1"
            )


def print_every_character(stream: TextIO) -> None:
    """Let a stream print ? for characters that its encoding lacks, where it would raise UnicodeEncodeError."""
    reconfigure = getattr(stream, "reconfigure", None)  # wrapped streams have it too (sweeps/cli/output.py)
    if reconfigure is not None and not stream.encoding.lower().startswith("utf"):
        reconfigure(errors="replace")
