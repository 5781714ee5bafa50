"""The values of the command line: one token in, one typed value out.

A value that is typed already passes through unchanged, so that code can make options as well as a shell can.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, InstanceOf

from mvae.refusal import Refusal
from mvae.storage.objects import RemotePath, place

NAMED_BY = ("MVAE_STORAGE", "MVAE_DATA", "MLFLOW_TRACKING_URI", "HOME")
"""Environment variables that name files of a command."""

MOST_SEEDS = 10_000
"""More seeds than this in one range are a slip of the finger."""

Item = TypeVar("Item", bound=Hashable)


class Written(str):
    """How a value is written, as `--help` shows it after the option's name."""


def token(value: object) -> object:
    """One simple name, as it may become part of a file's name.

    Raises:
        Refusal: it holds anything but letters, digits, `_`, `.` and `-`, or starts with a mark.
    """
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
        raise Refusal("write letters, digits, '_', '.' and '-', beginning with a letter or digit")
    return value


def check_names(typed: Sequence[str]) -> None:
    """Refuse names outside ASCII where the locale is not UTF-8: Python, SQLite and Arrow would mean different files.

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


def only(values: tuple[Item, ...]) -> tuple[Item, ...]:
    """The values, of which there must be one.

    Raises:
        Refusal: there are several.
    """
    if len(values) > 1:
        raise Refusal(f"choose one of {', '.join(map(str, values))}: this pipeline does not make a row of each")
    return values


def folder(value: object) -> object:
    """An absolute path, `~` expanded: Ray's processes run in working directories of their own.

    Raises:
        Refusal: the path is empty or a URI, or in the home directory of no user.
    """
    if not isinstance(value, str | Path):
        return value
    text = os.fspath(value)
    if not text:
        raise Refusal("write the path of a folder")
    if "://" in text:
        raise Refusal("write the path of a folder, not a URI: it is kept on every machine (mount a shared one)")
    return _absolute(text)


def storage(value: object) -> object:
    """A folder as `folder` gives it, or the URI of a store of objects: s3://BUCKET/FOLDER, gs://BUCKET/FOLDER.

    Raises:
        Refusal: the path is empty, or the URI is of no store that is known.
    """
    if not isinstance(value, str) or "://" not in value:
        return folder(value)
    return place(value)


def gpus(value: object) -> object:
    """`auto`, or a number of GPUs from 0 on.

    Raises:
        Refusal: anything else, and a number above 1 that is not whole (a device cannot be shared in part only).
    """
    if value == "auto" or not isinstance(value, str | int | float):
        return value
    number = _number(value)
    if not 0 <= number < math.inf or (number > 1 and not number.is_integer()):
        raise Refusal("write auto, 0, a share of one GPU as 0.25, or a whole number")
    return number


def _absolute(text: str) -> Path:
    expanded = os.path.expanduser(text)
    if expanded == text and text.startswith("~"):
        raise Refusal(f"there is no user {text[1:].partition('/')[0]}; write ./{text} for a name that begins with ~")
    return Path(os.path.abspath(expanded))


def listed(read: Callable[[str], Iterable[Hashable]]) -> Callable[[object], object]:
    """Makes a validator of lists without spaces, as a,b,c: the values in this order, repetitions dropped.

    Args:
        read: the values of one item; it raises Refusal if they cannot be read.
    """

    def values(value: object) -> object:
        if not isinstance(value, str):
            return value
        items = value.split(",")
        if not all(items):
            raise Refusal("write the items with commas between them and no spaces, as a,b,c")
        return tuple(dict.fromkeys(found for item in items for found in read(item)))

    return values


def _range(item: str, what: str = "seed") -> range:
    """`7` as 7 alone, `0-2` as 0, 1, 2."""
    match = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", item)
    if match is None:
        raise Refusal(f"{item} is no {what}; write whole numbers and ranges, as 0-2 or 0,3,5-7")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise Refusal(f"the range {item} runs backwards; write {last}-{first}")
    if last - first >= MOST_SEEDS:
        raise Refusal(f"the range {item} holds more than {MOST_SEEDS:,} {what}s")
    return range(first, last + 1)


def _fraction(item: str, what: str = "fraction") -> tuple[float]:
    number = _number(item)
    if not 0 < number <= 1:
        raise Refusal(f"{item} is no {what}; write numbers above 0 and up to 1, as 0.001,0.01,1")
    return (number,)


def _file(item: str) -> tuple[Path]:
    path = _absolute(item)
    if not path.is_file():
        raise Refusal(f"there is no file {path}; write paths of files with commas between them, as a.py,b.py")
    return (path,)


def _number(value: str | float) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def workers(value: object) -> object:
    """`4` as (4, 4), `2-8` as (2, 8).

    Raises:
        Refusal: neither a whole number from 1 nor a rising range of them.
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", value)
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= fewest <= most:
        raise Refusal("write a number from 1, as 4, or the fewest and the most, as 2-8")
    return fewest, most


def in_a_name(value: object) -> str:
    """A value of an option in the letters of a folder's name: ranges as 0-2, other lists with _ between their items."""
    if isinstance(value, tuple):
        rising = all(isinstance(item, int) for item in value) and value == tuple(range(value[0], value[0] + len(value)))
        return f"{value[0]}-{value[-1]}" if rising and len(value) > 1 else "_".join(map(in_a_name, value))
    text = value.name if isinstance(value, Path) else f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).lower()


names = listed(lambda item: [str(token(item))])

Token = Annotated[str, BeforeValidator(token), Written("NAME")]
Names = Annotated[tuple[str, ...], BeforeValidator(names), Field(min_length=1), Written("NAME,...")]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(listed(_range)), Field(min_length=1), Written("0-2,...")
]
Fractions = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], ...],
    BeforeValidator(listed(_fraction)),
    Field(min_length=1),
    Written("0.01,..."),
]
Probabilities = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], ...],
    BeforeValidator(listed(partial(_fraction, what="probability to keep a value"))),
    Field(min_length=1),
    Written("0.01,..."),
]
Counts = Annotated[
    tuple[Annotated[int, Field(ge=0, le=1000)], ...],  # a step with more terms than this would take minutes
    BeforeValidator(listed(partial(_range, what="whole number"))),
    Field(min_length=1),
    Written("0-2,..."),
]
Samples = Annotated[int, Field(ge=2, le=1_000_000), Written("N")]
Folder = Annotated[Path, BeforeValidator(folder), Written("DIR")]
Files = Annotated[tuple[Path, ...], BeforeValidator(listed(_file)), Written("FILE,...")]
Storage = Annotated[Path | InstanceOf[RemotePath], BeforeValidator(storage), Written("DIR|URI")]
Gpus = Annotated[Literal["auto"] | float, BeforeValidator(gpus), Written("auto|N")]
WorkerRange = Annotated[tuple[int, int], BeforeValidator(workers), Written("N|MIN-MAX")]
Count = Annotated[int, Field(ge=1), Written("N")]
Whole = Annotated[int, Field(ge=0), Written("N")]
Uri = Annotated[str, Field(min_length=1), Written("URI")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), Written("X")]
Share = Annotated[float, Field(gt=0, le=1), Written("X")]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), Written("X")]
