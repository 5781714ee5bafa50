"""Named random streams: every draw of an experiment is a pure function of (seed, stream, epoch).

A generator is made anew for each epoch, so resuming at an epoch boundary needs no saved generator state, and two arms
that share a seed share every stream they both read: split, paired set, batch order.
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
    """The 63-bit seed of one stream; different for every (seed, stream, epoch)."""
    digest = hashlib.sha256(f"{seed}/{stream}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_generator(seed: int, stream: str, epoch: int = 0, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator at the start of the stream, on the device where it will draw."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, stream, epoch))


def numpy_generator(seed: int, stream: str, epoch: int = 0) -> np.random.Generator:
    """A counter-based numpy generator (Philox) at the start of the stream."""
    import numpy as np

    return np.random.Generator(np.random.Philox(key=derive(seed, stream, epoch)))


@contextmanager
def global_stream(seed: int, stream: str, epoch: int = 0) -> Iterator[None]:
    """Runs a block on its own global torch stream (initialisation, dropout) and puts the old state back."""
    import torch

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, stream, epoch))
        yield
