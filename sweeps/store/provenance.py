"""Provenance of a result: machine, versions, commit and attempts. A result includes its provenance; a key does not."""

import hashlib
import platform
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mvae
from mvae.storage.clock import CLOCK, Clock
from mvae.training.records import Checkpoint

ROOT = Path(__file__).resolve().parents[2]
"""The folder with the packages `sweeps` and `pipelines`. In a clone, this folder also has `mvae`."""


@cache
def git_sha() -> str:
    """Returns the commit of the running code, plus `-dirty` if files have changed, or "" outside a git checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, encoding="utf-8", check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != ROOT:
            return ""
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


@cache
def source_digest() -> str:
    """Returns a digest of the package's source files. The digest does not depend on the folder or machine."""
    digest = hashlib.sha256()
    for package, root in (("mvae", Path(mvae.__file__).resolve().parents[1]), ("pipelines", ROOT), ("sweeps", ROOT)):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def stale_package(script: Path) -> str:
    """Returns a warning if the running script differs from the package's script of the same name; otherwise "".

    `ray submit` copies only the script to the cluster, not the package.
    """
    own = ROOT / "pipelines" / script.name
    try:
        if own.samefile(script) or own.read_bytes() == script.read_bytes():
            return ""
    except OSError:
        return ""
    return (
        f"Warning: {script.name} differs from the copy in the package at {own.parent.parent}, so this package"
        " differs from the package on the machine that submitted the script. To copy the package from that machine:"
        " ray up --no-restart"
    )


@cache
def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that affect a trial's numbers."""
    found = {"python": platform.python_version()}
    for package in ("mvae-suite", "torch", "ray", "mlflow", "numpy", "scikit-learn", "pyarrow"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@cache
def device_name(device: str) -> str:
    """Returns the GPU's name if the device is cuda, otherwise the processor's name."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


@dataclass(frozen=True)
class MadeOn:
    """Device, torch and plug-ins of an attempt. If they are equal, two attempts at a trial give the same numbers."""

    device: str
    """cpu or cuda."""
    name: str
    """Name of the GPU or of the processor."""
    cpu: str
    """Model of the processor; empty if unknown, as in results of GPU trials from earlier releases."""
    torch: str
    plugins: tuple[tuple[str, str], ...] = ()
    """File name and digest of the plug-ins that define the trial's data set and arm."""

    def __str__(self) -> str:
        gpu = f"{self.name}, " if self.device == "cuda" else ""
        return f"{self.device} ({gpu}{self.cpu or 'unknown processor'}), torch {self.torch}"


def made_on(provenance: Mapping[str, Any]) -> frozenset[MadeOn]:
    """Returns device, torch and plug-ins of every attempt at a trial, read from the provenance of a result."""
    return frozenset(
        MadeOn(
            device=str(one.get("device")),
            name=str(one.get("device_name", "")),
            cpu=str(one.get("cpu") or (one.get("device_name", "") if one.get("device") == "cpu" else "")),
            torch=str(one.get("torch")),
            plugins=tuple(sorted(dict(one.get("plugins") or {}).items())),
        )
        for one in provenance.get("attempts", ())
    )


class Attempts:
    """Record of all attempts at one trial, including the current attempt. Checkpoints and results include the record.

    Args:
        attempt: id of this attempt.
        device: cpu or cuda.
        before: checkpoint that this attempt resumes from, or None if the attempt starts from the beginning.
        started: Unix time in seconds.
        workers: number of processes that train together.
        elastic: whether the number of workers may have changed during training.
        plugins: digests, by file name, of the plug-ins that define the trial's data set and arm.
        clock: gives the current time.
    """

    def __init__(
        self,
        attempt: str,
        device: str,
        before: Checkpoint | None,
        started: float,
        workers: int = 1,
        elastic: bool = False,
        plugins: Mapping[str, str] | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        self.device = device
        self._clock = clock
        self._elastic = elastic
        self._cpu_before = time.process_time()
        import torch

        self._this: dict[str, Any] = {
            "attempt": attempt,
            "host": platform.node(),
            "device": device,
            "device_name": device_name(device),
            "cpu": device_name("cpu"),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "from_epoch": before.epoch if before else 0,
            "started": started,
            "seconds": 0.0,
            "cpu_seconds": 0.0,
            "workers": workers,
            **({"plugins": dict(plugins)} if plugins else {}),
        }
        earlier = before.provenance.get("attempts", []) if before else []
        self._all = [*map(dict, earlier), self._this]

    def for_checkpoint(self) -> dict[str, Any]:
        """Returns the provenance of a checkpoint, with the seconds that this attempt has taken so far.

        `cpu_seconds` is the processor time of this process. Unlike `seconds`, `cpu_seconds` excludes the time
        of other programs.
        """
        self._this["seconds"] = self._clock.time() - self._this["started"]
        self._this["cpu_seconds"] = time.process_time() - self._cpu_before
        return {"device": self.device, "attempts": self._all}

    def for_result(self, checkpoint: Checkpoint, data: str, training_version: int, measuring: float) -> dict[str, Any]:
        """Returns the provenance of a result, without the commit of the code.

        The field `seconds` is the training time of all attempts, up to the last call of `for_checkpoint`.

        Args:
            checkpoint: the checkpoint that was measured.
            data: fingerprint of the data set.
            measuring: Unix time in seconds at which measuring began.
        """
        now = self._clock.time()
        return {
            "finished": now,
            "measured_in_seconds": now - measuring,
            "host": platform.node(),
            "device": self.device,
            "device_name": self._this["device_name"],
            "cpu": self._this["cpu"],
            "threads": self._this["threads"],
            "versions": versions(),
            "epochs": checkpoint.epoch,
            "data": data,
            "training_version": training_version,
            "workers": self._this["workers"],
            "elastic": self._elastic,
            "mixed": len({(one["device"], one["torch"], str(one.get("plugins"))) for one in self._all}) > 1,
            "attempts": self._all,
            "started": min(one["started"] for one in self._all),
            "seconds": sum(one["seconds"] for one in self._all),
            **({"plugins": self._this["plugins"]} if "plugins" in self._this else {}),
        }
