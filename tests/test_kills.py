"""Kills and stops a real sweep in every way: the same command must end as if nothing had happened.

Every sweep runs in its own process (tests/sweeping.py) and is compared with an undisturbed sweep.
"""

from __future__ import annotations

import random
import re
import shlex
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sweeps.store.lists import all_lists
from tests.crashes import on_disk
from tests.processes import alive, kill
from tests.sweeping import (
    EPOCHS,
    IMPATIENT,
    ONE_AT_A_TIME,
    SWEEP,
    Ended,
    Place,
    Unbroken,
    copy_of,
    mlflow_differs,
    place,
    unbroken,
)

__all__ = ["unbroken"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

OURS = re.compile(
    r"Weak supervision on digits: |\s*\d+%  \d/\d trials|\[\d/\d\] |Starting Ray|previous run|Preparing |converting "
)
"""Lines that a sweep prints before its table."""


def covered(here: Place) -> int:
    """Epochs of all trials that checkpoints cover."""
    return sum(here.epochs().values())


def assert_as_unbroken(here: Place, unbroken: Unbroken, trials: int = 6) -> None:
    """Asserts that table and MLflow equal the undisturbed sweep's, or equal a given number of its trials."""
    assert here.numbers().items() <= unbroken.place.numbers().items() and len(here.results()) == trials
    assert mlflow_differs(here) == []
    assert len(here.parents()) == 1


def test_an_unbroken_sweep_prints_only_our_own_lines(unbroken: Unbroken) -> None:
    ended = unbroken.ended
    assert ended.code == 0, ended
    assert ended.err == ""
    lines = ended.out.splitlines()
    table = next(number for number, line in enumerate(lines) if line.startswith("digits: test accuracy by"))
    assert [line for line in lines[:table] if not OURS.match(line)] == []
    assert sum(line.startswith("[") for line in lines) == 6
    assert [line.partition(":")[0] for line in lines[-3:]] == ["Report", "Browse", "  then"]


def test_an_unbroken_sweep_is_complete_in_mlflow(unbroken: Unbroken) -> None:
    assert len(unbroken.place.results()) == 6
    assert mlflow_differs(unbroken.place) == []


def test_an_unbroken_sweep_leaves_nothing_in_the_temporary_folder_or_in_the_home_directory(unbroken: Unbroken) -> None:
    assert unbroken.left == []


def test_a_sweep_lists_its_trials_and_a_killed_one_lists_the_same(unbroken: Unbroken, killed: Killed) -> None:
    for here in (unbroken.place, killed.place):
        (found,) = all_lists(here.store).values()
        assert found.sweep == "weak_supervision-digits"
        assert found.keys == here.results().keys()
        assert all(counts == {"accuracy-v1": 1} for counts in found.cells.values())


@dataclass
class Killed:
    """A sweep whose driver was killed several times. Then one of its trial processes was killed."""

    place: Place
    seen: list[dict[str, tuple[int, bytes]]] = field(default_factory=list)
    """Result files after each death of the driver."""
    epochs: list[dict[str, int]] = field(default_factory=list)
    """Epochs that checkpoints covered at each death."""
    ended: Ended | None = None

    def note(self) -> None:
        self.seen.append(self.place.files())
        self.epochs.append(self.place.epochs())


@pytest.fixture(scope="module")
def killed() -> Iterator[Killed]:
    moments = random.Random(20180)
    with place() as here:
        story = Killed(here)
        first, more = moments.randint(3, 15), moments.randint(1, 15)
        for condition, what in (
            ((here.store.folder / "lease.json").exists, "it held the lease"),
            (lambda: covered(here) >= first, f"{first} epochs were done"),
            (lambda: len(here.files()) > len(story.seen[-1]), "a result was written"),
            (lambda: covered(here) >= sum(story.epochs[-1].values()) + more, f"{more} more epochs were done"),
        ):
            driver = here.start(*SWEEP)
            driver.until(condition, what)
            driver.kill()
            story.note()
        last = here.start(*SWEEP)
        before = covered(here)
        last.until(lambda: covered(here) > before and last.trial_processes(), "a trial was on its way")
        victim = last.trial_processes()[0]
        kill(victim)
        story.ended = last.ended()
        yield story


def test_a_killed_trial_process_costs_one_line_and_its_trial_resumes_automatically(killed: Killed) -> None:
    assert killed.ended is not None and killed.ended.code == 0, killed.ended
    assert killed.ended.err == ""
    assert killed.ended.out.count(": process died; resuming from the last checkpoint\n") == 1


def test_a_sweep_killed_at_any_moment_ends_with_the_same_numbers_as_an_unbroken_one(
    killed: Killed, unbroken: Unbroken
) -> None:
    assert killed.ended is not None and killed.ended.code == 0, killed.ended
    assert_as_unbroken(killed.place, unbroken)


def test_a_finished_trial_never_runs_again(killed: Killed) -> None:
    now = killed.place.files()
    assert any(killed.seen)
    for before in killed.seen:
        assert {name: now[name] for name in before} == before


def test_a_half_done_trial_resumes_from_its_last_checkpoint(killed: Killed) -> None:
    results, resumed = killed.place.results(), 0
    for done, files in zip(killed.epochs, killed.seen, strict=True):
        for key, epoch in done.items():
            if not any(name.startswith(key) for name in files) and epoch < results[key].provenance["epochs"]:
                starts = [attempt["from_epoch"] for attempt in results[key].provenance["attempts"]]
                assert max(starts) >= epoch, (key, epoch, starts)
                resumed += 1
    assert resumed


def test_a_command_repeated_right_after_kill_9_takes_over_the_dead_lease_at_once(killed: Killed) -> None:
    for driver in killed.place.drivers[1:]:
        said = driver.log.read_text(encoding="utf-8")
        assert re.search(r"previous run \(process \d+ of .*\) died; taking over", said)
        assert "waiting up to" not in said


def test_killed_sweeps_leave_nothing_behind_once_one_has_finished(killed: Killed) -> None:
    assert killed.place.leftovers() == []
    assert list(on_disk(killed.place.store.folder).rglob("*training.pt")) == []


def test_sigint_stops_cleanly_and_the_printed_command_resumes_the_sweep(unbroken: Unbroken) -> None:
    with place(begun=True) as here:
        driver = here.start(*SWEEP, "--arms", "nn,mvae", *ONE_AT_A_TIME)
        driver.until(lambda: covered(here) >= 2, "its first epochs were done")
        processes = driver.tree()
        stopped = driver.signalled(signal.SIGINT)
        assert_stopped(stopped, "SIGINT", here)
        assert alive(processes) == []
        typed = shlex.split(stopped.out.partition("To resume: ")[2].splitlines()[0])
        ended = here.launch([here.command()[0], *typed[1:]]).ended()
        assert ended.code == 0, ended
        assert_as_unbroken(here, unbroken, trials=4)


def test_while_a_driver_runs_a_second_is_refused_and_sigterm_stops_the_first_cleanly() -> None:
    with place(begun=True) as here:
        first = here.start(
            "--arms", "mvae", "--targets", "own", "--fractions", "1", "--seeds", "0", "--epochs", "100000"
        )
        first.until((here.store.folder / "lease.json").exists, "it held the lease")
        second = here.run("--arms", "nn", "--fractions", "1", "--seeds", "0", "--epochs", "1")
        assert second.code == 2
        assert re.fullmatch(
            r"--name 'main' is in use by process \d+ .* is being renewed.*choose another --name\n", second.err
        )
        first.until(lambda: covered(here) >= 1, "its first epoch was done")
        processes = first.tree()
        assert_stopped(first.signalled(signal.SIGTERM), "SIGTERM", here)
        assert alive(processes) == []
        assert not (here.store.folder / "lease.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_ray_starts_stops_cleanly_too(number: signal.Signals) -> None:
    with place(begun=True) as here:
        driver = here.start("--arms", "nn", "--fractions", "1", "--seeds", "0", "--epochs", "1")
        driver.until(lambda: any(here.temporary.glob("mvae-ray-*")), "Ray's folder was made")
        time.sleep(0.7)
        assert_stopped(driver.signalled(number), number.name, here)


def assert_stopped(stopped: Ended, by: str, here: Place) -> None:
    assert stopped.code == 130, stopped
    assert re.search(rf"Stopped by {by}; finished trials are kept. To resume: \S*python ", stopped.out), stopped
    assert stopped.err == ""
    assert stopped.seconds < 30
    assert here.running() == []
    assert here.leftovers() == []


def test_a_deleted_database_is_rebuilt_from_storage_without_training(unbroken: Unbroken) -> None:
    with copy_of(unbroken.place) as here:
        (here.storage / "mlflow.db").unlink()
        before = here.files()
        ended = here.run(*SWEEP)
        assert ended.code == 0, ended
        assert "6 trials, 6 done" in ended.out
        assert not re.search(r"^\[\d", ended.out, re.MULTILINE)
        assert here.files() == before
        assert_as_unbroken(here, unbroken)


def test_extending_a_grid_runs_only_its_new_cells(unbroken: Unbroken) -> None:
    with copy_of(unbroken.place) as here:
        before = here.files()
        larger = ("--arms", "nn", "--fractions", "0.05,0.2,1", "--seeds", "0-1", "--epochs", str(EPOCHS))
        ended = here.run(*larger, *ONE_AT_A_TIME)
        assert ended.code == 0, ended
        assert "6 trials, 2 done" in ended.out
        assert sum(line.startswith("[") for line in ended.out.splitlines()) == 4
        now = here.files()
        assert {name: now[name] for name in before} == before
        assert len(now) == 6 + 4


def test_resume_requires_an_existing_name_and_fresh_a_new_one(unbroken: Unbroken) -> None:
    with place() as here:
        one = here.start(*SWEEP, "--resume")
        other = here.start(*SWEEP, "--storage", str(unbroken.place.storage), "--fresh")
        nothing, something = one.ended(), other.ended()
    assert (nothing.code, nothing.out) == (2, "")
    assert re.fullmatch(r"nothing to resume: .*; run the command without --resume\n", nothing.err)
    assert (something.code, something.out) == (2, "")
    assert re.fullmatch(r"--fresh: .* already exists; choose a new --name, .*\n", something.err)
    assert not here.storage.exists()


def impatient(command: list[str]) -> list[str]:
    """Adds a shorter wait for MLflow to a command line."""
    return [command[0], "-c", IMPATIENT, *command[1:]]


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Mounts a file system of one megabyte of memory, if mounting is allowed."""
    with place() as here:
        here.storage.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(here.storage)], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
        try:
            yield here.storage
        finally:
            subprocess.run(["umount", "--lazy", str(here.storage)], check=True)  # MLflow keeps databases open


def test_a_full_disk_fails_trials_with_a_clear_message_and_freeing_space_is_enough(
    small_disk: Path, unbroken: Unbroken
) -> None:
    sweep = (*SWEEP, "--arms", "nn", *ONE_AT_A_TIME)
    with place(small_disk) as here:
        failed = here.launch(impatient(here.command(*sweep))).ended()
        assert failed.code == 1, failed
        assert "failed: No space left on device: " in failed.out
        assert failed.err == ""
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        ended = here.run(*sweep)
        assert ended.code == 0, ended
        assert here.numbers().items() <= unbroken.place.numbers().items()
        assert mlflow_differs(here) == []


def test_a_locked_database_never_stops_training_and_is_filled_later(unbroken: Unbroken) -> None:
    sweep = (*SWEEP, "--arms", "nn", *ONE_AT_A_TIME)
    with place() as here:
        here.storage.mkdir()
        with sqlite3.connect(here.storage / "mlflow.db", isolation_level=None) as other:
            other.execute("begin exclusive")
            locked = here.launch(impatient(here.command(*sweep))).ended()
            other.execute("rollback")
        other.close()
        assert locked.code == 0, locked
        assert len(here.results()) == 2
        assert "cannot write to MLflow at" in locked.out
        assert "run the same command again to fill in what is missing" in locked.out
        before = here.files()
        filled = here.run(*sweep)
        assert filled.code == 0, filled
        assert here.files() == before
        assert here.numbers().items() <= unbroken.place.numbers().items()
        assert mlflow_differs(here) == []
