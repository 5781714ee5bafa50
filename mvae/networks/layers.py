"""Networks of layers, one after the other."""

from itertools import pairwise

from torch import Tensor, nn

from mvae.networks.normalisation import TermBatchNorm

Shape = tuple[int, ...]
"""Channels, height, width of an image."""


class Layers(nn.Module):
    """A network that is `layers` and nothing else: rows [n, ...] to rows [n, ...]."""

    layers: nn.Sequential

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layers(x)
        return outputs


def mlp(inputs: int, hidden: int, layers: int, outputs: int, *, normalised: bool = False) -> nn.Sequential:
    """`layers` hidden layers with Swish between, if `normalised` after batch normalisation, and a linear output."""
    widths = [inputs, *[hidden] * layers]
    steps: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        normalisation = [TermBatchNorm(wide)] if normalised else []
        steps += [nn.Linear(narrow, wide), *normalisation, nn.SiLU()]
    return nn.Sequential(*steps, nn.Linear(widths[-1], outputs))
