"""Types of option values. Each type reads one word of the command line.

A value that already has the right type passes unchanged, so that options can also be created in code.
"""

import math
import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Hashable, Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, InstanceOf

from mvae.refusal import Refusal
from mvae.storage.objects import RemotePath, place

NAMED_BY = ("MVAE_STORAGE", "MVAE_DATA", "MLFLOW_TRACKING_URI", "HOME")
"""Environment variables that contain paths."""

MOST_SEEDS = 10_000
"""Largest number of seeds in one range. A longer range is refused as a typing error."""


class Written(str):
    """Placeholder for an option's value, which `--help` shows after the option's name, for example NAME."""


def token(value: object) -> object:
    """Checks a simple name, which may become part of a file name.

    Raises:
        Refusal: the name has characters other than letters, digits, `_`, `.` and `-`, or does not start with a letter
            or digit.
    """
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
        raise Refusal("use only letters, digits, '_', '.' and '-', and start with a letter or digit")
    return value


def check_names(typed: Sequence[str]) -> None:
    """Refuses names outside ASCII if the locale is not UTF-8: Python, SQLite and Arrow encode such names differently.

    Args:
        typed: arguments of the command.
    Raises:
        Refusal: a name has characters outside ASCII, and the locale is not UTF-8.
    """
    encoding = sys.getfilesystemencoding()
    for name in (*typed, *(os.environ.get(variable, "") for variable in NAMED_BY), str(Path.cwd())):
        if not name.isascii() and encoding != "utf-8":
            shown = os.fsencode(name).decode("utf-8", "replace")
            raise Refusal(
                f"{shown!a} has characters outside ASCII, but this locale encodes file names as {encoding}:"
                " set PYTHONUTF8=1"
            )


def only(values: tuple[str, ...]) -> tuple[str, ...]:
    """Checks that there is a single value.

    Raises:
        Refusal: there are several values.
    """
    if len(values) > 1:
        raise Refusal(f"choose only one of {', '.join(values)}: this pipeline cannot make a row per value")
    return values


def folder(value: object) -> object:
    """Returns an absolute path with `~` expanded, because Ray's processes have other working directories.

    Raises:
        Refusal: the path is empty, a URI, or in the home directory of an unknown user.
    """
    if not isinstance(value, str | Path):
        return value
    text = os.fspath(value)
    if not text:
        raise Refusal("write the path of a folder")
    if "://" in text:
        raise Refusal("write the path of a folder, not a URI; every machine needs this folder (mount a shared folder)")
    return _absolute(text)


def storage(value: object) -> object:
    """Reads the path of a folder, or the URI of object storage: s3://BUCKET/FOLDER, gs://BUCKET/FOLDER.

    Raises:
        Refusal: the path is empty, or the URI's scheme is unknown.
    """
    return place(value) if isinstance(value, str) and "://" in value else folder(value)


def gpus(value: object) -> object:
    """Reads `auto` or a number of GPUs, which may be 0.

    Raises:
        Refusal: the value is negative, not a number, or above 1 and not whole. Trials can only share a single GPU.
    """
    if value == "auto" or not isinstance(value, str | int | float):
        return value
    number = _number(value)
    if not 0 <= number < math.inf or (number > 1 and not number.is_integer()):
        raise Refusal("write auto, 0, a fraction of one GPU such as 0.25, or a whole number")
    return number


def _absolute(text: str) -> Path:
    expanded = os.path.expanduser(text)
    if expanded == text and text.startswith("~"):
        raise Refusal(f"unknown user {text[1:].partition('/')[0]}; write ./{text} for a name that begins with ~")
    return Path(os.path.abspath(expanded))


def listed(read: Callable[[str], Iterable[Hashable]]) -> Callable[[object], object]:
    """Returns a validator of lists such as `a,b,c`. The validator keeps the order and drops repetitions.

    Args:
        read: returns the values of one item, or raises Refusal.
    """

    def values(value: object) -> object:
        if not isinstance(value, str):
            return value
        items = value.split(",")
        if not all(items):
            raise Refusal("separate the items with commas and no spaces, as in a,b,c")
        return tuple(dict.fromkeys(found for item in items for found in read(item)))

    return values


