"""Trial: defaults of its fields, refused values, and copies."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mvae.refusal import Refusal
from mvae.trial import Trial


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"batch_size": 100, "workers": 3},
            "batch size 100 cannot be split evenly between 3 workers: choose 99 or 102, or 2 workers",
        ),
        (
            {"batch_size": 2, "workers": 3},
            "batch size 2 cannot be split evenly between 3 workers: choose 3, or 2 workers",
        ),
        ({"workers": 2, "fewest_workers": 3}, "fewest_workers = 3 is more than workers = 2: lower fewest_workers"),
    ],
)
def test_steps_that_workers_cannot_share_are_refused_in_one_line(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(Refusal, match=f"^{re.escape(line)}$"):
        Trial.create(dataset="fashion_mnist", model="mvae", **fields)


def test_a_trials_defaults_are_those_of_the_data_set() -> None:
    digits, mnist, fashion_mnist = (
        Trial.create(dataset=name, model="mvae") for name in ("digits", "mnist", "fashion_mnist")
    )
    assert (digits.latents, mnist.latents, fashion_mnist.latents) == (16, 64, 64)
    assert (mnist.epochs, fashion_mnist.epochs) == (500, 100)
    assert (mnist.image_network, fashion_mnist.image_network) == ("mlp", "dcgan")
    for trial in (mnist, fashion_mnist):
        assert (trial.batch_size, trial.learning_rate, trial.annealing_share) == (100, 1e-3, 0.4)
        assert (trial.image_weight, trial.label_weight, trial.decoder_hidden) == (1.0, 1.0, 2)
        assert (trial.pairing, trial.targets, trial.k) == ("reserved", "own", 0)


def test_defaults_of_multi_mnist_are_those_of_section_1() -> None:
    trial = Trial.create(dataset="multi_mnist", model="mvae")
    assert (trial.latents, trial.epochs, trial.image_network) == (100, 100, "dcgan")
    assert (trial.batch_size, trial.learning_rate, trial.annealing_share) == (100, 1e-3, 0.4)
    assert (trial.image_weight, trial.text_weight) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dataset": "cifar"}, r"unknown data set 'cifar'.*digits, mnist, binary_mnist, fashion_mnist"),
        ({"model": "gan"}, r"unknown arm 'gan': choose one of nn, logreg, rbm, vae, jmvae, mvae, mvae_q, cvae"),
        ({"paired_fraction": 0}, r"^paired_fraction = 0: .*greater than 0"),
        ({"paired_fraction": 1.5}, r"^paired_fraction = 1\.5: .*less than or equal to 1"),
        ({"paired_fraction": float("nan")}, r"^paired_fraction = nan: "),
        ({"learning_rate": float("inf")}, r"^learning_rate = inf: .*finite"),
        ({"learning_rate": "fast"}, r"^learning_rate = 'fast': .*number"),
        ({"epochs": 0}, r"^epochs = 0: .*greater than or equal to 1"),
        ({"epochs": 1.5}, r"^epochs = 1\.5: .*integer"),
        ({"seed": -1}, r"^seed = -1: .*greater than or equal to 0"),
        ({"batch_size": 0}, r"^batch_size = 0: "),
        ({"latents": 0}, r"^latents = 0: "),
        ({"decoder_hidden": 0}, r"^decoder_hidden = 0: "),
        ({"label_weight": -1}, r"^label_weight = -1: "),
        ({"annealing_share": 0}, r"^annealing_share = 0: "),
        ({"annealing_epochs": -1}, r"^annealing_epochs = -1: "),
        ({"pairing": "often"}, r"^pairing = 'often': .*'reserved', 'proportional' or 'resampled'"),
        ({"targets": "some"}, r"^targets = 'some': .*'own' or 'all'"),
        ({"precision": "float16"}, r"^precision = 'float16': .*'float32' or 'bfloat16'"),
        ({"image_network": "dcgan"}, r"^image network 'dcgan' does not fit digits: choose mlp"),
        ({"k": 1}, r"^k = 1 needs at least 3 modalities.*digits has 2, so use k = 0"),
        ({"k": -1}, r"^k = -1: "),
        ({"keep_probability": 0}, r"^keep_probability = 0: .*greater than 0"),
        ({"keep_probability": 1.5}, r"^keep_probability = 1\.5: .*less than or equal to 1"),
        ({"keep_probability": 0.5}, r"^keep_probability = 0\.5 drops values of whole examples: .* proportional$"),
        (
            {"keep_probability": 0.5, "pairing": "proportional", "paired_fraction": 0.5},
            r"^keep_probability = 0\.5 drops values of whole examples: .*paired_fraction = 1 and",
        ),
        ({"attribute_weight": 0}, r"^attribute_weight = 0: "),
        ({"binarisation": "once"}, r"^binarisation = 'once': .*'fixed' or 'dynamic'"),
        (
            {"binarisation": "dynamic"},
            r"^binarisation = dynamic needs grey images, which digits does not have: choose --dataset binary_mnist, or"
            r" binarisation = fixed$",
        ),
        ({"ecophs": 3}, r"^ecophs = 3: .*not permitted"),
        ({"text_weight": 0}, r"^text_weight = 0: "),
        (
            {"dataset": "multi_mnist", "model": "logreg", "image_network": "dcgan"},
            r"^arm 'logreg' does not support texts, which multi_mnist has: choose another arm$",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_the_field(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal, match=said) as error:
        Trial.create(**{"dataset": "digits", "model": "mvae", **fields})
    assert "\n" not in str(error.value)
    with pytest.raises(Refusal, match=said) as error:
        Trial.create(dataset="digits", model="mvae").with_(**fields)
    assert "\n" not in str(error.value)


def test_with_changes_only_the_named_fields() -> None:
    trial = Trial.create(dataset="fashion_mnist", model="mvae", seed=4, epochs=9)
    changed = trial.with_(paired_fraction="0.5")
    assert changed.model_dump() == {**trial.model_dump(), "paired_fraction": 0.5}
    assert trial.paired_fraction == 1.0


def test_a_trial_is_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Trial.create(dataset="digits", model="nn").seed = 1


def test_a_trial_rebuilt_from_its_fields_is_equal() -> None:
    trial = Trial.create(dataset="fashion_mnist", model="mvae", annealing_epochs=3, targets="all")
    assert Trial.model_validate_json(trial.model_dump_json()) == trial
