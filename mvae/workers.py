"""Defines workers: the processes that share each step's batch, and the communication between these processes.

Every worker derives the whole step from the same streams, and draws the noise of all rows. The worker then uses only
the rows rank::count of the step and of the noise. So batch order and noise do not depend on the number of workers. A
worker's loss is a sum over its rows, divided by the number of rows of the whole step. The losses of all workers add up
to the loss of the step. A single process is also a worker, and never calls torch.distributed.

Several workers need a process group before training starts (gloo on CPUs, nccl on GPUs). Every worker joins every
collective operation in the same order, even if it has no rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch.distributed as dist
from torch import Tensor

Rows = TypeVar("Rows", np.ndarray, Tensor)
T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """Rank of this process and number of processes that share each step's batch."""

    rank: int = 0
    """Number of this worker, from 0. Only worker 0 validates, writes files and reports progress."""
    count: int = 1

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.count, f"worker {self.rank} of {self.count}"

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.count == 1

    def share(self, rows: Rows, dim: int = 0) -> Rows:
        """Returns this worker's rows of a step as a view. A single worker gets `rows` itself.

        Args:
            dim: the dimension of the rows.
        """
        if self.alone:
            return rows
        own: Rows = rows[(slice(None),) * dim + (slice(self.rank, None, self.count),)]
        return own

    def mean(self, values: Tensor, rows: int) -> Tensor:
        """Returns this worker's part of the mean over a step. The parts of all workers add up to the mean.

        Args:
            values: [n], one value for each of this worker's rows.
            rows: number of rows of the whole step, over all workers.
        """
        return values.mean() if self.alone else values.sum() / rows

    def add_(self, tensor: Tensor) -> Tensor:
        """Sums a tensor over the workers, in place. All workers get bit-identical sums."""
        if not self.alone:
            dist.all_reduce(tensor)
        return tensor

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Broadcasts rank 0's values of these tensors to all workers, in place."""
        if not self.alone:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def broadcast(self, value: T) -> T:
        """Broadcasts rank 0's value to all workers. The value must be picklable, with tensors on the CPU."""
        if self.alone:
            return value
        box: list[Any] = [value if self.first else None]
        dist.broadcast_object_list(box, src=0)
        return cast(T, box[0])

    def named(self, stream: str) -> str:
        """Returns the name of this worker's own random stream. A single worker keeps the name `stream`."""
        return stream if self.alone else f"{stream}, worker {self.rank}"


ALONE = Workers()
