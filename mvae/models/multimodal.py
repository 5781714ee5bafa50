"""A VAE over several modalities: one encoder and decoder per modality, and a rule to combine the encoders' outputs."""

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
    """Base class of VAEs over several modalities, with one encoder, decoder and likelihood per modality.

    An expert is the distribution of z that one modality's encoder returns. Single attributes,
    which are modalities with one attribute each, come last in `modalities`. Their networks are stacked in
    `attribute_encoders` and `attribute_decoders`, and run in parallel. Subclasses define `posterior` or `infer_at`.

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
        """Returns the mean and spread of modality m's expert, each [n, D], from n values of the modality."""
        if m in self.stacked:
            mean, spread = self.encode_attributes(value[:, None], self._one(m))
            return mean.squeeze(1), spread.squeeze(1)
        return expert(self.encoders[m](value))

    def encode_attributes(self, values: Tensor, only: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Returns the mean and spread of the single attributes' experts, each [n, A, D], from values int64 [n, A]."""
        assert self.attribute_encoders is not None
        return expert(self.attribute_encoders(values, only))

    def decode(self, m: int, z: Tensor) -> Tensor:
        """Returns the logits of p(x_m | z) for each row of z [n, D]. For texts, use `text_logits`."""
        if m in self.stacked:
            return self.decode_attributes(z[None], self._one(m)).squeeze(0)
        return at_least_float32(self.decoders[m](z))

    def decode_attributes(self, z: Tensor, only: slice = slice(None)) -> Tensor:
        """Returns the logits of the single attributes, [A, n], given z [A, n, D]: n rows for each attribute."""
        assert self.attribute_decoders is not None
        return at_least_float32(self.attribute_decoders(z, only))

    def _one(self, m: int) -> slice:
        return slice(m - self.stacked.start, m - self.stacked.start + 1)

    def text_logits(self, m: int, z: Tensor, text: Tensor) -> Tensor:
        """Returns the logits of each token of texts [n, L], given z [n, D] and the preceding tokens."""
        return at_least_float32(self.decoders[m](z, text))

    def log_prob(self, m: int, z: Tensor, target: Tensor) -> Tensor:
        """Returns the unweighted log p(x_m | z) in nats, [n], for one target per row of z [n, D]."""
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
        """Returns two log-probabilities per sentence, [n, 2]: of all tokens, and of all except <unk>."""
        modality, likelihood = self.modalities[m], self.likelihoods[m]
        assert modality.sentences and isinstance(likelihood, Text)
        return group_by_group(
            target,
            modality.classes,
            lambda rows, text: likelihood.log_probs(self.text_logits(m, z.index_select(0, rows), text), text),
        )

    def attributes_log_prob(self, z: Tensor, targets: Tensor) -> Tensor:
        """Returns log p(x_a | z) of the single attributes x_a, [A, n], given z [A, n, D]: n rows per attribute."""
        likelihood = self.likelihoods[self.stacked.start]
        logits = self.decode_attributes(z)
        return likelihood.log_prob(logits.flatten(), targets.flatten()).view(logits.shape)

    def posterior(self, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
        """Combines experts [R, M, D] into posteriors [R, T, D]. `members`, boolean [R, T, M], selects the experts."""
        raise NotImplementedError(f"{type(self).__name__} does not combine experts: call `infer` instead")

    def prior_at(self, noise: Tensor) -> Tensor:
        """Converts standard normal noise [..., D] to samples of p(z)."""
        return noise

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """Returns log p(z) in nats, shape [...], for z [..., D]."""
        return standard_log_prob(z)

    def index(self, kind: Kind) -> int:
        return next(i for i, modality in enumerate(self.modalities) if modality.kind is kind)

    def infer(self, values: Mapping[str, Tensor]) -> Gaussian:
        """Returns q(z | the given modalities), [n, D], from n values of each modality, keyed by name: {"image": x}."""
        return self.infer_at(by_position(self.modalities, values))

    def infer_at(self, values: dict[int, Tensor]) -> Gaussian:
        """Returns q(z | the given modalities), [n, D], from n values of each modality, keyed by position."""
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
        """Predicts another modality from the mean of q(z | image) (section 8).

        Args:
            image: n values of the first image or vector.
        Returns:
            Texts [n, L] if the model has a text, else label logits [n, C] if the model has a label, else the logits of
            all attributes [n, A]. If the model has only images and vectors, the reconstruction of `image`.
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
        """Returns the probabilities of a label, given n values of one or more other modalities, keyed by name.

        z is the mean of q(z | the given modalities). If this posterior is a mixture, the label is predicted from the
        mean of each component, and the probabilities are averaged. Raises the same errors as `infer`.

        Args:
            m: position of the label.
        Returns:
            Probabilities [n, C].
        """
        means = component_means(self.infer(values))
        each = [torch.softmax(self.decode(m, self.for_prediction(m, mean)), dim=-1) for mean in means]
        return sum(each[1:], each[0]) / len(each)

    def for_prediction(self, m: int, z: Tensor) -> Tensor:
        """Returns the latents [n, D] for predicting modality m when m is not given: z itself, unless overridden."""
        return z

    def all_attributes(self, z: Tensor) -> Tensor:
        """Returns the logits of all single attributes, [n, A], computed from the same z [n, D]."""
        return self.decode_attributes(z.expand(len(self.stacked), -1, -1)).T

    def transcribe(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Generates texts [n, L] from the mean of q(z | image): greedily, or by sampling if a generator is given."""
        text = self.index(Kind.TEXT)
        return self.text_at(text, self.predictive({first_input(self.modalities): image}), generator)

    def text_at(self, m: int, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """Generates texts [n, L] of modality m from z [n, D]: greedily, or by sampling if a generator is given."""
        return written(self.decoders[m], z, generator)

    def predictive(self, values: dict[int, Tensor]) -> Tensor:
        """Returns the z [n, D] for predicting missing modalities: the mean of q(z | the given modalities)."""
        return self.infer_at(values).mean


def by_position(modalities: tuple[Modality, ...], values: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Converts a mapping from modality names to values into a mapping from positions to values.

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
    """Generates texts [n, L] from z [n, D] with a text decoder: greedily, or by sampling if a generator is given."""
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
    """Returns the positions of the modalities that are single attributes, which come last."""
    first = next((m for m, modality in enumerate(modalities) if modality.kind is Kind.ATTRIBUTE), len(modalities))
    assert all(modality.kind is Kind.ATTRIBUTE for modality in modalities[first:]), "single attributes come last"
    return range(first, len(modalities))


def width_of(modalities: tuple[Modality, ...]) -> int:
    """Returns the width of fully connected layers: set by the first image or vector, else `SENTENCE_HIDDEN`."""
    shapes = [modality.shape for modality in modalities if modality.kind in (Kind.IMAGE, Kind.VECTOR)]
    return hidden_width(shapes[0]) if shapes else SENTENCE_HIDDEN
