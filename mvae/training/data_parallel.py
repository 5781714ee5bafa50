"""A learner whose steps several workers share: DistributedDataParallel adds up their gradients in the backward pass.

Buffers, the running statistics of batch normalisation, are each worker's own during an epoch, and the first worker's
after it (`mvae.training.loop.train`): a step in training does not read them, but for groups of a single row.
"""

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from mvae.models.arm import Learner
from mvae.models.elbo import Loss


class _Step(nn.Module):
    """What DistributedDataParallel wraps: from a batch to the number that is differentiated."""

    def __init__(self, learner: Learner, model: nn.Module) -> None:
        super().__init__()
        self.learner, self.model = learner, model
        self.parts: dict[str, Tensor] = {}
        device = next(model.parameters()).device
        self.unused = nn.Parameter(torch.zeros(1, device=device))  # torch warns of every step that uses all parameters

    def forward(self, batch: Any, step: int | Tensor) -> Tensor:
        loss = self.learner.loss(batch, step)
        self.parts = loss.parts
        return loss.total


class DataParallel:
    """A worker's learner, made for its share of each step; `backward` gives every worker the whole step's gradients.

    The loss that it gives is the worker's own part: the parts of all workers add up to the step's.
    """

    def __init__(self, learner: Learner, model: nn.Module) -> None:
        self.learner, self._step = learner, _Step(learner, model)
        self.batches, self.facts, self.steps_per_epoch = learner.batches, learner.facts, learner.steps_per_epoch
        # Networks that no row of a step needs keep their gradient None, and Adam passes them over, as without workers.
        # Buckets, moreover, then stay as they are; else they are laid out anew after a process's first step
        # (reducer.hpp, should_rebuild_buckets), and a resumed run of three workers or more sums in another order.
        with warnings.catch_warnings():  # torch 2.14 has another name for broadcast_buffers, which 2.9 does not know
            warnings.simplefilter("ignore", FutureWarning)
            self._shared = DistributedDataParallel(
                self._step, broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True
            )
        self._shared.register_comm_hook(None, lambda _, bucket: _summed(bucket))  # it reads annotations, not as text

    def loss(self, batch: Any, step: int | Tensor) -> Loss:
        return Loss(self._shared(batch, step), self._step.parts)


def _summed(bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Sums gradients, where DistributedDataParallel would take their mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    summed: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return summed
