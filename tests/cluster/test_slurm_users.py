"""Two users' jobs at the same time on the same two nodes of a SLURM cluster: neither can use the other's Ray."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import asked_for, tell
from tests.cluster.slurm import ANN, BEN, Job, Slurm, User, needs_slurm
from tests.sweeping import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400), needs_slurm, asked_for]

SWEEP = (
    *("pipelines/weak_supervision.py", "--arms", "nn,mvae", "--targets", "own", "--fractions", "0.05,1"),
    *("--seeds", "0", "--epochs", "100000", "--checkpoint-every", "0"),
)
"""A job that does not end before it is cancelled."""

ASKS = """
import grpc, sys

def answer(token):
    header = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(sys.argv[1]) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")(b"", timeout=60, metadata=header)
            return "OK"
        except grpc.RpcError as error:
            return error.code().name

print(*map(answer, ["", open(sys.argv[2]).read()]))
"""
"""Prints what the head at an address answers without a token, and with the token in a file."""


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    with Slurm() as made:
        yield made


def content(path: Path) -> bytes:
    """Content of a file; empty if it was deleted meanwhile, like an older checkpoint."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


class Running:
    """A user's job that trains on both nodes."""

    def __init__(self, slurm: Slurm, user: User, job: Job) -> None:
        self.user, self.job = user, job
        (self.private,) = slurm.clone(user).glob(f".slurm-{slurm.state.name}-{job.number}-*")
        (self.temporary,) = (f"/tmp/{path.name}" for path in slurm.nodes[0].tmp.glob(f"mvae-{job.number}-*"))
        lines = slurm.nodes[0].processes()
        heads = [line for line in lines if "/gcs_server " in line and self.temporary in line]
        assert len(heads) == 1, f"{job.out}\n{lines}"
        (port,) = re.findall(r"--gcs_server_port=(\d+)", heads[0])
        self.address = f"{slurm.nodes[0].address}:{port}"

    def shows_its_token(self, slurm: Slurm) -> list[str]:
        """Files and command lines, except the token's own file, that contain the job's token."""
        token = (self.private / "token").read_bytes()
        folders = [slurm.state / self.user.name, slurm.state / "log", *(node.tmp for node in slurm.nodes)]
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        lines = [line for node in slurm.nodes for line in node.processes()]
        assert len(token) == 64 and len(lines) > 4 and any("gcs_server" in str(path) for path in files)
        shown = [str(path) for path in files if token in content(path) and path != self.private / "token"]
        return shown + [line for line in lines if token.decode() in line]

    def answers(self, slurm: Slurm, other: Running) -> str:
        """What another user's head answers to this user, from the second node."""
        return slurm.nodes[1].run(self.user, sys.executable, "-c", ASKS, other.address, f"{self.private}/token").strip()


def test_jobs_of_two_users_on_the_same_two_nodes_do_not_meet(slurm: Slurm) -> None:
    jobs = []
    for user in (ANN, BEN):  # one after the other, because two cores start four Rays at once too slowly for Ray
        jobs.append(job := slurm.submit(*SWEEP, options="--nodes=2 --cpus-per-task=1", user=user))
        slurm.until(lambda: "4 trials" in job.out, f"{user.name}'s job runs")
        assert "Cluster: 2 machines with 2 CPUs" in job.out, job.out
    for user in (ANN, BEN):
        place = Place(slurm.state / user.name, slurm.state / user.name / "storage")
        slurm.until(lambda: place.epochs(), f"{user.name}'s job trains")  # noqa: B023
    ann, ben = (Running(slurm, user, job) for user, job in zip((ANN, BEN), jobs, strict=True))
    assert ann.address != ben.address
    for one, other in ((ann, ben), (ben, ann)):
        assert one.shows_its_token(slurm) == []
        assert one.answers(slurm, one).endswith("UNAUTHENTICATED OK")
        assert one.answers(slurm, other).endswith("UNAUTHENTICATED UNAUTHENTICATED")
        for node in slurm.nodes:
            assert "Permission denied" in node.run(one.user, "cat", f"{other.private}/token")
            (folder,) = node.tmp.glob(f"mvae-{other.job.number}-*")
            assert "Permission denied" in node.run(one.user, "ls", f"/tmp/{folder.name}")
    assert {job.state for job in jobs} == {"RUNNING"}
    slurm.run(f"scancel {ann.job.number} {ben.job.number}")
    for job in jobs:
        assert job.until_ended() == "CANCELLED"
        tell(f"job {job.number}\n{job.out}", 0.0)
