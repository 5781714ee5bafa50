"""Real sweeps for tests: runs the pipeline in its own process, kills or stops it, and inspects the files it left.

A `Place` gives a sweep its own home directory, temporary folder, storage and cache. Tests signal only processes that
were started here. They find these processes from the driver downwards, and identify each by id and start time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from mvae.data import fingerprint, load
from mvae.measure import ACCURACY
from mvae.training.records import MANIFEST
from mvae.trial import Trial
from sweeps.store.results import Result
from sweeps.store.store import Store
from sweeps.tracking.mirror import open_database
from sweeps.trials.messages import Job, Message
from sweeps.trials.run import run
from tests.crashes import on_disk
from tests.processes import Process, command_line, descendants, kill

ROOT = Path(__file__).resolve().parents[1]
PIPELINE = ROOT / "pipelines" / "weak_supervision.py"

EPOCHS = 14
SWEEP = (
    *("--arms", "nn,logreg,mvae", "--targets", "own", "--fractions", "0.05,1", "--seeds", "0", "--epochs", str(EPOCHS)),
    *("--max-concurrent", "2"),
)
"""Six trials that take a few seconds together. Every epoch ends with a checkpoint (`Place.command`)."""

ONE_AT_A_TIME = ("--max-concurrent", "1")
"""One trial process, for tests without concurrency. Each further process would import torch and Ray again."""

IMPATIENT = """
import runpy, sys
import sweeps.driver
sweeps.driver.PATIENTLY = 5.0
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a pipeline that waits five seconds instead of a minute for an unwritable MLflow at the end."""

LIMIT = 600.0
"""Seconds that a wait may take on a slow and busy machine before the test fails."""

SHORT = 8
"""Largest number of characters in a temporary folder's path. In longer ones, the folders that `place` makes would be
too long for `sweeps.store.scratch.temporary`."""


def digits_job(store: Store, cache: Path, **fields: Any) -> Job:
    """A job of one second: NN on digits for two epochs, unless the trial's fields say otherwise."""
    trial = Trial.create(**{"dataset": "digits", "model": "nn", "paired_fraction": 0.05, "epochs": 2, **fields})
    return Job(
        trial.key(fingerprint("digits")), trial, measures=(ACCURACY,), store=store, cache=cache, checkpoint_every=0.0
    )


class CutOff(BaseException):
    """Simulates the death of a trial process."""


def run_until(job: Job, epoch: int) -> None:
    """Runs a job in this process up to the checkpoint of an epoch, like a process that is killed right after it."""

    def cut(word: Message) -> None:
        if word.epoch == epoch and word.committed:
            raise CutOff

    with pytest.raises(CutOff):
        run(job, cut)


@dataclass(frozen=True)
class Ended:
    """A driver that has ended."""

    code: int
    """Exit code, or the negative number of the signal that killed the driver."""
    out: str
    err: str
    seconds: float
    """Seconds to the end, from the signal if one was sent, otherwise from the start."""


@dataclass
class Driver:
    """A running pipeline."""

    process: subprocess.Popen[bytes]
    place: Place
    log: Path
    """File for standard output; standard error is in a file next to it. A pipe would need a reader."""
    began: float = field(default_factory=time.monotonic)

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Waits for a condition; fails if the driver ends first or the time limit passes."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert self.process.poll() is None, f"the driver ended before {what}: {self._said()}"
            assert time.monotonic() < deadline, f"{LIMIT:.0f} s passed before {what}: {self._said()}"
            time.sleep(0.02)

    def ended(self) -> Ended:
        """Waits until the driver ends by itself."""
        try:
            code = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the driver did not end within {LIMIT:.0f} s: {self._said()}") from None
        return Ended(code, *self._said(), time.monotonic() - self.began)

    def signalled(self, number: signal.Signals) -> Ended:
        """Sends the driver a signal and waits for its end."""
        self.began = time.monotonic()
        self.process.send_signal(number)
        return self.ended()

    def kill(self) -> Ended:
        """Kills the driver with signal 9; its children keep running."""
        self.process.kill()
        self.process.wait()
        return Ended(self.process.returncode, *self._said(), 0.0)

    def tree(self) -> list[Process]:
        """The driver and its descendants."""
        return descendants(self.process.pid)

    def trial_processes(self) -> list[Process]:
        """Processes of the tree that train; Ray names an actor's process after its class."""
        return [process for process in self.tree() if command_line(process).startswith("ray::Impl")]

    def _said(self) -> tuple[str, str]:
        logs = self.log, self.log.with_suffix(".err")
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in logs)
        return out, err


