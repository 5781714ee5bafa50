"""Defines `Trial`: the settings of one training run, the rules between these settings, and the trial's content key.

The key is a hash of the fields that the trial's arm reads, the data set's fingerprint and `TRAINING_VERSION`. The key
names the trial's checkpoint folder, Ray Train run, MLflow run, result file and table cell.
"""

import hashlib
import json
from typing import Any, Self

from pydantic import ValidationError, model_validator

from mvae.data import DATASETS, Kind, source
from mvae.data.dataset import ATTRIBUTE_KINDS, DCGAN_SIDES, Modality
from mvae.hyperparameters import completed
from mvae.models import ARMS, arm
from mvae.models.arm import Feature, features
from mvae.refusal import Refusal, first_mistake
from mvae.settings import Settings

TRAINING_VERSION = 1
"""Increment when training results change on purpose. This changes every key."""

SENTENCES_VERSION = 2
"""Like `TRAINING_VERSION`, for data sets of sentences. Version 2 processes sentences in groups of similar length."""

ADDED_AS: dict[str, Any] = {
    "keep_probability": 1.0,
    "train_examples": None,
    "workers": 1,
    "fewest_workers": None,
    "sync_batchnorm": False,
    "vocabulary": None,
    "binarisation": "fixed",
    "vector_weight": 1.0,
    "keep_first": False,
    "unimodal_terms": True,
}
"""Fields added after the first release, each with the value used before. The hash omits a field with this value.

Never change an entry, even if the field's default changes: otherwise the keys of old results would change.
"""

WEIGHTS = {
    "image_weight": frozenset({Kind.IMAGE}),
    "label_weight": frozenset({Kind.LABEL}),
    "text_weight": frozenset({Kind.TEXT}),
    "attribute_weight": ATTRIBUTE_KINDS,
    "vector_weight": frozenset({Kind.VECTOR}),
}
"""Fields that concern only some kinds of modality. The hash omits a field if the data set has none of these kinds."""

UNREAD_SHARE = 0.4
"""`annealing_share` in the key of a trial that sets `annealing_epochs` and so ignores its share.

Never change this value, because old keys contain it. Every data set had this share when `annealing_epochs` was added.
"""


