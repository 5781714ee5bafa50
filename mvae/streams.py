"""Creates named random streams. Every random draw of an experiment is a pure function of (seed, stream, epoch).

Each epoch creates its own generator, so resuming at an epoch boundary needs no saved generator state. Two arms with the
same seed share every stream that both use, for example split, paired set and batch order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(seed: int, stream: str, epoch: int = 0) -> int:
    """Returns the 63-bit seed of a stream, different for every (seed, stream, epoch)."""
    digest = hashlib.sha256(f"{seed}/{stream}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_generator(seed: int, stream: str, epoch: int = 0, device: str | torch.device = "cpu") -> torch.Generator:
    """Returns a torch generator at the start of the stream, on the device that will draw from it."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, stream, epoch))


def numpy_generator(seed: int, stream: str, epoch: int = 0) -> np.random.Generator:
    """Returns a counter-based NumPy generator (Philox) at the start of the stream."""
    import numpy as np

    return np.random.Generator(np.random.Philox(key=derive(seed, stream, epoch)))


@contextmanager
def global_stream(seed: int, stream: str, epoch: int = 0) -> Iterator[None]:
    """Runs a block with torch's global generators at the start of the stream, then restores their state.

    Meant for random draws that accept no generator argument, such as initialisation and dropout.
    """
    import torch

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, stream, epoch))
        yield
