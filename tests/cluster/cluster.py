"""A cluster of the lab's machines, made by `cluster/local.yaml`: start it, submit to it, inspect it.

Tests replace only what a person edits in that file: addresses, user, key, and the number of CPUs of a machine. One test
also changes the workers' start command (`change_start`). Sweeps are compared with the same sweep on this box without a
cluster (`alone`), and MLflow is compared with the storage.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from mvae.data import fingerprint
from pipelines import weak_supervision
from sweeps.cli.options import read
from sweeps.main import main
from sweeps.store.store import Store
from sweeps.trials.run import run
from tests.cluster.lab import PATIENCE, PROJECT, Command, Lab, Machine, Said, why_not
from tests.sweeping import Place, digits_job, mlflow_differs, place

FILE = "cluster/local.yaml"
PIPELINE = "pipelines/weak_supervision.py"
STORAGE = "/mnt/mvae"
"""Folder that all machines share, as in the cluster file."""

CPUS = 2
"""Number of trials per worker, regardless of the number of cores of the box."""


needs_lab = pytest.mark.skipif(bool(why_not()), reason=why_not())
asked_for = pytest.mark.skipif("MVAE_LAB" not in os.environ, reason="takes minutes: make lab")


@dataclass
class OnCluster(Place):
    """The cluster's sweeps of one name: a `Place` with the shared storage as the box sees it, and the head's MLflow."""

    name: str = "main"
    database: Path = field(default_factory=Path)

    @property
    def store(self) -> Store:
        return Store.open(self.storage, self.name, create=False)

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.database}"

    def resumed_at(self) -> dict[str, int]:
        """Epoch at which the last attempt resumed, by key of each trial with several attempts."""
        attempts = {key: result.provenance["attempts"] for key, result in self.results().items()}
        return {key: made[-1]["from_epoch"] for key, made in attempts.items() if len(made) > 1}

    def _runs(self) -> list[Run]:
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name(self.name)
        if experiment is None:
            return []
        return list(
            client.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY, max_results=1000)
        )


@dataclass
class Cluster:
    """A Ray cluster on a lab's machines, as `cluster/local.yaml` describes it."""

    lab: Lab

    @property
    def file(self) -> Path:
        """The laptop's copy of the file."""
        return self.lab.laptop.home / PROJECT / FILE

    def configure(self) -> None:
        """Writes this lab's machines into the laptop's copy of the file, as a person would."""
        config = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        config["provider"]["head_ip"] = self.lab.head.address
        config["provider"]["worker_ips"] = [worker.address for worker in self.lab.workers]
        config["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh/cluster_key"}
        assert f"MVAE_STORAGE={STORAGE} " in " ".join(config["head_setup_commands"]), f"{FILE} shares another folder"
        self.file.write_text(yaml.safe_dump(config, sort_keys=False, width=1000), encoding="utf-8")
        self.change_start("ray start ", f"ray start --num-cpus={CPUS} ")

    def change_start(self, before: str, after: str) -> None:
        """Changes the command by which the workers join, in the laptop's copy of the file."""
        config = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        starts = config["worker_start_ray_commands"]
        config["worker_start_ray_commands"] = [command.replace(before, after) for command in starts]
        assert config["worker_start_ray_commands"] != starts, f"{FILE} starts no worker by {before}"
        self.file.write_text(yaml.safe_dump(config, sort_keys=False, width=1000), encoding="utf-8")

    def type(self, command: str, *, fine: bool = True) -> Said:
        """Runs a command in the laptop's clone; prints the command and its duration."""
        said = self.lab.laptop.run(command, PROJECT, fine=fine)
        tell(f"{command}: exit code {said.code}", said.seconds)
        return said

    def up(self, workers: int | None = None) -> None:
        """Runs `ray up`, then waits until every worker, or the given number, has joined."""
        self.type(f"RAY_UP_enable_autoscaler_v2=0 ray up -y {FILE}")
        self.until_joined(len(self.lab.workers) if workers is None else workers)

    def down(self) -> Said:
        return self.type(f"ray down -y {FILE}")

    def joined(self) -> int:
        """Number of workers that Ray counts."""
        cpus = re.search(r"/([\d.]+) CPU", self.lab.head.run("ray status", fine=False).out)
        return int(float(cpus[1])) // CPUS if cpus else 0

    def _raylets(self) -> int:
        """Number of workers that run Ray; cheap, while `ray status` takes seconds of CPU time."""
        return sum(bool(worker.processes("/raylet/raylet ")) for worker in self.lab.workers if worker.init is not None)

    def until_joined(self, workers: int) -> None:
        began = time.monotonic()
        wait(lambda: self._raylets() >= workers and self.joined() == workers, f"{workers} workers have joined", every=1)
        tell(f"{workers} workers have joined", time.monotonic() - began)

    def submit(self, *arguments: str, pipeline: str = PIPELINE) -> Command:
        """Starts `ray submit` on the laptop."""
        return self.lab.laptop.start(f"ray submit {FILE} {pipeline} {' '.join(arguments)}", PROJECT)

    def place(self, name: str) -> OnCluster:
        """Place of the sweeps of a name."""
        database = self.lab.head.home / ".mlflow" / "mlflow.db"
        return OnCluster(self.lab.state, self.lab.shared / "mvae", name=name, database=database)

    def trains(self, machine: Machine) -> bool:
        """Whether a trial is running on a machine; Ray names a process after its task."""
        return bool(machine.processes(r"^ray::ImplicitFunc\.train"))


