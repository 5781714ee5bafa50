"""A VAE over several modalities: one encoder and decoder per modality, and a rule that combines the experts."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mvae.data.dataset import Kind, Modality, first_input
from mvae.data.sentences.sentences import group_by_group
from mvae.data.sentences.text import UNKNOWN
from mvae.models.gaussian import Gaussian, standard_log_prob
from mvae.models.likelihoods import Text, likelihood_of
from mvae.models.posteriors import component_means
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
"""The encoders' log-variances (or raw spreads) are clamped to [-LOG_VAR_LIMIT, LOG_VAR_LIMIT]."""


class Multimodal(nn.Module):
    """Encoders, decoders and likelihoods in the order of `modalities`.

    Single attributes come last in `modalities`. Their networks are stacked in `attribute_encoders` and
    `attribute_decoders`, so that all run at once. Subclasses define `posterior` or `infer_at`.

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
        """Returns the mean and spread of modality m's expert, each [n, D], for n values of the modality."""
        if m in self.stacked:
            mean, spread = self.encode_attributes(value[:, None], self._one(m))
            return mean.squeeze(1), spread.squeeze(1)
        return expert(self.encoders[m](value))

    def encode_attributes(self, values: Tensor, only: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Returns the mean and spread of every single attribute's expert, each [n, A, D], for values int64 [n, A]."""
        assert self.attribute_encoders is not None
        return expert(self.attribute_encoders(values, only))

    def decode(self, m: int, z: Tensor) -> Tensor:
        """Returns the logits of p(x_m | z) for each row of z [n, D]. For texts, use `text_logits`."""
        if m in self.stacked:
            return self.decode_attributes(z[None], self._one(m)).squeeze(0)
        return at_least_float32(self.decoders[m](z))

    def decode_attributes(self, z: Tensor, only: slice = slice(None)) -> Tensor:
        """Returns the logits [A, n] of every single attribute at z [A, n, D]. Each attribute has its own rows of z."""
        assert self.attribute_decoders is not None
        return at_least_float32(self.attribute_decoders(z, only))

    def _one(self, m: int) -> slice:
        return slice(m - self.stacked.start, m - self.stacked.start + 1)

    def text_logits(self, m: int, z: Tensor, text: Tensor) -> Tensor:
        """Returns the logits of each token of texts [n, L], given z [n, D] and the tokens before this token."""
        return at_least_float32(self.decoders[m](z, text))

    def log_prob(self, m: int, z: Tensor, target: Tensor) -> Tensor:
        """Returns log p(x_m | z) of one target per row of z [n, D], unweighted, in nats: [n]."""
        modality, likelihood = self.modalities[m], self.likelihoods[m]
        if modality.kind is not Kind.TEXT:
            return likelihood.log_prob(self.decode(m, z), target)
        if not modality.sentences:
            return likelihood.log_prob(self.text_logits(m, z, target), target)
        return group_by_group(
            target,
            modality.classes,
            lambda rows, text: likelihood.log_prob(self.text_logits(m, z.index_select(0, rows), text), text),
        )

    def sentence_log_probs(self, m: int, z: Tensor, target: Tensor) -> Tensor:
        """Returns two sums per sentence, [n, 2]: over all tokens, as in `log_prob`, and over tokens except <unk>."""
        modality, likelihood = self.modalities[m], self.likelihoods[m]
        assert modality.sentences and isinstance(likelihood, Text)
        return group_by_group(
            target,
            modality.classes,
            lambda rows, text: likelihood.log_probs(self.text_logits(m, z.index_select(0, rows), text), text),
        )

    def attributes_log_prob(self, z: Tensor, targets: Tensor) -> Tensor:
        """Returns log p(x_a | z) [A, n] of every single attribute at z [A, n, D], which has rows for each attribute."""
        likelihood = self.likelihoods[self.stacked.start]
        logits = self.decode_attributes(z)
        return likelihood.log_prob(logits.flatten(), targets.flatten()).view(logits.shape)

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        """Combines experts [R, M, D] into posteriors [R, T, D] that condition on `members`, boolean [R, T, M]."""
        raise NotImplementedError(f"{type(self).__name__} does not combine experts: use infer")

    def prior_at(self, noise: Tensor) -> Tensor:
        """Samples of p(z) from standard normal noise [..., D]."""
        return noise

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """Returns log p(z) in nats, [...], of z [..., D]."""
        return standard_log_prob(z)

    def index(self, kind: Kind) -> int:
        return next(i for i, modality in enumerate(self.modalities) if modality.kind is kind)

    def infer(self, values: Mapping[str, Tensor]) -> Gaussian:
        """Returns q(z | the given modalities), [n, D], for n values of each modality by name: {"image": x}."""
        return self.infer_at(by_position(self.modalities, values))

    def infer_at(self, values: dict[int, Tensor]) -> Gaussian:
        """Returns q(z | the given modalities), [n, D], for n values of each modality by position."""
        given = sorted(values)
        experts = [self.encode(m, values[m]) for m in given if m not in self.stacked]
        if columns := [m - self.stacked.start for m in given if m in self.stacked]:
            known = torch.stack([values[m] for m in given if m in self.stacked], dim=1)
            stacked = known.new_zeros(len(known), len(self.stacked))
            stacked[:, columns] = known
            means, spreads = self.encode_attributes(stacked)
            experts += [(means[:, column], spreads[:, column]) for column in columns]
        first = experts[0][0]
        mean = first.new_zeros(len(first), len(self.modalities), self.latents)
        spread = mean.clone()
        for m, (expert_mean, expert_spread) in zip(given, experts, strict=True):
            mean[:, m], spread[:, m] = expert_mean, expert_spread
        members = first.new_zeros(len(first), 1, len(self.modalities)).bool()
        members[:, :, given] = True
        q = self.posterior(mean, spread, members)
        return Gaussian(q.mean.squeeze(1), q.log_var.squeeze(1))

    def forward(self, image: Tensor) -> Tensor:
        """Predicts the other modalities from z = the mean of q(z | image) (section 8).

        Args:
            image: n values of the first image or vector.
        Returns:
            The first of these that the model has: the text [n, L], label logits [n, C], the logits of all attributes
            [n, A]. If all modalities are images or vectors, the decoder's output for the first one.
        """
        kinds = {modality.kind for modality in self.modalities}
        if Kind.TEXT in kinds:
            return self.transcribe(image)
        given = first_input(self.modalities)
        z = self.predictive({given: image})
        if Kind.LABEL in kinds:
            return self.decode(self.index(Kind.LABEL), z)
        if self.stacked:
            return self.all_attributes(z)
        return self.decode(self.index(Kind.ATTRIBUTES) if Kind.ATTRIBUTES in kinds else given, z)

    def predict(self, m: int, values: Mapping[str, Tensor]) -> Tensor:
        """Returns the probabilities of a label given n values of other modalities by name.

        z is the mean of q(z | the given modalities). For a mixture, the probabilities are averaged over the means of
        its components. Raises the errors of `infer`.

        Args:
            m: position of the label.
        Returns:
            [n, C]
        """
        means = component_means(self.infer(values))
        each = [torch.softmax(self.decode(m, self.for_prediction(m, mean)), dim=-1) for mean in means]
        return sum(each[1:], each[0]) / len(each)

    def for_prediction(self, m: int, z: Tensor) -> Tensor:
        """Returns the latents [n, D] used to predict modality m when m is not given."""
        return z

    def all_attributes(self, z: Tensor) -> Tensor:
        """Returns logits [n, A] of all single attributes at the same z [n, D]."""
        return self.decode_attributes(z.expand(len(self.stacked), -1, -1)).T

    def transcribe(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns the text [n, L] at z = the mean of q(z | image): greedy, or sampled with the generator."""
        text = self.index(Kind.TEXT)
        return self.text_at(text, self.predictive({first_input(self.modalities): image}), generator)

    def text_at(self, m: int, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """Returns texts [n, L] of modality m at z [n, D]: greedy, or sampled with the generator."""
        return written(self.decoders[m], z, generator)

    def predictive(self, values: dict[int, Tensor]) -> Tensor:
        """Returns the z [n, D] at which modalities that are not given are predicted: the mean of q(z | the given)."""
        return self.infer_at(values).mean


def by_position(modalities: tuple[Modality, ...], values: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Replaces the names of modalities with their positions.

    Raises:
        ValueError: unknown name.
    """
    names = [modality.name for modality in modalities]
    if unknown := [name for name in values if name not in names]:
        raise ValueError(f"unknown modality {unknown[0]!r}: choose from {', '.join(names)}")
    return {names.index(name): value for name, value in values.items()}


def expert(encoded: Tensor) -> tuple[Tensor, Tensor]:
    """Splits an encoder's outputs [..., 2 D] into mean and spread (usually the log-variance), each [..., D]."""
    mean, spread = at_least_float32(encoded).chunk(2, dim=-1)
    return mean, spread.clamp(-LOG_VAR_LIMIT, LOG_VAR_LIMIT)


def at_least_float32(output: Tensor) -> Tensor:
    """Converts a network's output from bfloat16 to float32, for posteriors and likelihoods. Keeps float64 unchanged."""
    return output if output.dtype == torch.float64 else output.float()


def written(decoder: nn.Module, z: Tensor, generator: torch.Generator | None) -> Tensor:
    """Generates texts [n, L] at z [n, D] with a text decoder: greedily, or sampled with the generator."""
    assert isinstance(decoder, TextDecoder)
    return decoder.sample(z, generator)


def encoder_of(modality: Modality, image_network: str, width: int, outputs: int) -> nn.Module:
    """Builds the encoder of a modality (Figures 1 to 4)."""
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
    """Builds the decoder of a modality (Figures 1 to 4)."""
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
    """Returns the positions of the single attributes, which come last."""
    first = next((m for m, modality in enumerate(modalities) if modality.kind is Kind.ATTRIBUTE), len(modalities))
    assert all(modality.kind is Kind.ATTRIBUTE for modality in modalities[first:]), "single attributes come last"
    return range(first, len(modalities))


def width_of(modalities: tuple[Modality, ...]) -> int:
    """Returns the width of fully connected layers, from the first image or vector, or SENTENCE_HIDDEN without one."""
    shapes = [modality.shape for modality in modalities if modality.kind in (Kind.IMAGE, Kind.VECTOR)]
    return hidden_width(shapes[0]) if shapes else SENTENCE_HIDDEN
