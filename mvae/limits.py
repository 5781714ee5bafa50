"""Finds how many CPU cores and how much memory this process may use, within the limits of its container.

A container with a quota still sees all cores and all memory of its host. The container's limits are in its control
group. Linux shows control groups as files, in one of two layouts:

    version 2   /sys/fs/cgroup/cpu.max, memory.max, memory.current, memory.stat
    version 1   /sys/fs/cgroup/cpu/cpu.cfs_quota_us, cpu.cfs_period_us; /sys/fs/cgroup/memory/memory.limit_in_bytes, ...

Ray reads these files only in the top folder. This module also reads the files of the process's own group and of every
group above. Batch systems set limits in these groups even without a container. If SLURM does not use control groups,
its environment variables still say how many CPUs and how much memory belong to the job.
"""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
"""Control groups of this process, one line `number:controllers:/path` per hierarchy. In version 2 the number is 0 and
no controllers are listed."""
MEMORY = Path("/proc/meminfo")

SLURM_CPUS, SLURM_MEMORY, SLURM_MEMORY_PER_CPU = "SLURM_CPUS_ON_NODE", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"
"""Environment variables of a SLURM job: its CPUs on this machine, and its memory on this machine or per CPU, in MiB. A
memory of 0 means all memory of the machine."""

GPU_DEVICES = ("nvidia*", "nvhost*", "kfd", "dxg")
"""Device files of GPU drivers below /dev: NVIDIA, NVIDIA's embedded boards, AMD, WSL."""


def processors() -> int:
    """Returns the number of the machine's processors, including those that this process may not use."""
    return os.cpu_count() or 1


def cores() -> int:
    """Returns the number of whole CPU cores that this process may use, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([float(allowed), *_cpu_quotas(), _variable(SLURM_CPUS) or math.inf])))


def gpus() -> int:
    """Returns the number of CUDA devices. On Linux without a GPU, returns 0 without importing torch (saves seconds)."""
    if sys.platform == "linux" and not any(map(list, map(Path("/dev").glob, GPU_DEVICES))):
        return 0
    import torch

    return torch.cuda.device_count()


def free_memory() -> float:
    """Returns the bytes of memory that new processes can still allocate; infinity if the system reports no number.

    Call this function before Ray starts. All memory that SLURM grants the job counts as free, because no other process
    of the job runs yet.
    """
    return min([_free_on_the_machine(), *_free_in_groups(), _granted_by_slurm()])


def _cpu_quotas() -> Iterator[float]:
    """Yields the limit of each control group that limits CPU time, as a number of cores."""
    for folder in _folders("cpu"):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota is None:
            first, _, second = _text(folder / "cpu.max").partition(" ")
            quota, period = _parsed(first), _parsed(second)
        if quota is not None and period and quota > 0:
            yield quota / period


def _free_in_groups() -> Iterator[float]:
    """Yields the free bytes of each control group that limits memory. Like Ray, counts the file cache as free.

    Linux slows processes down drastically above `memory.high`. So `memory.high` is treated like the hard limit
    `memory.max`.
    """
    for folder in _folders("memory"):
        for limit, usage, prefix in (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
            ("memory.max", "memory.current", ""),
            ("memory.high", "memory.current", ""),
        ):
            most, used = _number(folder / limit), _number(folder / usage)
            if most is not None and used is not None:
                fields = dict(line.split(maxsplit=1) for line in _text(folder / "memory.stat").splitlines())
                cached = sum(int(fields.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
                yield max(0.0, most - used + cached)


def _granted_by_slurm() -> float:
    """Returns the bytes of memory that SLURM grants this job on this machine; infinity if SLURM sets no limit."""
    per_cpu, cpus = _variable(SLURM_MEMORY_PER_CPU), _variable(SLURM_CPUS)
    mib = _variable(SLURM_MEMORY) or (per_cpu and cpus and per_cpu * cpus)
    return mib * 2**20 if mib else math.inf


def _free_on_the_machine() -> float:
    lines = _text(MEMORY).splitlines()
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)


def _folders(controller: str) -> Iterator[Path]:
    """Yields a controller's control groups as folders, from the top folder down to this process's own group.

    Works with both layouts. In a container, the path of the process's group may be a path on the host. Then only the
    top folder exists, and it holds the container's limits.
    """
    for line in _text(OWN_GROUPS).splitlines() or ["0::/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        folder = GROUPS / controller if controllers else GROUPS
        if not folder.is_dir():  # some systems name the folder after both controllers: cpu,cpuacct
            folder = GROUPS / controllers
        yield folder
        for part in Path(path).parts[1:]:
            folder /= part
            if not folder.is_dir():
                break
            yield folder


def _variable(name: str) -> float | None:
    return _parsed(os.environ.get(name, ""))


def _number(path: Path) -> float | None:
    return _parsed(_text(path))


def _parsed(text: str) -> float | None:
    """Parses a whole number; returns None for anything else, for example "max"."""
    return float(text) if text.lstrip("-").isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
