"""Detects the loss of the cluster's head, before Ray ends the driver without a message.

Ray waits a minute for a head that does not answer. Then Ray's C++ code ends the driver with exit code 1 and no message.
If Ray's own process on the driver's machine (raylet) is lost, Ray ends the driver within seconds.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mvae.storage.clock import CLOCK, Clock
from sweeps.engine.machines import alive

LOOK_EVERY = 1.0
"""Seconds between two checks of the head and the raylet."""

CONNECT_SECONDS = 3.0
"""Seconds to wait for a connection to the head or the raylet."""

GIVES_UP_AFTER = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Environment variable: seconds after which Ray ends a driver whose head does not answer; 60 by default."""


@contextmanager
def watched(lost: Callable[[str], None]) -> Iterator[None]:
    """Watches the attached cluster until the block ends.

    If Ray does not list this machine (perhaps because Ray has just lost it), only the head is watched.

    Args:
        lost: called at most once, from a background thread, with a sentence that says what was lost.
    """
    import ray

    context = ray.get_runtime_context()
    own = next((node for node in alive() if node["NodeID"] == context.get_node_id()), None)
    raylet = f"{own['NodeManagerAddress']}:{own['NodeManagerPort']}" if own else None
    ended = threading.Event()
    thread = threading.Thread(
        target=watch,
        args=(context.gcs_address, raylet, lost, ended, patience(), LOOK_EVERY),
        name="head",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(2 * CONNECT_SECONDS)


def patience() -> float:
    """Returns the seconds without an answer after which the head counts as lost.

    The result is half of the time after which Ray ends the driver, so there is time for a clean stop. A head that
    restarts within this time does not count as lost.
    """
    return float(os.environ.get(GIVES_UP_AFTER) or 60) / 2


def watch(
    head: str,
    raylet: str | None,
    lost: Callable[[str], None],
    ended: threading.Event,
    patience: float,
    every: float = LOOK_EVERY,
    clock: Clock = CLOCK,
) -> None:
    """Checks the head and this machine's raylet until one of them is lost or `ended` is set.

    Args:
        head: HOST:PORT of the head's control service.
        raylet: HOST:PORT of Ray's process on this machine, or None if unknown. The process counts as lost at once if
            nothing listens there.
        patience: seconds without an answer after which the head counts as lost.
        every: seconds between checks.
    """
    silent_since: float | None = None
    while not clock.wait(ended, every):
        if raylet and isinstance(_connection_error(raylet), ConnectionRefusedError) and not ended.is_set():
            lost(f"Ray's process on this machine (raylet, {raylet}) is lost")
            return
        if _connection_error(head) is None:
            silent_since = None
            continue
        silent_since = silent_since or clock.monotonic()
        if clock.monotonic() - silent_since >= patience and not ended.is_set():
            lost(f"the head of the Ray cluster at {head} is lost")
            return


def _connection_error(address: str) -> OSError | None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return error
    return None
