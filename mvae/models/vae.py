"""VAE: the MVAE's image encoder and decoder alone, without a universal expert, on all images (supplement section 8).

It sees no label. Its accuracy is a read-out's: a logistic regression on the posterior means of the paired set.
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
    """One modality, the image, at position 0; q(z|x1) is its encoder's Gaussian."""

    def infer_at(self, values: dict[int, Tensor]) -> Gaussian:
        """q(z | x1): [n, D].

        Raises:
            ValueError: something else than the image is given.
        """
        if set(values) != {0}:
            raise ValueError(f"a VAE infers from its one modality, 0: given {sorted(values)}")
        return Gaussian(*self.encode(0, values[0]))

    def forward(self, image: Tensor) -> Tensor:
        """The mean of q(z | image), [n, D]: the features of the read-out."""
        return self.infer_at({0: image}).mean


def vae_loss(model: VAE, image: Tensor, noise: Tensor, *, beta: float | Tensor, weight: float, batch_size: int) -> Loss:
    """The sum over images of beta * KL(q(z|x1) || p(z)) - weight * log p(x1|z), divided by the batch size, in nats.

    Args:
        image: [n, C, H, W]. noise: standard normal [n, D].
        beta: weight of the KL. weight: lambda of the image.
        batch_size: the global batch size, whatever share of it is here.
    """
    q = model.infer_at({0: image})
    return image_bound(q, noise, lambda z: model.log_prob(0, z, image), beta=beta, weight=weight, batch_size=batch_size)


class VaeLearner(ImageLearner):
    """The ELBO of all images."""

    model: VAE

    def loss(self, batch: Batch, step: int | Tensor) -> Loss:
        beta, weight = self.beta(step), self.trial.image_weight
        (image,) = batch.values
        return vae_loss(self.model, image, batch.noise, beta=beta, weight=weight, batch_size=self.trial.batch_size)


def watch_elbo(model: nn.Module, trial: Settings, data: Dataset) -> dict[str, float]:
    """validation/elbo: the mean bound on log p(x1), unweighted, in nats an image, always with the same noise."""
    assert isinstance(model, VAE)
    image = position(data.modalities, Kind.IMAGE)
    return validation_elbo(trial, data.validation, (image,), partial(vae_loss, model))


def build_vae(trial: Settings, modalities: tuple[Modality, ...]) -> VAE:
    """The VAE that a trial describes."""
    image = modalities[position(modalities, Kind.IMAGE)]
    return VAE((image,), *networks_of(trial, (image,)), trial.latents)
