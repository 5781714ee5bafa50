"""RBM: a restricted Boltzmann machine with 128 hidden units (section 8), trained on all images.

Grey pixels are used as probabilities of binary pixels. RBM uses no labels. Its accuracy comes from a read-out: a
logistic regression on the hidden units' probabilities, fitted on the paired set.

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

HIDDEN_UNITS = 128  # H (section 8)


class RBM(nn.Module):
    """A restricted Boltzmann machine: p(v, h) is proportional to exp(b.v + c.h + h.W v).

    `hidden` holds W [H, V] and c. `visible_bias` is b.
    """

    def __init__(self, pixels: int, hidden: int = HIDDEN_UNITS) -> None:
        super().__init__()
        self.hidden = nn.Linear(pixels, hidden)
        self.visible_bias = nn.Parameter(torch.zeros(pixels))
        nn.init.normal_(self.hidden.weight, std=0.01)
        nn.init.zeros_(self.hidden.bias)

    def free_energy(self, visible: Tensor) -> Tensor:
        """Returns the free energy: -log sum_h exp(b.v + c.h + h.W v) = -b.v - sum_j softplus(c_j + (W v)_j), [n]."""
        return -(visible * self.visible_bias).sum(-1) - F.softplus(at_least_float32(self.hidden(visible))).sum(-1)

    def hidden_probabilities(self, visible: Tensor) -> Tensor:
        """Returns p(h = 1 | v), [n, H]."""
        return torch.sigmoid(at_least_float32(self.hidden(visible)))

    def reconstruct(self, hidden: Tensor) -> Tensor:
        """Returns p(v = 1 | h), [n, V], for h [n, H]."""
        return torch.sigmoid(at_least_float32(F.linear(hidden, self.hidden.weight.T)) + self.visible_bias)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the features of the read-out: the hidden units' probabilities, [n, H], for images [n, C, H, W]."""
        return self.hidden_probabilities(image.flatten(1))


def contrastive_divergence(
    model: RBM, visible: Tensor, uniform: Tensor, *, rows: int | None = None, workers: Workers = ALONE
) -> Loss:
    """Returns a loss whose gradient is that of one-step contrastive divergence (CD-1).

    The loss is the mean free energy of the data minus the mean free energy of a reconstruction. The reconstruction is
    the pixels' probabilities given one sample of the hidden units. No gradient flows through the reconstruction.

    Args:
        visible: [n, V], in [0, 1].
        uniform: [n, H], uniform in [0, 1). A hidden unit is on if its value in `uniform` is below its probability.
        rows: number of rows of the whole step, over all workers (default: n).
    """
    step = len(visible) if rows is None else rows
    with torch.no_grad():
        on = (uniform < model.hidden_probabilities(visible)).to(visible.dtype)
        reconstruction = model.reconstruct(on)
        error = workers.mean((visible - reconstruction).square().sum(-1), step)
    total = workers.mean(model.free_energy(visible), step) - workers.mean(model.free_energy(reconstruction), step)
    return Loss(total, {"reconstruction_error": error})


class RbmLearner(ImageLearner):
    """Trains an RBM by CD-1 on all images."""

    model: RBM

    def noise(self, rows: int, generator: torch.Generator) -> Tensor:
        units = self.model.hidden.out_features
        return torch.rand(rows, units, generator=generator, device=self.device, dtype=torch.float32)

    def loss(self, batch: Batch, step: int | Tensor) -> Loss:
        visible = batch.values[0].flatten(1)
        return contrastive_divergence(self.model, visible, batch.noise, rows=batch.rows, workers=self.workers)


@torch.no_grad()
def watch_reconstruction(model: nn.Module, _trial: Settings, data: Dataset) -> dict[str, float]:
    """Returns validation/reconstruction_error: the squared error, summed over pixels and averaged over images.

    The reconstruction is computed from the hidden units' probabilities, without sampling.
    """
    assert isinstance(model, RBM)
    split, image = data.validation, position(data.modalities, Kind.IMAGE)
    total = 0.0
    for rows in split.passes():
        visible = split.take(image, rows).flatten(1)
        total += float((visible - model.reconstruct(model.hidden_probabilities(visible))).square().sum())
    return {"validation/reconstruction_error": total / len(split)}


def build_rbm(_trial: Settings, modalities: tuple[Modality, ...]) -> RBM:
    """Builds the untrained model of the arm RBM."""
    return RBM(prod(modalities[position(modalities, Kind.IMAGE)].shape))
