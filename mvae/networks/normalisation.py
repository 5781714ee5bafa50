"""Batch normalisation whose statistics stay within an ELBO term, though all terms are decoded in one pass.

Outside `term_statistics` it is ordinary batch normalisation. Inside, rows come in groups, one a term: each group is
normalised by its own statistics, and the running statistics move once, by the mean over groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TermBatchNorm(nn.Module):
    """BatchNorm1d or 2d by its input: rows [n, C] or images [n, C, H, W]."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self._groups: tuple[int, ...] | None = None
        self._seen: list[tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self._normalised(x, self.running_mean, self.running_var)
        groups = self._groups or (len(x),)
        assert sum(groups) == len(x), "the groups of a term-wise normalisation do not add up to its rows"
        # of one group, no split: its gradient would be a copy
        pieces = [x] if len(groups) == 1 else torch.split(x, list(groups))
        parts = [self._by_own_statistics(part) for part in pieces]
        if self._seen is not None and self._groups is None:
            self._move()
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _by_own_statistics(self, x: Tensor) -> Tensor:
        """Normalised by mean and biased variance; fewer than two rows use the running statistics."""
        if len(x) < 2:  # copies: the backward pass must not find them moved
            return self._normalised(x, self.running_mean.clone(), self.running_var.clone())
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        normalised = F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
        if self._seen is None:
            self._seen = []
        self._seen.append((mean, variance))  # at momentum 1: what x has, the variance unbiased
        return normalised

    def _normalised(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.eps)

    @torch.no_grad()
    def _move(self) -> None:
        if self._seen:
            mean = torch.stack([seen[0] for seen in self._seen]).mean(0)
            variance = torch.stack([seen[1] for seen in self._seen]).mean(0)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        self._seen = None


class TermStatistics:
    """The normalisations of one network during one step."""

    def __init__(self, norms: list[TermBatchNorm]) -> None:
        self._norms = norms

    def groups(self, groups: Sequence[int]) -> None:
        """Says how many rows of the next pass belong to each term, in order."""
        for norm in self._norms:
            norm._groups = tuple(groups)


@contextmanager
def term_statistics(network: nn.Module) -> Iterator[TermStatistics]:
    """Within the block passes are normalised by group; at its end the running statistics move once."""
    norms = [module for module in network.modules() if isinstance(module, TermBatchNorm)]
    try:
        yield TermStatistics(norms)
    finally:
        for norm in norms:
            norm._groups = None
            norm._move()
