"""Several machines on one Linux box: each is a set of namespaces with a network, a disk, an environment and an sshd.

    with Lab(workers=2) as lab:
        lab.laptop.run("ray up -y cluster/local.yaml", folder=PROJECT)
        lab.workers[1].cut_power()

Each machine has its own network, mount, process, host name and IPC namespace. They are inside outer namespaces without
a network connection to the outside. The first process of these outer namespaces ends when the block ends or when this
process dies, and then everything in them ends too. So every lab uses the same addresses, and several labs can exist at
once. Needs root and Debian's openssh-server, rsync and iproute2 (`why_not`).
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tests.cluster.box import BOOT_SECONDS, NAMESPACES, Box, child_of

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("machine.sh")

NETWORK = "10.77.0"
PROJECT = "mvae-suite"
"""Folder in the laptop's home directory with a copy of this checkout."""

PATIENCE = 600.0
"""Seconds that a command on a machine may take."""

COMPILED = ("ray", "mlflow")
"""Packages that every machine would otherwise compile again in its own layer of a fresh environment."""

TOOLS = ("/usr/sbin/sshd", "ssh", "ssh-keygen", "rsync", "ip", "unshare", "nsenter", "setpriv", "mount", "pgrep")


@dataclass(frozen=True)
class Said:
    """A command that has ended."""

    code: int
    out: str
    """Standard output and error, as a terminal shows them."""
    seconds: float


@dataclass
class Command:
    """A command running on a machine; its output is in a file on the box."""

    process: subprocess.Popen[bytes]
    log: Path
    typed: str
    began: float = field(default_factory=time.monotonic)

    @property
    def out(self) -> str:
        """Output so far."""
        return self.log.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def running(self) -> bool:
        return self.process.poll() is None

    def ended(self, within: float = PATIENCE) -> Said:
        """Waits for the end; fails if the time limit passes."""
        try:
            code = self.process.wait(max(within - self.seconds, 0.1))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.typed} did not end within {within:.0f} s: {self.out}") from None
        return Said(code, self.out, self.seconds)


