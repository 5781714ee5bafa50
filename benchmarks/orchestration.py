"""Measures the overhead of a sweep: runs 162 trivial trials by the real command, then only their training code.

Type    python -m benchmarks.orchestration --repeats 3 --out benchmarks/results/orchestration-cpu.json
        about two minutes per repeat on 2 idle cores

The command runs 162 trials of one epoch (NN, LOGREG and MVAE on the digits, as many as in the paper's table). It runs
them as for a user, with results, checkpoints, sample pictures and MLflow. Then this process runs the same trials one
after the other, with the same training code, but stores nothing. The time of this second run is the trials' own work.

Overhead per trial  (span x concurrent trials - own work) / trials, in seconds of wall time. The span is the time from
                    the start of the first trial to the end of the last trial. So the overhead includes everything
                    except training and evaluation: checkpoints, results, pictures, Ray, and the time that the driver
                    and MLflow take from the trials. The overhead also includes the imports of each process: MLflow,
                    scikit-learn and the optimiser. A second value gives the overhead in CPU seconds, summed over all
                    processes of the command. Other work on the machine hardly changes CPU time.
First step          CPU seconds of all processes of the command until the first trial's first step, divided by the CPU
                    seconds of a bare start: `ray.init()` and an actor that imports torch. The data are already
                    converted. The benchmark measures a bare start before and after the command.
Start, end          time of the command before the first trial begins, and after the last trial ends.
Again               time of the same command when all its trials have finished.
Share of a minute   (overhead per trial + cost of a one-minute trial's messages to the driver) / 60. Both terms
                    are in CPU seconds.
                    The cost of a message is measured with trials that only send messages.

CPU time is unknown on systems without /proc.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict
from ray import tune

from benchmarks.processes import Command, run
from mvae.data import load
from mvae.evaluation.measures import compute
from mvae.limits import cores
from mvae.measure import ACCURACY
from mvae.storage.files import write_atomically
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train
from mvae.training.records import Checkpoint, Record
from mvae.trial import Trial
from pipelines import weak_supervision
from sweeps import engine
from sweeps.cli.options import read
from sweeps.engine import tune as engine_trials
from sweeps.store.provenance import device_name, versions
from sweeps.store.results import Result, Results
from sweeps.trials.messages import REPORT_EVERY, Message

PIPELINE = Path(weak_supervision.__file__)
TRIVIAL = (
    *("--arms", "nn,logreg,mvae", "--fractions", "0.01,0.02,0.05,0.1,0.2,0.3,0.5,0.75,1", "--seeds", "0-5"),
    *("--epochs", "1", "--targets", "own"),
)
"""3 arms x 9 fractions x 6 seeds = 162 trials. The first trial's epoch is one step."""
BARE = """
import time, ray

ray.init()

@ray.remote
class Actor:
    def imported(self):
        import torch
        return time.time()

when = ray.get(Actor.remote().imported.remote())
time.sleep(0.5)
print(when)
"""
"""A program that starts Ray with its defaults. It prints the time at which an actor has imported torch."""
A_TRIAL_BAR = 0.18
"""Largest allowed CPU seconds of overhead per trial, median over repeats."""
FIRST_STEP_BAR = 1.3
"""Largest allowed CPU time until the first step, divided by the CPU time of a bare start, median over repeats."""
MESSAGES = 200
"""Number of messages that a trial sends to measure the cost of a message."""


class Options(BaseSettings):
    """Options of the benchmark."""

    model_config = SettingsConfigDict(cli_kebab_case=True, cli_implicit_flags="toggle", use_attribute_docstrings=True)

    repeats: int = Field(1, ge=1)
    """Number of sweeps to run and report, each in its own storage."""
    out: Path | None = None
    """JSON file for the numbers."""


