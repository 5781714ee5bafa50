"""The machine that the command runs on, and those of a cluster: do they share its storage, do they run its package."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mvae.limits import cores, gpus
from mvae.refusal import Refusal
from sweeps.engine.quiet import last_line
from sweeps.planning.demand import Capacity, Gpus, free_for_trials
from sweeps.planning.price import Host
from sweeps.store.provenance import device_name, source_digest, versions

if TYPE_CHECKING:
    from sweeps.store.store import Mark, Store

ANSWER_SECONDS = 60.0
"""How long a machine may take to answer; its first process imports torch."""


@dataclass(frozen=True)
class MachineReport:
    """What a machine says of itself."""

    host: str
    source: str
    """Digest of the package's source files."""
    versions: dict[str, str]
    why_unseen: str
    """Why it cannot read what the driver wrote in the storage; empty if it can."""


def address() -> str | None:
    """RAY_ADDRESS; None where a private cluster is to be started, for which Ray has a word too."""
    named = os.environ.get("RAY_ADDRESS")
    return None if named in (None, "", "local") else named


def this_host(wanted: Gpus) -> Host:
    """The machine that this process runs on, as plans price it.

    Args:
        wanted: GPUs of a trial, as asked for.
    """
    there = gpus()
    kind = "cuda" if there and wanted != 0 else "cpu"
    if address():
        return Host(Capacity(cores(), there), kind, None)
    return Host(Capacity(cores(), there, memory=free_for_trials()), kind, device_name(kind))


def alive() -> list[dict[str, Any]]:
    """What Ray says of each machine of the attached cluster that is there now."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def report_of_this_machine(mark: Mark) -> MachineReport:
    """What this machine says, asked for in a process on it."""
    return MachineReport(platform.node(), source_digest(), versions(), mark.why_unseen())


def look_at_machines(store: Store, say: Callable[[str], None]) -> None:
    """Asks every machine of the attached cluster, at once.

    Args:
        say: gets one line a machine that runs something else than the driver.
    Raises:
        Refusal: one line: a machine does not see the storage, or cannot run the package.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError, RuntimeEnvSetupError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = alive()
    ask = ray.remote(num_cpus=0, max_retries=0)(report_of_this_machine)
    answers: list[MachineReport] = []
    with store.mark() as mark:
        asked = [
            ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(mark)
            for node in nodes
        ]
        for node, asked_for in zip(nodes, asked, strict=True):
            host = node["NodeManagerHostname"]
            try:
                answers.append(ray.get(asked_for, timeout=ANSWER_SECONDS))
            except GetTimeoutError:
                say(f"{host} does not answer within {ANSWER_SECONDS:g} s; trials that start there check for themselves")
            except (RayTaskError, RuntimeEnvSetupError) as error:
                raise Refusal(f"{host} cannot run this package: {last_line(error)}; install it there") from None
            except RayError:
                say(f"{host} was lost while it was looked at")
    unseeing = [answer for answer in answers if answer.why_unseen]
    if unseeing:
        raise Refusal(
            f"--storage {store.root} is not shared: {unseeing[0].host} does not see what {platform.node()} writes there"
            f" ({unseeing[0].why_unseen}); give a folder that every machine mounts, or an object store, s3://BUCKET/FOLDER"
        )
    for answer in answers:
        if differing := _differs(answer):
            say(
                f"Warning: {answer.host} runs {differing}: its numbers may differ. To bring this driver's along:"
                " ray up --no-restart"
            )


def _differs(machine: MachineReport) -> str:
    """What a machine runs that this one does not; empty where they run the same."""
    ours = versions()
    others = [
        f"{name} {version} ({ours.get(name, 'none')} here)"
        for name, version in machine.versions.items()
        if ours.get(name) != version
    ]
    if machine.source != source_digest():
        others.insert(0, "other source files of mvae-suite than this driver")
    return ", ".join(others)
