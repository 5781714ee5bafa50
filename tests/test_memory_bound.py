"""Concurrent trials fit the memory of the machine or of its container, and the plan says so."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from pipelines import search, weak_supervision
from sweeps import engine
from sweeps.cli.options import CommonOptions, read
from sweeps.engine import Capacity, Demand, attach, memory_bound, trials_at_once
from sweeps.engine.machines import MachineReport, this_host, why_too_small
from sweeps.main import main
from sweeps.planning.demand import DRIVER_BYTES, ON_THE_HEAD, PROCESS_BYTES
from sweeps.planning.estimate import Estimate, TrialTime
from sweeps.planning.price import costs
from tests.test_limits import GIB, ROOT, V1, machine, write
from tests.test_sweep import Heard, tracked

__all__ = ["machine", "tracked"]

SMALL = Capacity(64, 0, memory=3e9)
BOUND = "2 trials at a time: 3.0 GB of memory is free for trials, and a trial takes about 1.3 GB."


@pytest.fixture(params=["version 1", "version 2"])
def container(machine: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container of 4 GiB on a host with 64 cores and 256 GiB, without Ray."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if request.param == "version 1":
        files = {"memory/memory.limit_in_bytes": str(4 * GIB), "memory/memory.usage_in_bytes": "0"}
        write(machine, V1, files)
    else:
        write(machine, "0::/\n", {"memory.max": str(4 * GIB), "memory.current": "0"})


@pytest.mark.usefixtures("container")
def test_a_private_cluster_in_a_small_container_starts_as_many_trials_as_memory_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", lambda **options: started.update(options))
    monkeypatch.setattr(attach, "current_capacity", lambda: Capacity(started["num_cpus"], 0, final=False))
    monkeypatch.setattr(attach, "watched", nullcontext)
    monkeypatch.setattr(attach, "shut_down", lambda: None)
    with attach.cluster() as capacity:
        assert (capacity.cpus, capacity.final) == (64, True)
        assert trials_at_once(capacity, Demand(), None) == 2
        assert trials_at_once(capacity, Demand(2), None) == 1


@pytest.mark.usefixtures("container")
def test_a_plan_says_if_memory_limits_the_concurrent_trials() -> None:
    estimate = Estimate({(1, None): (TrialTime(3600.0),) * 8}, 0, ())
    hours, bound = costs(estimate, this_host(0), CommonOptions(plan=True))
    assert "for 8 trials on one machine like this (64 CPUs, 2 trials at a time)" in hours
    assert bound.startswith("2 trials at a time: 3.3 GB of memory is free for trials")
    typed = CommonOptions(plan=True, max_concurrent=4)
    hours, bound = costs(estimate, this_host(0), typed)
    assert "(64 CPUs, 4 trials at a time)" in hours
    assert bound.startswith("--max-concurrent 4 is more than memory holds (2 trials at a time): 3.3 GB")


@pytest.mark.parametrize(
    ("there", "needs", "most", "expected"),
    [
        (SMALL, Demand(), None, 2),
        (SMALL, Demand(), 1, 1),
        (SMALL, Demand(), 5, 5),
        (Capacity(3, 0, memory=3e9), Demand(), 5, 3),
        (Capacity(64, 0, memory=0.0), Demand(), None, 1),
        (Capacity(64, 0, memory=8.1e9), Demand(2), None, 2),
        (Capacity(64, 0, memory=8.1e9), Demand(4, fewest=1), None, 1),
        (Capacity(16, 1, memory=3e9), Demand(1, 0.25), None, 2),
    ],
)
def test_memory_limits_concurrent_trials_unless_the_user_sets_their_number(
    there: Capacity, needs: Demand, most: int | None, expected: int
) -> None:
    assert trials_at_once(there, needs, most) == expected


def test_the_line_about_memory_appears_only_if_memory_is_the_limit() -> None:
    assert memory_bound(SMALL, Demand(), None, 3) == f"{BOUND} To run more, set --max-concurrent"
    assert memory_bound(SMALL, Demand(), None, 2) == "", "there are no more trials"
    assert memory_bound(SMALL, Demand(), 2, 9) == ""
    assert memory_bound(SMALL, Demand(), 3, 9).startswith("--max-concurrent 3 is more than memory holds (2 trials at")
    assert memory_bound(Capacity(2, 0, memory=3e9), Demand(), None, 9) == "", (
        "memory is no limit: there are no more CPUs"
    )
    assert memory_bound(Capacity(2, 0, final=False), Demand(), None, 9) == "", "the memory of a cluster is unknown"


@pytest.mark.parametrize(("more", "at_once"), [((), 2), (("--max-concurrent", "3"), 3)])
@pytest.mark.parametrize("pipeline", [search, weak_supervision])
def test_every_run_respects_the_memory_limit_and_says_so_in_one_line(
    pipeline: Any,
    more: tuple[str, ...],
    at_once: int,
    storage: Path,
    cache: Path,
    tracked: list[Heard],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran = list[int]()

    @contextmanager
    def here(*_: object) -> Iterator[Capacity]:
        yield SMALL

    def run(*_: object, max_concurrent: int, **__: object) -> None:
        ran.append(max_concurrent)

    monkeypatch.setattr(engine, "cluster", here)
    monkeypatch.setattr(engine, "run_jobs", run)
    monkeypatch.setattr(engine, "run_search", run)
    own = ("--trials", "5") if pipeline is search else ("--arms", "mvae", "--fractions", "0.5", "--seeds", "0-4")
    options = read(pipeline.Options, ["--storage", str(storage), "--cache", str(cache), *own, *more])
    make: Callable[[Any], Any] = pipeline.sweep
    main(lambda: make(options), options)
    assert ran == [at_once]
    said = [line for line in capsys.readouterr().out.splitlines() if "GB of memory" in line]
    assert len(said) == 1
    assert said[0].startswith(f"--max-concurrent {at_once} is more" if more else BOUND)


def test_a_head_that_trains_holds_the_workers_too() -> None:
    head = Capacity(64, 0, together=6.0, head_trains=True)
    bytes_free = 6.0 * ON_THE_HEAD
    assert trials_at_once(head, Demand(2), None) == int(bytes_free / (ON_THE_HEAD + 2 * PROCESS_BYTES)) == 2
    assert trials_at_once(replace(head, head_trains=False), Demand(2), None) == 6


@pytest.mark.parametrize(("cpus", "counts_workers"), [(0.0, False), (2.0, True)])
def test_the_driver_and_the_workers_of_a_head_that_trains_are_counted_on_a_joined_cluster(
    cpus: float, counts_workers: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Context:
        def get_node_id(self) -> str:
            return "head"

    machines = [
        {"NodeID": "head", "NodeManagerAddress": "10.0.0.1", "Resources": {"CPU": cpus, "memory": 9e9}},
        {"NodeID": "worker", "NodeManagerAddress": "10.0.0.2", "Resources": {"CPU": 64.0, "memory": 1e9}},
    ]
    monkeypatch.setattr(ray, "get_runtime_context", Context)
    monkeypatch.setattr(attach, "alive", lambda: machines)
    monkeypatch.setattr(attach, "current_capacity", lambda: Capacity(64 + cpus, 0, final=False))
    monkeypatch.setattr(attach, "BOOTSTRAP", tmp_path / "missing.yaml")
    by_ray, by_limits = attach.capacity(20e9), attach.capacity(4e9)
    assert by_ray.together == (9e9 - DRIVER_BYTES) / ON_THE_HEAD
    assert by_limits.together == 4e9 / ON_THE_HEAD
    assert by_ray.head_trains is by_limits.head_trains is counts_workers


def test_a_machine_whose_memory_is_too_small_for_its_cpus_is_named_before_anything_starts() -> None:
    report = MachineReport("node-7", "", {}, "", memory=4e9)
    assert why_too_small(report, {"CPU": 8.0}, Demand()) == (
        "Warning: node-7 may train 8 trials at a time, each with about 1.3 GB, but has 4.0 GB of free memory. If trials"
        " are killed there, start Ray there with --num-cpus=3"
    )
    assert not why_too_small(report, {"CPU": 3.0}, Demand())
    assert not why_too_small(report, {"CPU": 0.0}, Demand()), "a head that does not train"
    assert not why_too_small(report, {"CPU": 8.0, "GPU": 1.0}, Demand(1, 0.5)), "the GPU has room for two"
    assert not why_too_small(replace(report, memory=math.inf), {"CPU": 8.0}, Demand())


def test_the_memory_limit_uses_the_gigabytes_stated_in_the_readme() -> None:
    with (ROOT / "docs" / "results" / "noted.csv").open(encoding="utf-8") as file:
        noted = {row[0]: row[1] for row in csv.reader(file)}
    assert (float(noted["memory.trial"]) * 1e9, float(noted["memory.driver"]) * 1e9) == (PROCESS_BYTES, DRIVER_BYTES)
