"""JMVAE: q(z|x1,x2) by an encoder that sees both, and unimodal encoders that are drawn towards it (section 8).

Its objective is ELBO(x1,x2; q(z|x1,x2)) - alpha * sum_i KL(q(z|x1,x2) || q(z|x_i)), so that only pairs teach it. The
encoders of one modality, and the decoders, are the MVAE's; no posterior has a universal expert.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality
from mvae.models.arm import Settings
from mvae.models.elbo import Loss
from mvae.models.gaussian import Gaussian
from mvae.models.learners import Batch, PairedLearner
from mvae.models.multimodal import Multimodal, expert, width_of
from mvae.models.mvae import networks_of, weight_of
from mvae.networks.image import hidden_width, image_encoder
from mvae.networks.text import HIDDEN, SENTENCE_HIDDEN, TextEncoder

# n rows, D latents


class JointEncoder(nn.Module):
    """A trunk for each modality, side by side into FC - hidden - outputs, Swish between."""

    def __init__(self, trunks: Sequence[nn.Module], widths: Sequence[int], hidden: int, outputs: int) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(trunks)
        self.head = nn.Sequential(nn.Linear(sum(widths), hidden), nn.SiLU(), nn.Linear(hidden, outputs))

    def forward(self, values: Sequence[Tensor]) -> Tensor:
        """A value of each modality, n rows each, to [n, outputs]."""
        trunks = [trunk(value) for trunk, value in zip(self.trunks, values, strict=True)]
        outputs: Tensor = self.head(torch.cat(trunks, dim=-1))
        return outputs


def trunk_of(modality: Modality, image_network: str, width: int) -> tuple[nn.Module, int]:
    """What the joint encoder makes of one modality, and how many numbers that is.

    MLP image: one layer, FC C*H*W - width. Convolutional image: all of the image's own encoder but its last layer.
    Label: an embedding alone. Text: the final state of its GRU. Attributes: one layer, FC A - width.
    """
    match modality.kind:
        case Kind.IMAGE:
            whole = image_encoder(image_network, modality.shape, 1).layers
            assert isinstance(whole, nn.Sequential)
            first = whole[:1] if image_network == "mlp" else whole[:-1]
            trunk = [nn.Flatten(), *first, nn.SiLU()] if image_network == "mlp" else first
            last = whole[-1]
            assert isinstance(last, nn.Linear)
            return nn.Sequential(*trunk), hidden_width(modality.shape) if image_network == "mlp" else last.in_features
        case Kind.VECTOR:
            return nn.Sequential(nn.Linear(modality.shape[0], width), nn.SiLU()), width
        case Kind.LABEL:
            return nn.Sequential(nn.Embedding(modality.classes, width), nn.SiLU()), width
        case Kind.TEXT:
            hidden = SENTENCE_HIDDEN if modality.sentences else HIDDEN
            return TextEncoder(modality.classes, None, hidden, modality.sentences), hidden
        case Kind.ATTRIBUTES:
            return nn.Sequential(_LinearOfAttributes(modality.shape[0], width), nn.SiLU()), width
        case Kind.ATTRIBUTE:
            raise AssertionError("JMVAE has one encoder for all, and is refused where attributes stand alone")


class _LinearOfAttributes(nn.Linear):
    """A linear layer that takes attributes, int64 0 or 1."""

    def forward(self, attributes: Tensor) -> Tensor:
        return super().forward(attributes.to(self.weight.dtype))


class JMVAE(Multimodal):
    """Posteriors of one modality by its own encoder, of all together by the joint one, of nothing between."""

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
        """q(z | the given modalities): [n, D], given one of them or all.

        Raises:
            ValueError: given any other set of them.
        """
        given = sorted(values)
        if given == list(range(len(self.modalities))):
            return Gaussian(*expert(self.joint([values[m] for m in given])))
        if len(given) == 1 and 0 <= given[0] < len(self.modalities):
            return Gaussian(*self.encode(given[0], values[given[0]]))
        raise ValueError(f"JMVAE infers from one modality or from all {len(self.modalities)}: given {given}")


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
    """-ELBO(x1,x2; q(z|x1,x2)) + alpha * sum_i KL(q(z|x1,x2) || q(z|x_i)), summed over rows, over the batch size.

    Args:
        values: a value of each modality, n rows each.
        noise: standard normal [n, D].
        alpha: weight of the unimodal KLs; with 0 the unimodal encoders are not run, and get no gradient.
        beta: weight of the KL to the prior, and of no other.
        weights: lambda of each modality.
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
            apart = q.kl(model.infer_at({m: values[m]})).sum() / batch_size
            total = total + alpha * apart
            parts[f"kl_to_{modality.name}"] = apart.detach()
    return Loss(total, parts)


class JmvaeLearner(PairedLearner):
    """The joint objective on the paired set."""

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
    """The JMVAE that a trial describes."""
    width = width_of(modalities)
    encoders, decoders = networks_of(trial, modalities)
    trunks, widths = zip(*(trunk_of(m, trial.image_network, width) for m in modalities), strict=True)
    joint = JointEncoder(trunks, widths, width, 2 * trial.latents)
    return JMVAE(modalities, encoders, joint, decoders, trial.latents)
