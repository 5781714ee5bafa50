"""Invalid probabilities, subsets and arms for many modalities are refused in one line with advice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvae.data import DATASETS
from mvae.models import ARMS
from mvae.refusal import Refusal
from mvae.supervision import kept_values
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train
from mvae.trial import Trial
from tests.small_models import TINY_19, tiny_19


@pytest.fixture(autouse=True)
def tiny19(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "tiny19", TINY_19)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"keep_probability": 0}, r"^keep_probability = 0: .*greater than 0$"),
        ({"keep_probability": -0.1}, r"^keep_probability = -0\.1: .*greater than 0$"),
        ({"keep_probability": 1.01}, r"^keep_probability = 1\.01: .*less than or equal to 1$"),
        ({"keep_probability": float("nan")}, r"^keep_probability = nan: "),
        ({"keep_probability": "half"}, r"^keep_probability = 'half': .*number"),
        (
            {"keep_probability": 0.5, "paired_fraction": 0.5},
            r"^keep_probability = 0\.5 drops values of whole examples:"
            r" use it only with paired_fraction = 1 and pairing",
        ),
        ({"keep_probability": 0.5, "pairing": "reserved"}, r"^keep_probability = 0\.5 .*pairing = proportional$"),
        ({"keep_probability": 0.5, "pairing": "resampled"}, r"^keep_probability = 0\.5 .*pairing = proportional$"),
        ({"k": 524_268}, r"^k = 524268 is too large: only 524267 subsets have 2 to 18 modalities$"),
        ({"k": -1}, r"^k = -1: "),
        ({"dataset": "digits", "k": 1}, r"^k = 1 needs at least 3 modalities.*digits has 2, so use k = 0$"),
        ({"attribute_weight": 0}, r"^attribute_weight = 0: "),
        ({"model": "nn"}, r"^arm 'nn' does not support attributes, which tiny19 has: choose another arm$"),
        ({"model": "logreg"}, r"^arm 'logreg' does not support attributes, which tiny19 has: choose another arm$"),
        ({"model": "rbm"}, r"^arm 'rbm' does not support attributes, which tiny19 has: choose another arm$"),
        (
            {"model": "jmvae"},
            r"^arm 'jmvae' does not support attributes as modalities of their own, as in tiny19: choose another arm$",
        ),
        ({"model": "cvae"}, r"^arm 'cvae' supports only two modalities, and tiny19 has 19: choose another arm$"),
    ],
)
def test_bad_input_is_refused_in_one_line(fields: dict[str, Any], said: str) -> None:
    given = {"dataset": "tiny19", "model": "mvae", "image_network": "mlp", **fields}
    with pytest.raises(Refusal, match=said) as error:
        Trial.create(**given)
    assert "\n" not in str(error.value)


def test_arms_accepted_on_19_modalities_can_be_built_and_trained(tmp_path: Path) -> None:
    fit = []
    for model in ARMS:
        try:
            trial = Trial.create(dataset="tiny19", model=model, epochs=1)
        except Refusal:
            continue
        fit.append(model)
        trained = train(trial, tiny_19(), Checkpoints(tmp_path / model, "only"))
        assert np.isfinite(list(trained.history[-1]["metrics"].values())).all()
    assert fit == ["vae", "mvae", "mvae_q", "mvtcae", "mmvae", "mmvae_plus"]


@pytest.mark.parametrize("p", [0.0, -1.0, 1.5, float("nan"), float("inf")])
def test_a_keep_probability_outside_0_to_1_is_refused(p: float) -> None:
    with pytest.raises(Refusal, match=r"^keep probability \S+ is not a probability: choose .* above 0 and at most 1$"):
        kept_values(100, 19, p, seed=0)


def test_a_probability_that_leaves_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    trial = Trial.create(dataset="tiny19", model="mvae", keep_probability=1e-5)
    with pytest.raises(
        Refusal, match=r"^keep probability 0\.00001 is too small: fewer than 2 of 70 .*a larger probability$"
    ):
        kept_values(70, 19, 1e-5, seed=0)
    with pytest.raises(Refusal, match=r"^keep probability 0\.00001 is too small"):
        train(trial, tiny_19(), Checkpoints(tmp_path, "only"))