@dataclass(frozen=True)
class Overhead:
    """Cost of one sweep of trivial trials, in seconds."""

    trials: int
    at_once: int
    start: float
    span: float
    end: float
    own: float
    """Wall time of the trials' own work, one trial after the other."""
    own_cpu: float
    span_cpu: float | None
    end_cpu: float | None
    """CPU seconds from the end of the last trial to the end of the command: completing MLflow, writing the report."""
    again: float
    """Wall time of the same command when all its trials have finished."""
    again_cpu: float | None
    first_step_cpu: float | None
    """CPU seconds of all processes of the command until the first trial has finished its epoch, which is one step."""
    bare_cpu: float | None
    """CPU seconds of a bare start: mean of a start just before the command and a start just after it."""
    load: float
    """Load average of the machine over the last minute of the sweep."""

    @property
    def a_trial(self) -> float:
        """Seconds of overhead per trial: (span x concurrent trials - own work) / trials."""
        return (self.span * self.at_once - self.own) / self.trials

    @property
    def a_trial_cpu(self) -> float | None:
        """CPU seconds of overhead per trial; None if unknown."""
        return None if self.span_cpu is None else (self.span_cpu - self.own_cpu) / self.trials

    @property
    def first_step_ratio(self) -> float | None:
        """CPU time until the first step, divided by the CPU time of a bare start; None if unknown."""
        return None if self.first_step_cpu is None or self.bare_cpu is None else self.first_step_cpu / self.bare_cpu