@dataclass
class Place:
    """The folders in which a sweep runs, with its files and MLflow runs."""

    root: Path
    storage: Path
    drivers: list[Driver] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def temporary(self) -> Path:
        return self.root / "t"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def store(self) -> Store:
        return Store.open(self.storage, "main", create=False)

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.storage / 'mlflow.db'}"

    def command(self, *arguments: str) -> list[str]:
        """Command line; arguments given here come last and override earlier ones."""
        folders = ("--storage", str(self.storage), "--cache", str(self.cache))
        return [sys.executable, str(PIPELINE), *folders, "--checkpoint-every", "0", *ONE_AT_A_TIME, *arguments]

    def start(self, *arguments: str, **environment: str) -> Driver:
        """Starts the pipeline; the given arguments follow the common ones."""
        return self.launch(self.command(*arguments), **environment)

    def launch(self, command: list[str], **environment: str) -> Driver:
        """Starts a command line of the pipeline."""
        for folder in (self.home, self.temporary):
            folder.mkdir(exist_ok=True)
        log = self.root / f"driver-{len(self.drivers)}.out"
        own = {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(ROOT),
            "RAY_worker_niceness": "0",  # on a busy machine Ray's own 15 would starve the trials
            **environment,
        }
        leaking = ("RAY_AUTH_MODE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "MVAE_DATA")
        inherited = {name: value for name, value in os.environ.items() if name not in leaking}
        with log.open("wb") as out, log.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=inherited | own, cwd=self.root
            )
        driver = Driver(process, self, log)
        self.drivers.append(driver)
        return driver

    def run(self, *arguments: str, **environment: str) -> Ended:
        """Runs the pipeline to its end."""
        return self.start(*arguments, **environment).ended()

    def results(self) -> dict[str, Result]:
        """Every result, by key."""
        return {result.key: result for result in self.store.results}

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Result files: name to time of the last change, and content."""
        folder = on_disk(self.store.results.folder)
        return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("*.json")}

    def numbers(self) -> dict[str, Any]:
        """Values that must be equal bit for bit: by key, the final metrics and the metrics of every epoch."""
        return {
            key: (result.metrics, [(record["epoch"], record["metrics"]) for record in result.history])
            for key, result in self.results().items()
        }

    def epochs(self) -> dict[str, int]:
        """Epochs that checkpoints cover, by key, from the names of files."""
        done: dict[str, int] = {}
        for manifest in on_disk(self.store.folder / "checkpoints").glob(f"*/*/{MANIFEST}"):
            key, epoch = manifest.parts[-3], int(manifest.parts[-2].partition("-")[0])
            done[key] = max(epoch, done.get(key, 0))
        return done

    def children(self) -> list[Run]:
        """All of MLflow's trial runs."""
        return [run for run in self._runs() if "mvae.key" in run.data.tags]

    def parents(self) -> list[Run]:
        """All of MLflow's sweep runs."""
        return [run for run in self._runs() if run.data.tags["mvae.kind"] == "sweep"]

    def cells(self) -> list[Run]:
        """All of MLflow's runs of cells."""
        return [run for run in self._runs() if run.data.tags["mvae.kind"] == "cell"]

    def running(self) -> list[str]:
        """Names of MLflow runs with status RUNNING or SCHEDULED."""
        return [run.info.run_name for run in self._runs() if run.info.status in ("RUNNING", "SCHEDULED")]

    def steps(self, run: Run) -> dict[str, list[tuple[int, float]]]:
        """Values of a run's metrics in MLflow, as (step, value), in the order of steps."""
        client = MlflowClient(self.uri)
        return {
            name: sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name))
            for name in run.data.metrics
        }

    def _runs(self) -> list[Run]:
        client = MlflowClient(self.uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(experiments, run_view_type=ViewType.ACTIVE_ONLY, max_results=1000))

    def leftovers(self) -> list[str]:
        """Files in the temporary folder, and in the home directory except its cache."""
        temporary = [str(path.relative_to(self.root)) for path in self.temporary.glob("mvae-*")]
        home = [str(path.relative_to(self.root)) for path in self.home.rglob("*") if path.is_file()]
        return temporary + [path for path in home if not path.startswith("home/.cache/")]


@lru_cache(maxsize=1)
def _begun() -> Place:
    """A place with an empty MLflow database and converted digits, made once to save most tests some seconds."""
    root = Path(tempfile.mkdtemp(prefix="mvae"))
    made = Place(root, root / "storage")
    open_database(made.storage / "mlflow.db")
    load("digits", None, made.cache)
    return made


