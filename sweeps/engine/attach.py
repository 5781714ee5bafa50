"""Joins the cluster that RAY_ADDRESS names, or starts a private cluster on this machine."""

import logging
import math
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

from mvae.limits import cores, gpus
from mvae.refusal import Refusal
from mvae.storage.clock import CLOCK, Clock
from sweeps.engine.machines import PRIVATE, address, alive, look_at_machines
from sweeps.engine.private import FOLDER, bare, guarded, hidden, hushed, labelled, own_signal_handlers, read_token
from sweeps.engine.quiet import SILENCE, environment, shut_down, without_hangups
from sweeps.engine.watch import watched
from sweeps.planning.demand import (
    DRIVER_BYTES,
    ON_THE_HEAD,
    Capacity,
    Demand,
    Gpus,
    check_fits,
    demand,
    free_for_trials,
)
from sweeps.store.scratch import SESSIONS, remove_folders_of_the_dead, scratch
from sweeps.store.store import Store

STARTS = 3
"""Maximum number of attempts to start a private cluster. On a busy machine the first attempt may take too long."""

STARTING = "Starting Ray on this machine, which usually takes 5 to 20 s"

REACH_SECONDS = 5.0
"""Seconds to wait for a connection to the cluster's address."""

LOOK_EVERY = 2.0
"""Seconds between checks whether the cluster has grown."""

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Path at which `ray up` writes the cluster's configuration on the head."""

OF_ANOTHER = (
    "private to another sweep and ends with that sweep. Unset RAY_ADDRESS to run on this machine only, or start a"
    " cluster (ray start --head) and give its HOST:PORT"
)


@contextmanager
def cluster(
    lost: Callable[[str], None] = lambda _: None, say: Callable[[str], None] = lambda _: None
) -> Iterator[Capacity]:
    """Attaches to the cluster that RAY_ADDRESS names, or starts a private cluster that ends with the block.

    Args:
        lost: called from a background thread if the cluster's head is lost. After that, calls to Ray may never return.
        say: gets a progress line before a private cluster is started.
    Raises:
        Refusal: RAY_ADDRESS is the address of another sweep's private cluster.
        OSError: Ray does not start on this machine.
    """
    at, memory = address(), free_for_trials()
    if not at:
        say(STARTING)
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    with ExitStack() as stack:
        stack.enter_context(environment(SILENCE))
        stack.enter_context(hushed())
        if at:
            check_joinable(at)
            read_token()
            with own_signal_handlers(), hidden(PRIVATE):
                ray.init(address=at, **quiet)
        else:
            stack.callback(remove_folders_of_the_dead)  # the folders' processes may have written until now
            folder = stack.enter_context(scratch("ray"))
            stack.enter_context(guarded(folder))
            with bare(), own_signal_handlers(), without_hangups():
                _start(
                    address="local",
                    num_cpus=cores(),
                    include_dashboard=False,
                    object_store_memory=100 * 2**20,
                    labels={PRIVATE: "true"},
                    **{FOLDER: str(folder / SESSIONS)},
                    **quiet,
                )
        try:
            with watched(lost):
                yield capacity(memory) if at else replace(current_capacity(), final=True, memory=memory)
        finally:
            shut_down()


def check_joinable(at: str) -> None:
    """Refuses the address of a private cluster on this machine.

    Args:
        at: RAY_ADDRESS.
    Raises:
        Refusal: the cluster is private.
    """
    if at.replace("localhost", "127.0.0.1") in labelled(PRIVATE):
        raise Refusal(f"RAY_ADDRESS {at}: this cluster is {OF_ANOTHER}")


def _start(**options: Any) -> None:
    """Calls `ray.init`. Retries if the call fails, for example because Ray's processes do not start within 30 s.

    Raises:
        OSError: every attempt failed.
    """
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            ray.init(**options)
            return
        except Exception as error:
            ray.shutdown()
            if attempt == STARTS:
                why = " ".join(str(error).split())
                raise OSError(f"Ray failed to start on this machine ({STARTS} attempts): {why}") from error


def current_capacity() -> Capacity:
    """Returns the CPUs and GPUs that the attached cluster has at this moment."""
    import ray

    held: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Capacity(held.get("CPU", 0.0), held.get("GPU", 0.0), final=False)


def capacity(memory: float) -> Capacity:
    """Returns the capacity that the attached cluster can grow to, with the fields `together` and `head_trains` set.

    The head's free memory limits `together`, the number of multi-worker trials. The free memory is `memory`, or the
    memory that Ray lists for this machine minus DRIVER_BYTES, whichever is smaller.

    Args:
        memory: bytes free for trials on this machine before this process used Ray.
    """
    import ray

    here = ray.get_runtime_context().get_node_id()
    head: dict[str, float] = next((node["Resources"] for node in alive() if node["NodeID"] == here), {})
    free = max(0.0, min(head.get("memory", math.inf) - DRIVER_BYTES, memory))
    at_most = largest_capacity(current_capacity(), len(_addresses()), BOOTSTRAP.expanduser())
    return replace(at_most, together=free / ON_THE_HEAD, head_trains=head.get("CPU", 0.0) > 0)


def _addresses() -> list[str]:
    return [node["NodeManagerAddress"] for node in alive()]


