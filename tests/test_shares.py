"""Each worker's share of a step: together the shares are the step. Runs workers one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mvae.data import DATASETS
from mvae.data.dataset import Kind, Modality
from mvae.data.examples import Dataset, Split
from mvae.models import ARMS, arm
from mvae.models.arm import Learner
from mvae.models.classifiers import NeuralNetworkLearner
from mvae.models.elbo import Loss
from mvae.models.mvae import ElboLearner
from mvae.networks.normalisation import TermBatchNorm
from mvae.refusal import Refusal
from mvae.trial import Trial
from mvae.workers import ALONE, Workers
from tests.small_models import TINY_19, tiny_19

N, BATCH = 41, 20
"""An epoch has two full steps and one step with a single example, in which all workers but one get nothing."""
COUNT = 3
IMAGE, LABEL = Modality("image", Kind.IMAGE, (1, 4, 4)), Modality("label", Kind.LABEL, (), classes=10)
TEXT = Modality("text", Kind.TEXT, (5,), classes=12)

DIGITS = [
    {"model": model, "pairing": pairing, "targets": targets, "paired_fraction": 0.3}
    for model in ("mvae", "mvae_q")
    for pairing in ("reserved", "proportional", "resampled")
    for targets in ("own", "all")
]
DIGITS += [{"model": model, "paired_fraction": 0.3} for model in ("nn", "rbm", "vae", "jmvae", "cvae")]
DIGITS += [
    {"model": "mvae", "fixed_noise": True},
    {"model": "mvae", "pairing": "proportional", "keep_probability": 0.4},
    {"model": "jmvae", "alpha": 0.0},
]
TEXTS: list[dict[str, Any]] = [{"model": model, "paired_fraction": 0.3} for model in ("mvae", "nn", "jmvae", "cvae")]
TEXTS += [{"model": "mvae", "pairing": "proportional", "keep_probability": 0.4}]
MANY: list[dict[str, Any]] = [{"model": "mvae", "k": 3}, {"model": "mvae_q", "k": 2, "targets": "all"}]
MANY += [{"model": "mvae", "k": 3, "keep_probability": 0.05}, {"model": "mvae", "pairing": "reserved"}]
SETTINGS = [
    *(("digits", fields) for fields in DIGITS),
    *(("multi_mnist", fields) for fields in TEXTS),
    *(("tiny19", fields) for fields in MANY),
]


@pytest.fixture(autouse=True)
def data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets of 19 modalities, and of texts with an MLP, whose batches are not normalised."""
    monkeypatch.setitem(DATASETS, "tiny19", TINY_19)
    texts = DATASETS["multi_mnist"]
    defaults = dataclasses.replace(texts.defaults, image_network="mlp", image_networks=("mlp",))
    monkeypatch.setitem(DATASETS, "multi_mnist", dataclasses.replace(texts, defaults=defaults))


def data_of(name: str) -> Dataset:
    if name == "tiny19":
        return tiny_19(N)
    draw = np.random.default_rng(5)
    images = draw.integers(0, 256, (N, 1, 4, 4), dtype=np.uint8)
    other = draw.integers(0, 10, N if name == "digits" else (N, 5), dtype=np.uint8)
    split = Split((torch.from_numpy(images), torch.from_numpy(other)))
    return Dataset(name, (IMAGE, LABEL if name == "digits" else TEXT), "0" * 64, split, split, split)


def trial_of(name: str, **fields: Any) -> Trial:
    return Trial.create(dataset=name, **{"latents": 4, "epochs": 1, "batch_size": BATCH, **fields})


def built(trial: Trial, data: Dataset) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return arm(trial.model).build(trial, data.modalities).double().train()


def learner_of(model: nn.Module, trial: Trial, data: Dataset, workers: Workers) -> Learner:
    make = arm(trial.model).learner
    assert make is not None
    return make(model, trial, data, workers)


def widened(batch: Any) -> Any:
    """A batch converted to float64."""
    if isinstance(batch, tuple):
        return tuple(value.double() if value.is_floating_point() else value for value in batch)
    return dataclasses.replace(batch, values=widened(batch.values), noise=batch.noise.double())


def differentiated(model: nn.Module, loss: Loss) -> dict[str, Tensor | None]:
    model.zero_grad(set_to_none=True)
    loss.total.backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def steps_of(
    trial: Trial, data: Dataset, workers: Workers
) -> Iterator[tuple[Tensor, dict[str, Tensor], dict[str, Tensor | None]]]:
    """Loss, its parts and the gradients of every step of an epoch, at constant weights."""
    model = built(trial, data)
    learner = learner_of(model, trial, data, workers)
    for step, batch in enumerate(learner.batches(0)):
        loss = learner.loss(widened(batch), step)
        yield loss.total.detach(), loss.parts, differentiated(model, loss)


