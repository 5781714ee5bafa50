"""Likelihood estimates against closed forms and a simple loop, for any chunks and order of examples."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from mvae.data.dataset import Kind, Modality
from mvae.data.examples import Dataset, Split
from mvae.evaluation import likelihood_estimates as likelihood
from mvae.evaluation.estimator import SUFFIX
from mvae.evaluation.importance import Noise
from mvae.evaluation.likelihood_estimates import check_offered, estimates_of, likelihood_metrics, split_likelihoods
from mvae.models import arm
from mvae.models.gaussian import Gaussian
from mvae.models.likelihoods import Bernoulli
from mvae.models.multimodal import Multimodal
from mvae.models.mvae import MVAE, build_mvae
from mvae.refusal import Refusal
from mvae.trial import Trial
from tests.linear_gaussian import LinearGaussian, normal_log_prob
from tests.small_models import RULES, small_model

F64 = torch.float64
DIGITS = (Modality("image", Kind.IMAGE, (1, 8, 8)), Modality("label", Kind.LABEL, (), classes=10))
NAMES = ("marginal", "joint", "conditional")
SUFFIXES = ("", "-x1")


@pytest.fixture(scope="module")
def split() -> Split:
    """Six examples with the shapes of the digits."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (6, 1, 8, 8), generator=draw, dtype=torch.uint8)
    return Split((images, torch.tensor([3, 0, 9, 3, 5, 1], dtype=torch.uint8)))


def digits_model(token: str = "mvae", **fields: Any) -> Multimodal:
    """An untrained model of the digits whose decoders depend on z."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = arm(token).build(Trial.create(dataset="digits", model=token, **fields), DIGITS)
    assert isinstance(model, Multimodal)
    with torch.no_grad():
        for parameter in model.decoders.parameters():
            parameter.mul_(2)
    return model


# Closed forms

TRUE = LinearGaussian(inflation=1.3)
"""Proposals wider than the posteriors, so that the variance of the weights is finite."""


@pytest.fixture(scope="module")
def estimated() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Closed forms and estimates from 1000 samples, for 200 examples."""
    examples = TRUE.examples(200)
    return TRUE.truth(examples), split_likelihoods(TRUE, examples, samples=1000, seed=0, dtype=F64)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", NAMES)
