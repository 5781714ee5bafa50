"""Trains M models with MLP networks as one model: parameters are stacked, and each layer is a batched matrix product.

On a GPU, the time of a step of small networks is the time to launch its kernels. M models in lockstep launch no more
kernels than one model. The objective is the MVAE's objective on M * B rows. The loss is the sum of the models' losses,
so each model's gradients come from its own loss. Adam works element by element, so each model takes the same steps as
in separate training.

Shapes: M models, B rows per model, T terms in one decoder pass. Rows are ordered by term, then by model, then as in the
model's batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.models.elbo import elbo_terms
from mvae.models.layout import Layout, layout
from mvae.models.mvae import MVAE, ElboBatch
from mvae.networks.image import MlpImageDecoder, MlpImageEncoder
from mvae.networks.label import LabelDecoder, LabelEncoder


class StackedLayers(nn.Module):
    """M sequences of Linear and SiLU layers as one module, from [M, n, inputs] to [M, n, outputs]."""

    def __init__(self, networks: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.linear = [isinstance(layer, nn.Linear) for layer in networks[0]]
        for layers in zip(*networks, strict=True):
            linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
            assert linears or isinstance(layers[0], nn.SiLU), "only Linear and SiLU layers are stacked"
            if linears:
                self.weights.append(torch.stack([one.weight.detach().t() for one in linears]))
                self.biases.append(torch.stack([one.bias.detach() for one in linears]).unsqueeze(1))

    def forward(self, x: Tensor) -> Tensor:
        parameters = iter(zip(self.weights, self.biases, strict=True))
        for linear in self.linear:
            if linear:
                weight, bias = next(parameters)
                x = torch.baddbmm(bias, x, weight)
            else:
                x = F.silu(x)
        return x


class StackedRows(nn.Module):
    """Stacked layers for flat rows [T * M * B, inputs]. Each row of the output has the shape `shape`."""

    def __init__(self, networks: Sequence[nn.Sequential], rows: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = StackedLayers(networks)
        self.models, self.rows, self.shape = len(networks), rows, shape

    def forward(self, x: Tensor) -> Tensor:
        by_model = x.reshape(-1, self.models, self.rows, x[0].numel()).transpose(0, 1).flatten(1, 2)
        y = self.layers(by_model).unflatten(1, (-1, self.rows)).transpose(0, 1)
        flat: Tensor = y.reshape(len(x), *self.shape)
        return flat


class StackedLabelEncoder(nn.Module):
    """M stacked LabelEncoders. Encodes every class once per model; each row looks up the code of its class."""

    def __init__(self, networks: Sequence[LabelEncoder], rows: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.stack([one.embedding.weight.detach() for one in networks]))
        self.layers = StackedLayers([one.layers for one in networks])
        classes = self.embedding.shape[1]
        self.offset: Tensor
        self.register_buffer("offset", (torch.arange(len(networks)) * classes).repeat_interleave(rows))

    def forward(self, label: Tensor) -> Tensor:
        """Encodes labels int64 [M * B], ordered by model."""
        return F.embedding(label + self.offset, self.layers(self.embedding).flatten(0, 1))


def stacked(models: Sequence[MVAE], rows: int) -> MVAE:
    """Returns one model with the stacked parameters of M models with MLP networks.

    Args:
        rows: rows per model. A batch of the stacked model has M * rows rows, ordered by model.
    """

    def stack(networks: Sequence[nn.Module]) -> nn.Module:
        match networks[0]:
            case LabelEncoder():
                return StackedLabelEncoder([one for one in networks if isinstance(one, LabelEncoder)], rows)
            case MlpImageDecoder(shape=shape):
                return StackedRows(layers_of(networks), rows, shape)
            case MlpImageEncoder() | LabelDecoder():
                last = layers_of(networks)[0][-1]
                assert isinstance(last, nn.Linear)
                return StackedRows(layers_of(networks), rows, (last.out_features,))
        raise AssertionError(f"{type(networks[0]).__name__} cannot be stacked")

    def layers_of(networks: Sequence[nn.Module]) -> list[nn.Sequential]:
        return [one.layers for one in networks if isinstance(one.layers, nn.Sequential)]

    first = models[0]
    return MVAE(
        first.modalities,
        [stack(networks) for networks in zip(*(model.encoders for model in models), strict=True)],
        [stack(networks) for networks in zip(*(model.decoders for model in models), strict=True)],
        first.latents,
    )


def joined(batches: Sequence[ElboBatch], plan: Layout | None = None) -> ElboBatch:
    """Joins the batches of M models into one batch, ordered by model. All examples must be paired.

    Args:
        plan: layout of an earlier step, to be used again. If None, the layout is computed.
    """
    if plan is None:
        modalities, rows = len(batches[0].values), len(batches[0].values[0])
        present = np.ones((len(batches) * rows, modalities), dtype=bool)
        terms = elbo_terms(modalities, 0, np.random.default_rng(0))
        active = np.ones((len(terms), len(present)), dtype=bool)
        plan = layout(present, terms, active, device=batches[0].noise.device)
    return ElboBatch(
        plan,
        tuple(torch.cat(values) for values in zip(*(batch.values for batch in batches), strict=True)),
        torch.cat([batch.noise for batch in batches], dim=1),
    )
