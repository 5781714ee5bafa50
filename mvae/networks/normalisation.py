"""Batch normalisation with separate statistics for each ELBO term, for passes that decode all terms together.

Outside the context `term_statistics`, `TermBatchNorm` is ordinary batch normalisation. Inside the context, the rows of
each term form a group, and each group is normalised by its own statistics. The running statistics are updated once, by
the mean over groups.

With several workers, each worker normalises by the statistics of its own rows by default. After a call of
`share_statistics`, the statistics of a group cover the group's rows at all workers. Every worker must then make the
same passes, in the same order, with the same number of groups. A group may have no rows at some workers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mvae.workers import ALONE, Workers

# G groups of a pass, C channels


class TermBatchNorm(nn.Module):
    """Acts as BatchNorm1d on rows [n, C], and as BatchNorm2d on images [n, C, H, W]."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.workers = ALONE  # a group's statistics are over the rows of these workers
        self._groups: tuple[int, ...] | None = None
        self._seen: list[tuple[Tensor, Tensor]] | None = None
        self._seen_shared: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self._normalised(x, self.running_mean, self.running_var)
        groups = self._groups or (len(x),)
        assert sum(groups) == len(x), "the sizes of the groups do not add up to the number of rows"
        if not self.workers.alone:
            return self._by_shared_statistics(x, groups)
        pieces = [x] if len(groups) == 1 else torch.split(x, list(groups))  # the gradient of a split is a copy
        parts = [self._by_own_statistics(part) for part in pieces]
        if self._seen is not None and self._groups is None:
            self._update_running_statistics()
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _by_own_statistics(self, x: Tensor) -> Tensor:
        """Normalises by the rows' mean and biased variance; with fewer than two rows, by the running statistics."""
        if len(x) < 2:  # clones, because the running statistics change before the backward pass
            return self._normalised(x, self.running_mean.clone(), self.running_var.clone())
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        normalised = F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
        if self._seen is None:
            self._seen = []
        self._seen.append((mean, variance))  # with momentum 1, F.batch_norm wrote mean and unbiased variance of x
        return normalised

    def _normalised(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.eps)

    def _by_shared_statistics(self, x: Tensor, groups: tuple[int, ...]) -> Tensor:
        normalised: Tensor
        normalised, *seen = _SharedNormalisation.apply(
            x, self.weight, self.bias, self.running_mean, self.running_var, groups, self.eps, self.workers
        )
        self._seen_shared.append((seen[0], seen[1], seen[2]))
        if self._groups is None:
            self._update_running_statistics()
        return normalised

    @torch.no_grad()
    def _update_running_statistics(self) -> None:
        if self._seen_shared:
            several, mean, variance = (torch.cat(parts) for parts in zip(*self._seen_shared, strict=True))
            share = several / several.sum().clamp(min=1)
            momentum = self.momentum * (several.sum() > 0).to(several.dtype)
            for running, seen in ((self.running_mean, mean), (self.running_var, variance)):
                running.lerp_((share @ seen).to(running.dtype), momentum.to(running.dtype))
            self._seen_shared = []
        if self._seen:
            means, variances = zip(*self._seen, strict=True)
            self.running_mean.lerp_(torch.stack(means).mean(0), self.momentum)
            self.running_var.lerp_(torch.stack(variances).mean(0), self.momentum)
        self._seen = None


def keep_exchanges_out_of_graphs() -> None:
    """Excludes the communication between workers from compiled graphs. Call this function before compiling networks.

    In compiled graphs, workers could communicate in different orders. `torch.compiler.disable` is not applied as a
    decorator, because importing torch's compiler would then take two seconds in every process.
    """
    method = TermBatchNorm._by_shared_statistics
    if not getattr(method, "_torchdynamo_disable", False):
        TermBatchNorm._by_shared_statistics = torch.compiler.disable(method)  # type: ignore[method-assign, no-untyped-call]