def largest_capacity(now: Capacity, machines: int, configuration: Path) -> Capacity:
    """Returns the CPUs and GPUs that a cluster can grow to, according to the configuration file on its head.

    Args:
        now: current capacity of the cluster.
        machines: current number of machines, including the head.
        configuration: file written by `ray up`. If it cannot be read, the current capacity is returned.
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
    """Refuses trials that cannot run, before anything starts. Waits until a growing cluster has enough machines.

    Without RAY_ADDRESS, only the CPUs and GPUs of this machine are checked, and no cluster is started.

    Args:
        trials: for each trial, the number of workers, and the minimum number if the trial is elastic (else None).
        wanted: GPUs per trial.
        wait_minutes: longest time to wait for machines that do not exist yet.
        say: gets a line when waiting begins, a line about the cluster, and a line for each machine with another version
            of this package.
    Raises:
        Refusal: a trial wants too many workers or GPUs, the cluster cannot be reached, or its machines do not share
            the storage.
    """
    shapes = list(dict.fromkeys(trials))
    at = address()
    if not at:
        here = Capacity(cores(), gpus())
        for workers, fewest in shapes:
            check_fits(demand(workers, fewest, wanted, here), wanted, here, "here")
        return
    with _joined_or_refused(at) as at_most:
        needs = [demand(workers, fewest, wanted, at_most) for workers, fewest in shapes]
        for need in needs:
            if at_most.final:
                check_fits(need, wanted, at_most, "in this cluster at its full size")
        largest = max(needs, key=lambda need: (need.least, need.gpus))
        _wait_for(largest, wanted, wait_minutes, say)
        look_at_machines(store, largest, say)


@contextmanager
def _joined_or_refused(at: str) -> Iterator[Capacity]:
    if at.startswith("ray://"):
        raise Refusal(
            f"RAY_ADDRESS {at}: a sweep cannot run through Ray Client. Run the command on the cluster's head"
            " (ray submit, ray job submit), or run it on another machine of the cluster with RAY_ADDRESS=HOST:6379"
        )
    with ExitStack() as stack:
        try:
            host, colon, port = at.rpartition(":")
            if colon and port.isdigit():  # Ray would try HOST:PORT for two minutes; it rejects all other forms at once
                socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
            at_most = stack.enter_context(cluster())
        except Refusal:
            raise
        except (Exception, SystemExit) as error:
            why = _why_unreachable(" ".join(str(error).split()) or type(error).__name__)
            if at == "auto" and isinstance(error, ConnectionError) and labelled(PRIVATE):
                why = f"the only Ray cluster on this machine is {OF_ANOTHER}"
            raise Refusal(f"RAY_ADDRESS {at}: {why}") from None
        yield at_most


def _why_unreachable(error: str) -> str:
    lower = error.lower()
    if "authenticat" in lower and "token" in lower:
        return (
            "the cluster requires an authentication token, but this machine has no token or a wrong"
            " token. Put the cluster's token into ~/.ray/auth_token, or set RAY_AUTH_TOKEN"
        )
    if "version mismatch" in lower:
        return f"this machine runs another Ray or Python version than the cluster. Install the same version ({error})"
    return (
        f"cannot connect to a Ray cluster there ({error}). Start the cluster, correct the address,"
        " or unset RAY_ADDRESS to run on this machine only"
    )


def _wait_for(needs: Demand, wanted: Gpus, minutes: float, say: Callable[[str], None], clock: Clock = CLOCK) -> None:
    """Waits until a trial with these needs can start. Meanwhile, asks the cluster to grow.

    Raises:
        Refusal: the cluster is still too small after `minutes`.
    """
    from ray.autoscaler.sdk import request_resources

    until = clock.monotonic() + 60 * minutes
    asked = False
    try:
        while not needs.fits(current_capacity()):
            if clock.monotonic() >= until:
                _check_after(minutes, needs, wanted)
                break
            # ask repeatedly, because a cluster keeps only the last request of all drivers
            request_resources(bundles=[needs.of_each] * needs.least)
            if not asked:
                asked = True
                say(f"Waiting up to {minutes:g} minutes for machines: now {_has()}, but a trial needs {_needed(needs)}")
            clock.wait(Event(), LOOK_EVERY)
    finally:
        if asked:
            request_resources(bundles=[])
    say(f"Cluster: {_has()}")
    if line := missing_workers(_addresses(), BOOTSTRAP.expanduser()):
        say(line)


def missing_workers(alive: Sequence[str], configuration: Path) -> str:
    """Returns a line about workers that should always run but have not joined the cluster, or "" if all have joined.

    Args:
        alive: addresses of the cluster's machines, including the head.
        configuration: file written by `ray up` on the head.
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
    recognised = set(named) & set(alive) or absent >= wanted  # else file and Ray use different addresses
    which = ", ".join(sorted(set(named) - set(alive))) if recognised else ""
    return (
        f"{absent} of {wanted} workers {'has' if absent == 1 else 'have'} not joined{f' ({which})' * bool(which)}. The"
        " sweep uses a worker as soon as it joins. If a worker never joins, it may run another Ray or Python version,"
        " or lack the token. To find the reason, run ray exec CLUSTER.yaml 'ray status', and read"
        " /tmp/ray/session_latest/logs/monitor.out on the head"
    )


def _check_after(minutes: float, needs: Demand, wanted: Gpus) -> None:
    now = current_capacity()
    after = f"after {minutes:g} minutes of waiting (--wait-for-nodes)"
    check_fits(needs, wanted, now, f"in this cluster {after}")
    if not needs.fits(now):
        do = missing_workers(_addresses(), BOOTSTRAP.expanduser()) or "start machines; ray status says what fails"
        raise Refusal(f"the cluster has {_has()} {after}, but a trial needs {_needed(needs)}: {do}")


def _has() -> str:
    machines, now = len(_addresses()), current_capacity()
    return f"{machines} machine{'s' * (machines != 1)} with {now.cpus:g} CPUs and {now.gpus:g} GPUs"


def _needed(needs: Demand) -> str:
    gpus = f" and {needs.least * needs.gpus:g} GPUs" if needs.gpus else ""
    return f"{needs.least} CPU{'s' * (needs.least != 1)}{gpus}"
