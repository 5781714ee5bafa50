"""Measures the CPU time and the memory of commands that do not train.

Type    python -m benchmarks.startup --out benchmarks/results/startup-cpu.json
        about three minutes on 2 cores

The commands and `python -c 'import torch'` take turns, several times. The best run of each command counts. In an
extra first round, which does not count, Python writes its bytecode.

CPU seconds  user and system time of the process and of every process that it waited for
ratio        CPU seconds divided by the CPU seconds of `import torch`; comparable between machines
memory       largest resident set of one process, in MB

The benchmark first runs a demo until all its trials have finished (4 trials of one epoch). Then it measures:

help            pipelines/weak_supervision.py --help
refusal         an option with an invalid value
plan            --plan on the finished demo
report          --report on the finished demo, when nothing has changed since the last report
again           the demo's command again, when all its trials have finished
report_drawn    --report after the reports' folder was deleted, so that tables, intervals and plots are made again

Four things cost more, and the benchmark does not measure them: plug-ins, the conversion of data, a tracking server,
and a plan with missing trials. Such a plan measures the machine's load and may time a few steps.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from pipelines import weak_supervision

PIPELINE = str(Path(weak_supervision.__file__))
DEMO = ("--arms", "nn,mvae", "--targets", "own", "--fractions", "0.05,1", "--seeds", "0", "--epochs", "1")
BARS = {"help": 0.22, "refusal": 0.22, "plan": 0.37, "report": 0.45, "again": 0.45, "report_drawn": 1.2}
"""Largest allowed ratio of each command."""
MEMORY_BAR = 150
"""Largest allowed memory of `help` and `refusal`, in MB."""


class Options(BaseSettings):
    """Options of the benchmark."""

    model_config = SettingsConfigDict(cli_kebab_case=True, use_attribute_docstrings=True)

    repeats: int = Field(5, ge=1)
    """Runs of each command. Only the best run counts."""
    out: Path | None = None
    """JSON file for the numbers."""


@dataclass(frozen=True)
class Cost:
    """Cost of one run of a command."""

    cpu: float
    """CPU seconds of the process and of its ended children."""
    memory: float
    """Largest resident set of one process, in MB."""


def cost(command: Sequence[str], expected: int) -> Cost:
    """Runs a command and returns its cost.

    Args:
        expected: the expected exit code.
    Raises:
        RuntimeError: the command ended with another exit code.
    """
    with tempfile.TemporaryFile() as output:
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=variables)
        _, status, used = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
        if running.returncode != expected:
            output.seek(0)
            raise RuntimeError(
                f"{' '.join(command)} ended with exit code {running.returncode}: {output.read()[-2000:]!r}"
            )
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def measured(repeats: int, home: Path) -> dict[str, Cost]:
    """Runs all commands several times, in turn. Returns the lowest CPU time and the lowest memory of each command."""
    storage = home / "runs"
    demo = (*DEMO, "--storage", str(storage), "--cache", str(home / "cache"))
    pipeline = (sys.executable, PIPELINE)
    reports = storage / "main" / "reports"
    commands: dict[str, tuple[Sequence[str], int, Callable[[], object]]] = {
        "import_torch": ((sys.executable, "-c", "import torch"), 0, _nothing),
        "help": ((*pipeline, "--help"), 0, _nothing),
        "refusal": ((*pipeline, "--epochs", "none"), 2, _nothing),
        "plan": ((*pipeline, *demo, "--plan"), 0, _nothing),
        "report": ((*pipeline, *demo, "--report"), 0, _nothing),
        "again": ((*pipeline, *demo), 0, _nothing),
        "report_drawn": ((*pipeline, *demo, "--report"), 0, lambda: shutil.rmtree(reports)),
    }
    cost((*pipeline, *demo), 0)
    for command, expected, _ in commands.values():
        cost(command, expected)
    found: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, (command, expected, before) in commands.items():
            before()
            found[name].append(cost(command, expected))
    return {name: Cost(min(run.cpu for run in runs), min(run.memory for run in runs)) for name, runs in found.items()}


def _nothing() -> None:
    """Does nothing."""


def main() -> None:
    """Runs the benchmark, prints the results, and writes them to `--out` if given."""
    options = CliApp.run(Options)
    with tempfile.TemporaryDirectory(prefix="startup-") as home:
        found = measured(options.repeats, Path(home))
    torch = found["import_torch"].cpu
    for name, one in found.items():
        bar = f"   (ratio at most {BARS[name]:.2f})" if name in BARS else ""
        print(f"{name:14}{one.cpu:8.2f} CPU s{one.cpu / torch:8.2f}{one.memory:8.0f} MB{bar}")
    if options.out:
        record = {
            "machine": {"processor": platform.processor(), "python": platform.python_version()},
            "repeats": options.repeats,
            "commands": {name: asdict(one) | {"ratio": one.cpu / torch} for name, one in found.items()},
            "bars": BARS,
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
