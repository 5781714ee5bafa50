"""What a checkpoint says of itself: its files with their digests, and the history of its trial."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from mvae.storage.place import Place

MANIFEST = "manifest.json"


MODEL = "model.pt"
"""The file that holds the weights: the only one that stays once the trial's result is written."""


class Record(TypedDict):
    """What one finished epoch reports. Its metrics are equal bit for bit when it runs again, time and speed not."""

    epoch: int
    time: float
    """Unix time of the epoch's end, seconds."""
    metrics: dict[str, float]
    speed: NotRequired[dict[str, float]]
    """What depends on the machine and its other work: examples_per_second of the epoch's training steps."""


@dataclass(frozen=True)
class StoredFile:
    """Size in bytes and sha256 (hex) of one file of a checkpoint."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint, as its manifest describes it."""

    path: Place
    epoch: int
    """Finished epochs."""
    attempt: str
    files: Mapping[str, StoredFile]
    history: list[Record]
    """One record a finished epoch, of all attempts up to this one."""
    provenance: dict[str, Any]
    final: bool
    """The trial's result is written, and only the weights are left."""

    @property
    def device(self) -> str:
        """Device that trained it, as the trainer recorded it; empty if it did not."""
        return str(self.provenance.get("device", ""))
