"""Splits each training step across several workers: DistributedDataParallel sums their gradients.

Buffers (the running statistics of batch normalisation) differ between workers during an epoch. After each epoch
`mvae.training.loop.train` copies the first worker's buffers to all workers. During training, only one case uses
the buffers: the normalisation of a group that consists of a single row.
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
    """The module that DistributedDataParallel wraps. Takes a batch and returns the loss to differentiate."""

    def __init__(self, learner: Learner, model: nn.Module) -> None:
        super().__init__()
        self.learner, self.model = learner, model
        self.parts: dict[str, Tensor] = {}
        device = next(model.parameters()).device
        self.unused = nn.Parameter(torch.zeros(1, device=device))  # otherwise torch warns if a step uses all parameters

    def forward(self, batch: Any, step: int | Tensor) -> Tensor:
        loss = self.learner.loss(batch, step)
        self.parts = loss.parts
        return loss.total


class DataParallel:
    """Wraps a worker's learner, which handles this worker's rows of each step.

    `loss` returns the part of the step's loss that comes from this worker's rows. The parts of all workers sum to the
    step's loss. The backward pass gives every worker the gradients of the whole step.
    """

    def __init__(self, learner: Learner, model: nn.Module) -> None:
        self.learner, self._step = learner, _Step(learner, model)
        self.batches, self.facts, self.steps_per_epoch = learner.batches, learner.facts, learner.steps_per_epoch
        # find_unused_parameters has two effects:
        # - A network that no row of a step needs keeps gradient None. Adam skips it, as in a single process.
        # - torch never rebuilds its gradient buckets after the first step (reducer.hpp, should_rebuild_buckets). With
        #   rebuilt buckets, a resumed run of three or more workers would sum gradients in another order.
        with warnings.catch_warnings():  # torch 2.14 renamed broadcast_buffers; torch 2.9 knows only the old name
            warnings.simplefilter("ignore", FutureWarning)
            self._shared = DistributedDataParallel(
                self._step, broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True
            )
        # A lambda, because it has no annotations: register_comm_hook rejects annotations that are text.
        self._shared.register_comm_hook(None, lambda _, bucket: _summed(bucket))

    def loss(self, batch: Any, step: int | Tensor) -> Loss:
        return Loss(self._shared(batch, step), self._step.parts)


def _summed(bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Sums the workers' gradients. By default DistributedDataParallel averages them."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    summed: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return summed
