"""Shared code of the benchmarks: timing in turn, the peak speed of matrix products, and random data.

A contender is one of the programs that a benchmark compares. Contenders take turns in one process, and their times are
compared block by block. Other work on the machine then slows all contenders alike. Its remaining influence shows in the
spread of the ratio over blocks.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvae.data.dataset import Kind, Modality
from mvae.data.examples import Dataset, Split
from mvae.models.arm import Learner
from mvae.models.elbo import Loss
from mvae.storage.files import write_atomically
from mvae.training.loop import THREADS
from sweeps.store.provenance import device_name

PEAK_SIZE = 1536
"""Side length of the square matrices that are multiplied to measure peak performance."""


@dataclass(frozen=True)
class Spread:
    """Quartiles of a quantity measured once per block."""

    low: float
    """First quartile."""
    median: float
    high: float
    """Third quartile."""

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        """Returns the quartiles of `values`, which has one value per block."""
        low, median, high = np.percentile(values, [25, 50, 75])
        return cls(float(low), float(median), float(high))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def in_turn(contenders: Mapping[str, Callable[[int], object]], *, steps: int, blocks: int) -> dict[str, np.ndarray]:
    """Returns the CPU milliseconds per step of each contender, one number per block.

    In every second block, the contenders run in reverse order.
    """
    for run in contenders.values():
        run(min(steps, 3))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for block in range(blocks):
        order = list(contenders)[:: 1 if block % 2 == 0 else -1]
        for name in order:
            began = time.process_time()
            contenders[name](steps)
            taken[name].append((time.process_time() - began) / steps * 1e3)
    return {name: np.array(values) for name, values in taken.items()}


class MatrixProduct:
    """Repeats a large float32 matrix product, which shows the processor's peak speed."""

    def __init__(self, size: int = PEAK_SIZE) -> None:
        self.left, self.right, self.result = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
        self.gflop = 2 * size**3 / 1e9

    def run(self, steps: int) -> None:
        """Computes the given number of products."""
        for _ in range(steps):
            torch.mm(self.left, self.right, out=self.result)


class FewSteps:
    """Wraps a learner so that an epoch has only `steps` steps. The real training loop can then run in short blocks.

    Each epoch continues where the last epoch ended.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner, self.steps = learner, 1
        self._batches = self.forever()

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch of the wrapped learner. Annealing uses this number."""
        return self.learner.steps_per_epoch

    def batches(self, epoch: int) -> Iterator[Any]:
        """Returns the next `steps` batches. Ignores `epoch`."""
        return islice(self._batches, self.steps)

    def facts(self) -> dict[str, float]:
        """Returns the numbers that the wrapped learner logs with every epoch."""
        return self.learner.facts()

    def loss(self, batch: Any, step: int | Tensor) -> Loss:
        """Returns the wrapped learner's loss."""
        return self.learner.loss(batch, step)

    def forever(self) -> Iterator[Any]:
        """Yields the wrapped learner's batches without end, one epoch after another."""
        epoch = 0
        while True:
            yield from self.learner.batches(epoch)
            epoch += 1


def random_data(name: str, modalities: tuple[Modality, ...], examples: int) -> Dataset:
    """Returns a random data set with the shapes of a real data set. Four of five pixels are black.

    The contents do not affect the time of a step.
    """
    draw = torch.Generator().manual_seed(0)
    values = []
    for modality in modalities:
        shape = (examples, *modality.shape)
        if modality.kind is Kind.VECTOR:
            values.append(torch.randn(shape, generator=draw))
        elif modality.classes:
            values.append(torch.randint(modality.classes, shape, generator=draw, dtype=torch.uint8))
        else:
            grey = torch.randint(256, shape, generator=draw, dtype=torch.uint8)
            values.append(grey * (torch.rand(shape, generator=draw) < 0.2))
    split = Split(tuple(values))
    few = Split(tuple(value[:250] for value in values))
    return Dataset(name, modalities, fingerprint="meaningless", train=split, validation=few, test=few)


def machine() -> dict[str, Any]:
    """Returns the processor, GPU and versions of this machine, without its host name."""
    found: dict[str, Any] = {"processor": device_name("cpu"), "python": platform.python_version()}
    found |= {"torch": torch.__version__, "numpy": version("numpy")}
    if torch.cuda.is_available():
        found["gpu"], found["cuda"] = torch.cuda.get_device_name(), torch.version.cuda
    return found


def write_comparison(out: Path, claim: float, compared: object) -> None:
    """Writes a comparison as JSON, atomically, with the benchmark's claim and a description of this machine."""
    found = {"machine": machine(), "threads": THREADS, "claim": claim, "compared": compared}
    write_atomically(out.absolute(), json.dumps(plain(found), indent=1).encode() + b"\n")


def plain(value: Any) -> Any:
    """Converts a structure for JSON: dataclasses to dictionaries, tuples to lists, floats to five digits."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
