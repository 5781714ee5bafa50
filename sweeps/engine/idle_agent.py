"""Replaces Ray's dashboard agent on a private cluster, which has no dashboard.

Ray does not start without an agent process. Ray's own agent imports half of Ray, but without a dashboard it only writes
a few files for which Ray waits. This script writes the same files (private.py lists the CPU seconds saved). The script
ends when its parent process, the raylet, ends.
"""

import os
import sys
import time

SESSION = "--session-dir="
UNUSED = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
"""Names of the ports that Ray's agent would open. Each port has a file in the session's folder; -1 means no port."""
LOOK_EVERY = 1.0
"""Seconds between checks whether the raylet has ended."""


def announce(folder: str, node: str) -> None:
    """Writes the files for which Ray waits, one file per port. Each file says that the port is not open.

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
