"""Gaussian and Laplace likelihoods of images and vectors are normalised densities with a fixed or learnt scale."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mvae.data.checks import check_arrays, check_source
from mvae.data.dataset import Arrays, Defaults, Kind, Modality, Source
from mvae.models.likelihoods import REAL, Real, likelihood_of
from mvae.refusal import Refusal
from tests.small_models import made_up


def other(name: str, scale: float) -> torch.distributions.Distribution:
    return torch.distributions.Normal(0.0, scale) if name == "gaussian" else torch.distributions.Laplace(0.0, scale)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("scale", [0.75, 3.0])
def test_a_real_likelihood_equals_torchs_own(name: str, scale: float) -> None:
    mean, target = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    likelihood = REAL[name](scale).double()
    expected = other(name, scale).log_prob(target - mean).flatten(1).sum(1)
    torch.testing.assert_close(likelihood.log_prob(mean, target), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", REAL)
def test_a_real_likelihood_integrates_to_1(name: str) -> None:
    grid = torch.linspace(-40, 40, 400_001, dtype=torch.float64)[:, None]
    density = REAL[name](0.75).double().log_prob(torch.full_like(grid, 0.3), grid).exp()
    assert torch.trapezoid(density, grid[:, 0]).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("name", "moment"), [("gaussian", 2), ("laplace", 1)])
def test_a_learnt_scale_ends_at_the_maximum_likelihood_estimate(name: str, moment: int) -> None:
    likelihood = REAL[name](None).double()
    error = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.3
    optimiser: Any = torch.optim.LBFGS(likelihood.parameters(), max_iter=100)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -likelihood.log_prob(torch.zeros_like(error), error).mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)
    expected = error.abs().pow(moment).mean() ** (1 / moment)
    assert likelihood.log_scale.exp().item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("name", REAL)
def test_samples_have_the_spread_of_the_likelihood(name: str) -> None:
    drawn = REAL[name](0.5).sample(torch.full((200_000,), 2.0), torch.Generator().manual_seed(0))
    deviation = 0.5 if name == "gaussian" else 0.5 * 2**0.5
    assert drawn.mean().item() == pytest.approx(2, abs=0.01) and drawn.std().item() == pytest.approx(
        deviation, rel=0.02
    )


def test_a_fixed_scale_adds_nothing_to_a_models_state() -> None:
    assert not dict(REAL["laplace"](0.75).state_dict()) and list(REAL["laplace"](None).state_dict()) == ["log_scale"]


def described(**changes: object) -> Source:
    """Two vectors and a label."""
    first = {"name": "x", "kind": Kind.VECTOR, "shape": (3,), **changes}
    return made_up(
        name="vectors",
        modalities=(Modality(**first), Modality("y", Kind.VECTOR, (2,))),  # type: ignore[arg-type]
        defaults=Defaults(latents=2, epochs=1, image_network="none", image_networks=("none",)),
        examples=4,
    )


def test_a_vector_is_gaussian_unless_it_declares_another_likelihood() -> None:
    gaussian = likelihood_of(Modality("x", Kind.VECTOR, (3,)))
    laplace = likelihood_of(Modality("x", Kind.VECTOR, (3,), likelihood="laplace", scale=None))
    assert type(gaussian) is REAL["gaussian"] and type(laplace) is REAL["laplace"]
    assert isinstance(laplace, Real)
    assert laplace.log_scale.requires_grad


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"likelihood": "bernoulli"}, "likelihood 'bernoulli' does not fit kind vector: choose gaussian or laplace"),
        ({"scale": 0.0}, "scale = 0: give a positive number, or None to learn"),
        ({"shape": (3, 4)}, r"shape"),
        ({"network": "mlp"}, "network 'mlp' does not fit kind vector: leave it out"),
        (
            {"kind": Kind.IMAGE, "shape": (1, 4, 4), "scale": None, "network": "mlp"},
            "scale = None has no meaning for likelihood bernoulli: leave it out, or choose likelihood gaussian or lapl",
        ),
        (
            {"kind": Kind.IMAGE, "shape": (1, 4, 4), "scale": 0.5, "likelihood": "bernoulli", "network": "mlp"},
            "scale = 0.5 has no meaning for likelihood bernoulli: ",
        ),
    ],
)
def test_a_likelihood_or_scale_that_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        check_source(described(**changes))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(4, 3).double().numpy(), "float32, not float64"),
        (torch.tensor([[0.0] * 3, [0.0, torch.nan, 0.0], [0.0] * 3, [0.0] * 3]).numpy(), "example 1 has nan or inf"),
        (torch.zeros(4, 5).numpy(), r"shape \(5,\), not \(3,\)"),
    ],
)
def test_a_bad_vector_array_is_refused(value: object, message: str) -> None:
    good = torch.zeros(4, 2).numpy()
    arrays: Arrays = dict.fromkeys(("train", "validation", "test"), (value, good))  # type: ignore[arg-type]
    with pytest.raises(Refusal, match=message):
        check_arrays(described(), arrays, 4)
