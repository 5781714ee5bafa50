"""Products of diagonal Gaussians, KL and densities, compared with closed forms in other arithmetic.

Ordinary numbers are compared with dense covariance matrices, extreme ones with 60-digit decimals.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from itertools import product as combinations

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from mvae.models.gaussian import (
    FEW_EXPERTS,
    Gaussian,
    product,
    product_without_prior_expert,
    standard_log_prob,
)

# R rows, M experts, T products, D dimensions

PRECISIONS = {torch.float32: 2e-6, torch.float64: 1e-13}
"""Largest allowed relative error in each number format."""

WILD = (torch.nan, torch.inf, -torch.inf)


def experts(*shape: int, seed: int = 0, spread: float = 1.0, dtype: torch.dtype = torch.float64) -> Gaussian:
    draw = torch.Generator().manual_seed(seed)
    mean = torch.randn(shape, generator=draw, dtype=torch.float64)
    return Gaussian(mean.to(dtype), (spread * torch.randn(shape, generator=draw, dtype=torch.float64)).to(dtype))


def every_choice(modalities: int) -> Tensor:
    """Every choice of at least one expert, boolean [2^M - 1, M]."""
    return torch.tensor([choice for choice in combinations((False, True), repeat=modalities) if any(choice)])


def dense_product(means: Sequence[Tensor], covariances: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of a product of densities, from full matrices in canonical form (proof of Lemma 2.1)."""
    precisions = [torch.linalg.inv(covariance) for covariance in covariances]
    potential = torch.stack([precision @ mean for precision, mean in zip(precisions, means, strict=True)]).sum(0)
    covariance = torch.linalg.inv(torch.stack(precisions).sum(0))
    return covariance @ potential, covariance


def decimal_product(
    means: Sequence[float], log_vars: Sequence[float], *, prior: bool
) -> tuple[Decimal, Decimal, list[Decimal]]:
    """Mean, log-variance and each expert's share of the precision, to 60 digits."""
    with localcontext() as context:
        context.prec = 60
        precisions = [(-Decimal(log_var)).exp() for log_var in log_vars]
        total = sum(precisions, Decimal(int(prior)))
        weighted = sum((p * Decimal(mean) for p, mean in zip(precisions, means, strict=True)), Decimal(0))
        return weighted / total, -total.ln(), [p / total for p in precisions]


@pytest.mark.parametrize("prior", [True, False])
def test_a_product_equals_dense_covariance_algebra(prior: bool) -> None:
    mean, log_var = experts(3, 4, spread=2.0)
    members = every_choice(3)
    ours = product(mean, log_var, members, prior=prior)
    for t, chosen in enumerate(members.tolist()):
        means = [mean[m] for m in range(3) if chosen[m]] + [torch.zeros(4, dtype=torch.float64)] * prior
        covariances = [log_var[m].exp().diag() for m in range(3) if chosen[m]] + [torch.eye(4).double()] * prior
        dense_mean, dense_covariance = dense_product(means, covariances)
        torch.testing.assert_close(ours.mean[t], dense_mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours.log_var[t].exp().diag(), dense_covariance, rtol=1e-12, atol=1e-12)


def test_a_product_is_proportional_to_the_multiplied_densities() -> None:
    mean, log_var = experts(3, 2)
    joined = product(mean, log_var, torch.ones(1, 3, dtype=torch.bool), prior=True)
    z = experts(50, 2, seed=1).mean
    multiplied = standard_log_prob(z) + torch.stack([Gaussian(mean[m], log_var[m]).log_prob(z) for m in range(3)]).sum(
        0
    )
    difference = joined.log_prob(z) - multiplied
    torch.testing.assert_close(difference, difference[:1].expand(50), rtol=0, atol=1e-12)


