"""JMVAE: a joint encoder for q(z|x1,x2), and unimodal encoders trained to match the joint encoder (section 8).

The objective is ELBO(x1,x2; q(z|x1,x2)) - alpha * sum_i KL(q(z|x1,x2) || q(z|x_i)), so JMVAE trains only on pairs. The
unimodal encoders and the decoders are built like the MVAE's. No posterior has a universal expert.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality
from mvae.models.arm import Settings
from mvae.models.elbo import Loss
from mvae.models.gaussian import Gaussian, product
from mvae.models.learners import Batch, PairedLearner
from mvae.models.multimodal import Multimodal, expert, width_of
from mvae.models.mvae import networks_of, weight_of
from mvae.networks.image import hidden_width, image_encoder
from mvae.networks.text import HIDDEN, SENTENCE_HIDDEN, TextEncoder

# n rows, D latents


class JointEncoder(nn.Module):
    """Has one trunk per modality. Two FC layers, with Swish between, process the trunks' concatenated outputs."""

    def __init__(self, trunks: Sequence[nn.Module], widths: Sequence[int], hidden: int, outputs: int) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(trunks)
        self.head = nn.Sequential(nn.Linear(sum(widths), hidden), nn.SiLU(), nn.Linear(hidden, outputs))

    def forward(self, values: Sequence[Tensor]) -> Tensor:
        """Maps n values of each modality to [n, outputs]."""
        trunks = [trunk(value) for trunk, value in zip(self.trunks, values, strict=True)]
        outputs: Tensor = self.head(torch.cat(trunks, dim=-1))
        return outputs


def trunk_of(modality: Modality, image_network: str, width: int, latents: int) -> tuple[nn.Module, int]:
    """Returns a modality's trunk in the joint encoder, and the number of the trunk's outputs.

    The trunk depends on the kind of modality:

    - image with the network `mlp`: one layer, FC from C*H*W to `width`
    - image with a convolutional network: the image encoder without its last layer
    - label: an embedding
    - text: the text encoder without its last layer
    - attributes: one layer, FC from A to `width`
    - vector: one layer, FC from D to `width`

    Args:
        image_network: name of the network for images whose modality declares no network.
        width: width of the fully connected layers.
        latents: number of latents, which is also the width of the last hidden layer of the network `conv`.
    """
    match modality.kind:
        case Kind.IMAGE:
            network = modality.network or image_network
            outputs = 2 * latents if network == "conv" else 1  # sets the width of conv's last hidden layer
            whole = image_encoder(network, modality.shape, outputs).layers
            assert isinstance(whole, nn.Sequential)
            first = whole[:1] if network == "mlp" else whole[:-1]
            trunk = [nn.Flatten(), *first, nn.SiLU()] if network == "mlp" else first
            last = whole[-1]
            assert isinstance(last, nn.Linear)
            return nn.Sequential(*trunk), hidden_width(modality.shape) if network == "mlp" else last.in_features
        case Kind.VECTOR:
            return nn.Sequential(nn.Linear(modality.shape[0], width), nn.SiLU()), width
        case Kind.LABEL:
            return nn.Sequential(nn.Embedding(modality.classes, width), nn.SiLU()), width
        case Kind.TEXT:
            hidden = SENTENCE_HIDDEN if modality.sentences else HIDDEN
            return TextEncoder(modality.classes, None, hidden, modality.sentences), hidden
        case Kind.ATTRIBUTES:
            return nn.Sequential(_AttributesLinear(modality.shape[0], width), nn.SiLU()), width
        case Kind.ATTRIBUTE:
            raise AssertionError("a trial with JMVAE and single attributes should have been refused")


class _AttributesLinear(nn.Linear):
    """A linear layer that accepts int64 attributes, each 0 or 1."""

    def forward(self, attributes: Tensor) -> Tensor:
        return super().forward(attributes.to(self.weight.dtype))


