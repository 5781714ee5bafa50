"""Notices that the head of the cluster is lost, while this process can still say so.

Ray waits a minute for a head that does not answer, and then ends the driver from its C++ code: exit code 1, no word.
Where only the raylet of the driver's own machine is lost, Ray may wait for ever.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sweeps.engine.machines import alive

LOOK_EVERY = 2.0
"""Seconds between two looks at the head."""

CONNECT_SECONDS = 3.0
"""Seconds that the head may take to accept a connection."""

GIVES_UP_AFTER = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Environment variable: seconds after which Ray ends a driver whose head does not answer, 60 if it is not set."""


@contextmanager
def watched(lost: Callable[[str], None]) -> Iterator[None]:
    """Looks at the attached cluster's head for as long as the block lasts.

    Args:
        lost: called at most once, in a thread of its own, with what was lost, in words.
    """
    import ray

    context = ray.get_runtime_context()
    address, own = context.gcs_address, context.get_node_id()
    ended = threading.Event()

    def own_is_there() -> bool:
        return own in [node["NodeID"] for node in alive()]

    about = (address, own_is_there, lost, ended, patience())
    thread = threading.Thread(target=watch, args=about, name="head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(CONNECT_SECONDS)


def patience() -> float:
    """Seconds for which a head may not answer: half of what Ray itself waits, so that there is time for an orderly end.

    A head that is restarted within this time is not lost.
    """
    return float(os.environ.get(GIVES_UP_AFTER) or 60) / 2


def watch(
    address: str,
    own_is_there: Callable[[], bool],
    lost: Callable[[str], None],
    ended: threading.Event,
    patience: float,
    every: float = LOOK_EVERY,
) -> None:
    """Looks until the head is lost or the block has ended.

    Args:
        address: HOST:PORT of the head's control service.
        own_is_there: whether the head counts the driver's own machine among those that are there.
    """
    silent_since: float | None = None
    while not ended.wait(every):
        if not _answers(address):
            now = time.monotonic()
            silent_since = now if silent_since is None else silent_since
            if now - silent_since >= patience:
                lost(f"the head of the Ray cluster at {address} is lost")
                return
            continue
        silent_since = None
        if not own_is_there() and not ended.is_set():
            lost("Ray's process on this machine (raylet) is lost")
            return


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