class _SharedNormalisation(torch.autograd.Function):
    """Normalises each group of rows by the mean and the biased variance of the group's rows at all workers.

    Groups with fewer than two rows use the running statistics. The function also returns three float64 tensors for
    updating the running statistics:

    - [G]: 1 for groups with at least two rows, else 0
    - [G, C]: the mean of each group
    - [G, C]: the unbiased variance of each group
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        groups: tuple[int, ...],
        eps: float,
        workers: Workers,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels, pixels = len(weight), x.shape[2:].numel()
        parts = torch.split(x, list(groups))
        moments = workers.add_(torch.stack([_moments(part) for part in parts]))
        values = moments[:, -1:]
        mean = moments[:, :channels] / values.clamp(min=1)
        variance = (moments[:, channels:-1] / values.clamp(min=1) - mean.square()).clamp(min=0)
        several = values >= 2 * pixels
        used_mean = torch.where(several, mean, running_mean.double()).to(running_mean.dtype)
        used_variance = torch.where(several, variance, running_var.double()).to(running_var.dtype)
        normalised = [
            F.batch_norm(part, own_mean, own_variance, weight, bias, False, 0.0, eps)
            for part, own_mean, own_variance in zip(parts, used_mean, used_variance, strict=True)
        ]
        ctx.save_for_backward(x, weight, used_mean, torch.rsqrt(used_variance + eps), several / values.clamp(min=1))
        ctx.groups, ctx.workers = groups, workers
        seen = several[:, 0].double(), mean, variance * (values / (values - 1).clamp(min=1))
        ctx.mark_non_differentiable(*seen)
        return (normalised[0] if len(parts) == 1 else torch.cat(normalised)), *seen

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_normalised: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, row_weight = ctx.saved_tensors
        parts = zip(torch.split(x, list(ctx.groups)), torch.split(grad_normalised, list(ctx.groups)), strict=True)
        dims = [dim for dim in range(x.dim()) if dim != 1]

        def by_channel(statistics: Tensor) -> Tensor:
            return statistics.view(-1, *[1] * (x.dim() - 2))

        pieces = []
        for (part, grad_part), own_mean, own_inverse in zip(parts, mean, inverse, strict=True):
            standard = (part.to(mean.dtype) - by_channel(own_mean)) * by_channel(own_inverse)
            pieces.append((standard, grad_part.to(mean.dtype)))
        grad_bias = torch.stack([grad_part.sum(dims) for _, grad_part in pieces])
        grad_weight = torch.stack([(grad_part * standard).sum(dims) for standard, grad_part in pieces])
        over_workers = ctx.workers.add_(torch.stack([grad_bias, grad_weight]).double())
        constant, along = (over_workers * row_weight).to(mean.dtype)
        gradients = [
            by_channel(weight * own_inverse) * (grad_part - by_channel(c) - standard * by_channel(a))
            for (standard, grad_part), own_inverse, c, a in zip(pieces, inverse, constant, along, strict=True)
        ]
        grad_x = gradients[0] if len(gradients) == 1 else torch.cat(gradients)
        return grad_x.to(x.dtype), grad_weight.sum(0), grad_bias.sum(0), None, None, None, None, None


def _moments(x: Tensor) -> Tensor:
    """Returns each channel's sum, each channel's sum of squares, and the number of values per channel.

    The input is [n, C, ...]. The result is one float64 tensor [2 C + 1]. The sums run over rows and pixels. The sums of
    squares are derived from mean and variance in float64, because summing float32 squares would lose precision.
    """
    values = x[:, 0].numel()
    if not values:
        return x.new_zeros(2 * x.shape[1] + 1, dtype=torch.float64)
    wide = x if x.dtype == torch.float64 else x.float()
    variance, mean = torch.var_mean(wide, [dim for dim in range(x.dim()) if dim != 1], correction=0)
    square = variance.double() + mean.double().square()
    return torch.cat([values * mean.double(), values * square, square.new_tensor([values])])


def share_statistics(network: nn.Module, workers: Workers) -> None:
    """Makes every `TermBatchNorm` in the network use statistics over the rows of all workers during training."""
    for module in network.modules():
        if isinstance(module, TermBatchNorm):
            module.workers = workers


@contextmanager
def term_statistics(network: nn.Module) -> Iterator[Callable[[Sequence[int]], None]]:
    """Makes batch normalisation inside the `with` block use separate statistics for each ELBO term.

    The running statistics are updated once, at the end of the block.

    Yields:
        A function to call before each pass, with the number of rows of each term, in order.
    """
    norms = [module for module in network.modules() if isinstance(module, TermBatchNorm)]

    def next_groups(rows: Sequence[int]) -> None:
        for norm in norms:
            norm._groups = tuple(rows)

    try:
        yield next_groups
    finally:
        for norm in norms:
            norm._groups = None
            norm._update_running_statistics()
