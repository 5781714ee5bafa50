"""Compares planned times with measured times: runs `--plan`, then the command itself, for ten small sweeps.

Type    python -m benchmarks.estimates --out benchmarks/results/estimates-cpu.json
        about five minutes on 2 idle cores, several times as long if other programs run

Every sweep trains on the digits, in its own storage unless it continues an earlier sweep. A time is the wall time of
the whole command, including start-up. A plan holds if this time is in the range that --plan printed. The machine's load
is recorded before the plan and after the command, because a plan assumes that other programs keep running.

one        one trial that resembles no earlier trial; a probe times a few of its steps
start      one trial that takes almost no time, so only start-up counts
many       12 trials that differ only in seed and number of pairs; a probe times a few steps
arms       several arms
extended   another seed of `arms`; the plan uses the times of finished trials
longer     three times as many epochs as in `arms`; the plan uses the times of finished trials
resumed    the rest of a trial that --max-hours has stopped
fresh      a data set that is not converted yet
measured   likelihoods, which take longer than the training
single     four trials, one at a time

`--plans one,many` runs only these two plans, and keeps the other plans' numbers in the file of `--out`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, NoDecode, SettingsConfigDict

from benchmarks.timing import machine, plain
from mvae.limits import processors
from mvae.storage.files import write_atomically
from pipelines import likelihoods, weak_supervision

ARMS = ("--arms", "nn,logreg,mvae", "--targets", "own", "--fractions", "0.05,1", "--epochs", "40")
MVAE = ("--arms", "mvae", "--targets", "own", "--fractions", "1", "--seeds", "0")
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
TOLD = re.compile(r"^([\d.]+)(?: to ([\d.]+))? (s|min|h|d) for ", re.MULTILINE)
"""Matches the beginning of the line in which --plan prints the time."""
WANTED = 0.9
"""Fraction of plans that must hold."""


@dataclass(frozen=True)
class Case:
    """One sweep to plan and to run."""

    options: tuple[str, ...]
    storage: str = ""
    """Name of the storage folder. Cases with the same name share one storage. Empty: this case has its own storage."""
    before: tuple[str, ...] = ()
    """Extra options of an untimed command that runs first. Empty: no command runs first."""
    pipeline: Path = Path(weak_supervision.__file__)
    fresh: bool = False
    """Whether the cache is empty, so that the data are not converted yet."""


CASES = {
    "one": Case((*MVAE, "--epochs", "200")),
    "start": Case(("--arms", "logreg", "--fractions", "1", "--seeds", "0")),
    "many": Case(("--arms", "nn", "--fractions", "0.05,0.2,0.5,1", "--seeds", "0-2", "--epochs", "60")),
    "arms": Case((*ARMS, "--seeds", "0"), storage="arms"),
    "extended": Case((*ARMS, "--seeds", "0-1"), storage="arms"),
    "longer": Case((*ARMS[:-1], "120", "--seeds", "0"), storage="arms"),
    "resumed": Case((*MVAE, "--epochs", "1200"), before=("--max-hours", "0.012", "--checkpoint-every", "1")),
    "fresh": Case((*MVAE, "--epochs", "100"), fresh=True),
    "measured": Case(
        ("--arms", "mvae", "--targets", "own", "--samples", "2000", "--seeds", "0", "--epochs", "20"),
        pipeline=Path(likelihoods.__file__),
    ),
    "single": Case(
        ("--arms", "nn", "--fractions", "1", "--seeds", "0-3", "--epochs", "60", "--max-concurrent", "1"),
    ),
}


class Options(BaseSettings):
    """Options of the benchmark."""

    model_config = SettingsConfigDict(cli_kebab_case=True, use_attribute_docstrings=True)

    plans: Annotated[str, NoDecode] = Field(",".join(CASES))
    """Names of the plans to run, separated by commas."""
    out: Path | None = None
    """JSON file for the numbers."""


@dataclass(frozen=True)
class Outcome:
    """The time that a plan predicted, and the time that its command took. All times are in seconds."""

    low: float
    high: float
    taken: float
    holds: bool
    load_before: float
    """Load average of one minute before the plan."""
    load_after: float
    """Load average of one minute after the command."""


def told(printed: str) -> tuple[float, float]:
    """Returns the lower and the upper bound of the time that --plan printed, in seconds.

    Raises:
        RuntimeError: --plan printed no time.
    """
    found = TOLD.search(printed)
    if found is None:
        raise RuntimeError(f"--plan printed no time: {printed[-2000:]}")
    low, high, unit = found[1], found[2] or found[1], UNITS[found[3]]
    return float(low) * unit, float(high) * unit


def measured(case: Case, name: str, home: Path) -> Outcome:
    """Runs the command of one case, first with --plan and then without, and compares the times."""
    cache = home / (f"cache-{name}" if case.fresh else "cache")
    folders = ("--storage", str(home / (case.storage or name)), "--cache", str(cache))
    command = (sys.executable, str(case.pipeline), *case.options, *folders)
    if case.before:
        _run((*command, *case.before), expected=3)
    load_before = os.getloadavg()[0]
    low, high = told(_run((*command, "--plan"), expected=0))
    began = time.monotonic()
    _run(command, expected=0)
    taken = time.monotonic() - began
    return Outcome(low, high, taken, low <= taken <= high, load_before, os.getloadavg()[0])


def _run(command: Sequence[str], expected: int) -> str:
    variables = {**os.environ, "PYTHONUTF8": "1"}
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, env=variables)
    if ended.returncode != expected:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {ended.returncode}: {ended.stdout}{ended.stderr}")
    return ended.stdout


def main() -> None:
    """Plans and runs each case, prints the times, and writes them to `--out` if given."""
    options = CliApp.run(Options)
    found: dict[str, Any] = {}
    if options.out and options.out.exists():
        found = json.loads(options.out.read_text(encoding="utf-8"))["plans"]
    with tempfile.TemporaryDirectory(prefix="estimates-") as home:
        _run((sys.executable, str(CASES["start"].pipeline), "--plan", "--storage", f"{home}/no", *_cache(home)), 0)
        for name in options.plans.split(","):
            one = measured(CASES[name], name, Path(home))
            found[name] = asdict(one)
            print(
                f"{name:10}{one.low:7.0f} to {one.high:5.0f} s planned{one.taken:7.0f} s taken"
                f"   {'holds' if one.holds else 'misses'}   load {one.load_before:.1f} to {one.load_after:.1f}",
                flush=True,
            )
            if options.out:
                holds = sum(plan["holds"] for plan in found.values())
                record = {"machine": machine(), "cores": processors(), "hold": holds, "of": len(found)}
                ordered = {case: found[case] for case in CASES if case in found}
                text = json.dumps(plain(record | {"wanted": WANTED, "plans": ordered}), indent=1)
                write_atomically(options.out.absolute(), text.encode() + b"\n")


def _cache(home: str) -> tuple[str, str]:
    return "--cache", f"{home}/cache"


if __name__ == "__main__":
    main()
