"""CVAE: a model of the image given the label, trained on pairs (section 5).

For an image x1 and a label x2, the model consists of q(z|x1,x2), p(x1|z,x2) and the prior N(0, I). The one-hot label is
concatenated to the input of the encoder's first fully connected layer, and to the decoder's input z. The model has no
p(x2) and no q(z|x1), so log p(x1|x2) is its only likelihood.
"""

from collections.abc import Mapping
from functools import partial
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality, position
from mvae.data.examples import Dataset
from mvae.models.arm import Settings
from mvae.models.elbo import Loss
from mvae.models.gaussian import Gaussian
from mvae.models.learners import Batch, PairedLearner, image_bound, validation_elbo
from mvae.models.likelihoods import likelihood_of
from mvae.models.multimodal import at_least_float32, by_position, expert
from mvae.networks.image import image_decoder, image_encoder

# n rows, D latents, C length of a condition


def condition_of(modality: Modality, value: Tensor) -> Tensor:
    """Encodes n values of the conditioning modality as float32 [n, C].

    A label [n] becomes a one-hot vector. A text [n, L] becomes the concatenated one-hot vectors of its tokens.
    Attributes [n, A] stay unchanged.
    """
    if modality.kind is Kind.ATTRIBUTES:
        return value.float()
    return F.one_hot(value, modality.classes).flatten(1).float()


def condition_size(modality: Modality) -> int:
    """Returns C, the length of an encoded value of the conditioning modality."""
    return prod(modality.shape) * (1 if modality.kind is Kind.ATTRIBUTES else modality.classes)


class ConditionedEncoder(nn.Module):
    """An image encoder whose first fully connected layer also reads the condition."""

    def __init__(self, encoder: nn.Module, condition: int) -> None:
        super().__init__()
        layers = encoder.layers
        assert isinstance(layers, nn.Sequential)
        place, linear = next((i, layer) for i, layer in enumerate(layers) if isinstance(layer, nn.Linear))
        self.before = layers[:place]
        wider = nn.Linear(linear.in_features + condition, linear.out_features)
        self.after = nn.Sequential(wider, *layers[place + 1 :])

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Maps images [n, ...] and conditions [n, C] to [n, outputs]."""
        outputs: Tensor = self.after(torch.cat([self.before(image).flatten(1), condition], dim=-1))
        return outputs


class CVAE(nn.Module):
    """A model of modality 0, the image, conditioned on modality 1."""

    def __init__(
        self, modalities: tuple[Modality, Modality], encoder: nn.Module, decoder: nn.Module, latents: int
    ) -> None:
        super().__init__()
        self.modalities, self.latents = modalities, latents
        self.encoder, self.decoder = encoder, decoder
        self.likelihood = likelihood_of(modalities[0])

    def infer(self, values: Mapping[str, Tensor]) -> Gaussian:
        """Returns q(z | x1, x2), [n, D], from n values of each modality. The keys of `values` are names."""
        return self.infer_at(by_position(self.modalities, values))

    def infer_at(self, values: dict[int, Tensor]) -> Gaussian:
        """Returns q(z | x1, x2), [n, D], from n values of each modality. The keys of `values` are positions.

        Raises:
            ValueError: the keys of `values` are not exactly 0 and 1.
        """
        if set(values) != {0, 1}:
            raise ValueError(f"CVAE needs both modalities, 0 and 1, for inference: got {sorted(values)}")
        condition = condition_of(self.modalities[1], values[1])
        return Gaussian(*expert(self.encoder(values[0], condition)))

    def decode(self, z: Tensor, given: Tensor) -> Tensor:
        """Returns the logits of p(x1 | z, x2) for z [n, D] and n values of x2."""
        joined = torch.cat([z, condition_of(self.modalities[1], given).to(z.dtype)], dim=-1)
        return at_least_float32(self.decoder(joined))

    def image_log_prob(self, z: Tensor, given: Tensor, image: Tensor) -> Tensor:
        """Returns log p(x1 | z, x2) of each image, [n], in nats."""
        return self.likelihood.log_prob(self.decode(z, given), image)

    def forward(self, image: Tensor, given: Tensor) -> Tensor:
        """Reconstructs images: returns the mean of p(x1 | z, x2), where z is the mean of q(z | x1, x2)."""
        return self.likelihood.mean(self.decode(self.infer_at({0: image, 1: given}).mean, given))


def cvae_loss(
    model: CVAE, image: Tensor, given: Tensor, noise: Tensor, *, beta: float | Tensor, weight: float, batch_size: int
) -> Loss:
    """Returns the loss of one training step, in nats.

    The loss is the sum over pairs of beta * KL(q(z|x1,x2) || N(0, I)) - weight * log p(x1|z,x2), divided by the batch
    size. If beta and weight are 1, the negative loss is a lower bound of log p(x1|x2).

    Args:
        image: [n, C, H, W].
        given: n values of x2.
        noise: standard normal [n, D].
        beta: weight of the KL.
        weight: lambda, the weight of the image's log-likelihood.
        batch_size: the global batch size.
    """
    q = model.infer_at({0: image, 1: given})
    return image_bound(
        q, noise, lambda z: model.image_log_prob(z, given, image), beta=beta, weight=weight, batch_size=batch_size
    )


class CvaeLearner(PairedLearner):
    """Trains a CVAE by its conditional ELBO on the paired set."""

    model: CVAE

    def loss(self, batch: Batch, step: int | Tensor) -> Loss:
        image, given = batch.values
        return cvae_loss(
            self.model,
            image,
            given,
            batch.noise,
            beta=self.beta(step),
            weight=self.trial.image_weight,
            batch_size=self.batch_size,
        )


def watch_bound(model: nn.Module, trial: Settings, data: Dataset) -> dict[str, float]:
    """Returns the metric validation/elbo: the mean unweighted lower bound of log p(x1|x2), in nats per image.

    Every call samples z with the same noise.
    """
    assert isinstance(model, CVAE)
    return validation_elbo(trial, data.validation, (0, 1), partial(cvae_loss, model))


def build_cvae(trial: Settings, modalities: tuple[Modality, ...]) -> CVAE:
    """Builds the untrained model of the arm CVAE."""
    assert len(modalities) == 2 and position(modalities, Kind.IMAGE) == 0
    image, given = modalities
    size = condition_size(given)
    encoder = ConditionedEncoder(
        image_encoder(image.network or trial.image_network, image.shape, 2 * trial.latents), size
    )
    decoder = image_decoder(
        image.network or trial.image_network, image.shape, trial.latents + size, trial.decoder_hidden
    )
    return CVAE((image, given), encoder, decoder, trial.latents)
