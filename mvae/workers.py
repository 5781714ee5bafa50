"""Workers: the processes that share each step's batch, what each of them takes of it, and what they tell each other.

Every worker derives the whole step from the same streams, draws its noise for all rows, and takes rows rank::count of
both. So batch order and noise do not depend on how many workers there are; losses are sums over rows, divided by the
rows of the whole step, and add up over workers. A lone process is a worker too, and never touches torch.distributed.

With several, a process group is there before training begins (gloo on a CPU, nccl on GPUs), and every worker takes part
in every exchange, in the same order, whether or not it has rows.
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
    """This process among those that share each step's batch."""

    rank: int = 0
    """From 0; worker 0 alone validates, writes and speaks."""
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
        """This worker's rows of a step, a view; the very same object where it is alone.

        Args:
            dim: the dimension of the rows.
        """
        if self.alone:
            return rows
        mine: Rows = rows[(slice(None),) * dim + (slice(self.rank, None, self.count),)]
        return mine

    def mean(self, values: Tensor, rows: int) -> Tensor:
        """This worker's part of the mean over a step, from its own values [n]: the parts add up to the mean.

        Args:
            rows: of the whole step, over all workers.
        """
        return values.mean() if self.alone else values.sum() / rows

    def add_(self, tensor: Tensor) -> Tensor:
        """Adds up a tensor over the workers, in place; all get the same bits."""
        if not self.alone:
            dist.all_reduce(tensor)
        return tensor

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Gives every worker the first one's values of these tensors, in place."""
        if not self.alone:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def told(self, value: T) -> T:
        """What the first worker gives here, at every worker: anything that can be pickled, tensors on the CPU."""
        if self.alone:
            return value
        box: list[Any] = [value if self.first else None]
        dist.broadcast_object_list(box, src=0)
        return cast(T, box[0])

    def named(self, stream: str) -> str:
        """The name of a stream of which every worker needs one of its own."""
        return stream if self.alone else f"{stream}, worker {self.rank}"


ALONE = Workers()