def _range(item: str, what: str = "seed") -> range:
    match = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", item)
    if match is None:
        raise Refusal(f"{item} is not a {what}; write whole numbers or ranges, such as 0-2 or 0,3,5-7")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise Refusal(f"the range {item} is reversed; write {last}-{first}")
    if last - first >= MOST_SEEDS:
        raise Refusal(f"the range {item} has more than {MOST_SEEDS:,} {what}s")
    return range(first, last + 1)


def _fraction(item: str, what: str = "fraction") -> tuple[float]:
    number = _number(item)
    if not 0 < number <= 1:
        raise Refusal(f"{item} is not a {what}; write numbers above 0 and up to 1, such as 0.001,0.01,1")
    return (number,)


def _assignment(item: str) -> tuple[tuple[str, str]]:
    name, equals, value = item.partition("=")
    if not (name and equals and value):
        raise Refusal(f"{item} is not NAME=VALUE; separate several settings by commas, as in beta=2.5,samples=10")
    return ((name, value),)


def _file(item: str) -> tuple[Path]:
    path = _absolute(item)
    if not path.is_file():
        raise Refusal(f"file {path} does not exist; separate several paths by commas, as in a.py,b.py")
    return (path,)


files = listed(_file)
"""Reads paths of files that exist, such as `a.py,b.py`."""


def unknown_option(parser: ArgumentParser, word: str, listing: str) -> Refusal:
    """Returns the Refusal to raise for an option that a parser does not have.

    Args:
        word: the option as typed.
        listing: how to see all options; shown if no known option is similar.
    """
    flag = word.partition("=")[0]
    near = get_close_matches(flag, parser._option_string_actions, n=1)
    return Refusal(f"unknown option {flag}: " + (f"did you mean {near[0]}?" if near else listing))


def _number(value: str | float) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def workers(value: object) -> object:
    """Reads `4` as (4, 4) and `2-8` as (2, 8).

    Raises:
        Refusal: the value is neither a positive whole number nor a rising range such as 2-8.
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", value)
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= fewest <= most:
        raise Refusal("write a whole number above 0, such as 4, or a minimum and a maximum, such as 2-8")
    return fewest, most


def in_a_name(value: object) -> str:
    """Formats an option's value for a folder's name: a range of seeds as `0-2`, other lists joined with `_`."""
    if isinstance(value, tuple):
        rising = all(isinstance(item, int) for item in value) and value == tuple(range(value[0], value[0] + len(value)))
        return f"{value[0]}-{value[-1]}" if rising and len(value) > 1 else "_".join(map(in_a_name, value))
    text = value.name if isinstance(value, Path) else f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).lower()


names = listed(lambda item: [str(token(item))])

Token = Annotated[str, BeforeValidator(token), Written("NAME")]
Names = Annotated[tuple[str, ...], BeforeValidator(names), Field(min_length=1), Written("NAME,...")]
Assignments = Annotated[tuple[tuple[str, str], ...], BeforeValidator(listed(_assignment)), Written("NAME=VALUE,...")]
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
    BeforeValidator(listed(partial(_fraction, what="keep probability"))),
    Field(min_length=1),
    Written("0.01,..."),
]
Counts = Annotated[
    tuple[Annotated[int, Field(ge=0, le=1000)], ...],  # with more terms a step would take minutes
    BeforeValidator(listed(partial(_range, what="whole number"))),
    Field(min_length=1),
    Written("0-2,..."),
]
Samples = Annotated[int, Field(ge=2, le=1_000_000), Written("N")]
Folder = Annotated[Path, BeforeValidator(folder), Written("DIR")]
Files = Annotated[tuple[Path, ...], BeforeValidator(files), Written("FILE,...")]
Storage = Annotated[Path | InstanceOf[RemotePath], BeforeValidator(storage), Written("DIR|URI")]
Gpus = Annotated[Literal["auto"] | float, BeforeValidator(gpus), Written("auto|N")]
WorkerRange = Annotated[tuple[int, int], BeforeValidator(workers), Written("N|MIN-MAX")]
Count = Annotated[int, Field(ge=1), Written("N")]
Whole = Annotated[int, Field(ge=0), Written("N")]
Uri = Annotated[str, Field(min_length=1), Written("URI")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), Written("X")]
Share = Annotated[float, Field(gt=0, le=1), Written("X")]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), Written("X")]
