"""Hyper-parameters that an arm declares: completed with defaults, checked, and part of the key."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from mvae.hyperparameters import Hyperparameter
from mvae.models import ARMS, arm
from mvae.models.arm import check_arm
from mvae.refusal import Refusal
from mvae.trial import Trial

FINGERPRINT = "f" * 64
OWN = [(token, each) for token, known in ARMS.items() for each in known.hyperparameters]


def trial(model: str, **own: Any) -> Trial:
    return Trial.create(dataset="digits", model=model, own=own)


def other_value(each: Hyperparameter) -> Any:
    """A value other than the default."""
    if each.choices:
        return next(choice for choice in each.choices if choice != each.default)
    if isinstance(each.default, bool):
        return not each.default
    if isinstance(each.default, str):
        return f"{each.default}0"
    return each.default / 2 if isinstance(each.default, float) else each.default + 1


@pytest.mark.parametrize(("model", "each"), OWN, ids=lambda part: getattr(part, "name", part))
def test_every_hyperparameter_of_an_arm_changes_its_key(model: str, each: Hyperparameter) -> None:
    changed = trial(model, **{each.name: other_value(each)})
    assert changed.key(FINGERPRINT) != trial(model).key(FINGERPRINT)
    assert trial(model, **{each.name: each.default}) == trial(model)


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ("mopoe", "44180fc720ca8eef"),
        ("mvtcae", "b6ed8a02601b5029"),
        ("mmvae", "019968eab143a39b"),
        ("mmvae_plus", "e949c7f2de3fa526"),
    ],
)
def test_golden_keys_of_arms_with_hyperparameters_stay_equal(model: str, key: str) -> None:
    assert trial(model).key(FINGERPRINT) == key


def test_a_trial_read_back_from_json_has_the_same_hyperparameters() -> None:
    made = trial("mmvae", samples=3)
    assert Trial.model_validate(json.loads(made.model_dump_json())) == made
    assert made.own_value("samples") == 3 and made.hashed_fields()["samples"] == 3


def test_a_whole_number_for_a_float_gives_the_same_key() -> None:
    assert trial("mopoe", beta=2) == trial("mopoe", beta=2.0)


@pytest.mark.parametrize(
    ("model", "own", "message"),
    [
        ("mvae", {"beta": 1.0}, "arm mvae has no hyper-parameter 'beta': it has none of its own"),
        ("mopoe", {"bata": 1.0}, "arm mopoe has no hyper-parameter 'bata': it has beta, full_subset_prior"),
        ("mopoe", {"beta": -1.0}, "beta = -1: give at least 0"),
        ("mvtcae", {"a": 1.5}, "a = 1.5: give at most 1"),
        ("mvtcae", {"a": float("nan")}, "a = nan: give a number"),
        ("mmvae", {"samples": 1.5}, "samples = 1.5: give a whole number"),
        ("mmvae", {"samples": True}, "samples = True: give a whole number"),
        ("mmvae", {"posterior": "cauchy"}, "posterior = 'cauchy': choose one of laplace, normal"),
    ],
)
def test_a_bad_hyperparameter_is_refused_with_its_value(model: str, own: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal) as refusal:
        trial(model, **own)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("default", "text", "value"), [(1, "3", 3), (1.0, "3", 3.0), (False, "true", True), ("a", "b", "b")]
)
def test_text_is_read_as_the_type_of_the_default(default: Any, text: str, value: Any) -> None:
    read = Hyperparameter("x", default, "").read(text)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(("default", "text"), [(1, "3.5"), (1.0, "much"), (False, "maybe"), (1.0, "inf")])
def test_text_of_another_type_is_refused(default: Any, text: str) -> None:
    with pytest.raises(Refusal, match=r"^x = .*: give "):
        Hyperparameter("x", default, "").read(text)


@pytest.mark.parametrize("name", ["epochs", "two words"])
def test_an_arm_whose_hyperparameter_has_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match=name):
        check_arm(dataclasses.replace(arm("mvae"), token="own", hyperparameters=(Hyperparameter(name, 1, ""),)))


@pytest.mark.parametrize(
    ("default", "declared", "message"),
    [
        (None, {}, "x has the default None: give True, False, a number or a text"),
        ((1, 2), {}, "x has the default (1, 2): give True, False, a number or a text"),
        (5.0, {"most": 1.0}, "x = 5: give at most 1"),
        ("a", {"searched": (0.0, 1.0)}, "x is text: leave out `searched`"),
        (True, {"searched": (0.0, 1.0)}, "x is true or false: leave out `searched`"),
        (1.0, {"searched": (2.0, 0.5)}, "x has searched = (2.0, 0.5): give two numbers, the smaller one first"),
        (1.0, {"searched": (0, 2), "log": True}, "x has searched = (0, 2): give two positive numbers, the smaller one"),
        (1.0, {"searched": (0.5, 2.0), "most": 1.0}, "x = 2: give at most 1"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(default: Any, declared: dict[str, Any], message: str) -> None:
    each = Hyperparameter("x", default, "", **declared)
    with pytest.raises(Refusal) as refusal:
        check_arm(dataclasses.replace(arm("mvae"), token="own", hyperparameters=(each,)))
    assert str(refusal.value).startswith(f"arm own, hyper-parameter {message}")


@pytest.mark.parametrize("token", ARMS)
def test_every_declaration_of_this_package_is_valid(token: str) -> None:
    for each in arm(token).hyperparameters:
        each.check_declared()
