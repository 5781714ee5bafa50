"""RBM: free energy, gradients and contrastive divergence equal the textbook formulas, and training helps."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mvae.data import load, source
from mvae.models import arm
from mvae.models.rbm import HIDDEN_UNITS, RBM, contrastive_divergence
from mvae.training.checkpoint import Checkpoints
from mvae.training.loop import train
from mvae.trial import Trial

PIXELS, UNITS, ROWS = 5, 4, 7


@pytest.fixture
def rbm() -> RBM:
    """A float64 RBM with large parameters."""
    torch.manual_seed(0)
    model = RBM(PIXELS, UNITS).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


@pytest.fixture
def visible() -> Tensor:
    return torch.rand(ROWS, PIXELS, generator=torch.Generator().manual_seed(1)).double()


@torch.no_grad()
def test_the_free_energy_is_the_log_sum_over_all_hidden_states(rbm: RBM, visible: Tensor) -> None:
    W, c, b = rbm.hidden.weight, rbm.hidden.bias, rbm.visible_bias
    for v, found in zip(visible, rbm.free_energy(visible), strict=True):
        states = [torch.tensor(state).double() for state in itertools.product((0, 1), repeat=UNITS)]
        total = sum(math.exp(float(b @ v + c @ h + h @ W @ v)) for h in states)
        assert float(found) == pytest.approx(-math.log(total), rel=1e-12)


def test_the_gradient_of_the_free_energy_equals_finite_differences(rbm: RBM, visible: Tensor) -> None:
    rbm.free_energy(visible).mean().backward()  # type: ignore[no-untyped-call]
    step = 1e-6
    for parameter in rbm.parameters():
        assert parameter.grad is not None
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for i in range(len(flat)):
            before = flat[i].item()
            ends = []
            for moved in (before + step, before - step):
                flat[i] = moved
                ends.append(float(rbm.free_energy(visible).mean().detach()))
            flat[i] = before
            assert float(gradient[i]) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


def test_the_gradient_of_the_loss_is_contrastive_divergence(rbm: RBM, visible: Tensor) -> None:
    uniform = torch.rand(ROWS, UNITS, generator=torch.Generator().manual_seed(2)).double()
    loss = contrastive_divergence(rbm, visible, uniform)
    loss.total.backward()  # type: ignore[no-untyped-call]
    W, c, b = (p.detach() for p in (rbm.hidden.weight, rbm.hidden.bias, rbm.visible_bias))
    gradients = [torch.zeros_like(p) for p in (W, c, b)]
    error = 0.0
    for v0, u in zip(visible, uniform, strict=True):
        p0 = 1 / (1 + torch.exp(-(W @ v0 + c)))
        h0 = (u < p0).double()
        v1 = 1 / (1 + torch.exp(-(W.T @ h0 + b)))
        p1 = 1 / (1 + torch.exp(-(W @ v1 + c)))
        gradients[0] -= (torch.outer(p0, v0) - torch.outer(p1, v1)) / ROWS
        gradients[1] -= (p0 - p1) / ROWS
        gradients[2] -= (v0 - v1) / ROWS
        error += float((v0 - v1).square().sum()) / ROWS
    for parameter, expected in zip((rbm.hidden.weight, rbm.hidden.bias, rbm.visible_bias), gradients, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-10, atol=1e-12)
    assert float(loss.parts["reconstruction_error"]) == pytest.approx(error)


def test_the_rbm_has_one_layer_of_128_hidden_units() -> None:
    model = arm("rbm").build(Trial.create(dataset="mnist", model="rbm"), source("mnist").modalities)
    assert HIDDEN_UNITS == 128
    assert sorted(tuple(p.shape) for p in model.parameters()) == [(128,), (128, 784), (784,)]


def test_the_reconstruction_error_falls_on_digits(cache: Path, tmp_path: Path) -> None:
    data = load("digits", cache=cache)
    trial = Trial.create(dataset="digits", model="rbm", epochs=20)
    history = train(trial, data, Checkpoints(tmp_path / "key", "one")).history
    for name in ("train/reconstruction_error", "validation/reconstruction_error"):
        errors = [record["metrics"][name] for record in history]
        assert errors[-1] < 0.7 * errors[0]
        assert errors[-1] < errors[len(errors) // 2] < errors[0]
    assert "validation/accuracy" not in history[0]["metrics"]
