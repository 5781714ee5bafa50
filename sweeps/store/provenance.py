"""Where and with what a number was made: recorded beside every result, never part of a key."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvae.training.records import Checkpoint

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds mvae, sweeps and pipelines."""


@cache
def git_sha() -> str:
    """The commit of the code that runs, with -dirty where files differ from it; empty outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, encoding="utf-8", check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != ROOT:
            return ""
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


@cache
def source_digest() -> str:
    """Digest of the source files that run here: equal on machines that run the same code, in whatever folder."""
    digest = hashlib.sha256()
    for package in ("mvae", "pipelines", "sweeps"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def stale_package(script: Path) -> str:
    """A line where the script that runs differs from the package's own of that name; empty where they agree.

    `ray submit` copies the one script that it is given to the cluster, not the package.
    """
    own = ROOT / "pipelines" / script.name
    try:
        same = own.samefile(script) or own.read_bytes() == script.read_bytes()
    except OSError:
        return ""
    if same:
        return ""
    return (
        f"Warning: {script.name} differs from the one in the package at {own.parent.parent}, so the package is not that"
        " of the machine which sent it. To bring it along: ray up --no-restart"
    )


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape the numbers."""
    found = {"python": platform.python_version()}
    for package in ("mvae-suite", "torch", "ray", "mlflow", "numpy", "scikit-learn", "pyarrow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def device_name(device: str) -> str:
    """What the device is called: the GPU's name, or the processor's."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


class Attempts:
    """The attempts at one trial, this one the last: what its checkpoints carry on and its results are to say.

    Args:
        attempt: id of this attempt.
        device: cpu or cuda.
        before: the checkpoint that this attempt goes on from; None where it begins.
        started: Unix time, seconds.
        workers: processes that train together.
        elastic: their number may have been another for a time.
        plugins: file name to digest of those that the trial's data set and arm come from.
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
    ) -> None:
        self.device = device
        self._elastic = elastic
        import torch

        self._this: dict[str, Any] = {
            "attempt": attempt,
            "host": platform.node(),
            "device": device,
            "device_name": device_name(device),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "from_epoch": before.epoch if before else 0,
            "started": started,
            "seconds": 0.0,
            "workers": workers,
            **({"plugins": dict(plugins)} if plugins else {}),
        }
        earlier = before.provenance.get("attempts", []) if before else []
        self._all = [*(dict(one) for one in earlier), self._this]

    def so_far(self) -> dict[str, Any]:
        """For a checkpoint; the time that the attempt has taken so far is noted now."""
        self._this["seconds"] = time.time() - self._this["started"]
        return {"device": self.device, "attempts": self._all}

    def result(self, checkpoint: Checkpoint, data: str, training_version: int, measuring: float) -> dict[str, Any]:
        """For a result, apart from the commit of the code; `seconds` are those of training, up to the last `so_far`.

        Args:
            checkpoint: what was measured.
            data: the data set's fingerprint.
            measuring: Unix time at which measuring began, seconds.
        """
        now = time.time()
        return {
            "finished": now,
            "measured_in_seconds": now - measuring,
            "host": platform.node(),
            "device": self.device,
            "device_name": self._this["device_name"],
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
