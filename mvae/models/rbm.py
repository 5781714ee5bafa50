"""RBM: a restricted Boltzmann machine with 128 hidden units on all images (section 8), by contrastive divergence.

Grey pixels are taken as the probabilities of binary ones. It sees no label; its accuracy is a read-out's: a logistic
regression on the hidden units' probabilities of the paired set.

Shapes: n rows, V pixels, H hidden units.
"""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality, position
from mvae.data.examples import Dataset
from mvae.models.arm import Settings
from mvae.models.elbo import Loss
from mvae.models.learners import Batch, ImageLearner
from mvae.models.multimodal import at_least_float32
from mvae.workers import ALONE, Workers

HIDDEN_UNITS = 128
"""H (section 8)."""


class RBM(nn.Module):
    """p(v, h) proportional to exp(b.v + c.h + h.W v): `hidden` holds W [H, V] and c, `visible_bias` is b."""

    def __init__(self, pixels: int, hidden: int = HIDDEN_UNITS) -> None:
        super().__init__()
        self.hidden = nn.Linear(pixels, hidden)
        self.visible_bias = nn.Parameter(torch.zeros(pixels))
        nn.init.normal_(self.hidden.weight, std=0.01)
        nn.init.zeros_(self.hidden.bias)

    def free_energy(self, visible: Tensor) -> Tensor:
        """-b.v - sum_j softplus(c_j + (W v)_j), minus the log of the sum over all h of exp(b.v + c.h + h.W v): [n]."""
        return -(visible * self.visible_bias).sum(-1) - F.softplus(at_least_float32(self.hidden(visible))).sum(-1)

    def hidden_probabilities(self, visible: Tensor) -> Tensor:
        """p(h = 1 | v): [n, H]."""
        return torch.sigmoid(at_least_float32(self.hidden(visible)))

    def reconstruct(self, hidden: Tensor) -> Tensor:
        """p(v = 1 | h): [n, V] for h [n, H]."""
        return torch.sigmoid(at_least_float32(F.linear(hidden, self.hidden.weight.T)) + self.visible_bias)

    def forward(self, image: Tensor) -> Tensor:
        """The hidden units' probabilities, [n, H], of images [n, C, H, W]: the features of the read-out."""
        return self.hidden_probabilities(image.flatten(1))


def contrastive_divergence(
    model: RBM, visible: Tensor, uniform: Tensor, *, rows: int | None = None, workers: Workers = ALONE
) -> Loss:
    """A loss whose gradient is that of CD-1: mean free energy of the data minus that of their reconstruction.

    The reconstruction is the pixels' probabilities given one draw of the hidden units; no gradient flows through it.

    Args:
        visible: [n, V], in [0, 1].
        uniform: [n, H], uniform in [0, 1): a unit is on where it is below the unit's probability.
        rows: of the whole step, of which `workers` have these n; None: n.
    """
    step = len(visible) if rows is None else rows
    with torch.no_grad():
        on = (uniform < model.hidden_probabilities(visible)).to(visible.dtype)
        again = model.reconstruct(on)
        error = workers.mean((visible - again).square().sum(-1), step)
    total = workers.mean(model.free_energy(visible), step) - workers.mean(model.free_energy(again), step)
    return Loss(total, {"reconstruction_error": error})


class RbmLearner(ImageLearner):
    """CD-1 on all images."""

    model: RBM

    def noise(self, rows: int, generator: torch.Generator) -> Tensor:
        """Uniform [n, H]."""
        units = self.model.hidden.out_features
        return torch.rand(rows, units, generator=generator, device=self.device, dtype=torch.float32)

    def loss(self, batch: Batch, step: int | Tensor) -> Loss:
        (image,) = batch.values
        visible = image.flatten(1)
        return contrastive_divergence(self.model, visible, batch.noise, rows=batch.rows, workers=self.workers)


@torch.no_grad()
def watch_reconstruction(model: nn.Module, _trial: Settings, data: Dataset) -> dict[str, float]:
    """validation/reconstruction_error: squared, summed over pixels, at the hidden units' probabilities."""
    assert isinstance(model, RBM)
    split, image = data.validation, position(data.modalities, Kind.IMAGE)
    total = 0.0
    for rows in split.passes():
        visible = split.take(image, rows).flatten(1)
        again = model.reconstruct(model.hidden_probabilities(visible))
        total += float((visible - again).square().sum())
    return {"validation/reconstruction_error": total / len(split)}


def build_rbm(_trial: Settings, modalities: tuple[Modality, ...]) -> RBM:
    """The RBM of a data set's images."""
    return RBM(prod(modalities[position(modalities, Kind.IMAGE)].shape))
