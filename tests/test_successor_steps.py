"""Steps of MoPoE, MVTCAE, MMVAE and MMVAE+: shared by workers, resumed, and blind to missing values."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mvae.data import DATASETS
from mvae.data.dataset import Defaults, Kind, Modality
from mvae.data.examples import Dataset, Split
from mvae.models import arm
from mvae.supervision import kept_values
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import Progress, train
from mvae.trial import Trial
from mvae.workers import ALONE, Workers
from tests.small_models import made_up

ARMS = ("mopoe", "mvtcae", "mmvae", "mmvae_plus")
OWN: dict[str, dict[str, Any]] = {"mmvae": {"samples": 3}, "mmvae_plus": {"samples": 2, "private_latents": 2}}
EXAMPLES = 31
THREE = made_up(
    name="three",
    modalities=tuple(Modality(f"x{m}", Kind.VECTOR, (4 + m,)) for m in range(3)),
    defaults=Defaults(latents=3, epochs=2, image_network="none", image_networks=("none",), batch_size=8),
    examples=EXAMPLES,
)
PROTOCOLS: dict[str, dict[str, Any]] = {
    "reserved": {"paired_fraction": 0.3},
    "proportional": {"paired_fraction": 0.5, "pairing": "proportional"},
    "resampled": {"paired_fraction": 0.5, "pairing": "resampled"},
    "dropped": {"pairing": "proportional", "keep_probability": 0.5},
}


@pytest.fixture(autouse=True)
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "three", THREE)


def vectors() -> Dataset:
    draw = torch.Generator().manual_seed(0)
    split = Split(tuple(torch.randn(EXAMPLES, *m.shape, generator=draw) for m in THREE.modalities))
    return Dataset("three", THREE.modalities, "0" * 64, split, split, split)


def trial_of(model: str, **fields: Any) -> Trial:
    return Trial.create(dataset="three", model=model, own=OWN.get(model), **fields)


def steps(trial: Trial, data: Dataset, workers: Workers = ALONE) -> list[list[Tensor]]:
    """Loss of each step of an epoch and its gradients, in float64, always at the initial weights."""
    torch.manual_seed(0)
    model: Any = arm(trial.model).build(trial, data.modalities).double()
    make: Any = arm(trial.model).learner
    learner, found = make(model, trial, data, workers), []
    for position, batch in enumerate(learner.batches(1)):
        values = tuple(value.double() for value in batch.values)
        total = learner.loss(dataclasses.replace(batch, values=values, noise=batch.noise.double()), position).total
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)
        found.append([total.detach(), *gradients])
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", ARMS)
def test_the_losses_and_gradients_of_all_workers_add_up_to_those_of_one(model: str, protocol: str) -> None:
    trial, data = trial_of(model, **PROTOCOLS[protocol]), vectors()
    alone = steps(trial, data)
    for count in (2, 5):
        shares = [steps(trial, data, Workers(rank, count)) for rank in range(count)]
        for whole, *parts in zip(alone, *shares, strict=True):
            for one, *others in zip(whole, *parts, strict=True):
                torch.testing.assert_close(sum(others), one, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("model", [*ARMS, "mvae"])
def test_missing_values_that_hold_nan_change_nothing(model: str) -> None:
    trial, data = trial_of(model, **PROTOCOLS["dropped"]), vectors()
    kept = torch.from_numpy(kept_values(EXAMPLES, 3, trial.keep_probability, trial.seed))
    values = tuple(value.masked_fill(~kept[:, m, None], torch.nan) for m, value in enumerate(data.train.values))
    assert sum(int(value.isnan().sum()) for value in values) > 100
    damaged = dataclasses.replace(data, train=Split(values))
    for one, other in zip(steps(trial, data), steps(trial, damaged), strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


class Stopped(BaseException):
    """Ends a training like a kill."""


@pytest.mark.parametrize("model", ARMS)
def test_a_resumed_training_gives_the_same_bits_as_an_unbroken_one(model: str, tmp_path: Path) -> None:
    trial, data = trial_of(model, epochs=3, **PROTOCOLS["reserved"]), vectors()
    unbroken = train(trial, data, Checkpoints(tmp_path / "unbroken", "only"))

    def stop(progress: Progress) -> None:
        if progress.epoch == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train(trial, data, Checkpoints(tmp_path / "broken", "one"), checkpoint_every=0, heard=stop)
    resumed = train(trial, data, Checkpoints(tmp_path / "broken", "two"))
    assert [one["metrics"] for one in resumed.history] == [one["metrics"] for one in unbroken.history]
    pairs = zip(resumed.model.state_dict().values(), unbroken.model.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_the_component_that_a_row_draws_changes_with_the_seed_and_the_step() -> None:
    def choices(seed: int) -> np.ndarray:
        trial, data = trial_of("mopoe", seed=seed, **PROTOCOLS["reserved"]), vectors()
        learner: Any = arm("mopoe").learner(arm("mopoe").build(trial, data.modalities), trial, data)  # type: ignore[misc]
        return np.concatenate([batch.choice for batch in learner.batches(0)])

    first = choices(0)
    assert len(set(first.tolist())) == len(first) and np.array_equal(first, choices(0))
    assert not np.isin(choices(1), first).any()