class JMVAE(Multimodal):
    """Infers z from one modality with the modality's encoder, and from all modalities with the joint encoder."""

    def __init__(
        self,
        modalities: tuple[Modality, ...],
        encoders: list[nn.Module],
        joint: nn.Module,
        decoders: list[nn.Module],
        latents: int,
    ) -> None:
        super().__init__(modalities, encoders, decoders, latents)
        self.joint = joint

    def infer_at(self, values: dict[int, Tensor]) -> Gaussian:
        """Returns q(z | the given modalities), [n, D], from n values of each modality, keyed by position.

        Given all modalities, the posterior comes from the joint encoder. Given two or more, but not all, the posterior
        is the product of the unimodal posteriors, without a prior expert.

        Raises:
            ValueError: no modality is given, or a given modality is unknown.
        """
        given = sorted(values)
        if given == list(range(len(self.modalities))):
            return Gaussian(*expert(self.joint([values[m] for m in given])))
        if len(given) == 1 and 0 <= given[0] < len(self.modalities):
            return Gaussian(*self.encode(given[0], values[given[0]]))
        if not given or not set(given) <= set(range(len(self.modalities))):
            raise ValueError(f"JMVAE needs one or more of the modalities 0 to {len(self.modalities) - 1}: got {given}")
        encoded = [self.encode(m, values[m]) for m in given]
        mean, log_var = (torch.stack(parts, dim=1) for parts in zip(*encoded, strict=True))
        q = product(mean, log_var, torch.ones(1, len(given), dtype=torch.bool, device=mean.device), prior=False)
        return Gaussian(q.mean.squeeze(1), q.log_var.squeeze(1))


def negative_joint_elbo(
    model: JMVAE,
    values: Sequence[Tensor],
    noise: Tensor,
    *,
    alpha: float,
    beta: float | Tensor,
    weights: Sequence[float],
    batch_size: int,
) -> Loss:
    """Returns the loss of one training step and its parts, in nats.

    The loss is -ELBO(x1,x2; q(z|x1,x2)) + alpha * sum_i KL(q(z|x1,x2) || q(z|x_i)), summed over rows and divided by the
    batch size.

    Args:
        values: n values of each modality.
        noise: standard normal [n, D].
        alpha: weight of the unimodal KLs. If 0, the unimodal encoders do not run and get no gradient.
        beta: weight of the KL to the prior. Does not affect the unimodal KLs.
        weights: lambda, the likelihood weight of each modality.
        batch_size: the global batch size.
    """
    q = model.infer_at(dict(enumerate(values)))
    z = q.rsample(noise)
    kl = q.kl_to_prior().sum() / batch_size
    total, parts = beta * kl, {"kl": kl.detach()}
    for m, modality in enumerate(model.modalities):
        log_likelihood = model.log_prob(m, z, values[m]).sum() / batch_size
        total = total - weights[m] * log_likelihood
        parts[f"log_likelihood_{modality.name}"] = log_likelihood.detach()
    if alpha:
        for m, modality in enumerate(model.modalities):
            kl_to_unimodal = q.kl(model.infer_at({m: values[m]})).sum() / batch_size
            total = total + alpha * kl_to_unimodal
            parts[f"kl_to_{modality.name}"] = kl_to_unimodal.detach()
    return Loss(total, parts)


class JmvaeLearner(PairedLearner):
    """Trains a JMVAE by its joint objective on the paired set."""

    model: JMVAE

    def loss(self, batch: Batch, step: int | Tensor) -> Loss:
        return negative_joint_elbo(
            self.model,
            batch.values,
            batch.noise,
            alpha=self.trial.alpha,
            beta=self.beta(step),
            weights=[weight_of(modality, self.trial) for modality in self.model.modalities],
            batch_size=self.batch_size,
        )


def build_jmvae(trial: Settings, modalities: tuple[Modality, ...]) -> JMVAE:
    """Builds the untrained model of the arm JMVAE."""
    width = width_of(modalities)
    encoders, decoders = networks_of(trial, modalities)
    trunks, widths = zip(*(trunk_of(m, trial.image_network, width, trial.latents) for m in modalities), strict=True)
    joint = JointEncoder(trunks, widths, width, 2 * trial.latents)
    return JMVAE(modalities, encoders, joint, decoders, trial.latents)
