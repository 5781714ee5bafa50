"""A container's limits on cores and memory, in both versions of Linux control groups."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mvae import limits
from sweeps.engine.machines import this_host

GIB = 2**30
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of a host with 64 cores and 256 GiB, 200 of them free, without control groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for variable in (limits.SLURM_CPUS, limits.SLURM_MEMORY, limits.SLURM_MEMORY_PER_CPU):
        monkeypatch.delenv(variable, raising=False)
    for name, path in (("GROUPS", "cgroup"), ("OWN_GROUPS", "own"), ("MEMORY", "meminfo")):
        monkeypatch.setattr(limits, name, tmp_path / path)
    (tmp_path / "meminfo").write_text(f"MemTotal: {256 * 2**20} kB\nMemAvailable: {200 * 2**20} kB\n", encoding="utf-8")
    return tmp_path


def write(machine: Path, own: str, files: dict[str, str]) -> None:
    (machine / "own").write_text(own, encoding="utf-8")
    for name, text in files.items():
        path = machine / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


SLURM_V2 = "0::/system.slice/slurmstepd.scope/job_7/step_batch/user/task_0\n"
"""The group of a SLURM job's process. SLURM sets limits on job_7, and on its step."""
JOB_V2 = "system.slice/slurmstepd.scope/job_7"
SLURM_V1 = "9:cpuset:/slurm/uid_7/job_7/step_0\n4:memory:/slurm/uid_7/job_7/step_0/task_0\n3:cpu,cpuacct:/slurm/uid_7\n"
JOB_V1 = "memory/slurm/uid_7/job_7"
V1 = "12:cpu,cpuacct:/docker/3f\n5:memory:/docker/3f\n1:name=systemd:/docker/3f\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("", {}, 64),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "damaged\n"}, 64),
        ("0::/a/b\n", {"cpu.max": "800000 100000", "a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, 4),
        ("0::/kubepods/of-the-host\n", {"cpu.max": "300000 100000\n"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        (V1, {"cpu/docker/3f/cpu.cfs_quota_us": "300000\n", "cpu/docker/3f/cpu.cfs_period_us": "100000\n"}, 3),
        (
            SLURM_V2,
            {f"{JOB_V2}/cpu.max": "600000 100000\n", f"{JOB_V2}/step_batch/user/task_0/cpu.max": "max 100000"},
            6,
        ),
        (
            SLURM_V1,
            {
                "cpu,cpuacct/slurm/uid_7/cpu.cfs_quota_us": "500000",
                "cpu,cpuacct/slurm/uid_7/cpu.cfs_period_us": "100000",
            },
            5,
        ),
    ],
)
def test_a_containers_quota_limits_the_number_of_cores(
    machine: Path, own: str, files: dict[str, str], cores: int
) -> None:
    write(machine, own, files)
    assert limits.cores() == cores
    assert this_host(0).capacity.cpus == cores


@pytest.mark.parametrize(
    ("own", "files", "gib"),
    [
        ("", {}, 200),
        ("0::/\n", {"memory.max": "max\n", "memory.current": f"{GIB}\n"}, 200),
        ("0::/\n", {"memory.max": f"{8 * GIB}\n", "memory.current": f"{3 * GIB}\n"}, 5),
        (
            "0::/\n",
            {
                "memory.max": f"{8 * GIB}\n",
                "memory.current": f"{7 * GIB}\n",
                "memory.stat": f"anon 1\nactive_file {GIB}\ninactive_file {2 * GIB}\n",
            },
            4,
        ),
        (
            V1,
            {
                "memory/memory.limit_in_bytes": f"{8 * GIB}\n",
                "memory/memory.usage_in_bytes": f"{7 * GIB}\n",
                "memory/memory.stat": f"active_file 1\ntotal_active_file {GIB}\ntotal_inactive_file {GIB}\n",
            },
            3,
        ),
        (V1, {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n", "memory/memory.usage_in_bytes": "1\n"}, 200),
        ("0::/a\n", {"a/memory.max": f"{4 * GIB}\n", "a/memory.current": f"{6 * GIB}\n"}, 0),
        (
            SLURM_V2,
            {
                f"{JOB_V2}/memory.max": f"{16 * GIB}\n",
                f"{JOB_V2}/memory.high": "max\n",
                f"{JOB_V2}/memory.current": f"{2 * GIB}\n",
                f"{JOB_V2}/step_batch/user/task_0/memory.max": "max\n",
                f"{JOB_V2}/step_batch/user/task_0/memory.current": f"{GIB}\n",
            },
            14,
        ),
        (
            SLURM_V2,
            {
                f"{JOB_V2}/memory.max": f"{16 * GIB}\n",
                f"{JOB_V2}/memory.current": f"{2 * GIB}\n",
                f"{JOB_V2}/step_batch/memory.high": f"{6 * GIB}\n",
                f"{JOB_V2}/step_batch/memory.current": f"{2 * GIB}\n",
            },
            4,
        ),
        (
            SLURM_V1,
            {
                f"{JOB_V1}/memory.limit_in_bytes": f"{12 * GIB}\n",
                f"{JOB_V1}/memory.usage_in_bytes": f"{3 * GIB}\n",
                f"{JOB_V1}/step_0/task_0/memory.limit_in_bytes": f"{2**63 - 4096}\n",
                f"{JOB_V1}/step_0/task_0/memory.usage_in_bytes": f"{GIB}\n",
            },
            9,
        ),
    ],
)
def test_a_containers_limit_reduces_the_free_memory(machine: Path, own: str, files: dict[str, str], gib: float) -> None:
    write(machine, own, files)
    assert limits.free_memory() / GIB == gib


def test_the_cpus_of_a_job_limit_the_number_of_cores_with_and_without_affinity(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert limits.cores() == 6, "without SLURM's affinity plug-in, every process may run on all 64 cores"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {8, 9, 40, 41})
    assert limits.cores() == 4


@pytest.mark.parametrize(
    ("variables", "gib"),
    [
        ({"SLURM_MEM_PER_NODE": "8192"}, 8),
        ({"SLURM_MEM_PER_NODE": "0"}, 200),
        ({"SLURM_MEM_PER_NODE": "999999999"}, 200),
        ({"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "6"}, 12),
        ({"SLURM_MEM_PER_CPU": "2048"}, 200),
    ],
)
def test_the_memory_of_a_job_without_a_control_group_limits_the_free_memory(
    machine: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], gib: float
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert limits.free_memory() / GIB == gib


@pytest.mark.parametrize("floor", ["mvae", "sweeps", "pipelines", "benchmarks"])
def test_no_other_code_counts_cores(floor: str) -> None:
    asks = re.compile(r"cpu_count\(|sched_getaffinity\(|process_cpu_count\(|MemAvailable")
    files = sorted((ROOT / floor).rglob("*.py"))
    assert [path.name for path in files if asks.search(path.read_text(encoding="utf-8"))] == (
        ["limits.py"] if floor == "mvae" else []
    )