class Nowhere(Checkpoints):
    """Stands in for a trial's `Checkpoints`, and stores nothing."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"), "own")

    def save(
        self, epoch: int, files: Mapping[str, Any], history: Sequence[Record], provenance: Mapping[str, Any]
    ) -> Checkpoint:
        """Returns a checkpoint without files."""
        return Checkpoint(self.folder, epoch, self.attempt, {}, list(history), dict(provenance), final=False)


def own_work(trials: Sequence[Trial], cache: Path) -> tuple[float, float]:
    """Trains and evaluates trials one after the other. Returns wall and CPU seconds, without imports and loading."""
    data = load("digits", cache=cache)
    one_of_each = {trial.model: trial for trial in trials}
    for trial in one_of_each.values():
        train(trial, data, Nowhere())
    wall, cpu = time.perf_counter(), time.process_time()
    for trial in trials:
        compute(ACCURACY, train(trial, data, Nowhere()).model, trial, data)
    return time.perf_counter() - wall, time.process_time() - cpu


def command(*options: str) -> Command:
    """Runs the pipeline as a user does. Raises the errors of `run`."""
    return run([sys.executable, str(PIPELINE), *options])


def bare_start() -> float | None:
    """Starts Ray. Returns the CPU seconds of all processes until an actor has imported torch; None if unknown."""
    ended = run([sys.executable, "-c", BARE])
    return ended.cpu_until(float(ended.output.split()[-1]))


def trivial(folder: Path, cache: Path) -> Overhead:
    """Runs the command with 162 trivial trials, then again when all trials have finished. Returns the costs."""
    options = (*TRIVIAL, "--storage", str(folder), "--cache", str(cache))
    before = bare_start()
    first = command(*options)
    load_now = os.getloadavg()[0]
    after = bare_start()
    results = list(Results(folder / "main" / "results"))
    again = command(*options)
    trials = [cell.trial for cell in weak_supervision.cells(read(weak_supervision.Options, options))]
    assert len(results) == len(trials)
    start, end = _span(results)
    own, own_cpu = own_work(trials, cache)
    return Overhead(
        trials=len(trials),
        at_once=min(cores(), len(trials)),
        start=start - first.began,
        span=end - start,
        end=first.ended - end,
        own=own,
        own_cpu=own_cpu,
        span_cpu=first.cpu_between(start, end),
        end_cpu=first.cpu_between(end, first.ended),
        again=again.ended - again.began,
        again_cpu=again.cpu_between(again.began, again.ended),
        first_step_cpu=first.cpu_until(min(result.history[0]["time"] for result in results)),
        bare_cpu=None if before is None or after is None else (before + after) / 2,
        load=load_now,
    )


def message_cpu() -> float:
    """Returns the CPU seconds that one message costs, in the trial and the driver together."""
    keys = [str(number) for number in range(cores())]
    sent: list[float] = []
    before: list[float] = []

    def on_message(_key: str, message: Message) -> None:
        if message.failed:
            sent.append(float(message.failed))
        elif not before:
            before.append(time.process_time())

    listener = engine.Listener(lambda _: None, on_message)
    space = {"key": tune.grid_search(keys)}
    with engine.cluster():
        engine_trials.fit(_send_messages, {"CPU": 1.0}, listener, len(keys), param_space=space)
    return statistics.mean(sent) + (time.process_time() - before[0]) / (len(keys) * MESSAGES)


def _send_messages(_config: dict[str, Any]) -> None:
    """Runs instead of a trial: sends MESSAGES messages at a moderate rate, then reports the CPU seconds per message."""
    began = time.process_time()
    for number in range(MESSAGES):
        tune.report({"word": asdict(Message(number, MESSAGES))})
        time.sleep(0.02)
    tune.report({"word": asdict(Message(failed=str((time.process_time() - began) / MESSAGES)))})


def _span(results: Sequence[Result]) -> tuple[float, float]:
    return (
        min(result.provenance["started"] for result in results),
        max(result.provenance["finished"] for result in results),
    )


def main(options: Options) -> None:
    """Runs the benchmark, prints the results, and writes them to `--out` if given."""
    os.environ["PYTHONPATH"] = str(PIPELINE.parents[1])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    torch.set_num_threads(1)
    sweeps = []
    with tempfile.TemporaryDirectory(prefix="mvae-overhead-") as temporary:
        folder = Path(temporary)
        cache = folder / "cache"
        load("digits", cache=cache)  # converts the data, which is not part of a start
        for number in range(options.repeats):
            sweeps.append(trivial(folder / str(number), cache))
            print(_line(sweeps[-1]), flush=True)
        a_message = message_cpu()
    fixed = [one.a_trial_cpu for one in sweeps if one.a_trial_cpu is not None]
    ratios = [one.first_step_ratio for one in sweeps if one.first_step_ratio is not None]
    for name, values, bar in (
        ("CPU seconds of overhead per trial", fixed, A_TRIAL_BAR),
        ("CPU time until the first step, divided by a bare start", ratios, FIRST_STEP_BAR),
    ):
        print(f"{name}: median {_shown(_median(values))} (limit: {bar:g})", flush=True)
    share = (statistics.median(fixed) + a_message * 60 / REPORT_EVERY) / 60 if fixed else None
    shown = "-" if share is None else f"{share:.2%}"
    print(f"per message {a_message * 1000:.1f} ms CPU; overhead of a one-minute trial {shown}", flush=True)
    if options.out:
        record = {
            "machine": {"cpu": device_name("cpu"), "cores": cores(), "system": platform.system()},
            "versions": versions(),
            "trivial": [
                {
                    **asdict(one),
                    "a_trial": one.a_trial,
                    "a_trial_cpu": one.a_trial_cpu,
                    "first_step_ratio": one.first_step_ratio,
                }
                for one in sweeps
            ],
            "bars": {"a_trial_cpu": A_TRIAL_BAR, "first_step_ratio": FIRST_STEP_BAR},
            "medians": {"a_trial_cpu": _median(fixed), "first_step_ratio": _median(ratios)},
            "word_cpu": a_message,
            "share_of_a_minute": share,
        }
        write_atomically(options.out.absolute(), json.dumps(record, indent=1).encode() + b"\n")


def _line(one: Overhead) -> str:
    return (
        f"{one.trials} trials, {one.at_once} at once: overhead per trial {one.a_trial:.3f} s wall,"
        f" {_shown(one.a_trial_cpu)} s CPU (own work {one.own / one.trials:.3f} s);"
        f" until the first step {_shown(one.first_step_cpu)} s CPU, bare start {_shown(one.bare_cpu)} s,"
        f" ratio {_shown(one.first_step_ratio)}; start {one.start:.1f} s, span {one.span:.1f} s,"
        f" end {one.end:.1f} s ({_shown(one.end_cpu)} s CPU);"
        f" again {one.again:.1f} s ({_shown(one.again_cpu)} s CPU); load {one.load:.1f}"
    )


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main(CliApp.run(Options))
