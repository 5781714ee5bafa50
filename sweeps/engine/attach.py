"""The cluster that a driver works on: the one that RAY_ADDRESS names, else a private one on this machine."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from mvae.limits import cores, free_memory, gpus
from mvae.refusal import Refusal
from mvae.storage.clock import CLOCK, Clock
from sweeps.engine.machines import address, alive, look_at_machines
from sweeps.engine.private import FOLDER, bare, hushed, own_signal_handlers
from sweeps.engine.quiet import SILENCE, environment, shut_down, without_hangups
from sweeps.engine.watch import watched
from sweeps.planning.demand import ON_THE_HEAD, Capacity, Demand, Gpus, check_fits, demand, free_for_trials
from sweeps.store.scratch import remove_folders_of_the_dead, scratch

if TYPE_CHECKING:
    from sweeps.store.store import Store

STARTS = 3
"""Times that a private cluster is tried to start: a machine that is busy with other things may be too slow once."""

REACH_SECONDS = 5.0
"""How long the address of a cluster may take to answer."""

LOOK_EVERY = 2.0
"""Seconds between two looks at a cluster whose machines are awaited."""

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster's configuration on the head."""

PRIVATE = {"mvae-suite/private": "true"}
"""Label of the machine of a private cluster: no other sweep may join it, because it ends with its own."""


@contextmanager
def cluster(lost: Callable[[str], None] = lambda _: None) -> Iterator[Capacity]:
    """Attaches to the cluster that RAY_ADDRESS names, else starts a private one on this machine for this block.

    Args:
        lost: called in a thread of its own if the cluster's head is lost; Ray's calls may not return after that.
    Raises:
        Refusal: RAY_ADDRESS leads to the private cluster of another sweep.
    """
    import ray

    at, memory = address(), free_for_trials()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    with ExitStack() as stack:
        stack.enter_context(environment(SILENCE))
        stack.enter_context(hushed())
        if at:
            with own_signal_handlers():
                ray.init(address=at, **quiet)
        else:
            stack.callback(remove_folders_of_the_dead)  # processes of theirs may have written there until now
            folder = stack.enter_context(scratch("ray"))
            with environment({"RAY_AUTH_MODE": "disabled"}), bare(), own_signal_handlers(), without_hangups():
                _start(
                    address="local",
                    num_cpus=cores(),
                    include_dashboard=False,
                    object_store_memory=100 * 2**20,
                    labels=PRIVATE,
                    **{FOLDER: str(folder)},
                    **quiet,
                )
        try:
            if at:
                check_joinable(at, alive())
            with watched(lost):
                yield capacity() if at else replace(there(), final=True, memory=memory)
        finally:
            shut_down()


def check_joinable(at: str, machines: Sequence[dict[str, Any]]) -> None:
    """Refuses the private cluster of another sweep: RAY_ADDRESS=auto finds it too.

    Args:
        at: RAY_ADDRESS.
        machines: what Ray says of each machine of the cluster there.
    Raises:
        Refusal: one line.
    """
    if any(PRIVATE.items() <= (machine.get("Labels") or {}).items() for machine in machines):
        raise Refusal(
            f"RAY_ADDRESS {at}: the cluster there is private to another sweep and ends with it: unset RAY_ADDRESS to"
            " run on this machine alone, or start a cluster (ray start --head) and give its HOST:PORT"
        )


def _start(**options: Any) -> None:
    """`ray.init`, again where its processes did not come up within the 30 s that Ray gives them.

    Raises:
        OSError: they never did.
    """
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            ray.init(**options)
            return
        except Exception as error:
            ray.shutdown()
            if attempt == STARTS:
                said = " ".join(str(error).split())
                raise OSError(f"Ray does not start on this machine, {STARTS} times tried: {said}") from error


def there() -> Capacity:
    """What the machines of the attached cluster have at this moment."""
    import ray

    held: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Capacity(held.get("CPU", 0.0), held.get("GPU", 0.0), final=False)


