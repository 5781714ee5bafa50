"""Losses in the middle of a sweep on a cluster: each time, the same command gives the undisturbed table.

No finished trial runs again. MLflow has one finished run per key, and no run is still RUNNING.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import (
    Cluster,
    OnCluster,
    alone,
    asked_for,
    assert_as_alone,
    cluster,
    complete,
    finished_lines,
    lost_lines,
    needs_lab,
    table_of,
    tell,
    wait,
)
from tests.cluster.lab import Command, Machine
from tests.sweeping import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400), needs_lab, asked_for]

SWEEP = (
    "--arms",
    "nn,mvae",
    "--targets",
    "own",
    "--fractions",
    "0.05,1",
    "--seeds",
    "0-1",
    "--epochs",
    "100",
    "--checkpoint-every",
    "0",
)
"""Eight trials: four short ones, then four that run at the same time for about a minute."""

DRIVER = r"^python \S*/weak_supervision.py"
TRIALS = "^ray::ImplicitFunc"


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[Place]:
    with alone(*SWEEP) as ended:
        yield ended()


@pytest.fixture
def made(undisturbed: Place) -> Iterator[Cluster]:
    """A new cluster of two workers for each test, because lost machines stay lost."""
    with cluster() as one:
        yield one


class Half:
    """A half-done sweep: four trials are finished, four have begun."""

    def __init__(self, made: Cluster) -> None:
        self.here: OnCluster = made.place("main")
        self.submitted: Command = made.submit(*SWEEP)
        wait(lambda: len(self.here.files()) >= 4, "four trials are finished", command=self.submitted)
        wait(lambda: len(self.here.epochs()) == 8, "four more have begun", command=self.submitted)
        self.victim: Machine = next(worker for worker in made.lab.workers if made.trains(worker))
        self.files = self.here.files()
        self.reached = self.here.epochs()

    def until_noticed(self) -> None:
        """Waits until the driver reports a lost trial."""
        began = time.monotonic()
        wait(lambda: lost_lines(self.submitted.out) > 0, "the loss is noticed", command=self.submitted)
        tell("until the loss was noticed", time.monotonic() - began)

    def assert_untouched(self) -> None:
        """Asserts that finished trials are unchanged and that half-done trials resumed."""
        now = self.here.files()
        assert {name: now[name] for name in self.files} == self.files
        resumed_at = self.here.resumed_at()
        assert resumed_at and all(epoch >= self.reached[key] > 0 for key, epoch in resumed_at.items()), resumed_at


def assert_nothing_lost(half: Half, said: str, undisturbed: Place, *, finishes: int = 8) -> None:
    """Asserts that the table equals the undisturbed table, and that the last command finished `finishes` trials."""
    assert table_of(said) == table_of(undisturbed.drivers[0].log.read_text(encoding="utf-8"))
    assert_as_alone(half.here, undisturbed)
    half.assert_untouched()
    assert len(finished_lines(said)) == finishes


def test_a_killed_raylet_costs_its_trials_only_their_last_epochs(made: Cluster, undisturbed: Place) -> None:
    half = Half(made)
    half.victim.kill(r"^\S*/raylet/raylet ")
    half.until_noticed()
    assert_nothing_lost(half, complete(half.submitted).out, undisturbed)


def test_an_unplugged_worker_is_declared_lost_and_changes_nothing_after_its_cable_is_back(
    made: Cluster, undisturbed: Place
) -> None:
    half = Half(made)
    half.victim.unplug()
    half.until_noticed()
    assert half.victim.processes(TRIALS), "without a network, but alive, and still able to reach the shared folder"
    time.sleep(5)
    half.victim.plug()
    assert_nothing_lost(half, complete(half.submitted).out, undisturbed)
    wait(lambda: not half.victim.processes(TRIALS), "the returned worker has stopped its trials")
    assert_as_alone(half.here, undisturbed)


def test_after_a_killed_driver_the_same_command_resumes(made: Cluster, undisturbed: Place) -> None:
    half = Half(made)
    made.lab.head.kill(DRIVER)
    killed = half.submitted.ended()
    tell("until the command returned", killed.seconds)
    assert killed.code == 1, killed.out
    again = complete(made.submit(*SWEEP))
    assert f"8 trials, {len(half.files)} done" in again.out
    assert_nothing_lost(half, again.out, undisturbed, finishes=8 - len(half.files))


def test_after_a_head_loses_power_booting_it_and_the_same_two_commands_resume(
    made: Cluster, undisturbed: Place
) -> None:
    half = Half(made)
    began = time.monotonic()
    made.lab.head.cut_power()
    lost = half.submitted.ended()
    tell("until the command returned", time.monotonic() - began)
    assert lost.code == 1, lost.out
    made.lab.head.boot()
    made.up()
    again = complete(made.submit(*SWEEP))
    assert_nothing_lost(half, again.out, undisturbed, finishes=8 - len(half.files))