@pytest.mark.parametrize(("name", "fields"), SETTINGS, ids=lambda value: value if isinstance(value, str) else None)
def test_losses_and_gradients_of_the_workers_add_up_to_those_of_one_worker(name: str, fields: dict[str, Any]) -> None:
    data, trial = data_of(name), trial_of(name, **fields)
    together = zip(*(steps_of(trial, data, Workers(rank, COUNT)) for rank in range(COUNT)), strict=True)
    steps = 0
    for whole, shares in zip(steps_of(trial, data, ALONE), together, strict=True):
        steps += 1
        torch.testing.assert_close(sum(total for total, _, _ in shares), whole[0], rtol=1e-9, atol=1e-9)
        for part, value in whole[1].items():
            torch.testing.assert_close(sum(parts[part] for _, parts, _ in shares), value, rtol=1e-9, atol=1e-9)
        for parameter, gradient in whole[2].items():
            of_each = [gradients[parameter] for _, _, gradients in shares]
            assert {share is None for share in of_each} == {gradient is None}, "all workers make the same passes"
            if gradient is not None:
                added = torch.stack([share for share in of_each if share is not None]).sum(0)
                torch.testing.assert_close(added, gradient, rtol=1e-9, atol=1e-9)
    assert steps >= 2


@pytest.mark.parametrize("model", ["mvae", "vae"])
def test_a_worker_may_have_no_rows_in_a_step(model: str) -> None:
    trial, data = trial_of("digits", model=model, pairing="resampled"), data_of("digits")
    *_, last = learner_of(built(trial, data), trial, data, Workers(1, 2)).batches(0)
    assert [len(value) for value in last.values] == [0] * len(last.values) and last.noise.shape[-2] == 0


def test_several_workers_take_turns_on_the_rows_of_a_single_worker() -> None:
    trial, data = trial_of("digits", model="cvae"), data_of("digits")
    model = built(trial, data)
    alone, *shared = (
        list(learner_of(model, trial, data, workers).batches(0)) for workers in (ALONE, Workers(0, 2), Workers(1, 2))
    )
    for whole, first, second in zip(alone, *shared, strict=True):
        for m in range(2):
            assert torch.equal(whole.values[m][0::2], first.values[m])
            assert torch.equal(whole.values[m][1::2], second.values[m])
        assert torch.equal(whole.noise[0::2], first.noise) and torch.equal(whole.noise[1::2], second.noise)
        assert whole.rows == first.rows == second.rows == BATCH


@pytest.mark.parametrize("workers", [ALONE, Workers(1, 2)], ids=["alone", "one of two"])
def test_steps_with_the_same_row_masks_are_planned_once(workers: Workers) -> None:
    trial, data = trial_of("digits", model="mvae"), data_of("digits")
    learner = learner_of(built(trial, data), trial, data, workers)
    assert isinstance(learner, ElboLearner)
    plans = [batch.plan for epoch in (0, 1) for batch in learner.batches(epoch)]
    assert plans[0] is plans[1] is plans[3] is plans[4] and plans[2] is plans[5] is not plans[0]


def test_a_single_worker_gets_the_same_rows_without_a_process_group() -> None:
    rows, told = torch.arange(5.0), {"any": "thing"}
    assert ALONE.share(rows) is rows and ALONE.add_(rows) is rows and ALONE.broadcast(told) is told
    assert ALONE.named("dropout") == "dropout" != Workers(0, 2).named("dropout") != Workers(1, 2).named("dropout")
    ALONE.align([rows])
    assert torch.equal(rows, torch.arange(5.0))


def test_a_single_workers_nn_loss_is_the_plain_mean() -> None:
    trial, data = trial_of("digits", model="nn"), data_of("digits")
    model = built(trial, data)
    learner = learner_of(model, trial, data, ALONE)
    assert isinstance(learner, NeuralNetworkLearner)
    batch = widened(next(iter(learner.batches(0))))
    image, label = batch.values
    expected = nn.functional.cross_entropy(model(image), label)
    assert torch.equal(learner.loss(batch, 0).total, expected)


@pytest.mark.parametrize("model", [token for token in ARMS if token != "logreg"])
def test_sharing_statistics_is_part_of_a_trial_only_with_batch_normalisation(model: str) -> None:
    for name, source in DATASETS.items():
        for network in source.defaults.image_networks:
            try:
                fields = {"image_network": network, "workers": 2, "sync_batchnorm": True}
                trial = Trial.create(dataset=name, model=model, **fields)
            except Refusal:  # this arm does not support this data set
                continue
            built_for = arm(model).build(trial, source.modalities)
            normalises = any(isinstance(module, TermBatchNorm) for module in built_for.modules())
            assert ("sync_batchnorm" in trial.hashed_fields()) == normalises, (name, network)