def capacity() -> Capacity:
    """What the attached cluster has at most: as its configuration says where it can grow, else what is there."""
    at_most = most(there(), len(_alive()), BOOTSTRAP.expanduser())
    return replace(at_most, together=_free_memory() / ON_THE_HEAD)


def _free_memory() -> float:
    """Bytes that new processes of this machine can still get, by its limits and by what Ray found at its start."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    held = next((node["Resources"].get("memory", math.inf) for node in alive() if node["NodeID"] == here), math.inf)
    return min(float(held), free_memory())


def _alive() -> list[str]:
    """Addresses of the attached cluster's machines."""
    return [node["NodeManagerAddress"] for node in alive()]


def most(now: Capacity, machines: int, configuration: Path) -> Capacity:
    """What a cluster has at most, by the configuration that `ray up` left on its head.

    Args:
        now: what is there. machines: how many, with the head.
        configuration: the file; without one nothing more is known than what is there.
    """
    import yaml

    try:
        read = yaml.safe_load(configuration.read_text(encoding="utf-8"))
        kinds = read["available_node_types"]
        workers = {name: int(kind.get("max_workers", read["max_workers"])) for name, kind in kinds.items()}
        workers[read["head_node_type"]] = 1
        resources = {name: dict(kind.get("resources") or {}) for name, kind in kinds.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        return now
    if machines > int(read["max_workers"]):
        return Capacity(now.cpus, now.gpus)
    if not all("CPU" in held for name, held in resources.items() if workers[name]):
        return now
    cpus, gpus = (
        sum(count * float(resources[name].get(kind, 0)) for name, count in workers.items()) for kind in ("CPU", "GPU")
    )
    return Capacity(max(cpus, now.cpus), max(gpus, now.gpus))


def check(
    trials: Sequence[tuple[int, int | None]],
    wanted: Gpus,
    store: Store,
    *,
    wait_minutes: float,
    say: Callable[[str], None],
) -> None:
    """Refuses what cannot run, before anything starts: too many workers or GPUs, a cluster that is not there, storage
    that its machines do not share. Waits for the machines of a cluster that grows.

    Without RAY_ADDRESS this machine is looked at, and no cluster is started.

    Args:
        trials: workers and fewest workers of each.
        wanted: GPUs of a trial.
        wait_minutes: how long machines that do not exist yet are waited for.
        say: gets a line on what is waited for, on what is there, and on each machine whose package differs.
    Raises:
        Refusal: one line.
    """
    shapes = list(dict.fromkeys(trials))
    at = address()
    if not at:
        here = Capacity(cores(), gpus())
        for workers, fewest in shapes:
            check_fits(demand(workers, fewest, wanted, here), wanted, here, "here")
        return
    with _reached(at) as at_most:
        needs = [demand(workers, fewest, wanted, at_most) for workers, fewest in shapes]
        for need in needs:
            if at_most.final:
                check_fits(need, wanted, at_most, "at most in this cluster")
        largest = max(needs, key=lambda need: (need.least, need.gpus))
        _wait_for(largest, wanted, wait_minutes, say)
        look_at_machines(store, say)


@contextmanager
def _reached(at: str) -> Iterator[Capacity]:
    """As `cluster`, where it cannot be attached to a Refusal."""
    if at.startswith("ray://"):
        raise Refusal(
            f"RAY_ADDRESS {at}: a sweep is not driven through Ray Client; run it on the cluster's head (ray submit,"
            " ray job submit), or give HOST:6379 from one of its machines"
        )
    with ExitStack() as stack:
        try:
            host, colon, port = at.rpartition(":")
            if colon and port.isdigit():  # Ray itself would try for two minutes; all other forms it answers at once
                socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
            at_most = stack.enter_context(cluster())
        except Refusal:
            raise
        except (Exception, SystemExit) as error:
            why = _unusable(" ".join(str(error).split()) or type(error).__name__)
            raise Refusal(f"RAY_ADDRESS {at}: {why}") from None
        yield at_most


def _unusable(said: str) -> str:
    lower = said.lower()
    if "authenticat" in lower and "token" in lower:
        return (
            "the cluster wants an authentication token that this machine does not have or that differs: put the"
            " cluster's token into ~/.ray/auth_token, or set RAY_AUTH_TOKEN"
        )
    if "version mismatch" in lower:
        return f"this machine runs another Ray or Python than the cluster: install what it runs ({said})"
    return (
        f"no Ray cluster can be used there ({said}): start it, correct the address,"
        " or unset RAY_ADDRESS to run on this machine alone"
    )


def _wait_for(needs: Demand, wanted: Gpus, minutes: float, say: Callable[[str], None], clock: Clock = CLOCK) -> None:
    """Waits until one such trial can start; asks the cluster to grow meanwhile.

    Raises:
        Refusal: it cannot after so many minutes.
    """
    from ray.autoscaler.sdk import request_resources

    until = clock.monotonic() + 60 * minutes
    asked = False
    try:
        while not needs.fits(there()):
            if clock.monotonic() >= until:
                _check_after(minutes, needs, wanted)
                break
            # a cluster keeps one request, whoever makes the last
            request_resources(bundles=[needs.of_each] * needs.least)
            if not asked:
                asked = True
                say(f"Waiting for machines, {minutes:g} minutes at most: {_has()}, a trial takes {_takes(needs)}")
            clock.wait(Event(), LOOK_EVERY)
    finally:
        if asked:
            request_resources(bundles=[])
    say(f"Cluster: {_has()}")
    if line := missing(_alive(), BOOTSTRAP.expanduser()):
        say(line)


def missing(alive: Sequence[str], configuration: Path) -> str:
    """A line on workers that the cluster is to have at all times and has not; empty where there are none.

    Args:
        alive: addresses of its machines, the head's too.
        configuration: what `ray up` left on the head.
    """
    import yaml

    try:
        read = yaml.safe_load(configuration.read_text(encoding="utf-8"))
        named = [str(address) for address in read["provider"].get("worker_ips") or ()]
        kinds = {name: kind for name, kind in read["available_node_types"].items() if name != read["head_node_type"]}
        wanted = len(named) or sum(int(kind.get("min_workers") or 0) for kind in kinds.values())
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        return ""
    absent = wanted - (len(alive) - 1)
    if absent <= 0:
        return ""
    recognised = set(named) & set(alive) or absent >= wanted  # else the file names them otherwise than Ray knows them
    which = ", ".join(sorted(set(named) - set(alive))) if recognised else ""
    return (
        f"{absent} of {wanted} workers {'has' if absent == 1 else 'have'} not joined{f' ({which})' * bool(which)}: the"
        " sweep uses them when they do. One that stays away may run another Ray or Python, or lack the token: ray exec"
        " CLUSTER.yaml 'ray status' and /tmp/ray/session_latest/logs/monitor.out on the head say why"
    )


def _check_after(minutes: float, needs: Demand, wanted: Gpus) -> None:
    now = there()
    after = f"after {minutes:g} minutes of waiting (--wait-for-nodes)"
    check_fits(needs, wanted, now, f"in this cluster {after}")
    if not needs.fits(now):
        why = missing(_alive(), BOOTSTRAP.expanduser()) or "start machines (ray status says what fails)"
        raise Refusal(f"{_has()} {after}, a trial takes {_takes(needs)}: {why}")


def _has() -> str:
    machines, now = len(_alive()), there()
    return f"{machines} machine{'s' * (machines != 1)} with {now.cpus:g} CPUs and {now.gpus:g} GPUs"


def _takes(needs: Demand) -> str:
    gpus = f" and {needs.least * needs.gpus:g} GPUs" if needs.gpus else ""
    return f"{needs.least} CPU{'s' * (needs.least != 1)}{gpus}"
