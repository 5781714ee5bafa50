"""JMVAE, NN and LOGREG on a vector, an image and a label: their losses and fits from the formulas."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression as ScikitLearn
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Laplace, Normal, kl_divergence

from mvae.data import DATASETS
from mvae.data.dataset import Defaults, Kind, Modality
from mvae.data.examples import Dataset, Split
from mvae.models import arm
from mvae.supervision import paired_set
from mvae.trial import Trial
from tests.small_models import made_up

EXAMPLES, CLASSES, BATCH, FRACTION = 60, 3, 8, 0.5
MODALITIES = (
    Modality("numbers", Kind.VECTOR, (5,), likelihood="laplace", scale=None),
    Modality("image", Kind.IMAGE, (1, 4, 4)),
    Modality("label", Kind.LABEL, (), classes=CLASSES),
)
DEFAULTS = Defaults(latents=3, epochs=2, image_network="mlp", image_networks=("mlp",), batch_size=BATCH)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setitem(DATASETS, "three", made_up("three", MODALITIES, DEFAULTS, EXAMPLES))
    draw = torch.Generator().manual_seed(0)
    label = torch.randint(CLASSES, (EXAMPLES,), generator=draw, dtype=torch.uint8)
    numbers = torch.randn(EXAMPLES, 5, generator=draw) + label[:, None]
    image = torch.randint(256, (EXAMPLES, 1, 4, 4), generator=draw, dtype=torch.uint8)
    split = Split((numbers, image, label))
    return Dataset("three", MODALITIES, "0" * 64, split, split, split)


def learnt(token: str, data: Dataset, **fields: Any) -> tuple[Any, Any, Trial]:
    """Model in float64, learner and trial."""
    trial = Trial.create(dataset="three", model=token, paired_fraction=FRACTION, **fields)
    torch.manual_seed(0)
    model: Any = arm(token).build(trial, data.modalities).double()
    make: Any = arm(token).learner
    return model, make(model, trial, data), trial


def widened(batch: Any) -> Any:
    values = tuple(value.double() if value.is_floating_point() else value for value in batch.values)
    return dataclasses.replace(batch, values=values, noise=batch.noise.double())


def gradients(loss: Tensor, model: torch.nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_jmvaes_loss_of_three_modalities_equals_a_plain_loop(alpha: float, data: Dataset) -> None:
    model, learner, trial = learnt("jmvae", data, alpha=alpha, label_weight=4, vector_weight=0.5)
    with torch.no_grad():
        model.likelihoods[0].log_scale.fill_(-0.4)
    for step, batch in enumerate(map(widened, learner.batches(0))):
        mean, log_var = model.joint(list(batch.values)).chunk(2, -1)
        plain = torch.zeros((), dtype=torch.float64)
        for row in range(BATCH):
            x = [value[row] for value in batch.values]
            q: Any = Normal(mean[row], torch.exp(log_var[row] / 2))
            z = (q.mean + q.stddev * batch.noise[row])[None]
            numbers, pixels, logits = (decoder(z)[0] for decoder in model.decoders)
            densities: list[Any] = [
                Laplace(numbers, model.likelihoods[0].log_scale.exp()),
                Bernoulli(logits=pixels, validate_args=False),
                Categorical(logits=logits),
            ]
            for weight, density, value in zip((0.5, 1.0, 4.0), densities, x, strict=True):
                plain = plain - weight * density.log_prob(value).sum()
            plain = plain + learner.beta(step) * kl_divergence(q, Normal(0.0, 1.0)).sum()
            for encoder, value in zip(model.encoders, x, strict=True):
                own_mean, own_log_var = encoder(value[None])[0].chunk(2)
                plain = plain + alpha * kl_divergence(q, Normal(own_mean, torch.exp(own_log_var / 2))).sum()
        found = learner.loss(batch, step).total
        torch.testing.assert_close(found, plain / BATCH, rtol=1e-9, atol=0)
        for ours, theirs in zip(gradients(found, model), gradients(plain / BATCH, model), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    assert step > 2 and trial.alpha == alpha


def test_nn_predicts_the_label_from_the_first_vector_alone(data: Dataset) -> None:
    model, learner, _ = learnt("nn", data)
    for step, batch in enumerate(map(widened, learner.batches(0))):
        numbers, label = batch.values
        assert numbers.shape == (BATCH, 5) and label.shape == (BATCH,)
        plain = torch.zeros((), dtype=torch.float64)
        for row in range(BATCH):
            logits = model.decoder(model.encoder(numbers[row : row + 1]))[0]
            plain = plain - torch.log_softmax(logits, 0)[label[row]] / BATCH
        found = learner.loss(batch, step).total
        torch.testing.assert_close(found, plain, rtol=1e-9, atol=0)
        for ours, theirs in zip(gradients(found, model), gradients(plain, model), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_logreg_is_fitted_to_the_first_vectors_of_the_paired_set(data: Dataset) -> None:
    trial = Trial.create(dataset="three", model="logreg", paired_fraction=FRACTION)
    model: Any = arm("logreg").build(trial, data.modalities)
    fit: Any = arm("logreg").fit
    fit(model, trial, data)
    kept = torch.from_numpy(paired_set(EXAMPLES, FRACTION, 0, dataset="three"))
    numbers, label = data.train.take(0, kept), data.train.take(2, kept)
    reference = ScikitLearn(max_iter=1000).fit(numbers.double().numpy(), label.numpy())
    with torch.no_grad():
        ours = torch.softmax(model(data.test.values[0]), -1)
    theirs = torch.from_numpy(reference.predict_proba(data.test.values[0].double().numpy()))
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-5)
