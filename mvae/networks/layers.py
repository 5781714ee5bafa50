"""Defines a base class and an MLP builder for networks that apply layers in sequence."""

from itertools import pairwise

from torch import Tensor, nn

from mvae.networks.normalisation import TermBatchNorm

Shape = tuple[int, ...]  # channels, height, width of an image


class Layers(nn.Module):
    """Base class of networks that apply `layers` in sequence, from rows [n, ...] to rows [n, ...]."""

    layers: nn.Sequential

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layers(x)
        return outputs


def mlp(inputs: int, hidden: int, layers: int, outputs: int, *, normalised: bool = False) -> nn.Sequential:
    """Builds an MLP with `layers` hidden layers, Swish after each, and a linear output layer.

    Args:
        normalised: whether to insert batch normalisation before each Swish.
    """
    widths = [inputs, *[hidden] * layers]
    steps: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        steps += [nn.Linear(narrow, wide), *([TermBatchNorm(wide)] if normalised else []), nn.SiLU()]
    return nn.Sequential(*steps, nn.Linear(widths[-1], outputs))
