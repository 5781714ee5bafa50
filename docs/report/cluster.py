"""Times from a loss to the finished table, measured on simulated machines."""

from __future__ import annotations

from docs.report.sources import Sources
from sweeps.table.markdown import markdown_table

LOST = (
    ("nothing", "", "about {lab.nothing} s"),
    ("a worker's raylet (kill -9)", "{lab.raylet.noticed} s", "{lab.raylet} s"),
    (
        "a worker's cable, plugged in again later",
        "{lab.cable.noticed} s",
        "{lab.cable} s; what the worker computed meanwhile changed nothing",
    ),
    ("a worker's power", "", "{lab.power} s, with `ray up` and `ray down`; CI runs this case"),
    (
        "a worker's power, with `--workers-per-trial 2` (two NN and two MVAE trials)",
        "not timed",
        "{lab.power_of_two} s",
    ),
    (
        "a worker's power, in an elastic run with `--workers 1-4`",
        "{lab.elastic.two} s until two workers continue",
        "after a reboot, {lab.elastic.four} s until four workers train again",
    ),
    ("the driver (kill -9)", "`ray submit` returns 1", "{lab.driver} s for the same command again"),
    (
        "the head's power",
        "{lab.head.noticed} s until `ray submit` returns 1",
        "after a reboot, {lab.head.boot} s for `ray up`, {lab.head.workers} s until the workers join, and {lab.head} s"
        " for the same command",
    ),
)


def figures(sources: Sources) -> dict[str, str]:
    """The noted seconds, and the table of losses."""
    noted = sources.noted()
    lines = [[_filled(words, noted) for words in line] for line in LOST]
    return {**noted, "lab.table": markdown_table(["lost", "noticed after", "until the table is complete"], [], lines)}


def _filled(words: str, noted: dict[str, str]) -> str:
    for name, value in noted.items():
        words = words.replace("{" + name.removeprefix("noted.") + "}", value)
    assert "{" not in words, f"noted.csv has not all of: {words}"
    return words
