"""Stores finished parts of a long measure, so that a killed measure resumes. A measure may take longer than training.

<measuring>/<key>/<measure>-<identity>/<part>.pt     identity: digest of the weights, the device and torch's version

A part is written whole or not at all. If a part cannot be written or read, it is computed again.
"""

import hashlib
import io
from contextlib import suppress

import torch
from torch import Tensor

from mvae.storage.objects import place
from mvae.storage.place import AnyPlace
from mvae.training.records import Checkpoint


class PartFiles:
    """Parts of one measure, valid only for the given weights, the device and this process's version of torch.

    Args:
        measuring: the trial's folder for parts.
        measure: token of the measure.
        weights: checkpoint with the weights that are measured.
        device: cpu or cuda.
    """

    def __init__(self, measuring: AnyPlace, measure: str, weights: Checkpoint, device: str) -> None:
        identity = f"{weights.files['model.pt'].sha256} {device} {torch.__version__}"
        self.folder = place(measuring) / f"{measure}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"

    def read(self, name: str) -> dict[str, Tensor] | None:
        """Returns the tensors of a part, or None if the part does not exist or is damaged."""
        try:
            content = io.BytesIO((self.folder / f"{name}.pt").read_bytes())
            tensors: dict[str, Tensor] = torch.load(content, weights_only=True)
        except Exception:  # torch raises many types of errors for a damaged file
            return None
        return tensors

    def write(self, name: str, found: dict[str, Tensor]) -> None:
        content = io.BytesIO()
        torch.save(found, content)
        with suppress(OSError):
            (self.folder / f"{name}.pt").write_bytes(content.getvalue())

    def remove(self) -> None:
        with suppress(OSError):
            self.folder.remove_tree()
            self.folder.parent.rmdir()