@pytest.mark.parametrize("prior", [True, False])
def test_a_product_with_one_absent_expert_equals_the_product_without_it(prior: bool) -> None:
    mean, log_var = experts(5, 4, 3)
    for absent in range(4):
        rest = [m for m in range(4) if m != absent]
        members = torch.ones(1, 4, dtype=torch.bool)
        members[0, absent] = False
        with_it_masked = product(mean, log_var, members, prior=prior)
        without_it = product(mean[:, rest], log_var[:, rest], torch.ones(1, 3, dtype=torch.bool), prior=prior)
        torch.testing.assert_close(with_it_masked, without_it, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("rule", ["product", "product without prior", "MVAE-Q"])
@pytest.mark.parametrize("modalities", [FEW_EXPERTS, FEW_EXPERTS + 1, 19])
def test_products_of_many_experts_are_right_too(modalities: int, rule: str) -> None:
    mean, spread = experts(2, modalities, 3)
    members = torch.rand(6, modalities, generator=torch.Generator().manual_seed(0)) < 0.5
    members[:, 0] = True
    q = _join(rule, mean, spread, members)
    for t, chosen in enumerate(members):
        if rule == "MVAE-Q":
            precisions = (modalities - 1) / modalities * (1 + torch.exp(-spread[:, chosen]))
            total = precisions.sum(1) - (int(chosen.sum()) - 1)
        else:
            precisions = torch.exp(-spread[:, chosen])
            total = precisions.sum(1) + int(rule == "product")
        torch.testing.assert_close(q.log_var[:, t], -total.log())
        torch.testing.assert_close(q.mean[:, t], (precisions * mean[:, chosen]).sum(1) / total)


def test_the_order_of_experts_does_not_matter() -> None:
    mean, log_var = experts(3, 4)
    members = every_choice(3)
    shuffled = [2, 0, 1]
    torch.testing.assert_close(
        product(mean, log_var, members, prior=True),
        product(mean[shuffled], log_var[shuffled], members[:, shuffled], prior=True),
        rtol=1e-14,
        atol=1e-14,
    )


def test_the_prior_counts_once_for_any_number_of_experts() -> None:
    zero = torch.zeros(6, 1, dtype=torch.float64)
    members = torch.tril(torch.ones(6, 6)).bool()
    precision = product(zero, zero, members, prior=True).log_var.neg().exp().squeeze(-1)
    torch.testing.assert_close(precision, 1 + torch.arange(1.0, 7.0, dtype=torch.float64))


def test_a_product_of_only_the_prior_is_the_prior() -> None:
    mean, log_var = experts(2, 3)
    q = product(mean, log_var, torch.zeros(1, 2, dtype=torch.bool), prior=True)
    assert q.mean.eq(0).all()
    assert q.log_var.eq(0).all()


def test_an_empty_product_without_the_prior_is_refused() -> None:
    mean, log_var = experts(2, 3)
    with pytest.raises(ValueError, match="without experts"):
        product(mean, log_var, torch.tensor([[True, True], [False, False]]), prior=False)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("prior", [True, False])
def test_products_and_gradients_are_right_for_log_variances_from_minus_80_to_80(
    dtype: torch.dtype, prior: bool
) -> None:
    tolerance = PRECISIONS[dtype]
    log_vars = list(combinations((-80.0, -33.5, -1.0, 20.25, 80.0), repeat=3))
    means = [(1.5, -0.75, 3.0)] * len(log_vars)
    mean = torch.tensor(means, dtype=dtype).unsqueeze(-1).requires_grad_()
    log_var = torch.tensor(log_vars, dtype=dtype).unsqueeze(-1).requires_grad_()
    q = product(mean, log_var, torch.ones(1, 3, dtype=torch.bool), prior=prior)
    assert q.mean.dtype == q.log_var.dtype == dtype
    of_mean = torch.autograd.grad(q.mean.sum(), (mean, log_var), retain_graph=True)
    of_log_var = torch.autograd.grad(q.log_var.sum(), log_var)[0]
    for i, (row_means, row_log_vars) in enumerate(zip(means, log_vars, strict=True)):
        true_mean, true_log_var, shares = decimal_product(row_means, row_log_vars, prior=prior)
        assert q.mean[i].item() == pytest.approx(float(true_mean), rel=tolerance, abs=tolerance)
        assert q.log_var[i].item() == pytest.approx(float(true_log_var), rel=tolerance, abs=tolerance)
        for m, share in enumerate(shares):
            assert of_mean[0][i, m].item() == pytest.approx(float(share), rel=tolerance, abs=tolerance)
            drag = -share * (Decimal(row_means[m]) - true_mean)
            assert of_mean[1][i, m].item() == pytest.approx(float(drag), rel=tolerance, abs=tolerance)
            assert of_log_var[i, m].item() == pytest.approx(float(share), rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("wild", WILD)
@pytest.mark.parametrize("rule", ["product", "product without prior", "MVAE-Q"])
def test_an_absent_expert_that_holds_nan_or_inf_changes_no_value_and_no_gradient(wild: float, rule: str) -> None:
    members = torch.tensor([[True, False, True], [False, False, True]])

    def outcome(garbage: float) -> list[Tensor]:
        mean, spread = experts(4, 3, 5, dtype=torch.float32)
        mean[:, 1], spread[:, 1] = garbage, garbage
        leaves = mean.requires_grad_(), spread.requires_grad_()
        q = _join(rule, *leaves, members)
        gradients = torch.autograd.grad(q.mean.square().sum() + q.log_var.square().sum(), leaves)
        return [*q, *gradients]

    for dirty, clean in zip(outcome(wild), outcome(0.5), strict=True):
        assert torch.equal(dirty, clean)
        assert torch.isfinite(dirty).all()


@pytest.mark.parametrize("rule", ["product", "product without prior", "MVAE-Q"])
def test_a_nan_expert_affects_only_the_products_it_belongs_to(rule: str) -> None:
    members = every_choice(3)
    mean, spread = experts(2, 3, 4)
    clean = _join(rule, mean, spread, members)
    mean[0, 1, 2] = torch.nan
    spoilt = _join(rule, mean, spread, members)
    expected = torch.zeros(2, len(members), 4, dtype=torch.bool)
    expected[0, :, 2] = members[:, 1]
    for dirty, whole in zip(spoilt, clean, strict=True):
        assert torch.equal(dirty.isnan(), expected)
        assert torch.equal(dirty[~expected], whole[~expected])


@pytest.mark.parametrize("rule", ["product", "product without prior", "MVAE-Q"])
def test_a_nan_expert_does_not_affect_the_gradients_of_other_products(rule: str) -> None:
    members = every_choice(3)
    others = ~members[:, 1]

    def gradients(broken: bool) -> list[Tensor]:
        mean, spread = experts(2, 3, 4)
        if broken:
            mean[:, 1] = torch.nan
        leaves = mean.requires_grad_(), spread.requires_grad_()
        q = _join(rule, *leaves, members)
        return list(torch.autograd.grad((q.mean[:, others] * q.log_var[:, others]).sum(), leaves))

    for dirty, clean in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(dirty, clean)


def test_products_in_bfloat16_regions_are_not_rounded() -> None:
    mean, log_var = experts(6, 3, 4, dtype=torch.float32)
    members = every_choice(3)
    plain = product(mean, log_var, members, prior=True)
    with torch.autocast("cpu", torch.bfloat16):
        inside = product(mean, log_var, members, prior=True)
    assert torch.equal(plain.mean, inside.mean)
    assert torch.equal(plain.log_var, inside.log_var)


def test_each_row_may_have_its_own_members() -> None:
    mean, log_var = experts(7, 3, 2)
    members = every_choice(3).unsqueeze(1)
    together = product(mean, log_var, members, prior=True)
    for r in range(7):
        torch.testing.assert_close(together.mean[r], product(mean[r], log_var[r], members[r], prior=True).mean)


@pytest.mark.parametrize("log_var", [-80.0, -30.0, 0.0, 30.0, 79.0])
def test_subtracting_an_expert_from_a_product_gives_the_other_even_for_extreme_log_variances(log_var: float) -> None:
    one = Gaussian(torch.tensor([0.7]), torch.tensor([log_var]))
    other = Gaussian(torch.tensor([-1.2]), torch.tensor([log_var + 1.0]))
    means, spreads = torch.stack([one.mean, other.mean]), torch.stack([one.log_var, other.log_var])
    joined = product(means, spreads, torch.ones(1, 2, dtype=torch.bool), prior=False)
    of_both, of_other = torch.exp(-joined.log_var[0].double()), torch.exp(-other.log_var.double())
    precision = of_both - of_other
    mean = (of_both * joined.mean[0] - of_other * other.mean) / precision
    torch.testing.assert_close(-torch.log(precision).float(), one.log_var, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mean.float(), one.mean, rtol=1e-4, atol=1e-4)


def test_kl_equals_torch_distributions() -> None:
    p, q = experts(20, 6, seed=1), experts(20, 6, seed=2)
    theirs = kl_divergence(_distribution(p), _distribution(q))
    torch.testing.assert_close(p.kl(q), theirs)
    origin = Gaussian(torch.zeros_like(p.mean), torch.zeros_like(p.mean))
    torch.testing.assert_close(p.kl_to_prior(), kl_divergence(_distribution(p), _distribution(origin)))
    assert p.kl(p).abs().max() < 1e-12


def test_kl_equals_its_monte_carlo_estimate() -> None:
    q = experts(3, seed=5)
    noise = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    z = q.rsample(noise)
    ratio = q.log_prob(z) - standard_log_prob(z)
    error = float(ratio.std()) / len(ratio) ** 0.5
    assert abs(float(ratio.mean() - q.kl_to_prior())) < 4 * error


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("log_var", [-80.0, -1.0, 80.0])
def test_kl_to_the_prior_is_right_for_extreme_log_variances(dtype: torch.dtype, log_var: float) -> None:
    q = Gaussian(torch.tensor([[2.0]], dtype=dtype), torch.tensor([[log_var]], dtype=dtype, requires_grad=True))
    kl = q.kl_to_prior()
    kl.sum().backward()  # type: ignore[no-untyped-call]
    variance = Decimal(log_var).exp()
    assert kl.item() == pytest.approx(float((variance + 4 - 1 - Decimal(log_var)) / 2), rel=PRECISIONS[dtype] * 5)
    assert q.log_var.grad is not None
    assert q.log_var.grad.item() == pytest.approx(float((variance - 1) / 2), rel=PRECISIONS[dtype] * 5)


def test_densities_equal_torch_distributions() -> None:
    q, z = experts(20, 6, seed=3), experts(20, 6, seed=4).mean
    theirs = _distribution(q).log_prob(z)
    torch.testing.assert_close(q.log_prob(z), theirs)
    prior = Gaussian(torch.zeros_like(z), torch.zeros_like(z))
    torch.testing.assert_close(standard_log_prob(z), _distribution(prior).log_prob(z))


def test_samples_have_the_given_mean_and_variance() -> None:
    q = experts(4, seed=8)
    z = q.rsample(torch.randn(100_000, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64))
    deviation = q.log_var.mul(0.5).exp()
    assert ((z.mean(0) - q.mean).abs() < 5 * deviation / 100_000**0.5).all()
    torch.testing.assert_close(z.std(0), deviation, rtol=0.02, atol=0)


def _join(rule: str, mean: Tensor, spread: Tensor, members: Tensor) -> Gaussian:
    match rule:
        case "product":
            return product(mean, spread, members, prior=True)
        case "product without prior":
            return product(mean, spread, members, prior=False)
    return product_without_prior_expert(mean, spread, members)


def _distribution(g: Gaussian) -> Distribution:
    return Independent(Normal(g.mean, g.log_var.mul(0.5).exp()), 1)
