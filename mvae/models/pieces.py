"""A sum over many rows, differentiated piece by piece, so that the activations of one piece alone are alive.

A step with many ELBO terms decodes thousands of rows. Here the gradients of each piece of them are computed as soon as
its sum is known, and added up; what is kept for the backward pass is gradients, whose size does not grow with the rows.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# K sums that a piece gives side by side

Summed = Callable[[Tensor, int, int], Tensor]
"""From a piece of the whole, and where it starts and ends, sums: a scalar, or [K]."""


def piece_by_piece(
    summed: Summed,
    whole: Tensor,
    dim: int,
    ends: Sequence[int],
    weights: Tensor | None,
    network: nn.Module,
    *,
    alive: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sums over all pieces of `whole`: their weighted total, to be differentiated, and the sums themselves, detached.

    A total of a single piece is differentiated as usual; so is one that needs no gradient.

    Args:
        summed: must not depend on anything that needs a gradient but its piece and the parameters of `network`.
        dim: the dimension that is cut.
        ends: where pieces end, ascending, the last at the end of `whole`; none: there is nothing to sum. A piece may be
            empty, where only other workers have something in it.
        weights: [K], constants; None where `summed` gives a scalar.
        alive: keeps the activations of all pieces, as autograd does: where they are few.
    """
    if not ends:
        none = whole.new_zeros(() if weights is None else weights.shape)
        return none.sum(), none
    if alive or len(ends) == 1 or not torch.is_grad_enabled():
        first, *others = (summed(whole.narrow(dim, a, b - a), a, b) for a, b in pairwise([0, *ends]))
        each = sum(others, first)
        return _weighted(each, weights), each.detach()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    total, each = _PieceByPiece.apply(summed, dim, ends, weights, whole, *parameters)
    return total, each


def _weighted(each: Tensor, weights: Tensor | None) -> Tensor:
    return each if weights is None else (weights * each).sum()


class _PieceByPiece(torch.autograd.Function):
    """The forward pass does the work of the backward one too, and keeps the gradients alone."""

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
        of_whole, of_parameters = torch.empty_like(whole), [torch.zeros_like(one) for one in parameters]
        for start, end in pairwise([0, *ends]):
            with torch.enable_grad():
                piece = whole.narrow(dim, start, end - start).detach().requires_grad_()
                each = summed(piece, start, end)
                own, *rest = torch.autograd.grad(_weighted(each, weights), (piece, *parameters))
            sums.append(each.detach())
            of_whole.narrow(dim, start, end - start).copy_(own)
            torch._foreach_add_(of_parameters, rest)
        ctx.save_for_backward(of_whole, *of_parameters)
        total = torch.stack(sums).sum(0)
        ctx.mark_non_differentiable(total)
        return _weighted(total, weights).clone(), total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, _of_sums: Tensor) -> tuple[Tensor | None, ...]:
        of_whole, *of_parameters = ctx.saved_tensors
        return None, None, None, None, of_total * of_whole, *(of_total * own for own in of_parameters)
