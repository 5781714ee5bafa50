"""Trial keys: certain fields change them, and old keys keep their meaning."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest

import mvae.trial
from mvae.data import DATASETS
from mvae.models import ARMS
from mvae.models.arm import Feature
from mvae.trial import Trial, _hashed, canonical_json
from tests.small_models import TINY_19

FINGERPRINT = "0123456789abcdef" * 4
"""A made-up fingerprint, so that a changed transform of a data set does not change these keys."""

OTHER: dict[str, Any] = {
    "workers": 2,
    "fewest_workers": 1,
    "sync_batchnorm": True,
    "dataset": "mnist",
    "train_examples": 500,
    "seed": 3,
    "image_network": "dcgan",
    "decoder_hidden": 3,
    "latents": 20,
    "paired_fraction": 0.25,
    "pairing": "resampled",
    "targets": "all",
    "keep_probability": 0.5,
    "keep_first": True,
    "unimodal_terms": False,
    "k": 2,
    "fixed_noise": True,
    "epochs": 7,
    "batch_size": 64,
    "learning_rate": 0.01,
    "annealing_share": 0.1,
    "annealing_epochs": 2,
    "image_weight": 2.0,
    "label_weight": 3.0,
    "alpha": 0.5,
    "text_weight": 3.0,
    "attribute_weight": 3.0,
    "vector_weight": 3.0,
    "precision": "bfloat16",
    "compile": True,
    "vocabulary": 300,
    "binarisation": "dynamic",
}
"""A value other than the default for every field except `model`.

`k` needs more modalities than most data sets have, and `binarisation` a data set with grey values.
"""

GOLDEN: list[tuple[dict[str, Any], str]] = [
    ({"dataset": "digits", "model": "mvae", "label_weight": 10}, "33eddbb8b5474cb2"),
    ({"dataset": "digits", "model": "mvae_q", "label_weight": 10}, "0930c5e378e6fc75"),
    ({"dataset": "digits", "model": "nn"}, "6865a7b8a1b7fdf0"),
    ({"dataset": "digits", "model": "logreg"}, "f5caac13cf9f3226"),
    ({"dataset": "mnist", "model": "mvae", "label_weight": 50}, "07c3a1d99c0f3c82"),
    ({"dataset": "binary_mnist", "model": "mvae_q", "seed": 7, "label_weight": 50}, "7e9640bc69e96c83"),
    ({"dataset": "fashion_mnist", "model": "mvae", "label_weight": 50}, "06a8501fe0c6137a"),
    ({"dataset": "fashion_mnist", "model": "nn", "paired_fraction": 0.001}, "52247c490f9fdbc7"),
    ({"dataset": "fashion_mnist", "model": "logreg", "paired_fraction": 0.005, "seed": 2}, "e5e09ce006ec3e0b"),
    (
        {
            "dataset": "fashion_mnist",
            "model": "mvae",
            "image_network": "mlp",
            "paired_fraction": 0.01,
            "epochs": 10,
            "label_weight": 50,
        },
        "e90863d8ee3a5271",
    ),
    (
        {
            "dataset": "fashion_mnist",
            "model": "mvae",
            "image_network": "mlp",
            "decoder_hidden": 3,
            "seed": 1,
            "label_weight": 50,
        },
        "4151456f22c35516",
    ),
    ({"dataset": "mnist", "model": "mvae", "pairing": "proportional", "label_weight": 50}, "570621b1a3d42e9b"),
    (
        {"dataset": "mnist", "model": "mvae", "pairing": "resampled", "targets": "all", "label_weight": 50},
        "e288db0d12a99de7",
    ),
    (
        {"dataset": "mnist", "model": "mvae_q", "fixed_noise": True, "latents": 2, "label_weight": 50},
        "52f94fa74553e7c0",
    ),
    (
        {"dataset": "mnist", "model": "mvae", "annealing_epochs": 200, "epochs": 100, "label_weight": 50},
        "abf877c1a24d58d6",
    ),
    (
        {"dataset": "mnist", "model": "mvae", "annealing_share": 0.2, "image_weight": 2, "label_weight": 10},
        "3609eb308660b30b",
    ),
    (
        {"dataset": "mnist", "model": "mvae", "precision": "bfloat16", "compile": True, "label_weight": 50},
        "0c60ffa2e09e2638",
    ),
    (
        {"dataset": "mnist", "model": "nn", "batch_size": 250, "learning_rate": 0.0001, "seed": 2**31},
        "d4a7cd30210f50e3",
    ),
    (
        {"dataset": "digits", "model": "mvae", "paired_fraction": 1 / 3, "epochs": 1, "label_weight": 10},
        "08d4e566635b8dba",
    ),
    (
        {"dataset": "digits", "model": "nn", "paired_fraction": 0.05, "precision": "bfloat16", "epochs": 12},
        "70f9bc20601c437c",
    ),
]


def fashion(model: str = "mvae", **fields: Any) -> Trial:
    return Trial.create(dataset="fashion_mnist", model=model, **fields)


def key(trial: Trial) -> str:
    return trial.key(FINGERPRINT)


def key_changes(trial: Trial, names: set[str]) -> set[str]:
    """The given fields that change the trial's key."""
    return {name for name in names if key(trial.with_(**{name: OTHER[name]})) != key(trial)}


