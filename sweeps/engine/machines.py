"""Describes this machine, and checks that all machines of a cluster share the storage and run the same package."""

import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mvae.limits import cores, free_memory, gpus
from mvae.refusal import Refusal
from sweeps.cli.words import counted
from sweeps.engine.quiet import last_line
from sweeps.planning.demand import PROCESS_BYTES, Capacity, Demand, Gpus, free_for_trials
from sweeps.planning.load import LoadWatch
from sweeps.planning.price import Host
from sweeps.store.provenance import device_name, source_digest, versions
from sweeps.store.store import Mark, Store

ANSWER_SECONDS = 60.0
"""Seconds to wait for the report of a machine. The machine's first process has to import torch."""

PRIVATE = "mvae-suite/private"
"""Label of a private cluster. No other sweep may join such a cluster, because it ends with the sweep that started
it."""


@dataclass(frozen=True)
class MachineReport:
    """Software versions of a machine, and whether the machine sees the storage."""

    host: str
    source: str
    """Digest of the package's source files."""
    versions: dict[str, str]
    why_unseen: str
    """Why the machine cannot read the file that the driver wrote into the storage; empty if it can."""
    memory: float = math.inf
    """Bytes of memory that new processes can still allocate on the machine."""


def address() -> str | None:
    """Returns RAY_ADDRESS, or None if it is unset, empty or "local", which all mean a private cluster."""
    value = os.environ.get("RAY_ADDRESS")
    return None if value in (None, "", "local") else value


def this_host(wanted: Gpus) -> Host:
    """Returns the CPUs, GPUs, memory and device of this machine, for estimates of time and cost.

    Args:
        wanted: value of `--gpus-per-trial`.
    """
    count = gpus()
    kind = "cuda" if count and wanted != 0 else "cpu"
    if address():
        return Host(Capacity(cores(), count), kind, None)
    return Host(Capacity(cores(), count, memory=free_for_trials()), kind, device_name(kind))


def host_now(wanted: Gpus, there: Capacity | None) -> Host:
    """Like `this_host`, but the returned Host also measures the load by other programs when its `load` is called.

    Args:
        there: capacity of the cluster that runs the trials, or None if the cluster has not started. It replaces the
            capacity of this machine.
    """
    here = this_host(wanted)
    if there is not None:
        here = replace(here, capacity=replace(there, final=True))
    return replace(here, load=LoadWatch().load) if here.device is not None else here


def alive() -> list[dict[str, Any]]:
    """Returns Ray's description of each machine that is now in the attached cluster."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def is_private() -> bool:
    """Whether the attached cluster is private."""
    return any(PRIVATE in (node.get("Labels") or {}) for node in alive())


def report_of_this_machine(mark: Mark) -> MachineReport:
    """Returns the report of the machine that this process runs on.

    Args:
        mark: the file that the driver wrote into the storage.
    """
    return MachineReport(platform.node(), source_digest(), versions(), mark.why_unseen(), free_memory())


def look_at_machines(store: Store, needs: Demand, say: Callable[[str], None]) -> None:
    """Asks all machines of the attached cluster for a report, in parallel, and checks the reports.

    Args:
        needs: resources of one trial. They determine how many processes Ray starts on a machine.
        say: gets one line per machine that does not answer, runs other software than the driver, or has too little
            memory.
    Raises:
        Refusal: a machine does not see the storage, or cannot run the package.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError, RuntimeEnvSetupError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = alive()
    ask = ray.remote(num_cpus=0, max_retries=0)(report_of_this_machine)
    reports: list[MachineReport] = []
    too_small: list[str] = []
    with store.mark() as mark:
        pending = [
            ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(mark)
            for node in nodes
        ]
        for node, reference in zip(nodes, pending, strict=True):
            host = node["NodeManagerHostname"]
            try:
                reports.append(ray.get(reference, timeout=ANSWER_SECONDS))
                too_small.append(why_too_small(reports[-1], node["Resources"], needs))
            except GetTimeoutError:
                say(f"{host} did not answer within {ANSWER_SECONDS:g} s; trials that start there repeat the check")
            except (RayTaskError, RuntimeEnvSetupError) as error:
                raise Refusal(
                    f"{host} cannot run this package: {last_line(error)}; install the package there"
                ) from None
            except RayError:
                say(f"{host} was lost during the check")
    for report in reports:
        if report.why_unseen:
            raise Refusal(
                f"--storage {store.root} is not shared: {report.host} does not see what {platform.node()} writes there"
                f" ({report.why_unseen}). Give a folder that every machine mounts, or an object store,"
                " s3://BUCKET/FOLDER"
            )
    for report in reports:
        if differences := _differences(report):
            say(
                f"Warning: {report.host} runs {differences}, so its numbers may differ. To copy this driver's package"
                " there, run ray up --no-restart"
            )
    for line in filter(None, too_small):
        say(line)


def why_too_small(machine: MachineReport, resources: Mapping[str, float], needs: Demand) -> str:
    """Returns a warning if Ray would start more trial processes on a machine than fit into its memory, else "".

    Ray counts CPUs and GPUs, but does not know the memory limits of a batch system.

    Args:
        resources: numbers of CPUs and GPUs that Ray uses on the machine, by the names CPU and GPU.
    """
    starts = int(resources.get("CPU", 0.0))
    if needs.gpus:
        starts = min(starts, int(resources.get("GPU", 0.0) / needs.gpus))
    if starts * PROCESS_BYTES <= machine.memory:
        return ""
    fit = max(1, int(machine.memory / PROCESS_BYTES))
    return (
        f"Warning: {machine.host} may train {counted(starts, 'trial')} at a time, each with about"
        f" {PROCESS_BYTES / 1e9:.1f} GB, but has {machine.memory / 1e9:.1f} GB of free memory. If trials are killed"
        f" there, start Ray there with --num-cpus={fit}"
    )


def _differences(machine: MachineReport) -> str:
    """Returns the packages whose versions on a machine differ from the versions here, or "" if all are equal."""
    ours = versions()
    others = [
        f"{name} {version} ({ours.get(name, 'none')} here)"
        for name, version in machine.versions.items()
        if ours.get(name) != version
    ]
    if machine.source != source_digest():
        others.insert(0, "other source files of mvae-suite than this driver")
    return ", ".join(others)