@dataclass
class Machine:
    """A machine that is on or off."""

    lab: Lab
    name: str
    address: str
    init: int | None = None
    """Process id, on the box, of the machine's first process; None while it is off."""
    outside: subprocess.Popen[bytes] | None = None
    """Handle of that process on the box, from its start to its end."""

    @property
    def disk(self) -> Path:
        """Folder on the box with the machine's /root, /tmp and /run, as `root`, `tmp` and `run`."""
        return self.lab.state / self.name

    @property
    def home(self) -> Path:
        return self.disk / "root"

    def boot(self) -> None:
        """Switches the machine on and waits for its sshd; its disk is unchanged."""
        assert self.init is None, f"{self.name} is on"
        environment = os.path.realpath(sys.prefix)  # programs would write through a symbolic link
        arguments = (self.name, self.address, self.lab.state, environment, sys.base_prefix, ROOT)
        log = self.lab.state / f"{self.name}.log"
        with log.open("ab") as said:
            self.outside = subprocess.Popen(
                [*self.lab.within(), "unshare", *NAMESPACES, "bash", str(SCRIPT), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        unshare = child_of(self.outside.pid, self.outside)  # nsenter forked to enter a process namespace
        self.init = child_of(unshare, self.outside)
        self.lab.network(f"link add v-{self.name} type veth peer name eth0 netns {self.init}")
        self.lab.network(f"link set v-{self.name} master lan up")
        answers = [*self.lab.within("--net"), "bash", "-c", f"</dev/tcp/{self.address}/22"]
        deadline = time.monotonic() + BOOT_SECONDS
        while subprocess.run(answers, capture_output=True, check=False).returncode:
            on = self.outside.poll() is None and time.monotonic() < deadline
            assert on, f"{self.name} does not boot: {log.read_text(errors='replace', encoding='utf-8')}"
            time.sleep(0.05)

    def cut_power(self) -> None:
        """Stops the machine without any notice to others; its disk stays."""
        assert self.init is not None and self.outside is not None, f"{self.name} is off"
        self.unplug()
        os.kill(self.init, signal.SIGKILL)
        self.outside.wait()
        self.init = self.outside = None
        self.lab.network(f"link del v-{self.name}", fine=False)  # the link would also end by itself, but later

    def unplug(self) -> None:
        """Pulls its network cable."""
        self.lab.network(f"link set v-{self.name} down")

    def plug(self) -> None:
        """Puts the cable back."""
        self.lab.network(f"link set v-{self.name} up")

    def start(self, command: str, folder: str = ".") -> Command:
        """Starts a shell command as root, in a login shell, in a folder of the home directory."""
        assert self.init is not None, f"{self.name} is off"
        log = self.lab.state / f"{self.name}-{time.monotonic_ns()}.out"
        clean = ["env", "-i", "HOME=/root", "USER=root", "TERM=dumb", "LANG=C.UTF-8", "COLUMNS=120"]
        shell = ["bash", "--login", "-c", f"cd ~/{shlex.quote(folder)} && {command}"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["nsenter", "-t", str(self.init), "--all", "--", *clean, *shell],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        return Command(process, log, command)

    def run(self, command: str, folder: str = ".", *, within: float = PATIENCE, fine: bool = True) -> Said:
        """Runs a shell command to its end.

        Args:
            fine: whether an exit code other than 0 fails the test.
        """
        said = self.start(command, folder).ended(within)
        assert not fine or said.code == 0, f"{command} on {self.name}: exit code {said.code}: {said.out}"
        return said

    def processes(self, pattern: str) -> list[int]:
        """Ids, inside the machine, of its processes whose command line matches."""
        found = self.run(f"exec pgrep -f -- {shlex.quote(pattern)}", fine=False).out
        return [int(line) for line in found.split()]

    def kill(self, pattern: str) -> None:
        """Kills the one process whose command line matches with signal 9."""
        found = self.processes(pattern)
        assert len(found) == 1, f"{len(found)} processes of {self.name} match {pattern}"
        self.run(f"kill -9 {found[0]}")


class Lab(Box):
    """A laptop, a head and workers on one network, with a shared folder at /mnt.

    Args:
        workers: number of machines in addition to the laptop and the head.
    """

    folder, prefix = "/tmp", "mvae-lab-"

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.laptop = Machine(self, "laptop", f"{NETWORK}.1")
        self.head = Machine(self, "head", f"{NETWORK}.10")
        self.workers = [Machine(self, f"worker{n}", f"{NETWORK}.{10 + n}") for n in range(1, workers + 1)]

    @property
    def machines(self) -> list[Machine]:
        return [self.laptop, self.head, *self.workers]

    @property
    def shared(self) -> Path:
        """Folder on the box that every machine sees at /mnt."""
        return self.state / "shared"

    def network(self, arguments: str, *, fine: bool = True) -> None:
        """Runs `ip` in the network between the machines; must succeed if `fine`."""
        command = [*self.within("--net"), "ip", *arguments.split()]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        assert not fine or done.returncode == 0, f"ip {arguments}: {done.stderr}"

    def _prepare(self) -> None:
        """Creates disks, keys, names, and the laptop's copy of the checkout."""
        self.state.chmod(0o755)
        packages = [f"{sysconfig.get_path('purelib')}/{name}" for name in COMPILED]
        subprocess.run([sys.executable, "-m", "compileall", "-q", "-j", "0", *packages], check=False)
        for folder in ("shared", "layers", "laptop/root/.ssh"):
            (self.state / folder).mkdir(parents=True)
        for name in ("key", "hostkey"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.state / name)], check=True)
        lines = ["127.0.0.1 localhost", *(f"{machine.address} {machine.name}" for machine in self.machines)]
        (self.state / "hosts").write_text("\n".join(lines) + "\n", encoding="utf-8")
        shutil.copy(self.state / "key", self.laptop.home / ".ssh" / "cluster_key")
        without = ["--exclude=/.git", "--exclude=/.venv", "--filter=:- .gitignore"]
        subprocess.run(["rsync", "-a", *without, f"{ROOT}/", f"{self.laptop.home / PROJECT}/"], check=True)

    def _open(self) -> None:
        """Opens the outer namespaces: a bridge, and room for the environments' layers. They end with this process."""
        script = (
            f"set -e; mount -t tmpfs -o size=2g layers {self.state}/layers;"
            " ip link set lo up; ip link add lan type bridge; ip link set lan up;"
            f" ip addr add {NETWORK}.254/24 dev lan;"
            " echo 1 >/proc/sys/net/ipv4/ip_forward; ip route add unreachable default;"  # refused at once, not dropped
            f" touch {self.state}/open; exec sleep infinity"
        )
        self._run_outside(script, self.state / "outer.log")


@lru_cache(maxsize=1)
def why_not() -> str:
    """Why this machine cannot run a lab; empty if it can."""
    if not sys.platform.startswith("linux"):
        return "a lab of several machines needs Linux"
    if os.geteuid():
        return "a lab of several machines needs root"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"a lab of several machines needs {', '.join(absent)}: apt install openssh-server rsync iproute2"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        attempt = (
            f"set -e; mount -t tmpfs layers {folder}; cd {folder}; mkdir upper work at;"
            f" mount -t overlay overlay -o lowerdir={sys.prefix},upperdir=upper,workdir=work at;"
            " ip link add lan type bridge; ip link add v type veth peer name eth0"
        )
        tried = subprocess.run(
            ["unshare", *NAMESPACES, "bash", "-c", attempt], capture_output=True, encoding="utf-8", check=False
        )
    refused = " ".join(tried.stderr.split())
    return f"a lab of several machines is not allowed here: {refused}" if tried.returncode else ""
