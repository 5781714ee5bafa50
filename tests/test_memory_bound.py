"""Concurrent trials fit the memory of the machine or of its container, and the plan says so."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray

from pipelines import search, weak_supervision
from sweeps import engine
from sweeps.cli.options import CommonOptions, read
from sweeps.engine import Capacity, Demand, attach, memory_bound, trials_at_once
from sweeps.engine.machines import this_host
from sweeps.main import main
from sweeps.planning.demand import DRIVER_BYTES, PROCESS_BYTES
from sweeps.planning.estimate import Estimate
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
    estimate = Estimate({(1, None): (3600.0,) * 8}, 0, ())
    hours, bound = costs(estimate, this_host(0), CommonOptions(plan=True))
    assert hours == "about 4 machine-hours (4 h 00 min on one machine like this: 64 CPUs, 2 trials at a time)"
    assert bound.startswith("2 trials at a time: 3.3 GB of memory is free for trials")
    typed = CommonOptions(plan=True, max_concurrent=4)
    hours, bound = costs(estimate, this_host(0), typed)
    assert hours.endswith("64 CPUs, 4 trials at a time)")
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


def test_the_memory_limit_uses_the_gigabytes_stated_in_the_readme() -> None:
    with (ROOT / "docs" / "results" / "noted.csv").open(encoding="utf-8") as file:
        noted = {row[0]: row[1] for row in csv.reader(file)}
    assert (float(noted["memory.trial"]) * 1e9, float(noted["memory.driver"]) * 1e9) == (PROCESS_BYTES, DRIVER_BYTES)