def test_estimates_agree_with_the_closed_form_within_three_standard_errors(
    name: str, suffix: str, estimated: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    truth, found = estimated
    error, standard = (found[f"log_{name}{suffix}"] - truth[name]).abs(), found[f"se_{name}{suffix}"]
    assert (error <= 3 * standard + 1e-9).double().mean() >= 0.97
    assert 0.5 < float((error / standard).median()) < 0.85  # 0.67 for a normal: standard errors are not too large


@pytest.mark.parametrize("name", ["x2", "x2_prior"])
def test_estimates_with_an_x2_that_is_no_label_agree_with_the_closed_form(
    name: str, estimated: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    truth, found = estimated
    error = (found[f"log_{name}"] - truth["x2"]).abs()
    assert (error <= 3 * found[f"se_{name}"] + 1e-9).double().mean() >= 0.97
    assert found["se_x2"].mean() < 0.5 * found["se_x2_prior"].mean()


def test_error_and_standard_error_shrink_with_the_root_of_the_sample_count() -> None:
    examples = TRUE.examples(100)
    truth = TRUE.truth(examples)
    few, many = (split_likelihoods(TRUE, examples, samples=s, seed=0, dtype=F64) for s in (250, 4000))
    for name in NAMES:
        for suffix in SUFFIXES:
            shrunk = (few[f"se_{name}{suffix}"] / many[f"se_{name}{suffix}"]).median()
            assert float(shrunk) == pytest.approx(4, rel=0.1), name
            error = [
                float((found[f"log_{name}{suffix}"] - truth[name]).square().mean().sqrt()) for found in (few, many)
            ]
            assert 3 < error[0] / error[1] < 5.3, name


def test_with_the_exact_posterior_all_importance_weights_are_equal() -> None:
    model = LinearGaussian(inflation=1.0)
    examples = model.examples(50)
    truth = model.truth(examples)
    found = split_likelihoods(model, examples, samples=100, seed=0, dtype=F64)
    for name in ("marginal-x1", "joint"):
        assert found[f"variance_{name}"].max() < 1e-18
        assert (found[f"log_{name}"] - truth[name.removesuffix("-x1")]).abs().max() < 1e-9
        assert_close(found[f"ess_{name}"], torch.full((50,), 100.0, dtype=F64))
    # log p(x1|z) + log q(z|x2) - log q(z|x1,x2) is log p(x1|x2) for every z if q is exact in all three
    assert found["variance_conditional"].max() < 1e-18
    assert found["variance_marginal"].min() > 1e-3
    assert found["variance_joint-x1"].min() > 1e-3


def test_log_p_of_a_label_agrees_with_the_integral_over_z() -> None:
    model = small_model(2, RULES["mvae"], normalised=False)
    model.decoders[1] = line = nn.Linear(3, 4).double()
    with torch.no_grad():
        line.weight[:, 1:] = 0  # the label depends only on the first latent, so the integral has one dimension
        line.weight[:, 0] *= 5
    z = torch.linspace(-10, 10, 20_001, dtype=F64)
    weight = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    truth = (F.softmax(z.unsqueeze(1) * line.weight[:, 0] + line.bias, -1) * weight.unsqueeze(1)).sum(0).log()
    images = torch.randint(256, (4, 2, 2, 3), dtype=torch.uint8)
    found = split_likelihoods(model, Split((images, torch.arange(4).to(torch.uint8))), samples=2, seed=0, dtype=F64)
    assert ((found["log_x2"] - truth).abs() <= 4 * found["se_x2"]).all()
    assert found["se_x2"].max() < 0.01


# The literal loop


def literal(model: Multimodal, split: Split, samples: int, prior_samples: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Loops over examples, samples and decoder calls; shares only its noise with the estimator."""
    model = copy.deepcopy(model).to(dtype).eval()
    cpu = torch.device("cpu")

    def image_and_label(z: Tensor, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        row = z.to(dtype).unsqueeze(0)
        pixels = F.binary_cross_entropy_with_logits(model.decoders[0](row), image.to(dtype), reduction="none")
        return -pixels.double().sum(), F.log_softmax(model.decoders[1](row), -1)[0, label].double().squeeze()

    prior = Noise(5, "prior of x2", [0], model.latents, cpu).next(prior_samples)[0]
    label_of_prior = torch.stack([F.log_softmax(model.decoders[1](z.to(dtype).unsqueeze(0)), -1)[0] for z in prior])
    log_x2 = torch.logsumexp(label_of_prior.double(), 0) - math.log(prior_samples)
    told: dict[str, list[Tensor]] = {}
    for example in range(len(split)):
        image, label = (split.take(m, torch.tensor([example])) for m in (0, 1))
        of_x2 = model.infer_at({1: label})
        for suffix, given in (("-x1", {0: image.to(dtype)}), ("", {0: image.to(dtype), 1: label})):
            q = model.infer_at(given)
            noise = Noise(5, "likelihood", [example], model.latents, cpu).next(samples)[0]
            deviation = (q.log_var[0].double() / 2).exp()
            rows = []
            for one in noise:
                z = q.mean[0].double() + deviation * one
                log_image, log_label = image_and_label(z, image, label)
                log_prior = normal_log_prob(z, torch.zeros_like(z), torch.ones_like(z)).sum()
                log_r = normal_log_prob(z, q.mean[0].double(), deviation).sum()
                log_q2 = normal_log_prob(z, of_x2.mean[0].double(), (of_x2.log_var[0].double() / 2).exp()).sum()
                marginal = log_image + log_prior - log_r
                rows.append(torch.stack([marginal, marginal + log_label, log_image + log_q2 - log_r]))
            log_w = torch.stack(rows, 1)
            estimate = torch.logsumexp(log_w, 1) - math.log(samples)
            estimate[2] = estimate[1] - log_x2[label]
            for i, name in enumerate(NAMES):
                told.setdefault(f"log_{name}{suffix}", []).append(estimate[i])
                told.setdefault(f"variance_{name}{suffix}", []).append(log_w[i].var())
    return {name: torch.stack(values) for name, values in told.items()}


@pytest.mark.parametrize("token", ["mvae", "mvae_q", "jmvae"])
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(F64, 0, 1e-8), (torch.float32, 1e-6, 0)])
@torch.no_grad()
def test_estimates_equal_those_of_the_literal_loop(
    token: str, dtype: torch.dtype, rtol: float, atol: float, split: Split
) -> None:
    model = digits_model(token)
    expected = literal(model, split, samples=40, prior_samples=300, dtype=dtype)
    found = split_likelihoods(model, split, samples=40, seed=5, dtype=dtype, prior_samples=300, rows=64)
    for name, values in expected.items():
        loose = 1 if name.startswith("log") else 10
        assert_close(found[name], values, rtol=rtol * loose, atol=atol)


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("rows", [1, 7, 100, 100_000])
def test_results_do_not_depend_on_chunks_or_the_order_of_examples(
    rows: int, dtype: torch.dtype, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = digits_model()
    whole = split_likelihoods(model, split, samples=30, seed=5, dtype=dtype, prior_samples=50)
    monkeypatch.setattr(likelihood, "ENCODED", 2)
    order = [4, 1, 5, 0, 2]
    found = split_likelihoods(
        model, split, samples=30, seed=5, dtype=dtype, prior_samples=50, rows=rows, examples=order
    )
    assert found.keys() == whole.keys()
    for name, values in found.items():
        if dtype is F64:
            assert_close(values, whole[name][order], rtol=0, atol=1e-9)
        else:
            assert_close(values, whole[name][order], rtol=1e-6 if name.startswith("log") else 1e-5, atol=1e-7)


def test_results_do_not_depend_on_chunks_if_x2_is_two_labels() -> None:
    model = small_model(3, RULES["mvae_q"], normalised=True)
    labels = torch.arange(3).to(torch.uint8)
    examples = Split((torch.randint(256, (3, 2, 2, 3), dtype=torch.uint8), labels, labels.flip(0)))
    whole, parts = (split_likelihoods(model, examples, samples=21, seed=5, dtype=F64, rows=rows) for rows in (1000, 4))
    assert "log_x2_prior" in whole
    for name, values in whole.items():
        assert_close(parts[name], values, rtol=0, atol=1e-9)


# Things without influence


def test_each_likelihood_counts_once_for_any_training_weights(split: Split) -> None:
    light, heavy = (digits_model(label_weight=weight, image_weight=1 / weight) for weight in (1.0, 50.0))
    for model in (light, heavy):
        with torch.no_grad():  # decoders that ignore z: each likelihood is constant, and so is log joint - log marginal
            for decoder in model.decoders:
                list(decoder.parameters())[-2].zero_()
    constant = F.log_softmax(list(light.decoders[1].parameters())[-1].double(), -1)[split.values[1].long()]
    one, other = (split_likelihoods(m, split, samples=20, seed=0, dtype=F64, prior_samples=2) for m in (light, heavy))
    for suffix in SUFFIXES:
        added = one[f"log_joint{suffix}"] - one[f"log_marginal{suffix}"]
        assert_close(added, constant.detach(), atol=1e-9, rtol=0)
        assert_close(one[f"log_conditional{suffix}"], one[f"log_marginal{suffix}"], atol=1e-9, rtol=0)
    for name, values in one.items():
        assert_close(other[name], values)


def test_pixels_are_summed_in_float64_if_the_target_is_float64() -> None:
    logits = torch.randn(2, 1, 300, 300) * 30
    target = torch.rand(2, 1, 300, 300).float()
    pixels = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    found = Bernoulli().log_prob(logits, target.double())
    assert_close(found, -pixels.double().sum((1, 2, 3)), rtol=1e-14, atol=0)
    narrow = Bernoulli().log_prob(logits, target)
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow, -pixels.flatten(1).sum(1))


def test_float32_decoders_agree_with_float64_to_a_hundred_thousandth_of_a_nat(split: Split) -> None:
    single, double = (
        split_likelihoods(digits_model(), split, samples=100, seed=0, dtype=dtype, prior_samples=100)
        for dtype in (torch.float32, F64)
    )
    for name in NAMES:
        assert_close(single[f"log_{name}"], double[f"log_{name}"], rtol=0, atol=1e-5)


def test_an_enclosing_autocast_changes_nothing(split: Split) -> None:
    def found() -> Tensor:
        return split_likelihoods(digits_model(), split, samples=5, seed=0, prior_samples=2)["log_joint"]

    outside = found()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(found(), outside)


@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_estimating_changes_neither_the_models_mode_nor_precision_nor_statistics(dtype: torch.dtype) -> None:
    model = small_model(2, MVAE, normalised=True).float()
    before = copy.deepcopy(model.state_dict())
    examples = Split((torch.randint(256, (3, 2, 2, 3), dtype=torch.uint8), torch.arange(3).to(torch.uint8)))
    training = split_likelihoods(model, examples, samples=5, seed=0, dtype=dtype, prior_samples=2)
    assert all(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])
    evaluating = split_likelihoods(model.eval(), examples, samples=5, seed=0, dtype=dtype, prior_samples=2)
    for name, values in training.items():
        assert torch.equal(values, evaluating[name])


# Estimates that each model has


class FakeConditional(nn.Module):
    """p(x1 | z, x2): a linear function of z, shifted by the class. Like a CVAE, this model has no other likelihood."""

    def __init__(self, inflation: float = 1.0) -> None:
        super().__init__()
        self.of_image = LinearGaussian(1, inflation)

    def infer_at(self, values: dict[int, Tensor]) -> Gaussian:
        return self.of_image.infer_at({0: values[0] - values[1].unsqueeze(1)})

    def image_log_prob(self, z: Tensor, condition: Tensor, image: Tensor) -> Tensor:
        return self.of_image.log_prob(0, z, image - condition.unsqueeze(1))


def test_a_conditional_model_gives_only_the_conditional_and_it_is_right() -> None:
    model = FakeConditional(inflation=1.3)
    noise = model.of_image.examples(200)
    classes = torch.arange(200) % 7
    shifted = type(noise)((noise.values[0] + classes.unsqueeze(1), classes))
    found = split_likelihoods(model, shifted, samples=1000, seed=0, dtype=F64)
    assert set(found) == {f"{what}_conditional" for what in ("log", "se", "ess", "variance")}
    error = (found["log_conditional"] - model.of_image.closed_form(noise, 0)).abs()
    assert (error <= 3 * found["se_conditional"] + 1e-9).double().mean() >= 0.97


def test_an_image_only_model_gives_only_the_marginal_and_it_is_right() -> None:
    model = LinearGaussian(1)
    examples = model.examples(20)
    found = split_likelihoods(model, examples, samples=10, seed=0, dtype=F64)
    assert set(found) == {f"{what}_marginal-x1" for what in ("log", "se", "ess", "variance")}
    assert_close(found["log_marginal-x1"], model.closed_form(examples, 0), atol=1e-9, rtol=0)


def test_every_estimate_has_an_error_effective_samples_and_a_variance(split: Split) -> None:
    model = digits_model()
    found = split_likelihoods(model, split, samples=5, seed=0, prior_samples=2)
    expected = {"log_x2", "se_x2"}
    for proposal, estimates in estimates_of(model).items():
        end = SUFFIX[proposal]
        expected |= {f"{what}_{name}{end}" for name in estimates for what in ("log", "se", "ess", "variance")}
    assert set(found) == expected
    assert len(estimates_of(model)) == 2
    assert {values.shape for values in found.values()} == {(6,)}
    assert {values.dtype for values in found.values()} == {F64}


def test_metrics_are_means_over_the_test_examples(split: Split) -> None:
    few = Split(tuple(value[:1] for value in split.values))
    data = Dataset("digits", DIGITS, "", train=few, validation=few, test=split)
    told: list[tuple[int, int]] = []
    metrics = likelihood_metrics(digits_model(), data, samples=300, seed=2, progress=lambda *now: told.append(now))
    found = split_likelihoods(digits_model(), split, samples=300, seed=2)
    assert metrics == {f"test/{name}": float(values.mean()) for name, values in found.items()}
    assert "test/log_joint" in metrics
    assert told[-1] == (6, 6)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def refusal(model: nn.Module, **asked: Any) -> str:
    with pytest.raises(Refusal) as refused:
        check_offered(model, asked.get("proposals"))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_an_unavailable_estimate_is_refused_in_one_line_that_lists_the_available_ones(split: Split) -> None:
    nothing = arm("nn").build(Trial.create(dataset="digits", model="nn"), DIGITS)
    assert "has no likelihood estimates" in refusal(nothing)
    with pytest.raises(Refusal, match="has no likelihood estimates"):
        split_likelihoods(nothing, split, samples=5, seed=0)
    assert refusal(LinearGaussian(1), proposals=["x1x2"]).endswith("because the model sees only x1: choose x1")
    assert refusal(FakeConditional(), proposals=["x1"]).endswith(
        "because the model infers from x1 and x2 together: choose x1x2"
    )
    assert refusal(LinearGaussian(2), proposals=["x3"]) == "unknown proposal 'x3': choose x1 or x1x2"
    with pytest.raises(Refusal, match="samples = 1: a variance over samples needs at least 2"):
        split_likelihoods(build_mvae(Trial.create(dataset="digits", model="mvae"), DIGITS), split, samples=1, seed=0)
