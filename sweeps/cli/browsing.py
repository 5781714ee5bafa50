"""Makes the last line of a command's output, "Browse: ...", which says how to open MLflow."""

import os
import shlex
from pathlib import Path
from urllib.parse import urlsplit

from sweeps.cli.programs import from_here, installed
from sweeps.cli.tracking_uri import without_credentials

SERVER = Path(__file__).parents[2] / "cluster" / "mlflow_server.sh"
"""Script that starts MLflow on a socket. It exists only in a clone, not in an installed wheel."""

BATCH_JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
"""Environment variables that batch systems set for a job. Machines of batch systems have other users."""

SOCKET = "~/.mvae-mlflow/socket"


def how_to_browse(uri: str, page: str = "", *, on_cluster: bool) -> str:
    """Returns the address of a page in MLflow. If `uri` is a database, the command that starts a server comes first.

    MLflow has no login, so on a machine with other users the command opens a socket instead of a port.

    Args:
        uri: from `tracking_uri`.
        page: the page's path after the server's address and `#`, or "" if the path is not known.
        on_cluster: whether RAY_ADDRESS names the cluster on which this command runs.
    """
    shown = without_credentials(uri)
    if uri.startswith("http"):
        local = on_cluster and urlsplit(uri).hostname in ("127.0.0.1", "localhost")
        shown += f"/#{page}" * bool(page)
        return shown + " on this machine (from your own: ray attach CLUSTER.yaml -p 5000)" * local
    then = f"\n  then: http://127.0.0.1:5000/#{page}" * bool(page)
    if not any(os.environ.get(name) for name in BATCH_JOBS):
        return f"{installed('mlflow')} ui --backend-store-uri {shlex.quote(shown)}{then}"
    if not SERVER.is_file():
        return "see 'On a machine with other users' in docs/browse.md, because other users can open MLflow's port"
    socket = os.environ.get("MLFLOW_SOCKET") or SOCKET
    start = (
        f"MLFLOW_BACKEND_STORE_URI={shlex.quote(shown)} MLFLOW_SOCKET={socket} bash {shlex.quote(from_here(SERVER))}"
    )
    return f"{start} (a socket, because other users can open MLflow's port; docs/browse.md){then}"
