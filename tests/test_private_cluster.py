"""Nobody else can use a private cluster: not another user, not another machine, and no sweep with RAY_ADDRESS=auto.

The cluster runs in network and process namespaces of its own, so root is needed. The other machine is another network
namespace, joined to the cluster's by a cable.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.processes import LOOPBACK, Process, command_line, descendants, kill
from tests.sweeping import Driver, Place, place

pytestmark = pytest.mark.slow

APART = ("unshare", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
HERE, THERE, NOBODY = "10.78.0.1", "10.78.0.2", 65534

HOLDER = """
import socket, threading
from sweeps.engine import cluster

class Idle:
    def ready(self):
        return True

with cluster():
    import ray
    idle = ray.remote(Idle).remote()
    ray.get(idle.ready.remote())
    known = ray.get_runtime_context().gcs_address
    open_to_all = socket.create_server(("", 0))
    print(known, open_to_all.getsockname()[1], flush=True)
    threading.Event().wait()
"""

STRANGER = """
import encodings.idna, json, os, socket, sys, urllib.error, urllib.request
import grpc, grpc._channel  # the other user may not be able to open Python's files

folder, user, ports, token = json.loads(sys.argv[1])
os.setgroups([])
os.setgid(user)
os.setuid(user)
METHODS = {
    "gcs_server": "NodeInfoGcsService/GetAllNodeInfo",
    "raylet": "NodeManagerService/GetNodeStats",
    "object manager": "ObjectManagerService/Pull",
    "worker": "CoreWorkerService/PushTask",
}
header = (("authorization", f"Bearer {token}"),) if token else ()

def answer(port, method):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=20, metadata=header)
            return "OK"
        except grpc.RpcError as error:
            return error.code().name

