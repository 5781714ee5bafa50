"""Stands in for Ray's dashboard agent on a private cluster, which has no dashboard.

Ray's agent imports half of Ray, then says that it offers nothing. Ray does not start without an agent. This script says
the same with the files that Ray waits for (private.py lists the seconds saved), and ends with its parent, the raylet.
"""

from __future__ import annotations

import os
import sys
import time

SESSION = "--session-dir="
UNUSED = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
"""Ports that Ray's agent would open. Each is a file in the session's folder. -1 says that nothing listens."""
LOOK_EVERY = 1.0
"""Seconds between checks whether the raylet has ended."""


def announce(folder: str, node: str) -> None:
    """Writes the files for which Ray waits.

    Args:
        folder: the folder of the session.
        node: id of the node.
    """
    for name in UNUSED:
        path = f"{folder}/{name}_{node}"
        with open(f"{path}.tmp", "w", encoding="ascii") as file:
            file.write("-1")
        os.replace(f"{path}.tmp", path)


if __name__ == "__main__":
    raylet = os.getppid()
    announce(next(one for one in sys.argv if one.startswith(SESSION))[len(SESSION) :], os.environ["RAY_NODE_ID"])
    while os.getppid() == raylet:
        time.sleep(LOOK_EVERY)
