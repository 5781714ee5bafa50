"""Trial: the settings of one training run, the rules between them, and the content key that names it everywhere.

The key is a hash of the fields that the trial's arm reads, of the data set's fingerprint and of the version of the
training code's numbers. Checkpoint folder, Ray Train run, MLflow run, result file and table cell all carry it.
"""

import hashlib
import json
from typing import Any, Self

from pydantic import ValidationError, model_validator

from mvae.data import DATASETS, Kind, source
from mvae.data.dataset import ATTRIBUTE_KINDS, DCGAN_SIDES, Modality
from mvae.models import ARMS, arm
from mvae.models.arm import Feature, features
from mvae.refusal import Refusal, first_mistake
from mvae.settings import Settings

TRAINING_VERSION = 1
"""Raised by hand when the numbers that training gives change on purpose; every key changes with it."""

SENTENCES_VERSION = 2
"""The same where there are sentences. 2: those of very different lengths are computed in groups of like length."""

ADDED_AS: dict[str, Any] = {
    "keep_probability": 1.0,
    "train_examples": None,
    "workers": 1,
    "fewest_workers": None,
    "sync_batchnorm": False,
    "vocabulary": None,
    "binarisation": "fixed",
}
"""Fields added after the first release, with the value that means "as before": left out of the hash at that value.

Frozen: a later change of the field's default must not touch the entry here, or old results would change their meaning.
"""

WEIGHTS = {
    "image_weight": frozenset({Kind.IMAGE}),
    "label_weight": frozenset({Kind.LABEL}),
    "text_weight": frozenset({Kind.TEXT}),
    "attribute_weight": ATTRIBUTE_KINDS,
}
"""Fields that say something of some kinds of modality: no part of the hash where the data set has none of them."""

UNREAD_SHARE = 0.4
"""What stands in the key for the `annealing_share` of a trial whose `annealing_epochs` take its place.

Frozen: it was every data set's share when such trials were made first, so their keys stay what they are.
"""


