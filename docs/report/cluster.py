"""What happens when something dies, timed on the several-machines lab: a table of noted seconds."""

from __future__ import annotations

from docs.report.sources import Sources
from docs.report.tabled import markdown

LOST = (
    ("nothing", "", "about {lab.nothing} s"),
    ("a worker's raylet, killed", "after {lab.raylet.noticed} s", "{lab.raylet} s in all"),
    (
        "a worker's cable, pulled and plugged in again",
        "after {lab.cable.noticed} s",
        "{lab.cable} s in all; what the worker still did changed nothing",
    ),
    ("a worker's power", "", "this one runs in CI, {lab.power} s with `ray up` and `ray down`"),
    (
        "a worker's power, with `--workers-per-trial 2` (two NN and two MVAE trials)",
        "not timed",
        "{lab.power_of_two} s in all",
    ),
    (
        "a worker's power, under an elastic run of `--workers 1-4`",
        "two workers go on after {lab.elastic.two} s",
        "booted again, four train {lab.elastic.four} s later, to the end",
    ),
    ("the driver, kill -9", "`ray submit` returns 1", "the same command again: {lab.driver} s"),
    (
        "the head's power",
        "`ray submit` returns 1 after {lab.head.noticed} s",
        "booted, `ray up` {lab.head.boot} s, workers {lab.head.workers} s later, the same command: {lab.head} s",
    ),
)


def figures(sources: Sources) -> dict[str, str]:
    """What was noted, and the table of losses."""
    noted = sources.noted()
    lines = [[_filled(words, noted) for words in line] for line in LOST]
    return {**noted, "lab.table": markdown(["what is lost", "noticed", "to the table"], [], lines)}


def _filled(words: str, noted: dict[str, str]) -> str:
    for name, value in noted.items():
        words = words.replace("{" + name.removeprefix("noted.") + "}", value)
    assert "{" not in words, f"noted.csv has not all of: {words}"
    return words
