"""A VAE over several modalities: an encoder and a decoder a modality, and a rule that joins the encoders' Gaussians."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality
from mvae.data.sentences.sentences import group_by_group
from mvae.data.sentences.text import UNKNOWN
from mvae.models.gaussian import Gaussian, standard_log_prob
from mvae.models.likelihoods import Text, likelihood_of
from mvae.networks.attribute import AttributeDecoders, AttributeEncoders, AttributesDecoder, AttributesEncoder
from mvae.networks.image import hidden_width, image_decoder, image_encoder
from mvae.networks.label import LabelDecoder, LabelEncoder
from mvae.networks.text import (
    DECODED_SENTENCES,
    HIDDEN,
    SENTENCE_HIDDEN,
    SENTENCE_LAYERS,
    WORD_DROPOUT,
    TextDecoder,
    TextEncoder,
)
from mvae.networks.vector import MlpVectorDecoder, MlpVectorEncoder

LOG_VAR_LIMIT = 15.0
"""The encoders' log-variances (or raw spreads) are clamped to +- this."""


class Multimodal(nn.Module):
    """Encoders, decoders and likelihoods in the order of `modalities`; the last of them, the single attributes, have
    their networks stacked in `attribute_encoders` and `attribute_decoders` and run all at once.

    Shapes: n rows, R rows, T terms, A single attributes, D latents.
    """

    def __init__(
        self,
        modalities: tuple[Modality, ...],
        encoders: list[nn.Module],
        decoders: list[nn.Module],
        latents: int,
        stacked: tuple[AttributeEncoders, AttributeDecoders] | None = None,
    ) -> None:
        super().__init__()
        self.modalities = modalities
        self.latents = latents
        self.encoders = nn.ModuleList(encoders)
        self.decoders = nn.ModuleList(decoders)
        self.attribute_encoders = stacked[0] if stacked else None
        self.attribute_decoders = stacked[1] if stacked else None
        self.stacked = single_attributes(modalities)
        self.likelihoods = tuple(likelihood_of(modality) for modality in modalities)
        self.learnt_scales = nn.ModuleList(one for one in self.likelihoods if isinstance(one, nn.Module))
        assert len(encoders) == len(decoders) <= self.stacked.start
        assert bool(self.stacked) == (stacked is not None)

    def encode(self, m: int, value: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread of modality m's expert, each [n, D], from n values of it."""
        if m in self.stacked:
            mean, spread = self.encode_attributes(value[:, None], self._one(m))
            return mean.squeeze(1), spread.squeeze(1)
        return expert(self.encoders[m](value))

    def encode_attributes(self, values: Tensor, only: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Mean and spread of every single attribute's expert, each [n, A, D], from their values, int64 [n, A]."""
        assert self.attribute_encoders is not None
        return expert(self.attribute_encoders(values, only))

    def decode(self, m: int, z: Tensor) -> Tensor:
        """Logits of p(x_m | z), one row a row of z [n, D]; not of a text, whose tokens depend on those before."""
        if m in self.stacked:
            return self.decode_attributes(z[None], self._one(m)).squeeze(0)
        return at_least_float32(self.decoders[m](z))

    def decode_attributes(self, z: Tensor, only: slice = slice(None)) -> Tensor:
        """Logits [A, n] of every single attribute at rows of its own, z [A, n, D]."""
        assert self.attribute_decoders is not None
        return at_least_float32(self.attribute_decoders(z, only))

    def _one(self, m: int) -> slice:
        return slice(m - self.stacked.start, m - self.stacked.start + 1)

    def log_prob(self, m: int, z: Tensor, target: Tensor) -> Tensor:
        """log p(x_m | z) of a target a row of z [n, D], unweighted, in nats: [n]. Texts: by teacher forcing."""
        modality = self.modalities[m]
        if modality.kind is not Kind.TEXT:
            return self.likelihoods[m].log_prob(self.decode(m, z), target)

        def of_texts(z: Tensor, text: Tensor) -> Tensor:
            return self.likelihoods[m].log_prob(at_least_float32(self.decoders[m](z, text)), text)

        if not modality.sentences:
            return of_texts(z, target)
        return group_by_group(target, modality.classes, lambda rows, text: of_texts(z.index_select(0, rows), text))

    def sentence_log_probs(self, m: int, z: Tensor, target: Tensor) -> Tensor:
        """As `log_prob` of sentences, of all their tokens and of those that are not <unk>: [n, 2]."""
        modality, likelihood = self.modalities[m], self.likelihoods[m]
        assert modality.sentences and isinstance(likelihood, Text)

        def of_texts(rows: Tensor, text: Tensor) -> Tensor:
            return likelihood.log_probs(at_least_float32(self.decoders[m](z.index_select(0, rows), text)), text)

        return group_by_group(target, modality.classes, of_texts)

    def attributes_log_prob(self, z: Tensor, targets: Tensor) -> Tensor:
        """log p(x_a | z) of every single attribute, [A, n], at rows of its own: z [A, n, D], targets [A, n]."""
        likelihood = self.likelihoods[self.stacked.start]
        logits = self.decode_attributes(z)
        return likelihood.log_prob(logits.flatten(), targets.flatten()).view(logits.shape)

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        """Posteriors [R, T, D] from experts [R, M, D] and the modalities that each conditions on, boolean [R, T, M]."""
        raise NotImplementedError(f"{type(self).__name__} has no rule that joins experts: ask infer")

    def prior_at(self, noise: Tensor) -> Tensor:
        """Samples of p(z) from standard normal noise [..., D]."""
        return noise

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, [...], of z [..., D]."""
        return standard_log_prob(z)

    def index(self, kind: Kind) -> int:
        return next(i for i, modality in enumerate(self.modalities) if modality.kind is kind)

    def infer(self, values: Mapping[str, Tensor]) -> Gaussian:
        """q(z | the given modalities): [n, D], from n values of each modality by its name: {"image": x}."""
        return self.infer_at(by_position(self.modalities, values))

    def infer_at(self, values: dict[int, Tensor]) -> Gaussian:
        """q(z | the given modalities): [n, D], from n values of each modality by its position."""
        given = sorted(values)
        experts = [self.encode(m, values[m]) for m in given if m not in self.stacked]
        attributes = [m for m in given if m in self.stacked]
        if attributes:
            some = values[attributes[0]]
            stacked = some.new_zeros(len(some), len(self.stacked))
            for m in attributes:
                stacked[:, m - self.stacked.start] = values[m]
            means, spreads = self.encode_attributes(stacked)
            places = [m - self.stacked.start for m in attributes]
            experts += [(means[:, place], spreads[:, place]) for place in places]
        some = experts[0][0]
        mean = some.new_zeros(len(some), len(self.modalities), self.latents)
        spread = mean.clone()
        for m, (expert_mean, expert_spread) in zip(given, experts, strict=True):
            mean[:, m], spread[:, m] = expert_mean, expert_spread
        members = some.new_zeros(len(some), 1, len(self.modalities)).bool()
        members[:, :, given] = True
        q = self.posterior(mean, spread, members)
        return Gaussian(q.mean.squeeze(1), q.log_var.squeeze(1))

    def forward(self, image: Tensor) -> Tensor:
        """What z = the mean of q(z | image) predicts (section 8): label logits [n, C], the text [n, L], or the logits
        of all attributes [n, A]; where there are images alone, those of the first image itself [n, C, H, W]."""
        kinds = {modality.kind for modality in self.modalities}
        if Kind.TEXT in kinds:
            return self.transcribe(image)
        z = self.infer_at({self.index(Kind.IMAGE): image}).mean
        if self.stacked:
            return self.all_attributes(z)
        if kinds == {Kind.IMAGE}:
            return self.decode(self.index(Kind.IMAGE), z)
        return self.decode(self.index(Kind.ATTRIBUTES if Kind.ATTRIBUTES in kinds else Kind.LABEL), z)

    def all_attributes(self, z: Tensor) -> Tensor:
        """Logits [n, A] of all single attributes at the same z [n, D]."""
        return self.decode_attributes(z.expand(len(self.stacked), -1, -1)).T

    def transcribe(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The text [n, L] at z = the mean of q(z | image): its likeliest tokens; drawn, where a generator is given."""
        z = self.infer_at({self.index(Kind.IMAGE): image}).mean
        return written(self.decoders[self.index(Kind.TEXT)], z, generator)


def by_position(modalities: tuple[Modality, ...], values: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Values by the position of their modality instead of its name.

    Raises:
        ValueError: there is no modality of that name.
    """
    names = [modality.name for modality in modalities]
    if unknown := [name for name in values if name not in names]:
        raise ValueError(f"there is no modality {unknown[0]!r}: there are {', '.join(names)}")
    return {names.index(name): value for name, value in values.items()}


def expert(encoded: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread (most often the log-variance), each [..., D], from an encoder's outputs [..., 2 D]."""
    mean, spread = at_least_float32(encoded).chunk(2, dim=-1)
    return mean, spread.clamp(-LOG_VAR_LIMIT, LOG_VAR_LIMIT)


def at_least_float32(output: Tensor) -> Tensor:
    """A network's output as posteriors and likelihoods take it: bfloat16 is widened, float64 stays."""
    return output if output.dtype == torch.float64 else output.float()


def written(decoder: nn.Module, z: Tensor, generator: torch.Generator | None) -> Tensor:
    """The texts [n, L] that a text decoder writes at z [n, D]: greedily, or drawn where a generator is given."""
    assert isinstance(decoder, TextDecoder)
    return decoder.sample(z, generator)


def encoder_of(modality: Modality, image_network: str, width: int, outputs: int) -> nn.Module:
    """The encoder of a modality (Figures 1 to 4)."""
    match modality.kind:
        case Kind.IMAGE:
            return image_encoder(modality.network or image_network, modality.shape, outputs)
        case Kind.LABEL:
            return LabelEncoder(modality.classes, width, outputs)
        case Kind.TEXT:
            hidden = SENTENCE_HIDDEN if modality.sentences else HIDDEN
            return TextEncoder(modality.classes, outputs, hidden, modality.sentences)
        case Kind.ATTRIBUTES:
            return AttributesEncoder(modality.shape[0], outputs)
        case Kind.VECTOR:
            return MlpVectorEncoder(modality.shape[0], width, outputs)
        case Kind.ATTRIBUTE:
            raise AssertionError("single attributes have stacked networks")


def decoder_of(modality: Modality, image_network: str, width: int, latents: int, layers: int) -> nn.Module:
    """The decoder of a modality (Figures 1 to 4)."""
    match modality.kind:
        case Kind.IMAGE:
            return image_decoder(modality.network or image_network, modality.shape, latents, layers)
        case Kind.LABEL:
            return LabelDecoder(modality.classes, width, latents, layers)
        case Kind.TEXT if modality.sentences:
            return TextDecoder(
                modality.classes,
                modality.shape[0],
                latents,
                SENTENCE_HIDDEN,
                SENTENCE_LAYERS,
                WORD_DROPOUT,
                DECODED_SENTENCES,
                reads_z=False,
                silent=UNKNOWN,
            )
        case Kind.TEXT:
            return TextDecoder(modality.classes, modality.shape[0], latents)
        case Kind.ATTRIBUTES:
            return AttributesDecoder(modality.shape[0], latents, layers)
        case Kind.VECTOR:
            return MlpVectorDecoder(modality.shape[0], width, latents, layers)
        case Kind.ATTRIBUTE:
            raise AssertionError("single attributes have stacked networks")


def single_attributes(modalities: tuple[Modality, ...]) -> range:
    """Positions of the single attributes, which come last."""
    first = next((m for m, modality in enumerate(modalities) if modality.kind is Kind.ATTRIBUTE), len(modalities))
    assert all(modality.kind is Kind.ATTRIBUTE for modality in modalities[first:]), "single attributes come last"
    return range(first, len(modalities))


def width_of(modalities: tuple[Modality, ...]) -> int:
    """Width of the fully connected layers, by the size of the first image or vector; without one, that of the texts'
    networks."""
    shapes = [modality.shape for modality in modalities if modality.kind in (Kind.IMAGE, Kind.VECTOR)]
    return hidden_width(shapes[0]) if shapes else SENTENCE_HIDDEN
