"""Networks for several attributes in one modality, and for one attribute per modality (Figure 4 c and d).

With one attribute per modality, as in MVAE19, all A networks run in parallel. Their parameters are stacked, [A, ...],
so that one batched matrix product replaces a small product per attribute. Each network is equivalent to a network of
PyTorch's layers, including the initialisation.

Shapes: A attributes, n rows, D latents.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.networks.layers import Layers, Shape, mlp

HIDDEN = 512  # width of the networks for several attributes as one modality


def attribute_width(shape: Shape | None) -> int:
    """Returns the width of a single attribute's network: 512 for images of 64x64 or more (section 1), else 64.

    Args:
        shape: shape of the first image; None without images.
    """
    return 512 if shape is not None and shape[-1] >= 64 else 64


class AttributesEncoder(Layers):
    """An MLP with layer widths A-512-512-outputs and batch normalisation before each Swish."""

    def __init__(self, attributes: int, outputs: int) -> None:
        super().__init__()
        self.layers = mlp(attributes, HIDDEN, 2, outputs, normalised=True)

    def forward(self, attributes: Tensor) -> Tensor:
        """Maps attributes int64 [n, A], 0 or 1, to [n, outputs]."""
        return super().forward(attributes.to(next(self.parameters()).dtype))


class AttributesDecoder(Layers):
    """An MLP from z to logits [n, A]: `layers` hidden layers of width 512, batch normalisation before each Swish."""

    def __init__(self, attributes: int, latents: int, layers: int) -> None:
        super().__init__()
        self.layers = mlp(latents, HIDDEN, layers, attributes, normalised=True)


class StackedLinear(nn.Module):
    """Applies one linear layer per attribute, [A, n, inputs] to [A, n, outputs]. Initialises each like nn.Linear."""

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs))
        bound = 1 / math.sqrt(inputs)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, only: slice = slice(None)) -> Tensor:
        """Applies only the layers that the slice `only` selects. `x` must contain inputs for exactly these layers."""
        if only == slice(None):  # no slicing, because a slice's gradient copies the weights into zeros
            return torch.baddbmm(self.bias, x, self.weight)
        return torch.baddbmm(self.bias[only], x, self.weight[only])


class AttributeEncoders(nn.Module):
    """Contains one network per attribute: Embedding(2, hidden), FC hidden-hidden, FC hidden-outputs, Swish between.

    An attribute has only two values. So each network encodes 0 and 1 once, and all rows of a batch reuse the results.
    """

    def __init__(self, attributes: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(attributes, 2, hidden))
        self.hidden = StackedLinear(attributes, hidden, hidden)
        self.output = StackedLinear(attributes, hidden, outputs)

    def forward(self, values: Tensor, only: slice = slice(None)) -> Tensor:
        """Maps attributes int64 [n, A], 0 or 1, to [n, A, outputs]."""
        hidden = self.hidden(F.silu(self.embedding[only]), only)
        table = self.output(F.silu(hidden), only)  # each network's encodings of 0 and 1: [A, 2, outputs]
        index = values + 2 * torch.arange(len(table), device=values.device)
        return F.embedding(index, table.flatten(0, 1))


class AttributeDecoders(nn.Module):
    """Contains one MLP per attribute: `layers` hidden layers, Swish after each, and one output, the logit."""

    def __init__(self, attributes: int, hidden: int, latents: int, layers: int) -> None:
        super().__init__()
        widths = [latents, *[hidden] * layers, 1]
        self.layers = nn.ModuleList(StackedLinear(attributes, narrow, wide) for narrow, wide in pairwise(widths))

    def forward(self, z: Tensor, only: slice = slice(None)) -> Tensor:
        """Maps z [A, n, D], with n rows for each network, to logits [A, n]."""
        x: Tensor = self.layers[0](z, only)
        for layer in self.layers[1:]:
            x = layer(F.silu(x), only)
        return x.squeeze(-1)
