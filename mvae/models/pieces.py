"""Sums a function over many rows, and computes the gradients piece by piece to save memory.

A step with many ELBO terms decodes thousands of rows. The functions here compute the gradients of each piece right
after the piece's forward pass, and add up the gradients of all pieces. So only one piece's activations are in memory at
a time. The backward pass needs only the gradients, which are much smaller than the activations.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# K sums per piece

Summed = Callable[[Tensor, int, int], Tensor]
"""Takes a piece, its start and its end in the whole tensor, and returns the piece's sum: a scalar, or [K]."""


def piece_by_piece(
    summed: Summed,
    whole: Tensor,
    dim: int,
    ends: Sequence[int],
    weights: Tensor | None,
    network: nn.Module,
    *,
    keep_activations: bool = False,
) -> tuple[Tensor, Tensor]:
    """Splits `whole` into pieces, computes a sum for each piece, and adds up the sums.

    If there is only one piece, or if gradients are disabled, plain autograd computes the sum.

    Args:
        summed: computes the sum of one piece. Gradients flow only to the piece and to the parameters of `network`.
        dim: the dimension of `whole` that is split into pieces.
        ends: ends of the pieces, ascending; the last one is the end of `whole`. Empty if there is nothing to sum. A
            piece may be empty if only other workers have rows in it.
        weights: [K], constants; None if `summed` returns a scalar.
        keep_activations: whether to use plain autograd, which keeps the activations of all pieces in memory.
    Returns:
        The weighted total, which is differentiable, and the unweighted sums, detached.
    """
    if not ends:
        zeros = whole.new_zeros(() if weights is None else weights.shape)
        return zeros.sum(), zeros
    if keep_activations or len(ends) == 1 or not torch.is_grad_enabled():
        first, *others = (summed(whole.narrow(dim, a, b - a), a, b) for a, b in pairwise([0, *ends]))
        each = sum(others, first)
        return _weighted(each, weights), each.detach()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    total, each = _PieceByPiece.apply(summed, dim, ends, weights, whole, *parameters)
    return total, each


def _weighted(each: Tensor, weights: Tensor | None) -> Tensor:
    return each if weights is None else (weights * each).sum()


class _PieceByPiece(torch.autograd.Function):
    """Computes the gradients in the forward pass. The backward pass only scales these gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        summed: Summed,
        dim: int,
        ends: Sequence[int],
        weights: Tensor | None,
        whole: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        sums: list[Tensor] = []
        grad_whole, grad_parameters = torch.empty_like(whole), [torch.zeros_like(one) for one in parameters]
        for start, end in pairwise([0, *ends]):
            with torch.enable_grad():
                piece = whole.narrow(dim, start, end - start).detach().requires_grad_()
                each = summed(piece, start, end)
                own, *rest = torch.autograd.grad(_weighted(each, weights), (piece, *parameters))
            sums.append(each.detach())
            grad_whole.narrow(dim, start, end - start).copy_(own)
            torch._foreach_add_(grad_parameters, rest)
        ctx.save_for_backward(grad_whole, *grad_parameters)
        total = torch.stack(sums).sum(0)
        ctx.mark_non_differentiable(total)
        return _weighted(total, weights).clone(), total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _grad_sums: Tensor) -> tuple[Tensor | None, ...]:
        grad_whole, *grad_parameters = ctx.saved_tensors
        return None, None, None, None, grad_total * grad_whole, *(grad_total * own for own in grad_parameters)