@contextmanager
def place(storage: Path | None = None, *, begun: bool = False) -> Iterator[Place]:
    """Yields a new place under a short path, which Ray's sockets need; then ends its processes and removes it.

    Args:
        storage: a folder elsewhere.
        begun: whether the place starts with an empty MLflow database and converted digits.
    """
    folders = (folder for folder in (tempfile.gettempdir(), "/tmp") if len(folder) <= SHORT and Path(folder).is_dir())
    root = Path(tempfile.mkdtemp(prefix="mvae", dir=next(folders, None)))
    made = Place(root, storage or root / "storage")
    try:
        if begun:
            shutil.copytree(_begun().cache, made.cache)
            made.storage.mkdir(exist_ok=True)
            shutil.copy(_begun().storage / "mlflow.db", made.storage / "mlflow.db")
        yield made
    finally:
        for driver in made.drivers:
            for process in driver.tree() if driver.process.poll() is None else ():
                kill(process)
            driver.process.wait()
        shutil.rmtree(root, ignore_errors=True)


@dataclass(frozen=True)
class Unbroken:
    """The undisturbed sweep, with which other sweeps are compared."""

    place: Place
    ended: Ended
    left: list[str]
    """`Place.leftovers`, right after the sweep ended."""


@lru_cache(maxsize=1)
def _unbroken() -> tuple[Unbroken, Any]:
    context = place()
    made = context.__enter__()
    driver = made.start(*SWEEP)
    driver.until(lambda: any(made.temporary.glob("mvae-ray-*")), "Ray had written into the watched folder")
    ended = driver.ended()
    return Unbroken(made, ended, made.leftovers()), context


@pytest.fixture(scope="session")
def unbroken() -> Iterator[Unbroken]:
    """Yields the undisturbed sweep, which runs once per session although each importing module has its own fixture."""
    made, context = _unbroken()
    yield made
    context.__exit__(None, None, None)
    _unbroken.cache_clear()


def forget() -> None:
    """Removes the place whose files new places copy."""
    if _begun.cache_info().currsize:
        shutil.rmtree(_begun().root, ignore_errors=True)
        _begun.cache_clear()


@contextmanager
def copy_of(original: Place) -> Iterator[Place]:
    """Yields a new place with the results and checkpoints of a finished sweep, but an empty MLflow."""
    with place(begun=True) as here:
        shutil.copytree(on_disk(original.store.folder), on_disk(here.store.folder))
        yield here


def mlflow_differs(here: Place) -> list[str]:
    """Differences between MLflow and storage; empty if every result has one finished run with each step once."""
    wrong = [f"{name} is RUNNING" for name in here.running()]
    results, runs = here.results(), here.children()
    keys = sorted(one.data.tags["mvae.key"] for one in runs)
    if keys != sorted(results):
        return [*wrong, f"runs of the keys {keys} instead of {sorted(results)}"]
    for one in runs:
        result = results[one.data.tags["mvae.key"]]
        expected = {"epoch": [(record["epoch"], float(record["epoch"])) for record in result.history]}
        for record in result.history:
            speed = {f"speed/{name}": value for name, value in record.get("speed", {}).items()}
            system = {f"system/{name}": value for name, value in record.get("system", {}).items()}
            for name, value in {**record["metrics"], **speed, **system}.items():
                expected.setdefault(name, []).append((record["epoch"], value))
        of_key = [other for other in here.store.results if other.key == result.key]
        for name, value in (item for other in of_key for item in other.metrics.items()):
            expected.setdefault(name, [(result.history[-1]["epoch"], value)])
        for name, value in result.provenance.get("speed", {}).items():  # from pipelines/train.py
            expected.setdefault(f"speed/{name}", [(result.history[-1]["epoch"], value)])
        if one.info.status != "FINISHED":
            wrong.append(f"{one.info.run_name} is {one.info.status}")
        if (there := here.steps(one)) != expected:
            names = [name for name in there.keys() | expected.keys() if there.get(name) != expected.get(name)]
            wrong.append(f"{one.info.run_name}: {names[0]} is {there.get(names[0])}, not {expected.get(names[0])}")
    return wrong + [f"{one.info.run_name} is {one.info.status}" for one in here.parents() if _unfinished(one)]


def _unfinished(run: Run) -> bool:
    return bool(run.info.status != "FINISHED")


def newest_first(checkpoints: Path) -> list[Path]:
    """Checkpoint folders of a key that have a manifest, newest epoch first."""
    return sorted((manifest.parent for manifest in checkpoints.glob(f"*/{MANIFEST}")), reverse=True)


def history_of(checkpoint: Path) -> list[Any]:
    """The records that a checkpoint covers."""
    return list(json.loads((checkpoint / MANIFEST).read_bytes())["history"])