@contextmanager
def cluster(workers: int = 2) -> Iterator[Cluster]:
    """Yields a running cluster."""
    with Lab(workers) as lab:
        made = Cluster(lab)
        made.configure()
        made.up()
        yield made


def complete(submitted: Command, within: float = PATIENCE) -> Said:
    """Waits for the end of a submitted sweep and asserts that its table is complete."""
    said = submitted.ended(within)
    tell(f"{submitted.typed}: exit code {said.code}\n{said.out}", said.seconds)
    assert said.code == 0, said.out
    return said


@contextmanager
def alone(*arguments: str) -> Iterator[Callable[[], Place]]:
    """Runs the same sweep on this box without a cluster; the yielded function waits for its end.

    The sweep runs in parallel with the block.
    """
    with place() as here:
        driver = here.start(*arguments)

        def ended() -> Place:
            said = driver.ended()
            assert said.code == 0, said
            return here

        yield ended


@contextmanager
def in_one_process(*sweep: str) -> Iterator[tuple[Place, str]]:
    """Runs a sweep's trials one after the other in this process without Ray; yields their report too."""
    with place(begun=True) as here:
        options = read(weak_supervision.Options, (*here.command()[2:], *sweep, "--report"))
        store, mark = Store.open(here.storage, "main", create=True), fingerprint("digits")
        for cell in weak_supervision.cells(options):
            job = digits_job(store, here.cache)
            run(replace(job, key=cell.trial.key(mark), trial=cell.trial, checkpoint_every=3600.0), lambda _: None)
        with redirect_stdout(io.StringIO()) as said:
            assert main(lambda: weak_supervision.sweep(options), options) == 0
        yield here, said.getvalue()


def tell(what: str, seconds: float) -> None:
    """Prints how long something took; pytest shows it with -s and for a failed test."""
    print(f"{seconds:6.1f} s  {what}")


def wait(condition: Callable[[], Any], what: str, *, command: Command | None = None, every: float = 0.1) -> None:
    """Waits for a condition; fails if the command ends first or too much time passes."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        said = "" if command is None else command.out
        assert command is None or command.running(), f"the command ended before {what}: {said}"
        assert time.monotonic() < deadline, f"{PATIENCE:.0f} s passed before {what}: {said}"
        time.sleep(every)


def assert_as_alone(here: OnCluster, undisturbed: Place) -> None:
    """Asserts equal numbers in the table and in every epoch, bit for bit, and one finished MLflow run per key."""
    assert here.numbers() == undisturbed.numbers()
    assert mlflow_differs(here) == []
    assert len(here.parents()) == 1


def assert_two_at_once_as_alone(made: Cluster, sweep: Sequence[str], undisturbed: Place) -> None:
    """Submits a sweep under two names at the same time, and compares both with the undisturbed sweep."""
    both = {name: made.submit(*sweep, "--name", name) for name in ("one", "other")}
    for name, submitted in both.items():
        said = complete(submitted)
        assert table_of(said.out) == table_of(undisturbed.drivers[0].log.read_text(encoding="utf-8"))
        assert_as_alone(made.place(name), undisturbed)


def table_of(said: str) -> list[str]:
    """Lines of the table in a pipeline's output."""
    lines = [line.rstrip() for line in said.splitlines()]
    first = next(number for number, line in enumerate(lines) if line.startswith("digits: test accuracy by"))
    last = next(number for number, line in enumerate(lines) if line.startswith("Report: "))
    return lines[first:last]


def finished_lines(said: str) -> list[str]:
    """Lines that report a finished trial."""
    return re.findall(r"^\[ *\d+/\d+\] .*$", said, re.MULTILINE)


def lost_lines(said: str) -> int:
    """Number of lines that report a lost trial that resumes."""
    return said.count("; resuming from the last checkpoint")
