"""A SLURM cluster on one Linux box: Debian's slurmctld, munged, and a slurmd on each of two nodes.

    with Slurm() as slurm:
        job = slurm.submit("--nodes=2", *SWEEP)
        slurm.nodes[1].cut_power()

The controller and the nodes have their own network, process, host name, IPC and mount namespaces, like the machines of
lab.py. Unlike those machines, they share the box's environment and this checkout, as SLURM's nodes share a file system.
Each node has a private /tmp. Everything ends when the block ends or when this process dies. Needs root, and Debian's
slurmctld, slurmd, slurm-client, munge and iproute2 (`why_not`).
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.box import NAMESPACES, Box, child_of
from tests.cluster.cluster import table_of
from tests.cluster.lab import PATIENCE, ROOT, Said
from tests.sweeping import Place, mlflow_differs

CONFIG = Path(__file__).with_name("slurm.conf")
ENVIRONMENT = Path(os.path.realpath(sys.prefix))
CONTROLLER = "10.78.0.1"
TOOLS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "nsenter", "setpriv", "mount")

MUNGE = (
    "munged --force --socket=$S/run/munge.sock --key-file=$S/key/munge.key --pid-file=$S/run/munge.pid"
    " --log-file=$S/log/munge.log --seed-file=$S/run/munge.seed"
)
OPEN = """
set -e
mount --bind $S/hosts /etc/hosts; mount --bind $S/passwd /etc/passwd
for shared in "$ROOT" "$VENV" "$PYTHON"; do # of root's folder, the users see only these
  at=$S/root/${shared#*root/}
  case $shared in ~root/*) mkdir -p "$at"; mount --rbind "$shared" "$at" ;; esac
done
mkdir -p $S/root; mount --rbind $S/root ~root
hostname ctl; ip link set lo up
ip link add lan type bridge; ip link set lan up; ip addr add $CONTROLLER/24 dev lan
$MUNGE
slurmctld -D -f $S/slurm.conf &
touch $S/open; wait; exec sleep infinity
"""
NODE = """
set -e
mkdir -p $S/$N/tmp; chmod 1777 $S/$N/tmp
for shared in "$ROOT" "$VENV"; do
  case $shared in /tmp/*) mkdir -p "$S/$N$shared"; mount --rbind "$shared" "$S/$N$shared" ;; esac
done
hostname $N; ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip addr add $A/24 dev eth0; ip link set eth0 up
ip route add default via 10.78.0.1 # leads nowhere, but Ray needs it to find its own address
mount --rbind $S/$N/tmp /tmp
exec slurmd -D -N $N -f $S/slurm.conf
"""


@dataclass(frozen=True)
class User:
    """A user of the cluster who is not root."""

    name: str
    number: int

    @property
    def words(self) -> list[str]:
        """First words of a command line that runs as this user."""
        return ["setpriv", f"--reuid={self.number}", f"--regid={self.number}", "--clear-groups"]


ANN, BEN = User("ann", 61001), User("ben", 61002)


@dataclass
class Node:
    """A node that is on or off."""

    slurm: Slurm
    name: str
    address: str
    outside: subprocess.Popen[bytes] | None = None
    """Handle, on the box, of the node's namespaces; None while the node is off."""
    init: int = 0
    """Process id, on the box, of the node's first process."""

    @property
    def tmp(self) -> Path:
        """The node's /tmp, as seen from the box."""
        return self.slurm.state / self.name / "tmp"

    def boot(self) -> None:
        """Switches the node on."""
        shell = ["env", f"N={self.name}", f"A={self.address}", "bash", "-c", NODE]
        self.outside = self.slurm.start("unshare", *NAMESPACES, "--mount-proc", *shell, log=self.name)
        unshare = child_of(self.outside.pid, self.outside)  # nsenter forked to enter a process namespace
        self.init = child_of(unshare, self.outside)
        self.slurm.run(f"nsenter -t 1 --net ip link add v-{self.name} type veth peer name eth0 netns {self._inner()}")
        self.slurm.run(f"ip link set v-{self.name} master lan up")

    def cut_power(self) -> None:
        """Stops the node without any notice."""
        assert self.outside is not None, f"{self.name} is off"
        self.slurm.run(f"ip link del v-{self.name}")
        os.kill(self.init, signal.SIGKILL)
        self.outside.wait()
        self.outside = None

    def processes(self) -> list[str]:
        """Command lines of the node's processes except slurmd."""
        shown = subprocess.run(
            ["nsenter", "-t", str(self.init), "--mount", "--pid", "--", "ps", "-wweo", "args="],
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        ours = [line for line in shown.stdout.splitlines() if not line.startswith(("slurmd", "ps "))]
        return [line for line in ours if "<defunct>" not in line]

    def run(self, user: User, *words: str) -> str:
        """Runs a command on the node as a user; returns its output, also if it fails."""
        enter = ["nsenter", "-t", str(self.init), "--all", "--", *user.words]
        done = subprocess.run(
            [*enter, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", check=False
        )
        return done.stdout

    def _inner(self) -> int:
        """Process id of the node's first process as seen by the controller."""
        status = Path(f"/proc/{self.init}/status").read_text(encoding="utf-8")
        found = re.search(r"^NSpid:\s+(.*)$", status, re.MULTILINE)
        assert found is not None
        return int(found[1].split()[-2])


class Slurm(Box):
    """A controller and two nodes of two CPUs each. `main` is the default partition; jobs in `urgent` preempt its jobs.

    A job that returns to the queue waits 6 s there instead of SLURM's 121 s.
    """

    folder, prefix = "/var/tmp", "mvae-slurm-"

    def __init__(self) -> None:
        super().__init__()
        self.nodes = [Node(self, "n1", "10.78.0.11"), Node(self, "n2", "10.78.0.12")]

    @property
    def machines(self) -> list[Node]:
        return self.nodes

    @property
    def place(self) -> Place:
        """The sweep's storage."""
        return Place(self.state, self.state / "storage")

    def clone(self, user: User | None = None) -> Path:
        """The folder from which a user submits jobs: root's is this checkout, another user's refers to its folders."""
        return self.state / user.name / "clone" if user else ROOT

    def _booted(self) -> None:
        self.until(lambda: self.run("sinfo -h -N -p main -o %T").out.split() == ["idle", "idle"], "both nodes are idle")

    def start(self, *words: str, log: str) -> subprocess.Popen[bytes]:
        """Starts a command on the controller; its output goes to a file."""
        with (self.state / "log" / log).open("ab") as said:
            return subprocess.Popen(
                [*self.within(), *self._environment(), *words],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def run(self, command: str, user: User | None = None) -> Said:
        """Runs a shell command on the controller, in the user's folder; must succeed.

        Args:
            user: root if None.
        """
        began = time.monotonic()
        shell = ["bash", "-c", f"cd {self.clone(user)}; {command}"]
        done = subprocess.run(
            [*self.within(), *self._environment(user), *(user.words if user else []), *shell],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return Said(done.returncode, done.stdout, time.monotonic() - began)

    def submit(self, *words: str, options: str = "", user: User | None = None) -> Job:
        """Submits cluster/slurm.sh with a pipeline's command line.

        Args:
            options: further options of sbatch.
            user: root if None.
        """
        output = (self.state / user.name if user else self.state) / "job-%j.out"
        fixed = f"--parsable --cpus-per-task=2 --mem=0 --output={output}"
        said = self.run(f"sbatch {fixed} {options} cluster/slurm.sh {' '.join(words)}", user)
        return Job(self, int(said.out), output.parent)

    def until(self, condition: Callable[[], Any], what: str, within: float = PATIENCE) -> None:
        """Waits for a condition; fails if the time limit passes."""
        deadline = time.monotonic() + within
        while not condition():
            assert time.monotonic() < deadline, f"{within:.0f} s passed before {what}: {self._logs()}"
            time.sleep(0.2)

    def _logs(self) -> str:
        paths = [*sorted(self.state.glob("**/job-*.out")), *sorted((self.state / "log").iterdir())]
        return "\n".join(f"{path.name}: {path.read_text(errors='replace', encoding='utf-8')[-3000:]}" for path in paths)

    def _environment(self, user: User | None = None) -> list[str]:
        own = self.state / user.name if user else self.state
        path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        values = {
            "S": self.state,
            "ROOT": ROOT,
            "VENV": ENVIRONMENT,
            "HOME": own / "home",
            "PATH": path,
            "LANG": "C.UTF-8",
            "SLURM_CONF": self.state / "slurm.conf",
            "MVAE_STORAGE": own / "storage",
            "RAY_worker_niceness": 0,  # on a busy machine Ray's own 15 would starve the trials
        }
        return ["env", "-i", *(f"{name}={value}" for name, value in values.items())]

    def _prepare(self) -> None:
        """Writes the configuration, munge's key, the names of the machines, and the users with their folders."""
        for folder in ("run", "log", "state", "home", *(f"spool-{node.name}" for node in self.nodes)):
            (self.state / folder).mkdir()
        self.state.chmod(0o755)
        (self.state / "key").mkdir(mode=0o700)
        key = self.state / "key" / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        config = CONFIG.read_text(encoding="utf-8").replace("$NAME", self.state.name)
        (self.state / "slurm.conf").write_text(config.replace("$S", str(self.state)), encoding="utf-8")
        names = ["127.0.0.1 localhost", f"{CONTROLLER} ctl", *(f"{node.address} {node.name}" for node in self.nodes)]
        (self.state / "hosts").write_text("\n".join(names) + "\n", encoding="utf-8")
        lines = Path("/etc/passwd").read_text(encoding="utf-8")
        for user in (ANN, BEN):
            lines += f"{user.name}:x:{user.number}:{user.number}::{self.state / user.name / 'home'}:/bin/bash\n"
            (self.state / user.name / "home").mkdir(parents=True)
            self.clone(user).mkdir()
            for name, there in {
                "pipelines": ROOT / "pipelines",
                "cluster": ROOT / "cluster",
                ".venv": ENVIRONMENT,
            }.items():
                (self.clone(user) / name).symlink_to(there)
            for owned in (self.state / user.name, self.state / user.name / "home", self.clone(user)):
                os.chown(owned, user.number, user.number)
        (self.state / "passwd").write_text(lines, encoding="utf-8")

    def _open(self) -> None:
        """Opens the controller's namespaces with a bridge, munged and slurmctld. They end with this process."""
        values = {
            "S": self.state,
            "ROOT": ROOT,
            "VENV": ENVIRONMENT,
            "PYTHON": sys.base_prefix,
            "CONTROLLER": CONTROLLER,
        }
        script = "".join(f"{name}={value}\n" for name, value in values.items()) + OPEN.replace("$MUNGE", MUNGE)
        self._run_outside(script, self.state / "log" / "controller")


@dataclass
class Job:
    """A submitted job."""

    slurm: Slurm
    number: int
    folder: Path
    """Folder of the job's output."""

    @property
    def out(self) -> str:
        """Output so far, of all starts."""
        path = self.folder / f"job-{self.number}.out"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def state(self) -> str:
        """SLURM's name of the job's state, for example RUNNING. COMPLETING: the job's processes are ending."""
        return self._field("JobState")

    @property
    def starts(self) -> int:
        """Number of times that the job was started again."""
        return int(self._field("Restarts"))

    @property
    def exit_code(self) -> int:
        return int(self._field("ExitCode").partition(":")[0])

    @property
    def minutes(self) -> int:
        """Whole minutes since the job started."""
        hours, minutes, _ = self._field("RunTime").split(":")  # HH:MM:SS in the job's first day
        return 60 * int(hours) + int(minutes)

    @property
    def batch_node(self) -> Node:
        """The node that runs the batch script."""
        name = self._field("BatchHost")
        return next(node for node in self.slurm.nodes if node.name == name)

    def until_ended(self, within: float = PATIENCE) -> str:
        """Waits until the job is no longer in the queue, and returns its last state."""
        waiting = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED")
        self.slurm.until(lambda: self.state not in waiting, f"job {self.number} has ended", within)
        return self.state

    def _field(self, name: str) -> str:
        found = re.search(rf"\b{name}=(\S*)", self.slurm.run(f"scontrol show job -o {self.number}").out)
        assert found is not None
        return found[1]


@lru_cache(maxsize=1)
def why_not() -> str:
    """Returns why this machine cannot run a SLURM cluster; empty if it can."""
    if not sys.platform.startswith("linux") or os.geteuid():
        return "a SLURM cluster on one box needs Linux and root"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        packages = "slurmctld slurmd slurm-client munge iproute2"
        return f"a SLURM cluster on one box needs {', '.join(absent)}: apt install {packages}"
    attempt = "ip link add lan type bridge; ip link add v type veth peer name eth0"
    tried = subprocess.run(
        ["unshare", *NAMESPACES, "bash", "-ec", attempt], capture_output=True, encoding="utf-8", check=False
    )
    refused = " ".join(tried.stderr.split())
    return f"namespaces for a SLURM cluster are not allowed here: {refused}" if tried.returncode else ""


needs_slurm = pytest.mark.skipif(bool(why_not()), reason=why_not())


def assert_complete(job: Job, undisturbed: Place, report: str) -> None:
    """Waits for a job's end, and asserts the undisturbed table and numbers, and one finished MLflow run per key."""
    assert job.until_ended() == "COMPLETED", job.out
    assert table_of(job.out) == table_of(report)
    assert job.slurm.place.numbers() == undisturbed.numbers()
    assert mlflow_differs(job.slurm.place) == []