class Trial(Settings, use_attribute_docstrings=False):
    """One training run. Make it with `Trial.create`, which fills in the data set's own defaults.

    Raises:
        Refusal: a field out of range, or a combination that means nothing.
    """

    @classmethod
    def create(cls, *, dataset: str, model: str, **fields: Any) -> Self:
        """A trial with the data set's defaults wherever a field is missing or None.

        Raises:
            Refusal: one line that names the field and what would be right.
        """
        own = source(dataset).defaults
        arm(model)
        defaults = {
            "image_network": own.image_network,
            "latents": own.latents,
            "epochs": own.epochs,
            "batch_size": own.batch_size,
            "learning_rate": own.learning_rate,
            "annealing_share": own.annealing_share,
            "label_weight": own.label_weight,
            "text_weight": own.text_weight,
            "attribute_weight": own.attribute_weight,
            "pairing": own.pairing,
            "k": own.k,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        return cls._checked({"dataset": dataset, "model": model, **defaults, **given})

    def with_(self, **changes: Any) -> Self:
        """The same trial with some fields changed, validated again."""
        return self._checked({**self.model_dump(), **changes})

    @classmethod
    def _checked(cls, fields: dict[str, Any]) -> Self:
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = first_mistake(error)
            where = ".".join(str(part) for part in first["loc"])
            said = str(first["msg"]).removeprefix("Value error, ")
            raise Refusal(f"{where} = {first['input']!r}: {said}" if where else said) from None

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        arm(self.model)
        data = source(self.dataset)
        if self.image_network not in data.defaults.image_networks:
            known = ", ".join(data.defaults.image_networks)
            raise Refusal(f"image network {self.image_network!r} does not fit {self.dataset}: it has {known}")
        self._can_be_handled(data.modalities)
        if self.binarisation == "dynamic" and not data.grey:
            able = " or ".join(name for name, known in DATASETS.items() if known.grey)
            raise Refusal(
                f"binarisation dynamic draws bits from grey values, and {self.dataset} has none:"
                f" choose --dataset {able}, or binarisation fixed"
            )
        self._can_be_shared()
        self._fits_the_number_of_modalities(len(data.modalities))
        if self.keep_probability < 1 and (self.paired_fraction < 1 or self.pairing != "proportional"):
            raise Refusal(
                f"keep_probability = {self.keep_probability:g} drops values of whole examples:"
                " it goes with paired_fraction 1 and pairing proportional alone"
            )
        return self

    def _can_be_handled(self, modalities: tuple[Modality, ...]) -> None:
        lacks = features(modalities) - arm(self.model).handles
        if Feature.IMAGELESS in lacks:
            able = ", ".join(token for token, known in ARMS.items() if Feature.IMAGELESS in known.handles)
            raise Refusal(f"arm {self.model!r} needs images, which {self.dataset} has not: choose one of {able}")
        for feature in (Feature.TEXTS, Feature.ATTRIBUTES):
            if feature in lacks:
                raise Refusal(f"arm {self.model!r} knows no {feature}, which {self.dataset} has: choose another arm")
        if Feature.MANY in lacks:
            raise Refusal(
                f"arm {self.model!r} knows two modalities, and {self.dataset} has {len(modalities)}: choose another arm"
            )

    def _can_be_shared(self) -> None:
        if self.fewest_workers is not None and self.fewest_workers > self.workers:
            raise Refusal(f"fewest_workers = {self.fewest_workers} is more than workers = {self.workers}")
        if self.batch_size % self.workers and arm(self.model).fit is None:
            below = self.batch_size // self.workers * self.workers
            sizes = [size for size in (below, below + self.workers) if size]
            fewer = next(count for count in range(self.workers - 1, 0, -1) if self.batch_size % count == 0)
            raise Refusal(
                f"batch size {self.batch_size} cannot be shared evenly by {self.workers} workers:"
                f" choose {' or '.join(map(str, sizes))}, or {fewer} worker{'s' * (fewer > 1)}"
            )

    def _fits_the_number_of_modalities(self, modalities: int) -> None:
        if self.k > 0 and modalities < 3:
            raise Refusal(
                f"k = {self.k} needs at least 3 modalities to choose subsets from:"
                f" {self.dataset} has {modalities}, so k = 0"
            )
        if self.k > (subsets := 2**modalities - modalities - 2) > 0:
            raise Refusal(f"k = {self.k} is more than the {subsets} subsets of 2 to {modalities - 1} modalities")

    @property
    def needs_grey(self) -> bool:
        """Whether training draws bits, so that the data set must be loaded with its grey values."""
        return self.binarisation == "dynamic" and "binarisation" in arm(self.model).reads

    def hashed_fields(self) -> dict[str, Any]:
        """The fields that this trial reads: two trials that differ elsewhere only are the same trial.

        They are those that its arm reads, less `image_network` where there are no images, less `vocabulary` where there
        are no sentences, less `annealing_share` where `annealing_epochs` take its place, less the
        weights of kinds of modality that the data set has not, and less `decoder_hidden` where no decoder is an MLP: a
        convolutional one has no such layers, nor has a text's. Labels and attributes are decoded by an MLP. Workers
        share the statistics of batch normalisation where there are several, and networks that have it.
        """
        kinds = {modality.kind for modality in source(self.dataset).modalities}
        meaningless = {name for name, own in WEIGHTS.items() if not kinds & own}
        if Kind.IMAGE not in kinds:
            meaningless.add("image_network")
        if not self._has_sentences():
            meaningless.add("vocabulary")
        if self.annealing_epochs is not None:
            meaningless.add("annealing_share")
        decodes_labels = kinds & {Kind.LABEL, *ATTRIBUTE_KINDS} and arm(self.model).decodes_labels
        if self.image_network != "mlp" and not decodes_labels:
            meaningless.add("decoder_hidden")
        if self.workers == 1:
            meaningless.add("fewest_workers")
        if self.workers == 1 or not self._normalises():
            meaningless.add("sync_batchnorm")
        return _hashed(self.model_dump(), arm(self.model).reads - meaningless, ADDED_AS)

    def _normalises(self) -> bool:
        """Whether a network of the arm has batch normalisation: the DCGAN of large images, and those of several
        attributes as one modality."""
        if "image_network" not in arm(self.model).reads:
            return False
        modalities = source(self.dataset).modalities
        sides = {modality.shape[1] for modality in modalities if modality.kind is Kind.IMAGE}
        several = any(modality.kind is Kind.ATTRIBUTES for modality in modalities)
        return (self.image_network == "dcgan" and not sides.isdisjoint(DCGAN_SIDES)) or (
            several and arm(self.model).decodes_labels
        )

    def _has_sentences(self) -> bool:
        return any(modality.sentences for modality in source(self.dataset).modalities)

    def key(self, fingerprint: str) -> str:
        """The content key, 16 hex digits.

        Args:
            fingerprint: of the data set, from `mvae.data.fingerprint`.
        """
        fields = self.hashed_fields()
        if fields.get("annealing_epochs") is not None:
            fields["annealing_share"] = UNREAD_SHARE
        identity = {"fields": fields, "data": fingerprint, "training": TRAINING_VERSION}
        if arm(self.model).version > 1:
            identity["arm"] = arm(self.model).version
        if self._has_sentences():
            identity["sentences"] = SENTENCES_VERSION
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:16]


def canonical_json(value: Any) -> str:
    """One text for one value: sorted names, no spaces, no nan."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _hashed(fields: dict[str, Any], reads: frozenset[str], added_as: dict[str, Any]) -> dict[str, Any]:
    unknown = reads - fields.keys()
    assert not unknown, f"an arm reads fields that no trial has: {sorted(unknown)}"
    return {
        name: value
        for name, value in fields.items()
        if name in reads and not (name in added_as and value == added_as[name] and type(value) is type(added_as[name]))
    }
