"""Finished parts of a long measure, so that a killed one goes on where it was: a measure may take longer than training.

<measuring>/<key>/<measure>-<identity>/<part>.pt     the identity is of weights, device and version of torch

A part appears whole or not at all. Parts are a convenience: one that cannot be written or read costs its own time.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress

import torch
from torch import Tensor

from mvae.storage.objects import place
from mvae.storage.place import AnyPlace
from mvae.training.records import Checkpoint


class PartFiles:
    """The parts of one measure of a trained module: of these very weights, computed as this process would compute them.

    Args:
        measuring: the trial's folder.
        measure: token of the measure.
    """

    def __init__(self, measuring: AnyPlace, measure: str, weights: Checkpoint, device: str) -> None:
        identity = f"{weights.files['model.pt'].sha256} {device} {torch.__version__}"
        self.folder = place(measuring) / f"{measure}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"

    def read(self, name: str) -> dict[str, Tensor] | None:
        """What a part holds; None where it is not there, or not whole."""
        try:
            found: dict[str, Tensor] = torch.load(
                io.BytesIO((self.folder / f"{name}.pt").read_bytes()), weights_only=True
            )
        except Exception:  # whatever a damaged file makes torch raise
            return None
        return found

    def write(self, name: str, found: dict[str, Tensor]) -> None:
        content = io.BytesIO()
        torch.save(found, content)
        with suppress(OSError):
            (self.folder / f"{name}.pt").write_bytes(content.getvalue())

    def remove(self) -> None:
        """All parts, once the measure's result is written."""
        with suppress(OSError):
            self.folder.remove_tree()
            self.folder.parent.rmdir()
