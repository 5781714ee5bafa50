"""Notices that the head of the cluster is lost, while this process can still say so.

Ray waits a minute for a head that does not answer, and then ends the driver from its C++ code: exit code 1, no word. It
does the same within seconds if its own process on the driver's machine (raylet) is gone.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mvae.storage.clock import CLOCK, Clock
from sweeps.engine.machines import alive

LOOK_EVERY = 1.0
"""Seconds between two looks."""

CONNECT_SECONDS = 3.0
"""Seconds that a connection may take."""

GIVES_UP_AFTER = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Environment variable: seconds after which Ray ends a driver whose head does not answer, 60 if it is not set."""


@contextmanager
def watched(lost: Callable[[str], None]) -> Iterator[None]:
    """Looks at the attached cluster for as long as the block lasts.

    If Ray does not list this machine (it may have just lost it), only the head is looked at.

    Args:
        lost: called at most once, in a thread of its own, with what was lost, in words.
    """
    import ray

    context = ray.get_runtime_context()
    own = next((node for node in alive() if node["NodeID"] == context.get_node_id()), None)
    raylet = f"{own['NodeManagerAddress']}:{own['NodeManagerPort']}" if own else None
    ended = threading.Event()
    about = (context.gcs_address, raylet, lost, ended, patience(), LOOK_EVERY)
    thread = threading.Thread(target=watch, args=about, name="head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(2 * CONNECT_SECONDS)


def patience() -> float:
    """Seconds for which a head may not answer: half of what Ray itself waits, so that there is time for an orderly end.

    A head that is restarted within this time is not lost.
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
    """Looks until one of the two is lost or the block has ended.

    Args:
        head: HOST:PORT of the head's control service, which may be silent for a while.
        raylet: HOST:PORT of Ray's process on this machine: if nothing listens there, it is gone for good. None: its
            address is unknown, and it is not looked at.
    """
    silent_since: float | None = None
    while not clock.wait(ended, every):
        if raylet and isinstance(_refused(raylet), ConnectionRefusedError) and not ended.is_set():
            lost(f"Ray's process on this machine (raylet, {raylet}) is lost")
            return
        if _refused(head) is None:
            silent_since = None
            continue
        silent_since = silent_since or clock.monotonic()
        if clock.monotonic() - silent_since >= patience and not ended.is_set():
            lost(f"the head of the Ray cluster at {head} is lost")
            return


def _refused(address: str) -> OSError | None:
    """Why nothing can be reached there; None if something can."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return error
    return None