class Trial(Settings, use_attribute_docstrings=False):
    """One training run. `Trial.create` fills in the data set's defaults.

    Raises:
        Refusal: a field is out of range, or fields contradict each other.
    """

    @classmethod
    def create(cls, *, dataset: str, model: str, **fields: Any) -> Self:
        """Creates a trial with the data set's default for every field that is missing or None.

        Raises:
            Refusal: a field is invalid. The message names the field and the valid values.
        """
        defaults = {
            name: value for name, value in vars(source(dataset).defaults).items() if name in Settings.model_fields
        }
        given = {name: value for name, value in fields.items() if value is not None}
        return cls._checked({"dataset": dataset, "model": model, **defaults, **given})

    def with_(self, **changes: Any) -> Self:
        """Returns a validated copy in which some fields, or some hyper-parameters of the arm, are changed."""
        own = {name: changes.pop(name, value) for name, value in self.own}
        return self._checked({**self.model_dump(), "own": own, **changes})

    @classmethod
    def _checked(cls, fields: dict[str, Any]) -> Self:
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = first_mistake(error)
            field = ".".join(str(part) for part in first["loc"])
            message = str(first["msg"]).removeprefix("Value error, ")
            raise Refusal(f"{field} = {first['input']!r}: {message}" if field else message) from None

    @model_validator(mode="before")
    @classmethod
    def _with_all_of_its_own(cls, given: dict[str, Any]) -> dict[str, Any]:
        model = given["model"]
        return {**given, "own": completed(arm(model).hyperparameters, dict(given.get("own") or ()), model)}

    @model_validator(mode="after")
    def _check(self) -> Self:
        data = source(self.dataset)
        if self.image_network not in data.defaults.image_networks:
            known = ", ".join(data.defaults.image_networks)
            raise Refusal(f"image network {self.image_network!r} does not fit {self.dataset}: choose {known}")
        self._check_features(data.modalities)
        if self.binarisation == "dynamic" and not data.grey:
            grey = " or ".join(name for name, known in DATASETS.items() if known.grey)
            raise Refusal(
                f"binarisation = dynamic needs grey images, which {self.dataset} does not have:"
                f" choose --dataset {grey}, or binarisation = fixed"
            )
        most = arm(self.model).most_modalities
        if most is not None and len(data.modalities) > most:
            raise Refusal(
                f"arm {self.model!r} supports at most {most} modalities, and {self.dataset} has"
                f" {len(data.modalities)}: choose another arm"
            )
        self._check_workers()
        self._check_k(len(data.modalities))
        if self.keep_probability < 1 and (self.paired_fraction < 1 or self.pairing != "proportional"):
            raise Refusal(
                f"keep_probability = {self.keep_probability:g} drops values of whole examples:"
                " use it only with paired_fraction = 1 and pairing = proportional"
            )
        if not self.unimodal_terms and (self.paired_fraction < 1 or self.pairing != "proportional"):
            raise Refusal(
                "unimodal_terms = False leaves unpaired values without a term:"
                " use it only with paired_fraction = 1 and pairing = proportional"
            )
        return self

    def _check_features(self, modalities: tuple[Modality, ...]) -> None:
        unsupported = features(modalities) - arm(self.model).handles
        if Feature.IMAGELESS in unsupported:
            able = ", ".join(token for token, known in ARMS.items() if Feature.IMAGELESS in known.handles)
            raise Refusal(f"arm {self.model!r} needs images, which {self.dataset} does not have: choose one of {able}")
        if not arm(self.model).single_attributes and any(one.kind is Kind.ATTRIBUTE for one in modalities):
            raise Refusal(
                f"arm {self.model!r} does not support attributes as modalities of their own, as in {self.dataset}:"
                " choose another arm"
            )
        for feature in (Feature.TEXTS, Feature.ATTRIBUTES, Feature.VECTORS):
            if feature in unsupported:
                raise Refusal(
                    f"arm {self.model!r} does not support {feature}, which {self.dataset} has: choose another arm"
                )
        if Feature.MANY in unsupported:
            raise Refusal(
                f"arm {self.model!r} supports only two modalities, and {self.dataset} has {len(modalities)}:"
                " choose another arm"
            )
        if arm(self.model).needs_labels and not {Kind.LABEL, Kind.TEXT} & {one.kind for one in modalities}:
            raise Refusal(
                f"arm {self.model!r} needs a label or a text, which {self.dataset} does not have: choose another arm"
            )

    def _check_workers(self) -> None:
        if self.fewest_workers is not None and self.fewest_workers > self.workers:
            raise Refusal(
                f"fewest_workers = {self.fewest_workers} is more than workers = {self.workers}: lower fewest_workers"
            )
        if self.batch_size % self.workers and arm(self.model).fit is None:
            below = self.batch_size // self.workers * self.workers
            sizes = [size for size in (below, below + self.workers) if size]
            fewer = next(count for count in range(self.workers - 1, 0, -1) if self.batch_size % count == 0)
            raise Refusal(
                f"batch size {self.batch_size} cannot be split evenly between {self.workers} workers:"
                f" choose {' or '.join(map(str, sizes))}, or {fewer} worker{'s' * (fewer > 1)}"
            )

    def _check_k(self, modalities: int) -> None:
        if self.k > 0 and modalities < 3:
            raise Refusal(
                f"k = {self.k} needs at least 3 modalities to choose subsets from:"
                f" {self.dataset} has {modalities}, so use k = 0"
            )
        if self.k > (subsets := 2**modalities - modalities - 2) > 0:
            sizes = "2" if modalities == 3 else f"2 to {modalities - 1}"
            raise Refusal(f"k = {self.k} is too large: only {subsets} subsets have {sizes} modalities")

    @property
    def needs_grey(self) -> bool:
        """Whether training draws binary pixels, so that the data set must be loaded with its grey values."""
        return self.binarisation == "dynamic" and "binarisation" in arm(self.model).reads

    def hashed_fields(self) -> dict[str, Any]:
        """Returns the fields that affect this trial. Trials that differ only in other fields are the same trial.

        These are the fields that the arm reads, and the arm's own hyper-parameters. Fields are left out in these cases:

            image_network      without images
            vocabulary         without sentences
            annealing_share    if `annealing_epochs` is set
            ..._weight         without modalities of that kind
            decoder_hidden     if no decoder is an MLP: convolutional and text decoders have no such layers; labels,
                               attributes and vectors have MLP decoders
            fewest_workers     with one worker
            sync_batchnorm     with one worker, or without batch normalisation
            keep_first         if every value is kept
            all in `ADDED_AS`  if the field has the value listed there
        """
        kinds = {modality.kind for modality in source(self.dataset).modalities}
        unused = {name for name, own in WEIGHTS.items() if not kinds & own}
        if Kind.IMAGE not in kinds:
            unused.add("image_network")
        if not self._has_sentences():
            unused.add("vocabulary")
        if self.annealing_epochs is not None:
            unused.add("annealing_share")
        decodes_labels = kinds & {Kind.LABEL, *ATTRIBUTE_KINDS} and arm(self.model).decodes_labels
        own_mlp = any(one.kind is Kind.VECTOR or one.network == "mlp" for one in source(self.dataset).modalities)
        if self.image_network != "mlp" and not decodes_labels and not own_mlp:
            unused.add("decoder_hidden")
        if self.workers == 1:
            unused.add("fewest_workers")
        if self.workers == 1 or not self._has_batchnorm():
            unused.add("sync_batchnorm")
        if self.keep_probability == 1:
            unused.add("keep_first")
        return _hashed(self.model_dump(), arm(self.model).reads - unused, ADDED_AS) | dict(self.own)

    def _has_batchnorm(self) -> bool:
        """Whether a network has batch normalisation: the DCGAN for large images, or a network of `Kind.ATTRIBUTES`."""
        if "image_network" not in arm(self.model).reads:
            return False
        modalities = source(self.dataset).modalities
        images = [modality for modality in modalities if modality.kind is Kind.IMAGE]
        sides = {one.shape[1] for one in images if (one.network or self.image_network) == "dcgan"}
        attributes = any(modality.kind is Kind.ATTRIBUTES for modality in modalities)
        return not sides.isdisjoint(DCGAN_SIDES) or (attributes and arm(self.model).decodes_labels)

    def _has_sentences(self) -> bool:
        return any(modality.sentences for modality in source(self.dataset).modalities)

    def key(self, fingerprint: str) -> str:
        """Returns the content key, 16 hex digits.

        Args:
            fingerprint: fingerprint of the data set, from `mvae.data.fingerprint`.
        """
        fields, modalities = self.hashed_fields(), source(self.dataset).modalities
        if fields.get("annealing_epochs") is not None:
            fields["annealing_share"] = UNREAD_SHARE
        identity = {"fields": fields, "data": fingerprint, "training": TRAINING_VERSION}
        if arm(self.model).version > 1:
            identity["arm"] = arm(self.model).version
        if self._has_sentences():
            identity["sentences"] = SENTENCES_VERSION
        if any(one.likelihood or one.network or one.kind is Kind.VECTOR for one in modalities):
            identity["modalities"] = [[one.likelihood, one.scale, one.network] for one in modalities]
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:16]


def canonical_json(value: Any) -> str:
    """Returns the value as JSON that is the same for equal values: sorted names, no spaces, no nan."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _hashed(fields: dict[str, Any], reads: frozenset[str], added_as: dict[str, Any]) -> dict[str, Any]:
    unknown = reads - fields.keys()
    assert not unknown, f"an arm reads unknown fields: {sorted(unknown)}"
    return {
        name: value
        for name, value in fields.items()
        if name in reads and not (name in added_as and value == added_as[name] and type(value) is type(added_as[name]))
    }