def page(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as found:
            return found.status
    except urllib.error.HTTPError as error:
        return error.code
    except Exception:
        return 0

def refused(attempt):
    try:
        attempt()
    except PermissionError:
        return True
    return False

sockets = [f"{folder}/r/session_latest/sockets/{name}" for name in ("raylet", "plasma_store")]
print(json.dumps({
    "calls": {port: {name: answer(port, method) for name, method in METHODS.items()} for port in ports},
    "pages": {port: page(port, "/get_or_create_runtime_env") for port in ports},
    "files": [refused(lambda: open(f"{folder}/token")), refused(lambda: os.listdir(folder))],
    "sockets": [refused(lambda: socket.socket(socket.AF_UNIX).connect(path)) for path in sockets],
}))
"""

REACHES = """
import json, socket, sys

def reached(port):
    try:
        socket.create_connection((sys.argv[1], port), timeout=3).close()
    except OSError:
        return False
    return True

print(json.dumps({port: reached(port) for port in map(int, sys.argv[2:])}))
"""

JOINS = """
from sweeps.engine import cluster

with cluster():
    import ray
    print(ray.get_runtime_context().gcs_address)
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


@dataclass
class Private:
    """A running private cluster in namespaces of its own."""

    place: Place
    driver: Driver
    address: str
    open_to_all: int
    """Port of a listener on all addresses, with which the tests check their own connections."""

    @property
    def processes(self) -> list[Process]:
        return [one for one in self.driver.tree() if not command_line(one).startswith("unshare")]

    def within(self, *namespaces: str) -> list[str]:
        """First words of a command line that runs in the cluster's namespaces."""
        return ["nsenter", "-t", str(self.processes[0][0]), *namespaces, "--"]

    def ports(self) -> dict[int, str]:
        """Ports on which the cluster's processes listen: port to address, in hexadecimal digits as in proc(5)."""
        lines = [
            line.split()
            for name in ("tcp", "tcp6")
            for line in Path(f"/proc/{self.processes[0][0]}/net/{name}").read_text(encoding="utf-8").splitlines()[1:]
        ]
        found = [line[1].split(":") for line in lines if line[3] == "0A"]
        return {int(port, 16): address for address, port in found if int(port, 16) != self.open_to_all}

    def asked(self, user: int, token: str = "") -> dict[str, Any]:
        """Returns the answers that a user of this machine gets from each port, the token's file and the sockets."""
        wanted = json.dumps([str(self.folder), user, list(self.ports()), token])
        return said([*self.within("--net"), *python(STRANGER, wanted)])

    @property
    def folder(self) -> Path:
        (file,) = self.place.temporary.glob("mvae-ray-*/token")
        return file.parent


def said(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def private() -> Iterator[Private]:
    if subprocess.run([*APART, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("network and process namespaces need root")
    with place(begun=True) as here:
        driver = here.launch([*APART, *python(HOLDER)])
        driver.until(lambda: driver.log.read_text(encoding="utf-8").endswith("\n"), "the cluster has started")
        address, port = driver.log.read_text(encoding="utf-8").split()
        yield Private(here, driver, address, int(port))


def test_all_processes_of_a_private_cluster_listen_on_127_0_0_1_only(private: Private) -> None:
    assert private.address.startswith("127.0.0.1:")
    assert len(private.ports()) >= 6, "gcs_server, two of raylet, an agent, worker and driver"
    assert {port: address for port, address in private.ports().items() if address not in LOOPBACK} == {}


def test_another_user_gets_no_answer_without_the_token_and_cannot_read_it(private: Private) -> None:
    heard = private.asked(NOBODY)
    answers = [set(calls.values()) for calls in heard["calls"].values()]
    assert not [codes for codes in answers if "OK" in codes]
    assert sum("UNAUTHENTICATED" in codes for codes in answers) >= 5, heard["calls"]
    assert set(heard["pages"].values()) == {0, 401}, "the agent's port refuses, and no other port has pages"
    assert heard["files"] == [True, True] and heard["sockets"] == [True, True]

    wrong = private.asked(NOBODY, "0" * 64)["calls"]
    assert not [calls for calls in wrong.values() if "OK" in calls.values()]

    token = (private.folder / "token").read_text(encoding="ascii")
    known = private.asked(NOBODY, token)["calls"][private.address.rpartition(":")[2]]
    assert known["gcs_server"] == "OK", "the request itself is wrong"


def test_another_machine_reaches_no_port_of_a_private_cluster(private: Private) -> None:
    other = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    try:
        outside = ["nsenter", "-t", str(other.pid), "--net", "--"]
        link = [*private.within("--net"), "ip"]
        private.driver.until(lambda: command_line(descendants(other.pid)[0]).startswith("sleep"), "the machine is on")
        for command in (
            [*link, "link", "add", "cable", "type", "veth", "peer", "name", "far", "netns", str(other.pid)],
            [*link, "addr", "add", f"{HERE}/24", "dev", "cable"],
            [*link, "link", "set", "cable", "up"],
            [*outside, "ip", "addr", "add", f"{THERE}/24", "dev", "far"],
            [*outside, "ip", "link", "set", "far", "up"],
        ):
            subprocess.run(command, check=True, capture_output=True)
        ports = [str(port) for port in (private.open_to_all, *private.ports())]
        reached = said([*outside, *python(REACHES, HERE, *ports)])
        assert [port for port, open_to_it in reached.items() if open_to_it] == [str(private.open_to_all)]
        assert all(said([*private.within("--net"), *python(REACHES, "127.0.0.1", *ports)]).values())
    finally:
        kill(descendants(other.pid)[0])
        other.wait()


def test_auto_refuses_if_only_private_clusters_run_and_joins_a_real_cluster_beside_them(private: Private) -> None:
    inside = private.within("--net", "--pid", "--mount")
    auto = {"RAY_ADDRESS": "auto", "RAY_TMPDIR": str(private.place.root / "a")}
    sweep = private.place.command("--arms", "nn", "--targets", "own", "--fractions", "1", "--seeds", "0")
    refused = private.place.launch([*inside, *sweep], **auto).ended()
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("RAY_ADDRESS auto: the only Ray cluster on this machine is private to another sweep")
    assert refused.err.count("\n") == 1

    assert not list(private.place.root.rglob("ray_current_cluster")), "Ray's own search would find the private cluster"
    start = [f"{sys.prefix}/bin/ray", "start", "--head", "--port", "6399", "--num-cpus", "1"]
    real = {**auto, "RAY_ADDRESS": "", "RAY_AUTH_MODE": "disabled"}
    assert private.place.launch([*inside, *start, "--include-dashboard", "false"], **real).ended().code == 0
    joined = private.place.launch([*inside, *python(JOINS)], **{**real, "RAY_ADDRESS": "auto"}).ended()
    assert joined.code == 0, joined
    assert joined.out.strip().endswith(":6399"), joined
