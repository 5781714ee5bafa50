"""VAE: the MVAE's image encoder and decoder, trained on all images without a prior expert (supplement section 8).

VAE uses no labels. Its accuracy comes from a read-out: a logistic regression on the posterior means, fitted on the
paired set.
"""

from functools import partial

from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality, position
from mvae.data.examples import Dataset
from mvae.models.arm import Settings
from mvae.models.elbo import Loss
from mvae.models.gaussian import Gaussian
from mvae.models.learners import Batch, ImageLearner, image_bound, validation_elbo
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import networks_of


class VAE(Multimodal):
    """A model of one modality: the image, at position 0. The posterior q(z|x1) is the encoder's Gaussian."""

    def infer_at(self, values: dict[int, Tensor]) -> Gaussian:
        """Returns q(z | x1), [n, D].

        Raises:
            ValueError: `values` does not have exactly one key: 0, the position of the image.
        """
        if set(values) != {0}:
            raise ValueError(f"VAE infers z from modality 0 alone: got {sorted(values)}")
        return Gaussian(*self.encode(0, values[0]))

    def forward(self, image: Tensor) -> Tensor:
        """Returns the features of the read-out: the mean of q(z | image), [n, D]."""
        return self.infer_at({0: image}).mean


def vae_loss(model: VAE, image: Tensor, noise: Tensor, *, beta: float | Tensor, weight: float, batch_size: int) -> Loss:
    """Returns the loss of one training step, in nats.

    The loss is the sum over images of beta * KL(q(z|x1) || p(z)) - weight * log p(x1|z), divided by the batch size.

    Args:
        image: [n, C, H, W].
        noise: standard normal [n, D].
        beta: weight of the KL.
        weight: lambda, the weight of the image's log-likelihood.
        batch_size: the global batch size, over all workers.
    """
    q = model.infer_at({0: image})
    return image_bound(q, noise, lambda z: model.log_prob(0, z, image), beta=beta, weight=weight, batch_size=batch_size)


class VaeLearner(ImageLearner):
    """Trains a VAE by its ELBO on all images."""

    model: VAE

    def loss(self, batch: Batch, step: int | Tensor) -> Loss:
        return vae_loss(
            self.model,
            batch.values[0],
            batch.noise,
            beta=self.beta(step),
            weight=self.trial.image_weight,
            batch_size=self.trial.batch_size,
        )


def watch_elbo(model: nn.Module, trial: Settings, data: Dataset) -> dict[str, float]:
    """Returns validation/elbo: the mean unweighted lower bound of log p(x1) for fixed noise, in nats per image."""
    assert isinstance(model, VAE)
    image = position(data.modalities, Kind.IMAGE)
    return validation_elbo(trial, data.validation, (image,), partial(vae_loss, model))


def build_vae(trial: Settings, modalities: tuple[Modality, ...]) -> VAE:
    """Builds the untrained model of the arm VAE."""
    image = modalities[position(modalities, Kind.IMAGE)]
    return VAE((image,), *networks_of(trial, (image,)), trial.latents)
