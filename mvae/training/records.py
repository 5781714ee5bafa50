"""Defines the contents of a checkpoint's manifest: files with their digests, and the trial's history."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from mvae.storage.place import Place

MANIFEST = "manifest.json"

MODEL = "model.pt"
"""File with the weights. Once the trial has a result, the checkpoint's other data files are deleted."""


class Record(TypedDict):
    """Record of one finished epoch. A repeated run gives bit-identical metrics, but a different time and speed."""

    epoch: int
    time: float
    """Unix time at the end of the epoch, in seconds."""
    metrics: dict[str, float]
    speed: NotRequired[dict[str, float]]
    """`examples_per_second` of the epoch's training steps, which depends on the machine and on other work there."""
    system: NotRequired[dict[str, float]]
    """CPU time and memory of the first worker's process (mvae/training/usage.py)."""


@dataclass(frozen=True)
class StoredFile:
    """Size in bytes and sha256 (hex) of one file of a checkpoint."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint, as described by its manifest."""

    path: Place
    epoch: int
    """Number of finished epochs."""
    attempt: str
    files: Mapping[str, StoredFile]
    history: list[Record]
    """One record per finished epoch, including epochs that earlier attempts trained."""
    provenance: dict[str, Any]
    final: bool
    """Whether the trial has a result, so that only the weights are kept."""

    @property
    def device(self) -> str:
        """Device that trained the epoch; empty if it was not recorded."""
        return str(self.provenance.get("device", ""))
