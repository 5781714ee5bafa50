"""MVAE-Q's product of experts without the prior, against the subtraction formula in 60-digit decimals."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
import torch

from mvae.models.gaussian import Gaussian, product_without_prior_expert
from tests.test_gaussian import every_choice, experts


@pytest.mark.parametrize("modalities", [2, 3, 19])
def test_mvae_q_precisions_equal_the_subtraction_formula_to_60_digits(modalities: int) -> None:
    raws = (-30.0, -12.5, -1.0, 0.0, 3.0, 30.0)
    draw = torch.Generator().manual_seed(modalities)
    rows = torch.tensor(raws)[torch.randint(len(raws), (40, modalities), generator=draw)]
    rows[:6] = torch.tensor(raws).unsqueeze(-1)
    means = torch.randn(rows.shape, generator=draw)
    members = torch.rand(40, 1, modalities, generator=draw) < 0.5
    members[:12] = True
    members[12:, :, 0] = True
    q = product_without_prior_expert(means.unsqueeze(-1), rows.unsqueeze(-1), members)
    for r in range(40):
        present = [m for m in range(modalities) if members[r, 0, m]]
        true_mean, true_log_var = _quotient_of_products(means[r].tolist(), rows[r].tolist(), present, modalities)
        assert torch.isfinite(q.log_var[r]).all()
        assert q.log_var[r].item() == pytest.approx(float(true_log_var), rel=1e-6, abs=1e-6)
        assert q.mean[r].item() == pytest.approx(float(true_mean), rel=1e-5, abs=1e-6)


def test_mvae_q_precisions_are_positive_in_float32_for_raw_outputs_from_minus_30_to_30() -> None:
    raw = torch.linspace(-30, 30, 241).view(-1, 1, 1).expand(-1, 2, 1).contiguous().requires_grad_()
    members = torch.tensor([[True, True], [True, False], [False, True]])
    q = product_without_prior_expert(torch.zeros_like(raw), raw, members)
    precision = q.log_var.neg().exp()
    assert torch.isfinite(precision).all()
    assert (precision > 0).all()
    q.log_var.sum().backward()  # type: ignore[no-untyped-call]
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()
    subtracted = (0.5 / torch.sigmoid(raw.detach()[-1])).sum() - 1
    assert subtracted <= 0, "one of these cases must break the subtraction formula in float32"


def test_mvae_q_gradients_equal_those_of_the_subtraction_formula() -> None:
    raw = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    mean = torch.randn(3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    members = every_choice(3)
    ours = product_without_prior_expert(mean, raw, members)
    variance = 1.5 * torch.sigmoid(raw)
    chosen = members.double()
    precision = chosen @ (1 / variance) - (chosen.sum(-1, keepdim=True) - 1)
    plain = Gaussian((chosen @ (mean / variance)) / precision, -precision.log())
    torch.testing.assert_close(ours, plain)
    for mine, theirs in zip(ours, plain, strict=True):
        for leaf in (mean, raw):
            gradient = torch.autograd.grad(mine.sin().sum(), leaf, retain_graph=True, materialize_grads=True)
            expected = torch.autograd.grad(theirs.sin().sum(), leaf, retain_graph=True, materialize_grads=True)
            torch.testing.assert_close(gradient, expected)


def test_a_single_mvae_q_expert_has_the_variance_of_the_rescaled_sigmoid() -> None:
    mean, raw = experts(3, 5)
    alone = product_without_prior_expert(mean, raw, torch.eye(3, dtype=torch.bool))
    torch.testing.assert_close(alone.log_var.exp(), 1.5 * torch.sigmoid(raw))
    torch.testing.assert_close(alone.mean, mean)


def test_mvae_q_needs_two_modalities_and_a_member() -> None:
    with pytest.raises(ValueError, match="1 modality, but MVAE-Q needs 2 or more"):
        product_without_prior_expert(*experts(1, 4), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="without experts"):
        product_without_prior_expert(*experts(2, 4), torch.zeros(1, 2, dtype=torch.bool))


def _quotient_of_products(
    means: list[float], raws: list[float], present: list[int], modalities: int
) -> tuple[Decimal, Decimal]:
    """Lemma 3.1 with p = the present experts and q = n - 1 priors: T = sum 1/V_i - (n - 1), to 60 digits."""
    with localcontext() as context:
        context.prec = 60
        variances = [Decimal(modalities) / (modalities - 1) / (1 + (-Decimal(raws[m])).exp()) for m in present]
        precision = sum((1 / v for v in variances), Decimal(0)) - (len(present) - 1)
        weighted = sum((Decimal(means[m]) / v for m, v in zip(present, variances, strict=True)), Decimal(0))
        return weighted / precision, -precision.ln()