@pytest.fixture
def tiny19(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers a data set of an image and 18 attributes that allows either image network."""
    defaults = dataclasses.replace(TINY_19.defaults, image_networks=("mlp", "dcgan"))
    monkeypatch.setitem(DATASETS, "tiny19", dataclasses.replace(TINY_19, defaults=defaults))


def test_a_key_hashes_the_canonical_json_of_fields_data_and_training_version() -> None:
    trial = Trial.create(dataset="digits", model="logreg", seed=2, paired_fraction=0.5)
    text = (
        '{"data":"' + FINGERPRINT + '","fields":{"dataset":"digits","model":"logreg","paired_fraction":0.5,"seed":2}'
        ',"training":1}'
    )
    assert key(trial) == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(("fields", "expected"), GOLDEN, ids=[golden[1] for golden in GOLDEN])
def test_twenty_golden_keys_are_unchanged(fields: dict[str, Any], expected: str) -> None:
    assert key(Trial.create(**fields)) == expected


def test_there_are_twenty_golden_keys_and_they_differ() -> None:
    assert len({expected for _, expected in GOLDEN}) == len(GOLDEN) == 20


@pytest.mark.parametrize("name", ["seed", "epochs", "batch_size", "latents", "decoder_hidden", "annealing_epochs"])
def test_an_integer_gives_one_key_in_every_notation(name: str) -> None:
    keys = {key(fashion().with_(**{name: value})) for value in (1, 1.0, "1")}
    assert len(keys) == 1


@pytest.mark.parametrize(
    "name", ["paired_fraction", "learning_rate", "annealing_share", "image_weight", "label_weight"]
)
def test_a_float_gives_one_key_in_every_notation(name: str) -> None:
    assert len({key(fashion().with_(**{name: value})) for value in (1, 1.0, "1", "1.0", "1e0")}) == 1
    assert len({key(fashion().with_(**{name: value})) for value in (0.001, "0.001", "1e-3", 1e-3)}) == 1


@pytest.mark.parametrize("model", ARMS)
def test_exactly_the_fields_that_an_arm_reads_change_its_key(model: str) -> None:
    trial = fashion(model, pairing="proportional").with_(image_network="mlp")
    meaningless = {"model", "k", "text_weight", "attribute_weight", "fewest_workers", "sync_batchnorm", "vocabulary"}
    meaningless |= {"binarisation", "vector_weight", "keep_first"}
    changed = key_changes(trial, set(OTHER) - {"k", "binarisation"})
    assert changed == ARMS[model].reads - meaningless, "fashion_mnist has no texts and no attributes"


@pytest.mark.usefixtures("tiny19")
@pytest.mark.parametrize(
    "model",
    [
        token
        for token, arm in ARMS.items()
        if {Feature.ATTRIBUTES, Feature.MANY} <= arm.handles and arm.single_attributes and not arm.most_modalities
    ],
)
def test_with_19_modalities_exactly_the_fields_that_an_arm_reads_change_its_key(model: str) -> None:
    trial = Trial.create(dataset="tiny19", model=model)
    unasked = {
        "model",
        "dataset",
        "label_weight",
        "text_weight",
        "vector_weight",
        "fewest_workers",
        "sync_batchnorm",
        "vocabulary",
        "binarisation",
        "keep_first",
    }  # the other data set has too few modalities for k = 1
    assert key_changes(trial, set(OTHER) - {"dataset", "binarisation"}) == ARMS[model].reads - unasked


def test_fields_about_sharing_steps_count_only_with_several_workers() -> None:
    alone = Trial.create(dataset="multi_mnist", model="mvae", image_network="dcgan")
    shared = alone.with_(workers=2)
    names = {"fewest_workers", "sync_batchnorm"}
    assert key_changes(alone, names) == set() and key_changes(shared, names) == names
    assert key_changes(fashion(workers=2), names) == {"fewest_workers"}, "the small DCGAN has no batch normalisation"
    assert key(shared.with_(workers=1)) == key(alone) != key(shared)
    assert key(fashion("logreg")) == key(fashion("logreg").with_(workers=2)), "fitted in closed form, by one worker"


@pytest.mark.usefixtures("tiny19")
def test_with_a_dcgan_the_depth_of_mlp_decoders_is_read_only_for_attributes() -> None:
    trials = {model: Trial.create(dataset="tiny19", model=model, image_network="dcgan") for model in ("mvae", "vae")}
    assert key_changes(trials["mvae"], {"decoder_hidden"}) == {"decoder_hidden"}
    assert key_changes(trials["vae"], {"decoder_hidden"}) == set()


@pytest.mark.parametrize("model", [token for token, arm in ARMS.items() if Feature.IMAGELESS in arm.handles])
def test_with_sentences_only_exactly_the_fields_that_an_arm_reads_change_its_key(model: str) -> None:
    trial = Trial.create(dataset="toy_translation", model=model)
    images = {"image_network", "decoder_hidden", "image_weight", "binarisation"}
    others = {
        "label_weight",
        "attribute_weight",
        "vector_weight",
        "k",
        "fewest_workers",
        "sync_batchnorm",
        "model",
        "keep_probability",
        "keep_first",
    }
    changed = key_changes(trial, set(OTHER) - images - {"k", "keep_probability", "dataset"})
    assert changed == ARMS[model].reads - images - others - {"dataset"}
    assert "image_network" not in trial.hashed_fields()


@pytest.mark.usefixtures("tiny19")
@pytest.mark.parametrize(
    ("dataset", "meaningful"),
    [
        ("fashion_mnist", {"image_weight", "label_weight"}),
        ("multi_mnist", {"image_weight", "text_weight"}),
        ("tiny19", {"image_weight", "attribute_weight"}),
    ],
)
def test_the_weight_of_a_missing_modality_changes_no_key(dataset: str, meaningful: set[str]) -> None:
    trial = Trial.create(dataset=dataset, model="mvae")
    weights = {name for name in Trial.model_fields if name.endswith("_weight")}
    assert {name for name in weights if key(trial.with_(**{name: 7.0})) != key(trial)} == meaningful


UNREAD_BY_LOGREG = set(OTHER) - {"dataset", "train_examples", "seed", "paired_fraction", "k", "binarisation"}


@pytest.mark.parametrize("name", sorted(UNREAD_BY_LOGREG))
def test_logistic_regression_reads_only_data_seed_and_fraction(name: str) -> None:
    trial = fashion("logreg", pairing="proportional").with_(image_network="mlp")
    assert key(trial.with_(**{name: OTHER[name]})) == key(trial)


def test_annealing_epochs_remove_the_annealing_share_from_the_trial() -> None:
    for model in ("mvae", "mvae_q"):
        trials = [fashion(model, annealing_epochs=5, annealing_share=share) for share in (0.1, 0.4, 1.0)]
        assert len({key(trial) for trial in trials}) == 1
        assert all("annealing_share" not in trial.hashed_fields() for trial in trials)
        assert key(trials[0]) != key(fashion(model, annealing_epochs=6))
        assert key(fashion(model, annealing_share=0.1)) != key(fashion(model, annealing_share=0.4))


def test_these_tests_vary_every_field() -> None:
    assert set(OTHER) == set(Trial.model_fields) - {"model", "own"}


def test_every_field_is_read_by_some_arm() -> None:
    assert frozenset().union(*(arm.reads for arm in ARMS.values())) == set(Trial.model_fields) - {"own"}


def test_two_arms_with_the_same_fields_have_different_keys() -> None:
    assert len({key(fashion(model)) for model in ARMS}) == len(ARMS)


def test_a_default_given_explicitly_has_the_same_key() -> None:
    silent = fashion()
    assert key(Trial.create(**silent.model_dump())) == key(silent)
    assert key(fashion(latents=None, epochs=None)) == key(silent)


@pytest.mark.usefixtures("tiny19")
def test_subsets_and_pairing_default_to_those_of_the_data_set() -> None:
    trial = Trial.create(dataset="tiny19", model="mvae")
    assert (trial.k, trial.pairing, trial.keep_probability, trial.attribute_weight) == (1, "proportional", 1.0, 1.0)
    other = Trial.create(dataset="tiny19", model="mvae", k=0, pairing="reserved")
    assert (other.k, other.pairing) == (0, "reserved")
    assert key(Trial.create(**trial.model_dump())) == key(trial)


def test_the_fingerprint_of_the_data_changes_the_key() -> None:
    assert fashion().key("a" * 64) != fashion().key("b" * 64)


def test_a_new_training_version_changes_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [fashion(model) for model in ARMS]
    before = [key(trial) for trial in trials]
    monkeypatch.setattr(mvae.trial, "TRAINING_VERSION", mvae.trial.TRAINING_VERSION + 1)
    assert all(key(trial) != old for trial, old in zip(trials, before, strict=True))


def test_a_key_has_16_hex_digits() -> None:
    assert len(key(fashion())) == 16
    int(key(fashion()), 16)


def test_a_field_added_later_is_left_out_of_the_hash_at_its_added_as_value() -> None:
    reads = frozenset({"a", "later"})
    assert _hashed({"a": 1, "later": 0}, reads, {"later": 0}) == {"a": 1}
    assert _hashed({"a": 1, "later": 2}, reads, {"later": 0}) == {"a": 1, "later": 2}
    assert _hashed({"a": 1, "later": 0, "b": 5}, reads, {}) == {"a": 1, "later": 0}


def test_the_added_as_values_are_frozen() -> None:
    assert mvae.trial.ADDED_AS == {
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


def test_a_keep_probability_is_part_of_the_key_unless_everything_is_kept() -> None:
    trial = fashion(pairing="proportional")
    assert "keep_probability" not in trial.hashed_fields()
    assert all(key(trial.with_(keep_probability=value)) == key(trial) for value in (1, 1.0, "1"))
    assert trial.with_(keep_probability=0.5).hashed_fields()["keep_probability"] == 0.5


def test_keeping_the_first_modality_is_part_of_the_key_only_if_values_are_dropped() -> None:
    trial = fashion(pairing="proportional")
    assert key(trial.with_(keep_first=True)) == key(trial)
    dropping = trial.with_(keep_probability=0.5)
    assert key(dropping.with_(keep_first=True)) != key(dropping)


def test_fixed_binarisation_changes_no_key_and_dynamic_changes_those_of_arms_trained_by_steps() -> None:
    changed = set()
    for model in ARMS:
        silent = Trial.create(dataset="binary_mnist", model=model)
        fixed, dynamic = (silent.with_(binarisation=way) for way in ("fixed", "dynamic"))
        assert "binarisation" not in fixed.hashed_fields() and key(fixed) == key(silent)
        assert dynamic.needs_grey == (key(dynamic) != key(silent)) and not fixed.needs_grey
        changed |= {model} if dynamic.needs_grey else set()
    assert changed == {model for model, arm in ARMS.items() if arm.learner is not None} == set(ARMS) - {"logreg"}


def test_added_as_distinguishes_false_zero_and_none() -> None:
    reads = frozenset({"later"})
    for value in (0, 0.0, None):
        assert _hashed({"later": value}, reads, {"later": False}) == {"later": value}
    assert _hashed({"later": False}, reads, {"later": False}) == {}


def test_canonical_json_does_not_depend_on_the_order_of_fields() -> None:
    assert (
        canonical_json({"b": [1, None], "a": 0.1})
        == canonical_json({"a": 0.1, "b": [1, None]})
        == ('{"a":0.1,"b":[1,null]}')
    )
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_only_arms_without_labels_share_one_trial_for_all_fractions() -> None:
    one_for_all = {model for model in ARMS if key(fashion(model, paired_fraction=0.01)) == key(fashion(model))}
    assert one_for_all == {"rbm", "vae"}
